// EPP's whole flow control: callers that wait, are let go, end at once and come again. The pool runs 100 at a time.
package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/flowcontrol/contracts/mocks"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/flowcontrol/controller"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/flowcontrol/registry"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/flowcontrol/types"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/interface/datalayer"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/interface/flowcontrol"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/interface/scheduling"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/plugins/flowcontrol/fairness"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/plugins/flowcontrol/ordering"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/epp/framework/plugins/flowcontrol/usagelimits"
	testutils "sigs.k8s.io/gateway-api-inference-extension/test/utils"
)

const (
	capacity   = 100
	dispatches = 200_000
)

// places are the pool's. A question about saturation takes one, because EPP asks for each dispatch and waits always.
type places struct {
	flowcontrol.SaturationDetector
	taken atomic.Int64
}

func (p *places) Saturation(context.Context, []datalayer.Endpoint) float64 {
	if p.taken.Add(1) <= capacity {
		return 0
	}
	p.taken.Add(-1)
	return 1
}

// request is all that EPP asks of one.
type request struct {
	flow flowcontrol.FlowKey
}

func (r *request) ByteSize() uint64                         { return 1_000 }
func (r *request) FlowKey() flowcontrol.FlowKey             { return r.flow }
func (r *request) GetMetadata() map[string]any              { return nil }
func (r *request) ID() string                               { return "request" }
func (r *request) InferencePoolName() string                { return "pool" }
func (r *request) InferenceRequest() *scheduling.LLMRequest { return nil }
func (r *request) InitialEffectiveTTL() time.Duration       { return time.Minute }
func (r *request) ModelName() string                        { return "" }
func (r *request) ReceivedTimestamp() time.Time             { return time.Now() }
func (r *request) TargetModelName() string                  { return "" }

// start is flow control with one band, flows in turn and first come first served, as Tally's default.
func start(ctx context.Context, pool *places) (*controller.FlowController, error) {
	handle := testutils.NewTestHandle(ctx)
	turns, err := fairness.RoundRobinFairnessPolicyFactory(fairness.RoundRobinFairnessPolicyType, nil, handle)
	if err != nil {
		return nil, err
	}
	handle.AddPlugin(fairness.RoundRobinFairnessPolicyType, turns)
	order, err := ordering.FCFSOrderingPolicyFactory(registry.DefaultOrderingPolicyRef, nil, handle)
	if err != nil {
		return nil, err
	}
	handle.AddPlugin(registry.DefaultOrderingPolicyRef, order)
	band, err := registry.NewPriorityBandConfig(handle, 0,
		registry.WithFairnessPolicy(fairness.RoundRobinFairnessPolicyType, handle))
	if err != nil {
		return nil, err
	}
	other, err := registry.NewPriorityBandConfig(handle, 0,
		registry.WithFairnessPolicy(fairness.RoundRobinFairnessPolicyType, handle))
	if err != nil {
		return nil, err
	}
	bands, err := registry.NewConfig(handle, registry.WithPriorityBand(band), registry.WithDefaultPriorityBand(other))
	if err != nil {
		return nil, err
	}
	flows, err := registry.NewFlowRegistry(bands, logr.Discard())
	if err != nil {
		return nil, err
	}
	go flows.Run(ctx)
	config, err := controller.NewConfig()
	if err != nil {
		return nil, err
	}
	return controller.NewFlowController(ctx, "pool", config, controller.Deps{
		Registry:           flows,
		SaturationDetector: pool,
		EndpointCandidates: &mocks.MockEndpointCandidates{},
		UsageLimitPolicy:   usagelimits.DefaultPolicy(),
	})
}

func wholeFlowControl() (time.Duration, error) {
	log.SetLogger(logr.Discard())
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	pool := &places{}
	flowControl, err := start(ctx, pool)
	if err != nil {
		return 0, err
	}
	var let atomic.Int64
	var wrong atomic.Pointer[string]
	var callers sync.WaitGroup
	for caller := range waiting + capacity {
		callers.Go(func() {
			asks := &request{flow: flowcontrol.FlowKey{ID: fmt.Sprintf("tenant-%d", caller%flows)}}
			for ctx.Err() == nil {
				outcome, err := flowControl.EnqueueAndWait(ctx, asks)
				if ctx.Err() != nil {
					return
				}
				if outcome != types.QueueOutcomeDispatched {
					said := fmt.Sprint(outcome, err)
					wrong.Store(&said)
					return
				}
				let.Add(1)
				pool.taken.Add(-1)
			}
		})
	}
	// As many as wait: everybody has had a turn.
	if err := until(&let, waiting, &wrong); err != nil {
		return 0, err
	}
	begun, before := time.Now(), let.Load()
	if err := until(&let, before+dispatches, &wrong); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	exact := time.Duration(float64(took) * dispatches / float64(let.Load()-before))
	stop()
	callers.Wait()
	return exact, nil
}

func until(count *atomic.Int64, enough int64, wrong *atomic.Pointer[string]) error {
	for end := time.Now().Add(2 * time.Minute); count.Load() < enough; time.Sleep(time.Millisecond) {
		if said := wrong.Load(); said != nil {
			return fmt.Errorf("a request was not let go: %s", *said)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d after two minutes", count.Load(), enough)
		}
	}
	return nil
}
