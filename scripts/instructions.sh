#!/usr/bin/env bash
# Holds the filter's instructions and host calls per request against benches/instructions.txt.
# usage: scripts/instructions.sh [update]      update: writes what is counted now
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
budget=benches/instructions.txt
# Another compiler or C library counts a little differently; a slow-down that matters is more.
margin=5
times=20
if ! have valgrind; then
    echo "not run: instruction counts (valgrind is missing: apt-get install valgrind)"
    exit
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{
    echo "# Native instructions and host calls of one request through the whole filter; without the C library's."
    echo "# Written by: make instructions UPDATE=1"
    for shape in json-1k json-1m answer-40k sse-64 sse-burst; do
        calls=$(scripts/callgrind.sh "$shape" $times "$folder/$shape" | awk '{ print $2 }')
        echo "$shape $(python3 scripts/callgrind_costs.py "$folder/$shape" $times) $calls"
    done
} >"$folder/counted"
if [ "${1:-}" = update ]; then
    cp "$folder/counted" $budget
    cat $budget
    exit
fi
python3 - $budget "$folder/counted" $margin <<'PYTHON'
import sys

def read(path):
    rows = (line.split() for line in open(path) if not line.startswith("#"))
    return {name: (int(instructions), int(calls)) for name, instructions, calls in rows}

allowed, counted, margin = read(sys.argv[1]), read(sys.argv[2]), int(sys.argv[3])
if allowed.keys() != counted.keys():
    sys.exit(f"{sys.argv[1]} is of other shapes: make instructions UPDATE=1")
failed = False
for name, (now, calls) in counted.items():
    before, calls_before = allowed[name]
    is_slower = now > before * (100 + margin) / 100 or calls > calls_before
    failed |= is_slower
    print(f"  {name:12} {now:>9} instructions ({now / before:.3f} of the budget), {calls} host calls of {calls_before}"
          + ("   TOO MANY" if is_slower else ""))
if failed:
    sys.exit("more than the budget: find out why, or say why with `make instructions UPDATE=1`")
PYTHON
