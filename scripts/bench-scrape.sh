#!/usr/bin/env bash
# What a scrape costs, in one run; only its ratios mean something elsewhere. Go's own reader joins in where Go is.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
if command -v go >/dev/null; then
    mkdir -p target
    (cd bench/scrape && go build -o ../../target/expfmt .)
    export TALLY_BENCH_EXPFMT=$PWD/target/expfmt
fi
# A thousand connections, in each of two processes.
all_files
cargo bench --quiet --package tallyd --bench scrape
