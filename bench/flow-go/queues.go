// EPP's own queues under the load of companion/benches/flow_queue.rs: 10,000 waiting in 100 flows,
// each request let go makes room for one that enters.
//
// The list queue and the heap are the parts of EPP that correspond to one flow of ours; taking the
// flows in turn is the simplest dispatch there can be, so EPP's real rate is below what this prints.
package main

import (
	"fmt"
	"time"

	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/flowcontrol/contracts"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/flowcontrol/framework/plugins/queue"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/interface/flowcontrol"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/interface/flowcontrol/mocks"
)

const (
	waiting = 10_000
	flows   = 100
	pairs   = 2_000_000
)

// byArrival is first come, first served, by the number that the item carries as its size.
func byArrival() flowcontrol.OrderingPolicy {
	return &mocks.MockOrderingPolicy{
		LessFunc: func(a, b flowcontrol.QueueItemAccessor) bool {
			return a.OriginalRequest().ByteSize() < b.OriginalRequest().ByteSize()
		},
	}
}

func run(name queue.RegisteredQueueName) (time.Duration, error) {
	var queues [flows]contracts.SafeQueue
	var keys [flows]flowcontrol.FlowKey
	for at := range queues {
		keys[at] = flowcontrol.FlowKey{ID: fmt.Sprintf("tenant-%d", at)}
		made, err := queue.NewQueueFromName(name, byArrival())
		if err != nil {
			return 0, err
		}
		queues[at] = made
	}
	arrivals := uint64(0)
	enter := func(at int) {
		arrivals++
		queues[at].Add(mocks.NewMockQueueItemAccessor(arrivals, "request", keys[at]))
	}
	for at := range waiting {
		enter(at % flows)
	}
	start := time.Now()
	for pair := range pairs {
		at := pair % flows
		if _, err := queues[at].Remove(queues[at].PeekHead().Handle()); err != nil {
			return 0, err
		}
		enter(at)
	}
	return time.Since(start), nil
}
