#!/usr/bin/env bash
# Requests through the filter and scrapes by tallyd, and whether anything grows: writes docs/RELIABILITY.md and docs/soak.svg.
# env: REQUESTS and SCRAPES (1000000 each; with fewer nothing is written).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
ENVOY=$(scripts/envoy.sh)
export ENVOY TALLY_WASM=$ROOT/dist/tally.wasm TALLYD=$ROOT/target/release/tallyd
export RUST_LIB_BACKTRACE=${RUST_LIB_BACKTRACE:-0}   # a failed expectation says what differs; the stack adds nothing
all_files
cargo build --quiet --release --package tallyd --package tally-integration --bin tallyd --bin soak
exec target/release/soak
