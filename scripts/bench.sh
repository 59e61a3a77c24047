#!/usr/bin/env bash
# Real Envoys side by side: no filter, an empty one, Tally, and other ways of measuring. Writes docs/BENCHMARKS.md.
# usage: scripts/bench.sh [instructions]      instructions: counts them under valgrind, writes docs/INSTRUCTIONS.md
# env: ROUNDS (5), MILLIS_EACH (1500), SHAPES (names with commas: then nothing is written).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
need taskset util-linux
[ "$(nproc)" -ge 2 ] || stop "the bench needs two cores: one for Envoy, one for everything else"
ENVOY=$(scripts/envoy.sh)
BENCH_FILTERS=$ROOT/target/bench-filters
export ENVOY BENCH_FILTERS TALLY_WASM=$ROOT/dist/tally.wasm
mkdir -p "$BENCH_FILTERS"
for filter in empty naive probe; do
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+simd128" \
        scripts/cargo-wasm.sh build --quiet --release --manifest-path "bench/filters/$filter/Cargo.toml"
    cp "target/wasm/wasm32-unknown-unknown/release/bench_$filter.wasm" "$BENCH_FILTERS/$filter.wasm"
done
cargo build --release --package tally-bench
all_files
if [ "${1:-}" = instructions ]; then
    need valgrind valgrind
    exec taskset -c 1 target/release/tally-bench instructions
fi
exec taskset -c 1 target/release/tally-bench
