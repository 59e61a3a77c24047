#!/usr/bin/env bash
# Starts the built demo with what it needs in its environment. MODEL_SERVER, KEEP, DEMO_SECONDS: see README.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
ENVOY=$(scripts/envoy.sh)
export ENVOY TALLY_WASM=$ROOT/dist/tally.wasm TALLYD=$ROOT/target/debug/tallyd
if [ "${MODEL_SERVER:-}" = llama ]; then
    paths=$(scripts/llama.sh)
    LLAMA_SERVER=$(echo "$paths" | sed -n 1p)
    LLAMA_MODEL=$(echo "$paths" | sed -n 2p)
    export LLAMA_SERVER LLAMA_MODEL
fi
exec target/debug/demo
