#!/usr/bin/env bash
# Fuzzes the push readers against their oracles, by libFuzzer with the stable compiler; needs a C++ compiler.
# usage: scripts/fuzz.sh [SECONDS-PER-TARGET [TARGET...]]
# A finding is left in fuzz/artifacts/; the recorded exchanges are the first corpus.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT/fuzz"
seconds=${1:-60}
shift || true
[ $# -gt 0 ] || set -- inflate json sse
have c++ || apt_install g++

# What cargo-fuzz would pass, but for the address sanitizer: there is no unsafe code here.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
target=$(rustc -vV | sed -n 's/^host: //p')
# A named target: build scripts and macros stay without instruments.
cargo build --quiet --release --target "$target" "${@/#/--bin=}"

for name in "$@"; do
    mkdir -p "corpus/$name" "artifacts/$name"
    for body in ../testdata/exchanges/*/response.body; do
        seed=corpus/$name/$(basename "$(dirname "$body")")
        # Two cuts, of 7 and 1 bytes.
        [ "$(wc -c <"$body")" -gt 4096 ] || { printf '\002\007\001'; cat "$body"; } >"$seed"
    done
    say "fuzz $name for $seconds s"
    "target/$target/release/$name" "corpus/$name" -max_total_time="$seconds" -max_len=1500 -timeout=20 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="artifacts/$name/" 2>&1 | grep -E '^(#[0-9]+.*(DONE|pulse)|stat::number|==|thread|assert|SUMMARY|artifact)' || exit 1
    [ -z "$(ls -A "artifacts/$name")" ] || stop "findings in fuzz/artifacts/$name"
done
