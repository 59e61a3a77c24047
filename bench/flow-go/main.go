// EPP's queues and its whole flow control, as of the version in go.mod, under the loads of
// companion/benches/flow_queue.rs. Prints rows of the same table.
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/flowcontrol/framework/plugins/queue"
)

func row(what string, count int, took time.Duration) {
	fmt.Printf("| EPP v1.5.0, %s | %.0f |\n", what, float64(count)/took.Seconds())
}

func main() {
	// One core, as the benchmark beside it.
	runtime.GOMAXPROCS(1)
	for _, name := range []queue.RegisteredQueueName{queue.ListQueueName, queue.MaxMinHeapName} {
		took, err := run(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, name, err)
			os.Exit(1)
		}
		row(string(name), pairs, took)
	}
	took, err := wholeFlowControl()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	row("flow control", dispatches, took)
}
