#!/usr/bin/env bash
# Core's tests on wasm32, the very code and compiler flags that Envoy runs, in Node.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$TOOLS/bin/wasm-bindgen-test-runner
node=$(scripts/node.sh)
PATH=$(dirname "$node"):$PATH
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+simd128"
[ -f core/tests/wasm.rs ] || { echo "not run: core/tests/wasm.rs is missing"; exit; }
exec scripts/cargo-wasm.sh test --package tally-core --test wasm
