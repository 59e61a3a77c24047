//! One per request: Envoy's callbacks in the order of the data, each handed to the [`Exchange`].
//!
//! In: heads and pieces of bodies. Out: one record in the table at the end. It changes no byte but through [`Edit`], pauses
//! only heads (admission, routing), and reads a piece only if somebody still wants to know something.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use tally_core::exchange::{Exchange, RequestHead};
use tally_core::log_fields;
use tally_core::outcome::{Cause, End};
use tally_core::response::ResponseHead;
use tally_core::table::{Global, Ignored, RunningMark};
use tally_core::usage::{MAX_TOKENS, Usage, count_of_double};

use crate::admit::{Decision, Ticket};
use crate::edit::{self, Edit};
use crate::flow;
use crate::host;
use crate::root::Shared;
use crate::route::Route;

/// A stream of the filter.
pub(crate) struct Stream {
    id: u32,
    shared: Rc<Shared>,
    /// `None`: not measured, or over.
    exchange: Option<Exchange>,
    running: Option<RunningMark>,
    /// `None`: not asked, or over.
    ticket: Option<Ticket>,
    edit: Edit,
    route: Route,
}

impl Stream {
    /// A stream of which nothing has come.
    pub(crate) fn new(shared: Rc<Shared>, id: u32) -> Self {
        shared.table.borrow_mut().live_streams(1);
        Self { id, shared, exchange: None, running: None, ticket: None, edit: Edit::default(), route: Route::default() }
    }

    /// The exchange of a request's head and the model it was rewritten to; or why it passes unmeasured.
    fn begin(&self, is_bodiless: bool) -> Result<(Exchange, Vec<u8>), Ignored> {
        let config = &self.shared.config;
        let header = |name: &str| match name {
            "" => Vec::new(),
            name => host::request_header(name),
        };
        let api = config.api(&header(":path")).ok_or(Ignored::Path)?;
        // With a body it is one of the API's calls, whatever its method; without one it may be a browser's.
        if is_bodiless && header(":method") != b"POST" {
            return Err(Ignored::Method);
        }
        let target_model = header(&config.target_model_header);
        let tenant = header(&config.tenant_header);
        let head = RequestHead { api, target_model: &target_model, tenant: &tenant };
        let mut exchange = Exchange::begin(&head, host::now());
        flow::read(config, &mut exchange);
        Ok((exchange, target_model))
    }

    /// Asks whether the request may go on, if admission is on. It waits in its head: Envoy then holds its body back, too.
    fn admit(&mut self, target_model: &[u8]) -> Action {
        let Some(admission) = &self.shared.admission else { return Action::Continue };
        let ticket = admission.ask(&self.shared, self.id, target_model);
        let may_go = ticket.get() == Decision::Passed;
        self.ticket = Some(ticket);
        if may_go { Action::Continue } else { Action::Pause }
    }

    /// The request waits no longer, whoever ends it.
    fn wait_no_longer(&self) {
        if let (Some(admission), Some(_)) = (&self.shared.admission, &self.ticket) {
            admission.left(&self.shared, self.id);
        }
    }

    /// The request runs as soon as its model is known, at the latest when it has come whole.
    fn run(&mut self, is_whole: bool) {
        if let Some(exchange) = &mut self.exchange {
            if is_whole {
                exchange.request_end();
            }
            if self.running.is_none() && (is_whole || !exchange.model().is_empty()) {
                self.running = Some(self.shared.table.borrow_mut().start(exchange));
            }
        }
    }

    /// The end, whatever it was: counted once, since it takes the exchange. `is_logged`: Envoy writes its logs next.
    fn end(&mut self, is_logged: bool) {
        self.wait_no_longer();
        let decision = self.ticket.take().map(|ticket| ticket.get());
        if let Some(exchange) = self.exchange.take() {
            let how = match decision {
                Some(Decision::Refused) => End { rejected: true, ..End::default() },
                _ if exchange.went_well() => End::default(),
                _ => reason(),
            };
            let now = exchange.answered().unwrap_or_else(host::now);
            let mut measured = exchange.end(how, self.shared.config.llama_timings, now);
            if self.shared.config.envoy_token_usage
                && let Some(usage) = Usage::of_envoy(envoy_count)
            {
                measured.take_usage(&usage);
            }
            if self.shared.config.log_fields && is_logged {
                for (name, value) in log_fields::fields(&measured) {
                    self.shared.or_default(host::set_filter_state(name, value.as_bytes()));
                }
            }
            self.shared.table.borrow_mut().record(&measured);
            if let (Some(admission), Some(Decision::Dispatched(number))) = (&self.shared.admission, decision) {
                admission.ended(&self.shared, number, &measured.usage);
            }
        }
        if let Some(mark) = self.running.take() {
            self.shared.table.borrow_mut().stop(mark);
        }
        self.shared.stream_ended();
    }
}

/// A count in the metadata that Envoy's own reader of tokens writes: typed, in later versions untyped too.
fn envoy_count(path: &[&str]) -> Option<u64> {
    const NAMESPACE: &str = "envoy.ai.token_usage";
    let untyped = host::metadata_number(NAMESPACE, path).and_then(count_of_double);
    untyped.or_else(|| host::typed_metadata_number(NAMESPACE, path).filter(|count| *count <= MAX_TOKENS))
}

/// Why Envoy ended a stream that did not go well; asked only then, since each attribute costs a microsecond.
fn reason() -> End {
    let flags = host::number_property(&["response", "flags"]).unwrap_or(0);
    // `via_upstream` for the model server's own answers, something else for Envoy's, nothing if there was none.
    let details = host::property(&["response", "code_details"]).unwrap_or_default();
    let local_reply = !details.is_empty() && details != b"via_upstream";
    End { cause: Cause::of_envoy_flags(flags), local_reply, rejected: false }
}

impl Context for Stream {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        if let Some(admission) = &self.shared.admission {
            admission.answered(&self.shared, self.id, token, status, size);
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        match self.begin(end_of_stream) {
            Ok((exchange, target_model)) => {
                let api = exchange.api();
                self.exchange = Some(exchange);
                self.run(end_of_stream);
                // They ask with the request's length, which an edit removes.
                let action = self.admit(&target_model);
                self.route = Route::request_head(&self.shared, self.id, end_of_stream);
                if edit::is_configured(&self.shared.config) {
                    self.edit = Edit::request_head(&self.shared, api, end_of_stream);
                }
                if self.route.is_waiting() { Action::Pause } else { action }
            }
            Err(ignored) => {
                Route::unmeasured_head(&self.shared);
                self.shared.table.borrow_mut().count(Global::Ignored(ignored), 1);
                Action::Continue
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let (Some(exchange), true) = (&mut self.exchange, self.route.is_waiting()) {
            let goes_on = self.route.request_body(&self.shared, exchange, &mut self.edit, size, end_of_stream);
            self.run(end_of_stream);
            return if goes_on { Action::Continue } else { Action::Pause };
        }
        if let Some(exchange) = &mut self.exchange {
            let is_wanted = size > 0 && exchange.wants_request_chunk();
            let is_read = is_wanted || (size > 0 && self.edit.wants_request());
            let bytes = is_read.then(|| self.shared.or_default(host::request_body(size)));
            exchange.request_chunk(size as u64, bytes.as_deref().filter(|_| is_wanted));
            if self.edit.wants_request() {
                let bytes = bytes.as_deref().unwrap_or_default();
                self.edit.request_chunk(&self.shared, exchange, size, bytes, end_of_stream);
            }
            self.run(end_of_stream);
        }
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        if let Some(exchange) = &self.exchange {
            self.route.request_trailers(&self.shared, exchange);
        }
        self.run(true);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        // Envoy's own answer may come while the head waits.
        self.route = Route::default();
        // Envoy answers a request that still waits: one of its own time-outs.
        self.wait_no_longer();
        if let Some(exchange) = &mut self.exchange {
            let status = String::from_utf8_lossy(&host::response_header(":status")).parse().unwrap_or(0);
            let [content_type, content_encoding] = ["content-type", "content-encoding"].map(host::response_header);
            let head = ResponseHead { status, content_type: &content_type, content_encoding: &content_encoding };
            exchange.response_head(&head);
            self.edit.response_head(&self.shared, &head, end_of_stream);
            if end_of_stream {
                exchange.response_end(host::now());
            }
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let Some(exchange) = &mut self.exchange {
            let now = host::now();
            let is_wanted = size > 0 && exchange.wants_response_chunk();
            let is_read = is_wanted || (size > 0 && self.edit.wants_response());
            let bytes = is_read.then(|| self.shared.or_default(host::response_body(size)));
            exchange.response_chunk(size as u64, bytes.as_deref().filter(|_| is_wanted), now);
            if self.edit.wants_response() {
                self.edit.response_chunk(&self.shared, size, bytes.as_deref().unwrap_or_default(), end_of_stream);
            }
            if end_of_stream {
                exchange.response_end(now);
            }
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        if let Some(exchange) = &mut self.exchange {
            exchange.response_end(host::now());
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        self.end(true);
    }
}

impl Drop for Stream {
    /// Envoy logs every stream before it deletes it; should it not, nothing stays in the gauges.
    fn drop(&mut self) {
        self.shared.table.borrow_mut().live_streams(-1);
        self.end(false);
    }
}
