#!/usr/bin/env bash
# Faults by a schedule, in real processes: writes docs/RELIABILITY.md, fails if anything was lost, counted twice or hurt.
# env: MINUTES (3) or HOURS, SEED (repeats a schedule), FAULT (only faults with this in their names: then nothing is written).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
need prlimit util-linux
need kill procps
ENVOY=$(scripts/envoy.sh)
export ENVOY TALLY_WASM=$ROOT/dist/tally.wasm TALLYD=$ROOT/target/debug/tallyd
export RUST_LIB_BACKTRACE=${RUST_LIB_BACKTRACE:-0}   # a failed expectation says what differs; the stack adds nothing
all_files
cargo build --quiet --workspace --bins
exec target/debug/chaos
