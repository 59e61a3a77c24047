#!/usr/bin/env bash
# Runs tallyd lora-syncer against a real vLLM: the scenario that CI runs against a replayer of its recorded answers.
# usage: scripts/vllm-test.sh [install]      see scripts/vllm.sh
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
use_vllm "$@"
export TALLYD=$ROOT/target/debug/tallyd
export RUST_LIB_BACKTRACE=${RUST_LIB_BACKTRACE:-0}

cargo build --workspace --bins
say "vLLM: $TALLY_VLLM_PYTHON; it is started twice, a minute each on two cores"
exec cargo test --workspace --test lora -- --ignored --exact adapters_follow_the_file_through_the_life_of_a_real_vllm
