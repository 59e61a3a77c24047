#!/usr/bin/env bash
# Prints the path of Helm 3: the one on PATH or what this script built. With `build`, builds it from its Go module.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

for candidate in "$(command -v helm || true)" "$TOOLS/bin/helm"; do
    if [ -n "$candidate" ] && "$candidate" version --short 2>/dev/null | grep -q '^v3'; then
        echo "$candidate"
        exit 0
    fi
done
[ "${1:-}" = build ] || exit 1
have go || apt_install golang-go
say "building Helm $HELM_VERSION from the Go module helm.sh/helm/v3 (some minutes)"
GOBIN=$TOOLS/bin go install "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION" >&2
echo "$TOOLS/bin/helm"
