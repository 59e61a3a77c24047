//! Tells the router which model a request names, in a header: the request's head waits until the body has said it.
//!
//! In: the head, then the body as Envoy gathers it. Out: the header, and when to go on. Needs Envoy's
//! `allow_on_headers_stop_iteration`; where that is off no body comes, and the root sends the head on after a while.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tally_core::exchange::Exchange;
use tally_core::labels::MAX_VALUE_BYTES;
use tally_core::timing::Nanos;

use crate::edit::Edit;
use crate::host;
use crate::root::Shared;

/// A head whose body does not begin to come goes on without the header after so long.
const PATIENCE_NANOS: u64 = 2_000_000_000;

/// Whether a stream's head waits.
#[derive(Default)]
pub(crate) struct Route(Option<Waiting>);

struct Waiting {
    /// As soon as the gathered body is so long, the head goes on.
    limit: usize,
    /// Bytes of the gathered body that were read.
    seen: usize,
    sign: Rc<Cell<Sign>>,
}

/// What the stream and the root tell each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Nothing of the body has come.
    Bodiless,
    /// The root has sent the head on.
    SentOn,
    /// Nothing more for the root to do.
    Settled,
}

/// The heads that wait for the beginning of their bodies.
#[derive(Default)]
pub(crate) struct Heads(RefCell<Vec<Head>>);

struct Head {
    context: u32,
    since: Nanos,
    sign: Rc<Cell<Sign>>,
}

impl Heads {
    /// Sends on what has waited in vain; only in the `on_tick` of this root.
    pub(crate) fn send_on(&self, shared: &Shared, root: u32) {
        if self.0.borrow().is_empty() {
            return;
        }
        let now = host::now();
        let mut late = 0_u64;
        self.0.borrow_mut().retain_mut(|head| {
            // Should the clock have been set back.
            head.since = head.since.min(now);
            let is_waiting = head.sign.get() == Sign::Bodiless;
            let is_late = is_waiting && now.since(head.since).0 > PATIENCE_NANOS;
            if is_late {
                head.sign.set(Sign::SentOn);
                late += 1;
                if host::act_on(head.context) {
                    shared.or_default(host::resume_request());
                } else {
                    shared.failed("set_effective_context");
                }
            }
            is_waiting && !is_late
        });
        if late > 0 {
            if !host::act_on(root) {
                shared.failed("set_effective_context");
            }
            log::warn!(
                "tally: {late} requests went on without `{}`, their bodies did not come; is allow_on_headers_stop_iteration set?",
                shared.config.route_header
            );
        }
    }
}

impl Route {
    /// A head came. It has to wait if a route header is configured and a body follows.
    pub(crate) fn request_head(shared: &Shared, context: u32, is_bodiless: bool) -> Self {
        Self::unmeasured_head(shared);
        if is_bodiless || shared.config.route_header.is_empty() {
            return Self(None);
        }
        // Gathering a body beyond Envoy's buffer limit would make Envoy answer 413. Its next piece may be of any size, so that
        // a long body goes on with its first piece, whatever that says. Without a length, one has to try.
        let length = host::request_header("content-length");
        let length = core::str::from_utf8(&length).ok().and_then(|length| length.parse::<u64>().ok());
        let bound = shared.config.route_wait_bytes as usize;
        let limit = if length.is_some_and(|length| length > bound as u64) { 0 } else { bound };
        let sign = Rc::new(Cell::new(Sign::Bodiless));
        shared.heads.0.borrow_mut().push(Head { context, since: host::now(), sign: Rc::clone(&sign) });
        Self(Some(Waiting { limit, seen: 0, sign }))
    }

    /// A head came that nobody measures. Only this filter may set the header: a client could choose its own route.
    pub(crate) fn unmeasured_head(shared: &Shared) {
        let header = &shared.config.route_header;
        if !header.is_empty() {
            shared.or_default(host::remove_request_header(header));
        }
    }

    /// Whether the head waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| waiting.sign.get() != Sign::SentOn)
    }

    /// The body so far has `size` bytes. True: the head goes on, with what there is of the body.
    pub(crate) fn request_body(
        &mut self,
        shared: &Shared,
        exchange: &mut Exchange,
        edit: &mut Edit,
        size: usize,
        is_last: bool,
    ) -> bool {
        let Some(waiting) = &mut self.0 else { return true };
        waiting.sign.set(Sign::Settled);
        if let Some(new) = size.checked_sub(waiting.seen).filter(|new| *new > 0) {
            let bytes = shared.or_default(host::request_body_from(waiting.seen, new));
            exchange.request_chunk(new as u64, exchange.wants_request_chunk().then_some(&bytes));
            waiting.seen = size;
        }
        let is_known = !exchange.model().is_empty() || !exchange.wants_request_chunk();
        if !is_known && !is_last && size < waiting.limit {
            return false;
        }
        self.0 = None;
        if edit.wants_request() {
            let bytes = if size > 0 { shared.or_default(host::request_body(size)) } else { Vec::new() };
            edit.request_chunk(shared, exchange, size, &bytes, is_last);
        }
        set_header(shared, exchange);
        true
    }

    /// Trailers came, so the body is over.
    pub(crate) fn request_trailers(&mut self, shared: &Shared, exchange: &Exchange) {
        if let Some(waiting) = self.0.take().filter(|waiting| waiting.sign.get() != Sign::SentOn) {
            waiting.sign.set(Sign::Settled);
            set_header(shared, exchange);
        }
    }
}

impl Drop for Waiting {
    /// The root must not speak of a stream that is over.
    fn drop(&mut self) {
        if self.sign.get() == Sign::Bodiless {
            self.sign.set(Sign::Settled);
        }
    }
}

fn set_header(shared: &Shared, exchange: &Exchange) {
    let model = exchange.model();
    // A header cannot carry all that a JSON text can: with a line end in it, it would be two.
    if !model.is_empty() && model.len() <= MAX_VALUE_BYTES && model.iter().all(u8::is_ascii_graphic) {
        shared.or_default(host::set_request_header(&shared.config.route_header, model));
    }
}
