#!/usr/bin/env bash
# Fuzzes readers, exchanges, configurations, messages and pages, by libFuzzer with the stable compiler; needs a C++ compiler.
# usage: scripts/fuzz.sh [SECONDS-PER-TARGET [TARGET...]]   core: only the targets that need nothing of tallyd
# A finding is left in fuzz/artifacts/; what testdata holds is the first corpus.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT/fuzz"
seconds=${1:-60}
shift || true
core=(admission change exchange exposition filter_config inflate json sse)
case "$*" in
    '') set -- "${core[@]}" lora_config tallyd_config ;;
    core) set -- "${core[@]}" ;;
esac
have c++ || apt_install g++

# What cargo-fuzz would pass, but for the address sanitizer: there is no unsafe code here.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
target=$(rustc -vV | sed -n 's/^host: //p')
case "$*" in
    *lora_config* | *tallyd_config*) features=companion ;;
    *) features= ;;
esac
# A named target: build scripts and macros stay without instruments.
cargo build --quiet --release --target "$target" --features "$features" "${@/#/--bin=}"
python3 seeds.py corpus

for name in "$@"; do
    mkdir -p "corpus/$name" "artifacts/$name"
    say "fuzz $name for $seconds s"
    "target/$target/release/$name" "corpus/$name" -max_total_time="$seconds" -max_len=1500 -timeout=20 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="artifacts/$name/" 2>&1 | grep -E '^(#[0-9]+.*(DONE|pulse)|stat::number|==|thread|assert|SUMMARY|artifact)' || exit 1
    [ -z "$(ls -A "artifacts/$name")" ] || stop "findings in fuzz/artifacts/$name"
done
