#!/usr/bin/env bash
# Starts the built demo with what it needs in its environment. MODEL_SERVER, KEEP, DEMO_SECONDS: see README.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
ENVOY=$(scripts/envoy.sh)
export ENVOY TALLY_WASM=$ROOT/dist/tally.wasm TALLYD=$ROOT/target/debug/tallyd
if [ "${MODEL_SERVER:-}" = llama ]; then
    use_llama
fi
# Whatever ends this script ends the demo, its processes (they follow it by themselves) and its temporary files.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
target/debug/demo &
demo=$!
trap 'kill $demo 2>/dev/null' INT TERM
status=0
wait $demo || status=$?
# A signal ends the first wait early; the second waits for the demo itself.
wait $demo 2>/dev/null || true
exit $status
