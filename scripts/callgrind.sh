#!/usr/bin/env bash
# Counts the instructions of the whole filter, natively, for one shape of traffic: what a change costs, on any machine.
# usage: scripts/callgrind.sh SHAPE TIMES OUTPUT      prints the host calls of a request
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
binary=$(cargo bench --quiet --bench whole_filter --no-run --message-format json \
    | sed -n 's/.*"executable":"\([^"]*whole_filter[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$binary" ] || stop "cargo built no whole_filter"
# Only the requests are counted: no start, no first request, no flush.
valgrind --quiet --tool=callgrind --toggle-collect='*measured*' --callgrind-out-file="$3" "$binary" "$1" "$2"
