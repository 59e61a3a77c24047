//! Admission: asks the companion about each measured request, and lets it go, refuses it, or decides without an answer.
//!
//! In: heads of requests, answers, ends, ticks. Out: exactly one result for each request that asked. Envoy crashes if a
//! context is acted on twice or after its end, so whoever acts first takes the request out of `waiting`: by the answer,
//! by the deadline, by the end of the stream, by the end of the root. What is not in there is never touched.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tally_core::admission::ask::{self, AskHead, Verdict};
use tally_core::admission::reply::REASON_HEADER;
use tally_core::admission::{ENQUEUE_AND_WAIT, Refusal, SERVICE};
use tally_core::config::{Admission as Config, OnFailure};
use tally_core::table::{AdmissionResult, Global};
use tally_core::timing::Nanos;
use tally_core::usage::Usage;

use crate::flow;
use crate::host::{self, Method};
use crate::report::Report;
use crate::root::Shared;

/// The companion answers in time even to what it refuses for waiting too long; Envoy ends the call this much later.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Should Envoy not end the call, the tick does: so long after the request's time is over.
const TICK_GRACE: Duration = Duration::from_secs(2);

/// What admission has decided of a request; shared by the stream and whoever decides.
pub(crate) type Ticket = Rc<Cell<Decision>>;

/// See [`Ticket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing yet: the request is paused.
    Pending,
    /// The companion let it go; its number for the report.
    Dispatched(u64),
    /// It goes on without a decision.
    Passed,
    /// The client got a refusal.
    Refused,
}

/// A request that waits for an answer.
#[derive(Debug)]
struct Waiter {
    token: u32,
    number: u64,
    deadline: Nanos,
    ticket: Ticket,
}

/// See the file's head. One per root context.
#[derive(Debug)]
pub(crate) struct Admission {
    config: Config,
    upstream: String,
    /// The root's context.
    root: u32,
    /// By context.
    waiting: RefCell<BTreeMap<u32, Waiter>>,
    report: RefCell<Report>,
    last_number: Cell<u64>,
}

impl Admission {
    /// With nobody waiting.
    pub(crate) fn new(config: Config, root: u32) -> Self {
        let upstream = ask::grpc_service(&config.cluster);
        let report = RefCell::new(Report::new(upstream.clone()));
        Self { config, upstream, root, waiting: RefCell::default(), report, last_number: Cell::new(0) }
    }

    /// Asks about the request whose head is here; only in `on_http_request_headers`. It has to be paused unless the ticket
    /// says that it passed.
    pub(crate) fn ask(&self, shared: &Shared, context: u32, target_model: &[u8]) -> Ticket {
        let ticket = Ticket::new(Cell::new(Decision::Pending));
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let head = AskHead {
            fairness_id: &flow::first(&self.config.fairness_headers),
            objective: &flow::first(&self.config.objective_headers),
            content_length: &host::request_header("content-length"),
            target_model,
            first_token: &host::request_header(ask::FIRST_TOKEN_HEADER),
        };
        let message = ask::question(&self.config, &head, self.report.borrow().reporter(), number);
        let to = Method { upstream: &self.upstream, service: SERVICE, method: ENQUEUE_AND_WAIT };
        let patience = Duration::from_millis(u64::from(self.config.timeout_ms));
        // Without a root nobody would see to the deadline.
        let asked = (!shared.is_done()).then(|| host::grpc_call(&to, &message, patience + ANSWER_GRACE));
        if let Some(Ok(token)) = asked {
            let deadline = host::now().after(patience + TICK_GRACE);
            let waiter = Waiter { token, number, deadline, ticket: ticket.clone() };
            self.waiting.borrow_mut().insert(context, waiter);
        } else if self.config.on_failure == OnFailure::Open {
            count(shared, AdmissionResult::FailedOpen);
            ticket.set(Decision::Passed);
        } else {
            self.refuse(shared, &ticket, &ask::unreachable(), AdmissionResult::FailedClosed);
        }
        ticket
    }

    /// An answer has come, to the context that is being called.
    pub(crate) fn answered(&self, shared: &Shared, context: u32, token: u32, status: u32, size: usize) {
        let Some(waiter) = self.take(context, token) else { return };
        let message = if size > 0 { shared.or_default(host::grpc_answer(size)) } else { Vec::new() };
        match ask::verdict(status, &message) {
            Verdict::Go => {
                count(shared, AdmissionResult::Dispatched);
                waiter.ticket.set(Decision::Dispatched(waiter.number));
                self.report.borrow_mut().started(waiter.number);
                shared.or_default(host::resume_request());
            }
            Verdict::Refuse(refusal) => self.refuse(shared, &waiter.ticket, &refusal, AdmissionResult::Rejected),
            Verdict::NoDecision => {
                self.drop_place(shared, waiter.number);
                self.fail(shared, &waiter.ticket);
            }
        }
    }

    /// The stream is over or is being answered by somebody else: it waits no longer.
    pub(crate) fn left(&self, shared: &Shared, context: u32) {
        let waiter = self.waiting.borrow_mut().remove(&context);
        if let Some(Waiter { token, number, ticket, .. }) = waiter {
            self.cancel(shared, token, number);
            count(shared, AdmissionResult::Cancelled);
            ticket.set(Decision::Passed);
        }
    }

    /// A request that was let go has ended.
    pub(crate) fn ended(&self, shared: &Shared, number: u64, usage: &Usage) {
        let reported = self.report.borrow_mut().ended(number, usage);
        shared.or_default(reported);
    }

    /// Time has passed; only in the root's `on_tick`.
    pub(crate) fn tick(&self, shared: &Shared, now: Nanos) {
        self.give_up(shared, |waiter| waiter.deadline <= now);
        let reported = self.report.borrow_mut().tick(now);
        shared.or_default(reported);
    }

    /// A stream of the root's has ended.
    pub(crate) fn stream_closed(&self, token: u32, now: Nanos) {
        self.report.borrow_mut().closed(token, now);
    }

    /// The root ends: nobody would see to those who wait, and Envoy drops the calls.
    pub(crate) fn close(&self, shared: &Shared) {
        self.give_up(shared, |_| true);
    }

    /// Decides without an answer for all these; only in the root's callbacks.
    fn give_up(&self, shared: &Shared, is_meant: impl Fn(&Waiter) -> bool) {
        let mut waiting = self.waiting.borrow_mut();
        let meant: Vec<(u32, Waiter)> = waiting.extract_if(.., |_, waiter| is_meant(waiter)).collect();
        drop(waiting);
        if meant.is_empty() {
            return;
        }
        for (context, Waiter { token, number, ticket, .. }) in meant {
            self.cancel(shared, token, number);
            if host::act_on(context) {
                self.fail(shared, &ticket);
            } else {
                // Envoy ends a stream only after `on_log`, which takes it out of `waiting`.
                shared.failed("set_effective_context");
                count(shared, AdmissionResult::Cancelled);
            }
        }
        if !host::act_on(self.root) {
            shared.failed("set_effective_context");
        }
    }

    /// The companion gives the place away.
    fn cancel(&self, shared: &Shared, token: u32, number: u64) {
        host::cancel_grpc(token);
        self.drop_place(shared, number);
    }

    /// The companion is told that this request does not run for it, whatever it has decided meanwhile.
    fn drop_place(&self, shared: &Shared, number: u64) {
        let reported = self.report.borrow_mut().dropped(number);
        shared.or_default(reported);
    }

    /// There is no decision on a paused request, which the next calls act on.
    fn fail(&self, shared: &Shared, ticket: &Ticket) {
        match self.config.on_failure {
            OnFailure::Open => {
                count(shared, AdmissionResult::FailedOpen);
                ticket.set(Decision::Passed);
                shared.or_default(host::resume_request());
            }
            OnFailure::Closed => self.refuse(shared, ticket, &ask::unreachable(), AdmissionResult::FailedClosed),
        }
    }

    /// Answers the request, which the next calls act on.
    fn refuse(&self, shared: &Shared, ticket: &Ticket, refusal: &Refusal, result: AdmissionResult) {
        count(shared, result);
        ticket.set(Decision::Refused);
        let retry_after = refusal.retry_after_seconds.to_string();
        let is_header_value = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut headers = Vec::new();
        if refusal.retry_after_seconds > 0 {
            headers.push(("retry-after", retry_after.as_str()));
        }
        if is_header_value(&refusal.reason) {
            headers.push((REASON_HEADER, refusal.reason.as_str()));
        }
        shared.or_default(host::answer_request(refusal.status, headers, refusal.body.as_bytes()));
    }

    /// The waiter of this call, if it still waits.
    fn take(&self, context: u32, token: u32) -> Option<Waiter> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.get(&context).filter(|waiter| waiter.token == token)?;
        waiting.remove(&context)
    }
}

fn count(shared: &Shared, result: AdmissionResult) {
    shared.table.borrow_mut().count(Global::Admission(result), 1);
}
