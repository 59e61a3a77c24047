#!/usr/bin/env bash
# Where the filter's instructions go: a table on the screen, and a picture of who calls whom.
# usage: scripts/profile-filter.sh [SHAPE]      json-1k (default), json-1m, answer-40k, sse-64, sse-burst
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
shape=${1:-json-1k}
need valgrind valgrind
need dot graphviz
gprof2dot=$TOOLS/gprof2dot-$GPROF2DOT_VERSION/gprof2dot.py
[ -f "$gprof2dot" ] || program_of_wheel gprof2dot "$GPROF2DOT_VERSION" "$GPROF2DOT_SHA256" gprof2dot.py "$gprof2dot"
mkdir -p target/profile
output=target/profile/$shape.callgrind
echo "  $(scripts/callgrind.sh "$shape" 100 "$output") and so many instructions per request:"
python3 scripts/callgrind_costs.py "$output" 100 functions
python3 "$gprof2dot" --format=callgrind --strip --node-thres=1 --edge-thres=0.5 "$output" 2>/dev/null \
    | dot -Tsvg -o "target/profile/$shape.svg"
echo
echo "  picture: target/profile/$shape.svg      lines: callgrind_annotate --auto=yes $output"
