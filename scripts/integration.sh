#!/usr/bin/env bash
# Runs the tests of integration/ against the built filter, the debug tallyd and the Envoy that setup found.
# usage: scripts/integration.sh [TEST-NAME-FILTER]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
ENVOY=$(scripts/envoy.sh)
export ENVOY TALLY_WASM=$ROOT/dist/tally.wasm TALLYD=$ROOT/target/debug/tallyd
export RUST_LIB_BACKTRACE=${RUST_LIB_BACKTRACE:-0}   # a failed expectation says what differs; the stack adds nothing

all_files

# The whole workspace is selected, so that dependencies keep the features (and the builds) of the other test steps.
cargo build --workspace --bins
targets=()
for file in integration/tests/*.rs; do
    targets+=(--test "$(basename "$file" .rs)")
done
exec cargo test --workspace "${targets[@]}" -- "$@"
