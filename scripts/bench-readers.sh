#!/usr/bin/env bash
# The readers against memchr and serde_json on the same bytes: on wasm32 as Envoy runs them, then natively.
# usage: scripts/bench-readers.sh [OLD.wasm]      a module that an earlier run left, to compare the reader with itself
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+simd128"
scripts/cargo-wasm.sh build --quiet --release --manifest-path core/benches/wasm/Cargo.toml
module=target/wasm/wasm32-unknown-unknown/release/tally_readers_wasm.wasm
say "on wasm32, in Node ($module)"
"$(scripts/node.sh)" core/benches/wasm/run.mjs "$module" "$@"
unset RUSTFLAGS
say "natively"
cargo bench --quiet --package tally-core --bench readers
