#!/usr/bin/env bash
# Flow control: queue, controller and gate, beside EPP's where Go is; then the service over gRPC. Rates of a shared machine
# mean little alone, ratios of one run more: they are printed where both are there.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
cargo bench --quiet --package tallyd --bench flow_queue | tee "$rows"
if command -v go >/dev/null; then
    (cd bench/flow-go && go run .) | tee -a "$rows"
    # ratio OURS THEIRS: by the beginning of a row.
    ratio() {
        awk -F ' *[|] *' -v ours="$1" -v theirs="$2" '
            index($2, ours) == 1 { a = $3 }
            index($2, theirs) == 1 { b = $3 }
            END { printf "| ratio: %s / %s | %.2f |\n", ours, theirs, a / b }' "$rows"
    }
    ratio "queue, RoundRobin, Fcfs" "EPP v1.5.0, ListQueue"
    ratio "queue, RoundRobin, EarliestDeadline" "EPP v1.5.0, MaxMinHeap"
    ratio "flow control" "EPP v1.5.0, flow control"
else
    echo "not run: EPP's flow control (Go is not installed)"
fi
cargo bench --quiet --package tallyd --bench flow_grpc
