//! The controller by the clock: many callers, one short lock, one alarm.
//!
//! In: questions, reports, pool samples, callers that vanish. Out: one answer for each question that
//! is still wanted, and every count. A question whose future is dropped has left. Nothing waits or
//! does I/O under the lock; answers are sent after it is free.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tally_core::admission::reply::Dialect;
use tally_core::admission::{
    Completed, DEFAULT_FAIRNESS_ID, EnqueueAndWaitRequest, EnqueueAndWaitResponse, Outcome, Refusal, ReportRequest,
};
use tally_core::exposition::Writer;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::FlowPlan;
use super::controller::{Ask, Controller, Decided};
use super::metrics::{Entering, FlowMetrics, SeriesId};
use super::objectives::Objectives;
use super::place::{Answer, Place};
use super::pool::PoolView;
use super::queue::RequestId;
use super::saturation::EndpointSample;

/// See the file's head.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    /// The next turn has become earlier than the alarm is set to.
    earlier: Notify,
    born: Instant,
    /// Priorities by objective.
    pub objectives: Objectives,
    dialect: Dialect,
    retry_after_seconds: u32,
}

#[derive(Debug)]
struct State {
    controller: Controller<Tag>,
    metrics: FlowMetrics,
    pool: String,
    alarm_nanos: u64,
}

/// What the controller gives back with a decision.
#[derive(Debug)]
struct Tag {
    answer: oneshot::Sender<Answer>,
    series: SeriesId,
}

impl Gate {
    /// A gate with nobody waiting.
    #[must_use]
    pub fn new(plan: FlowPlan) -> Self {
        let state = State {
            controller: Controller::new(plan.controller),
            metrics: FlowMetrics::new(plan.metric_labels, plan.max_fairness_ids),
            pool: String::new(),
            alarm_nanos: u64::MAX,
        };
        Self {
            state: Mutex::new(state),
            earlier: Notify::new(),
            born: Instant::now(),
            objectives: Objectives::new(plan.objectives),
            dialect: plan.dialect,
            retry_after_seconds: plan.retry_after_seconds,
        }
    }

    /// Takes a question in. What it returns waits until the request may go or may not; dropping that is leaving.
    pub fn ask(&self, question: &EnqueueAndWaitRequest) -> Place<'_> {
        let (sender, decided) = oneshot::channel();
        let request = self.enter(question, sender);
        let request = request.unwrap_or(RequestId::NONE);
        Place { gate: self, request, decided: Some(decided), caller: (question.reporter, question.request) }
    }

    /// Takes one message of a caller's report stream.
    pub fn report(&self, report: &ReportRequest) {
        self.act(|state, now_nanos, out| {
            let State { controller, .. } = state;
            controller.heard(report.reporter, now_nanos);
            controller.completed(report.reporter, &report.completed, now_nanos, out);
            if let Some(running) = &report.running {
                controller.runs(report.reporter, &running.requests, now_nanos, out);
            }
        });
    }

    /// Takes what the pool says.
    pub fn observe(&self, pool: &impl PoolView) {
        let samples: Vec<EndpointSample> = pool.endpoints(|at| self.nanos_at(Instant::from_std(at)));
        self.act(|state, now_nanos, out| {
            if state.pool != pool.name() {
                pool.name().clone_into(&mut state.pool);
            }
            state.controller.observe(&samples, now_nanos, out);
        });
    }

    /// Expires, forgets and lets go by the clock until stopped.
    pub async fn keep_time(&self, stop: CancellationToken) {
        loop {
            let next_nanos = {
                let mut state = self.lock();
                state.alarm_nanos = state.controller.next_turn();
                state.alarm_nanos
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.born + Duration::from_nanos(next_nanos)) => self.turn(),
                () = self.earlier.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Nothing enters any more; who waits may go on until `limit` has passed, then is told that it is over.
    pub async fn drain(&self, limit: Duration) {
        self.lock().controller.stop();
        let end = Instant::now() + limit;
        let mut look = tokio::time::interval(DRAIN_LOOK);
        while self.waiting() > 0 && Instant::now() < end {
            look.tick().await;
        }
        self.act(|state, now_nanos, out| state.controller.close(now_nanos, out));
    }

    /// Requests waiting.
    pub fn waiting(&self) -> u64 {
        self.lock().controller.queue_requests()
    }

    /// Requests let go and not reported as ended.
    pub fn running(&self) -> u64 {
        self.lock().controller.running_requests()
    }

    /// Writes the families of flow control.
    pub fn write(&self, page: &mut Writer) {
        let mut state = self.lock();
        let now_nanos = self.nanos_at(Instant::now());
        let saturation = state.controller.saturation(now_nanos);
        state.metrics.write(page, &state.pool, saturation);
    }

    fn enter(&self, question: &EnqueueAndWaitRequest, answer: oneshot::Sender<Answer>) -> Option<RequestId> {
        let asked = Instant::now();
        let fairness_id = match question.fairness_id.as_str() {
            "" => DEFAULT_FAIRNESS_ID,
            id => cut(id),
        };
        let ask = Ask {
            fairness_id,
            priority: question.priority.unwrap_or_else(|| self.objectives.priority(&question.objective)),
            bytes: question.bytes,
            patience_nanos: u64::from(question.patience_millis) * NANOS_PER_MILLI,
            first_token_nanos: u64::from(question.first_token_millis) * NANOS_PER_MILLI,
            reporter: question.reporter,
            request: question.request,
        };
        self.act(|State { controller, metrics, .. }, now_nanos, out| {
            let flow = controller.flow(&ask, now_nanos);
            let info = controller.flow_info(flow)?;
            let series = metrics.entered(&Entering {
                flow,
                fairness_id: &info.fairness_id,
                priority: info.priority,
                is_shared: *info.fairness_id != *fairness_id,
                model: cut(&question.model),
                target_model: cut(&question.target_model),
                bytes: ask.bytes,
            });
            let request = controller.enter(&ask, flow, Tag { answer, series }, now_nanos, out);
            let outcome = match request {
                Some(request) if controller.holds(request) => None,
                Some(_) => Some(Outcome::Dispatched),
                None => out.last().map(|refused| refused.outcome),
            };
            metrics.enqueued(series, outcome, nanos(asked.elapsed()));
            request
        })
    }

    /// A caller has gone before it read its answer.
    pub(super) fn leave(&self, request: RequestId, mut decided: oneshot::Receiver<Answer>, caller: (u64, u64)) {
        self.act(|State { controller, .. }, now_nanos, out| {
            if let Some(left) = controller.leave(request, now_nanos) {
                out.push(left);
                return;
            }
            // Let go at the same moment: it will not run.
            if decided.try_recv().is_ok_and(|answer| answer.outcome == Outcome::Dispatched) {
                let (reporter, request) = caller;
                let never_ran = Completed { request, prompt_tokens: 0, output_tokens: 0 };
                controller.completed(reporter, &[never_ran], now_nanos, out);
            }
        });
    }

    fn turn(&self) {
        self.act(|State { controller, metrics, .. }, now_nanos, out| {
            controller.turn(now_nanos, out, |flow| metrics.gone(flow));
        });
    }

    /// Does one thing under the lock, counts what was decided, then tells those who wait.
    fn act<R>(&self, what: impl FnOnce(&mut State, u64, &mut Vec<Decided<Tag>>) -> R) -> R {
        let mut out = Vec::new();
        let mut state = self.lock();
        let now_nanos = self.nanos_at(Instant::now());
        let result = what(&mut state, now_nanos, &mut out);
        for decided in &out {
            let Decided { tag, outcome, priority, bytes, waited_nanos, .. } = decided;
            state.metrics.left(tag.series, *priority, *outcome, *bytes, *waited_nanos);
        }
        if !out.is_empty() {
            state.metrics.cycle(self.nanos_at(Instant::now()).saturating_sub(now_nanos));
        }
        let is_earlier = state.controller.next_turn() < state.alarm_nanos;
        drop(state);
        if is_earlier {
            self.earlier.notify_one();
        }
        for Decided { tag, outcome, cause, priority, waited_nanos, .. } in out {
            // Nobody there: its place's drop finds out and gives the capacity back.
            let _ = tag.answer.send(Answer { outcome, cause, priority, waited_nanos });
        }
        result
    }

    pub(super) fn respond(&self, answer: Answer) -> EnqueueAndWaitResponse {
        let Answer { outcome, cause, priority, waited_nanos } = answer;
        let refusal = cause.map(|cause| Refusal::new(outcome, cause, self.dialect, self.retry_after_seconds));
        EnqueueAndWaitResponse { outcome: outcome.into(), waited_nanos, priority, refusal }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos_at(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.born))
    }
}

/// At most [`MAX_NAME_BYTES`] of a name, whole characters.
fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or(name)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS_PER_MILLI: u64 = 1_000_000;
/// Longer fairness ids and model names are cut: they are labels and keys.
const MAX_NAME_BYTES: usize = 200;
/// A drain looks this often whether the last one has gone.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
