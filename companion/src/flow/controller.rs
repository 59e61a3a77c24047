//! Flow control as one machine: queue, saturation and running requests, in whatever time it is given.
//!
//! In: requests, callers that leave, reports, pool samples, the time. Out: decisions, each with the
//! caller's tag, and when to be called again. The service drives it by the clock, the simulator by
//! virtual time; it never waits, locks or counts metrics itself.

use tally_core::admission::reply::Cause;
use tally_core::admission::{Completed, Outcome};

use super::band::Flow;
use super::queue::{Departure, Entry, FlowId, Full, Queue, QueuePlan, RequestId};
use super::running::{Run, RunningRequests};
use super::saturation::{EndpointSample, Saturation, SaturationPlan};

/// How flow control works.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bands, limits, idle times.
    pub queue: QueuePlan,
    /// What counts as full.
    pub saturation: SaturationPlan,
    /// Weighted fairness counts tokens, not requests.
    pub cost_in_tokens: bool,
    /// The concurrency detector counts tokens, not requests.
    pub concurrency_in_tokens: bool,
    /// Time in the queue of a request whose caller names none, and the most one may name; 0 is no end.
    pub ttl_nanos: u64,
    /// Requests below priority 0 are refused while the pool is full, instead of queued.
    pub reject_sheddable: bool,
    /// Use llm-d's outcomes for an empty pool.
    pub tell_no_endpoints: bool,
}

/// A request as it enters.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose turn.
    pub fairness_id: &'a str,
    /// Which band.
    pub priority: i32,
    /// Body bytes, 0 where unknown.
    pub bytes: u64,
    /// How long the caller waits; 0 is as long as it takes.
    pub patience_nanos: u64,
    /// When the client hopes for the first token, from now; 0 is no hope.
    pub first_token_nanos: u64,
    /// Who asks; 0 is nobody.
    pub reporter: u64,
    /// The caller's number of the request.
    pub request: u64,
}

/// What came of a request.
#[derive(Debug)]
pub struct Decided<T> {
    /// What the caller gave with it.
    pub tag: T,
    /// The decision.
    pub outcome: Outcome,
    /// Why, unless it was let go.
    pub cause: Option<Cause>,
    /// Its flow, which may be the shared one.
    pub flow: FlowId,
    /// Its band's priority.
    pub priority: i32,
    /// Its bytes.
    pub bytes: u64,
    /// Time from entering to here.
    pub waited_nanos: u64,
}

/// See the file's head. `T` is what the caller gets back with a decision.
#[derive(Debug)]
pub struct Controller<T> {
    plan: Plan,
    queue: Queue<Held<T>>,
    saturation: Saturation,
    running: RunningRequests,
    /// Tokens a request used so far, over all flows.
    usual_tokens: u64,
    swept_nanos: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Held<T> {
    tag: T,
    reporter: u64,
    request: u64,
    tokens: u64,
}

/// Idle flows and silent reporters are looked for this often.
const SWEEP_NANOS: u64 = 5_000_000_000;
/// Tokens of a request before any report: a short answer to a short question.
const FIRST_GUESS_TOKENS: u64 = 512;
/// More tokens than a request can use; a report of more counts as this, so that one wrong number
/// cannot hold a flow back for ever.
const MAX_TOKENS: u64 = 1 << 24;

impl<T> Controller<T> {
    /// Flow control with nothing in it.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            queue: Queue::new(plan.queue.clone()),
            saturation: Saturation::new(plan.saturation),
            plan,
            running: RunningRequests::default(),
            usual_tokens: 0,
            swept_nanos: 0,
            stopping: false,
        }
    }

    /// The queue, to look at.
    pub const fn queue_requests(&self) -> u64 {
        self.queue.requests()
    }

    /// Bytes waiting.
    pub const fn queue_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// A flow: its names, what it has waiting.
    #[must_use]
    pub fn flow_info(&self, flow: FlowId) -> Option<&Flow> {
        self.queue.flow_info(flow)
    }

    /// Requests let go and not reported as ended.
    pub const fn running_requests(&self) -> u64 {
        self.running.requests()
    }

    /// How full the pool is now.
    pub fn saturation(&mut self, now_nanos: u64) -> f64 {
        let running = self.running_work();
        self.saturation.level(running, now_nanos)
    }

    /// The flow that a request belongs to, made if need be.
    pub fn flow(&mut self, ask: &Ask<'_>, now_nanos: u64) -> FlowId {
        self.queue.flow(ask.priority, ask.fairness_id, now_nanos)
    }

    /// Whether this request still waits.
    #[must_use]
    pub fn holds(&self, id: RequestId) -> bool {
        self.queue.holds(id)
    }

    /// A request of this flow enters. Decisions, perhaps its own, are appended to `out`.
    /// What it returns names it in [`Self::leave`]; `None` if it was refused.
    pub fn enter(
        &mut self,
        ask: &Ask<'_>,
        flow: FlowId,
        tag: T,
        now_nanos: u64,
        out: &mut Vec<Decided<T>>,
    ) -> Option<RequestId> {
        if self.stopping {
            out.push(self.refused(flow, ask, tag, Outcome::RejectedOther, Cause::Stopping));
            return None;
        }
        if self.plan.reject_sheddable && ask.priority < 0 && self.full_for(flow, now_nanos) {
            out.push(self.refused(flow, ask, tag, Outcome::RejectedCapacity, Cause::Sheddable));
            return None;
        }
        let full = self.queue.room(flow, ask.bytes).err();
        // Nothing is given up unless it lets the request in.
        if full == Some(Full::Total) && self.queue.room_by_displacing(ask.priority, ask.bytes) {
            while self.queue.room(flow, ask.bytes).is_err() {
                let Some(displaced) = self.queue.displace(ask.priority, now_nanos) else { break };
                out.push(self.decided(displaced, Outcome::EvictedOther, Some(Cause::Displaced), now_nanos).0);
            }
        }
        let (entry, tokens) = self.entry(flow, ask, now_nanos);
        let held = Held { tag, reporter: ask.reporter, request: ask.request, tokens };
        match self.queue.enter(flow, entry, held) {
            Ok(id) => {
                self.pump(now_nanos, out);
                Some(id)
            }
            Err((_, Held { tag, .. })) => {
                out.push(self.refused(flow, ask, tag, Outcome::RejectedCapacity, Cause::Capacity));
                None
            }
        }
    }

    /// The caller of a waiting request left. `None` if it was decided already.
    pub fn leave(&mut self, id: RequestId, now_nanos: u64) -> Option<Decided<T>> {
        let departure = self.queue.leave(id, now_nanos)?;
        Some(self.decided(departure, Outcome::EvictedContextCancelled, Some(Cause::CallerLeft), now_nanos).0)
    }

    /// A caller says what has ended.
    pub fn completed(&mut self, reporter: u64, ended: &[Completed], now_nanos: u64, out: &mut Vec<Decided<T>>) {
        for end in ended {
            let Some(run) = self.running.end(reporter, end.request, now_nanos) else { continue };
            self.learn(&run, end.prompt_tokens.saturating_add(end.output_tokens).min(MAX_TOKENS));
        }
        self.pump(now_nanos, out);
    }

    /// A caller says all that it still runs.
    pub fn runs(&mut self, reporter: u64, named: &[u64], now_nanos: u64, out: &mut Vec<Decided<T>>) {
        self.running.list(reporter, named, now_nanos);
        self.pump(now_nanos, out);
    }

    /// A caller is there, whatever else it says.
    pub fn heard(&mut self, reporter: u64, now_nanos: u64) {
        self.running.heard(reporter, now_nanos);
    }

    /// The pool says how it is.
    pub fn observe(&mut self, endpoints: &[EndpointSample], now_nanos: u64, out: &mut Vec<Decided<T>>) {
        self.saturation.observe(endpoints, now_nanos);
        self.pump(now_nanos, out);
    }

    /// Time has passed: what is over leaves, what may go goes, idle flows are forgotten.
    pub fn turn(&mut self, now_nanos: u64, out: &mut Vec<Decided<T>>, mut gone: impl FnMut(FlowId)) {
        if now_nanos.saturating_sub(self.swept_nanos) >= SWEEP_NANOS {
            self.swept_nanos = now_nanos;
            self.running.forget_silent(now_nanos);
            self.queue.collect(now_nanos, |flow, _| gone(flow));
        }
        self.pump(now_nanos, out);
    }

    /// When to call [`Self::turn`] at the latest.
    #[must_use]
    pub fn next_turn(&self) -> u64 {
        let sweep = self.swept_nanos + SWEEP_NANOS;
        self.queue.next_expiry().map_or(sweep, |expiry| expiry.min(sweep))
    }

    /// From now on nothing enters; what waits goes on waiting.
    pub const fn stop(&mut self) {
        self.stopping = true;
    }

    /// The wait is over for all that still wait.
    pub fn close(&mut self, now_nanos: u64, out: &mut Vec<Decided<T>>) {
        self.stopping = true;
        while let Some(departure) = self.queue.take_any(now_nanos) {
            out.push(self.decided(departure, Outcome::EvictedOther, Some(Cause::Stopping), now_nanos).0);
        }
    }

    fn pump(&mut self, now_nanos: u64, out: &mut Vec<Decided<T>>) {
        while let Some(departure) = self.queue.expire(now_nanos) {
            let empty =
                self.plan.tell_no_endpoints && self.plan.saturation.utilization && self.saturation.endpoints() == 0;
            let (outcome, cause) = match empty {
                true => (Outcome::EvictedNoEndpoints, Cause::NoEndpoints),
                false => (Outcome::EvictedTtl, Cause::TimedOut),
            };
            out.push(self.decided(departure, outcome, Some(cause), now_nanos).0);
        }
        loop {
            let running = self.running_work();
            let saturation = &mut self.saturation;
            let next = self.queue.dispatch(now_nanos, |band| saturation.open(band.plan.ceiling, running, now_nanos));
            let Some(departure) = next else { return };
            self.saturation.sent(now_nanos);
            let (flow, bytes) = (departure.flow, departure.entry.bytes);
            let (decided, mark) = self.decided(departure, Outcome::Dispatched, None, now_nanos);
            let run = Run { flow, tokens: mark.tokens, bytes, since_nanos: now_nanos };
            self.running.start(mark.reporter, mark.request, run);
            out.push(decided);
        }
    }

    fn refused(&self, flow: FlowId, ask: &Ask<'_>, tag: T, outcome: Outcome, cause: Cause) -> Decided<T> {
        let priority = self.queue.flow_info(flow).map_or(ask.priority, |info| info.priority);
        Decided { tag, outcome, cause: Some(cause), flow, priority, bytes: ask.bytes, waited_nanos: 0 }
    }

    fn full_for(&mut self, flow: FlowId, now_nanos: u64) -> bool {
        let running = self.running_work();
        let ceiling = self.queue.band_of(flow).map_or(1.0, |band| band.plan.ceiling);
        self.queue.requests() > 0 || !self.saturation.open(ceiling, running, now_nanos)
    }

    /// What the queue is told of a request, and its tokens by what its flow usually uses.
    fn entry(&self, flow: FlowId, ask: &Ask<'_>, now_nanos: u64) -> (Entry, u64) {
        let usual = self.queue.flow_info(flow).map_or(0, |info| info.usual_tokens);
        let tokens = [usual, self.usual_tokens].into_iter().find(|tokens| *tokens > 0).unwrap_or(FIRST_GUESS_TOKENS);
        let ttl = match (self.plan.ttl_nanos, ask.patience_nanos) {
            (0, patience) => patience,
            (ttl, 0) => ttl,
            (ttl, patience) => ttl.min(patience),
        };
        let after = |wait: u64| if wait == 0 { u64::MAX } else { now_nanos.saturating_add(wait) };
        let entry = Entry {
            bytes: ask.bytes,
            cost: if self.plan.cost_in_tokens { tokens } else { 1 },
            entered_nanos: now_nanos,
            expires_nanos: after(ttl),
            wish_nanos: after(ask.first_token_nanos),
        };
        (entry, tokens)
    }

    /// Moves the usual tokens an eighth of the way to what a request really used, and charges its
    /// flow the difference to the estimate.
    fn learn(&mut self, run: &Run, tokens: u64) {
        if tokens == 0 {
            return;
        }
        self.usual_tokens = toward(self.usual_tokens, tokens);
        self.queue.learn(run.flow, |usual| toward(usual, tokens));
        if self.plan.cost_in_tokens {
            let more = i64::try_from(tokens).unwrap_or(i64::MAX) - i64::try_from(run.tokens).unwrap_or(i64::MAX);
            self.queue.settle(run.flow, more);
        }
    }

    const fn running_work(&self) -> u64 {
        if self.plan.concurrency_in_tokens { self.running.tokens() } else { self.running.requests() }
    }

    fn decided(
        &self,
        departure: Departure<Held<T>>,
        outcome: Outcome,
        cause: Option<Cause>,
        now_nanos: u64,
    ) -> (Decided<T>, Mark) {
        let Departure { tag: Held { tag, reporter, request, tokens }, flow, entry } = departure;
        let info = self.queue.flow_info(flow);
        let decided = Decided {
            tag,
            outcome,
            cause,
            flow,
            priority: info.map_or(0, |info| info.priority),
            bytes: entry.bytes,
            waited_nanos: now_nanos.saturating_sub(entry.entered_nanos),
        };
        (decided, Mark { reporter, request, tokens })
    }
}

/// A moving mean over about eight requests; the first value counts whole.
const fn toward(usual: u64, tokens: u64) -> u64 {
    if usual == 0 { tokens } else { usual.saturating_mul(7).saturating_add(tokens) / 8 }
}

/// Who asked, for the running requests.
struct Mark {
    reporter: u64,
    request: u64,
    tokens: u64,
}
