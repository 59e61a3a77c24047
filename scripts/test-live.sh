#!/usr/bin/env bash
# Runs tallyd's pool against real model servers under load: llama.cpp (built once, ten minutes) and vLLM where one is installed.
# usage: scripts/test-live.sh [install]      see scripts/llama.sh and scripts/vllm.sh
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
export TALLYD=$ROOT/target/debug/tallyd RUST_LIB_BACKTRACE=${RUST_LIB_BACKTRACE:-0}
tests=(the_pool_of_a_real_llama_cpp_fills_under_load_and_empties_after_it)
use_llama
if use_vllm "$@"; then
    tests+=(the_pool_of_a_real_vllm_fills_under_load_and_empties_after_it)
else
    say "not run: the pool of a real vLLM"
fi
cargo build --workspace --bins
exec cargo test --workspace --test pool_live -- --ignored --test-threads 1 --exact "${tests[@]}"
