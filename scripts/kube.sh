#!/usr/bin/env bash
# Prints the folder with a kube-apiserver and an etcd for the tests: $KUBE_BIN, or what this script built. With `build`,
# builds both from their Go modules if they are not there (about ten minutes of CPU, 2 GB of module cache, once).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

built=$TOOLS/kube-$KUBE_VERSION-etcd-$ETCD_VERSION

complete() { [ -x "$1/kube-apiserver" ] && [ -x "$1/etcd" ]; }

# A module of nothing but the wanted program: a program whose own module has `replace` lines cannot be installed by name.
build() {
    local name=$1 package=$2 module=$3 version=$4
    work=$(mktemp -d)
    trap 'rm -rf "${work:-}"' EXIT
    say "building $name $version from the Go module $module"
    (
        cd "$work"
        export GOFLAGS=-mod=mod
        go mod init tally.local/tool
        parts "$module" "$version"
        go get "$package@$version"
        go build -trimpath -ldflags "-s -w $5" -o "$built/$name" "$package"
    ) >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; stop "$name could not be built"; }
    rm -rf "$work"
}

# The parts of Kubernetes stand in its go.mod as v0.0.0, replaced by folders that are not in the module's archive.
parts() {
    local module=$1 version=$2 part
    [ "$module" = k8s.io/kubernetes ] || return 0
    for part in $(go mod download -json "$module@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p' \
        | xargs sed -n 's/^\t\(k8s\.io\/[a-z-]*\) v0\.0\.0$/\1/p'); do
        go mod edit -replace "$part=$part@v0.${version#v1.}"
    done
}

if complete "${KUBE_BIN:-$built}"; then
    echo "${KUBE_BIN:-$built}"
    exit 0
fi
[ "${1:-}" = build ] || stop "no kube-apiserver and etcd: run \`make setup-kube\`, or set KUBE_BIN to a folder with both"
have go || apt_install golang-go
mkdir -p "$built"
build etcd go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3 "v$ETCD_VERSION" ""
base=k8s.io/component-base/version
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes "v$KUBE_VERSION" \
    "-X $base.gitVersion=v$KUBE_VERSION -X $base.gitMajor=1 -X $base.gitMinor=$(echo "$KUBE_VERSION" | cut -d. -f2)"
complete "$built" || stop "the build left no programs in $built"
echo "$built"
