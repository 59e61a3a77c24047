//! What admission needs of the fake Envoy: calls to a gRPC service, paused streams, answers by the filter itself.
//!
//! What crashes the real Envoy aborts the test: to act on a stream that has ended, was answered, or is not paused.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::{CONTINUE, Envoy, OK, Stream, called, text, with};

/// `Action::Pause`.
const PAUSE: u32 = 1;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INTERNAL_FAILURE: u32 = 10;

thread_local! {
    /// Tokens are not used again, as the SDK demands, even by a second Envoy in one test.
    static TOKENS: Cell<u32> = const { Cell::new(0) };
}

/// Where a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its head is being handed to the filter, or has not come.
    Head,
    /// Paused in its head.
    Paused,
    /// The request has gone on.
    Gone,
    /// The filter has answered it.
    Answered(Reply),
    /// Envoy has ended it, and may not have deleted it.
    Over,
}

/// An answer by the filter itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// A call or a stream of messages.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Context that dispatched it.
    pub context: u32,
    /// Upstream as Envoy got it.
    pub upstream: Vec<u8>,
    /// Service and method.
    pub path: String,
    /// Messages so far.
    pub messages: Vec<Vec<u8>>,
    pub timeout_ms: u32,
    pub is_stream: bool,
}

#[derive(Default)]
pub struct Grpc {
    /// The message that is being handed over.
    pub answer: Vec<u8>,
    pub(super) streams: BTreeMap<u32, Place>,
    deleted: BTreeSet<u32>,
    open: BTreeMap<u32, Call>,
    cancelled: Vec<u32>,
    /// What calls act on.
    context: u32,
}

/// Envoy calls the filter for this context.
pub fn calling(context: u32) {
    with(|state| state.grpc.context = context);
}

fn crash(why: &str) -> ! {
    eprintln!("Envoy would crash: {why}");
    std::process::abort()
}

/// Takes the stream on to `next`, which is legal only while it is paused (or, for an answer, in its head).
fn act(next: Place) -> u32 {
    with(|state| {
        let context = state.grpc.context;
        let place = state.grpc.streams.get_mut(&context).unwrap_or_else(|| crash("this is no stream"));
        match (&place, &next) {
            (Place::Paused, _) | (Place::Head, Place::Answered(_)) => *place = next,
            (place, next) => crash(&format!("stream {context} is {place:?} and would become {next:?}")),
        }
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_continue_stream(kind: u32) -> u32 {
    assert_eq!(kind, 0, "only requests are resumed");
    with(|state| called(state, "continue_stream"));
    act(Place::Gone)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_send_local_response(
    status: u32,
    _details: *const u8,
    _details_size: usize,
    body: *const u8,
    body_size: usize,
    headers: *const u8,
    headers_size: usize,
    _grpc_status: i32,
) -> u32 {
    let (body, headers) = unsafe { (text(body, body_size), text(headers, headers_size)) };
    with(|state| called(state, "send_local_response"));
    let body = String::from_utf8(body.to_vec()).unwrap();
    act(Place::Answered(Reply { status, headers: pairs(headers), body }))
}

/// Reads the SDK's form of a header map: a count, sizes of names and values, then each ended by a zero.
fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let number = |at: usize| u32::from_le_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap()) as usize;
    let count = number(0);
    let mut at = 4 + count * 8;
    let mut take = |size: usize| {
        let value = String::from_utf8(bytes[at..at + size].to_vec()).unwrap();
        at += size + 1;
        value
    };
    (0..count).map(|pair| (take(number(1 + pair * 2)), take(number(2 + pair * 2)))).collect()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_effective_context(id: u32) -> u32 {
    with(|state| {
        // A stream that was answered or logged and not yet deleted is still known, as in Envoy: that is the trap.
        if state.grpc.deleted.contains(&id) {
            return BAD_ARGUMENT;
        }
        state.grpc.context = id;
        OK
    })
}

fn open(call: Call, token: *mut u32) -> u32 {
    with(|state| {
        let name = if call.is_stream { "grpc_stream" } else { "grpc_call" };
        if called(state, name).is_some() {
            return INTERNAL_FAILURE;
        }
        // Calls have odd numbers and streams even ones, as in Envoy.
        TOKENS.set(TOKENS.get() + 2);
        let number = TOKENS.get() + u32::from(!call.is_stream);
        let context = state.grpc.context;
        assert!(!(call.is_stream && state.grpc.streams.contains_key(&context)), "streams are the root's");
        state.grpc.open.insert(number, Call { context, ..call });
        // SAFETY: a pointer to a local of the SDK.
        unsafe { *token = number };
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_grpc_call(
    upstream: *const u8,
    upstream_size: usize,
    service: *const u8,
    service_size: usize,
    method: *const u8,
    method_size: usize,
    _metadata: *const u8,
    _metadata_size: usize,
    message: *const u8,
    message_size: usize,
    timeout_ms: u32,
    token: *mut u32,
) -> u32 {
    let part = |data, size| unsafe { text(data, size) }.to_vec();
    let name = |data, size| String::from_utf8(part(data, size)).unwrap();
    let call = Call {
        upstream: part(upstream, upstream_size),
        path: format!("{}/{}", name(service, service_size), name(method, method_size)),
        messages: vec![part(message, message_size)],
        timeout_ms,
        ..Call::default()
    };
    open(call, token)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_grpc_stream(
    upstream: *const u8,
    upstream_size: usize,
    service: *const u8,
    service_size: usize,
    method: *const u8,
    method_size: usize,
    _metadata: *const u8,
    _metadata_size: usize,
    token: *mut u32,
) -> u32 {
    let part = |data, size| unsafe { text(data, size) }.to_vec();
    let name = |data, size| String::from_utf8(part(data, size)).unwrap();
    let path = format!("{}/{}", name(service, service_size), name(method, method_size));
    open(Call { upstream: part(upstream, upstream_size), path, is_stream: true, ..Call::default() }, token)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_grpc_send(token: u32, message: *const u8, size: usize, _end: bool) -> u32 {
    let message = unsafe { text(message, size) }.to_vec();
    with(|state| {
        if called(state, "grpc_send").is_some() {
            return NOT_FOUND;
        }
        match state.grpc.open.get_mut(&token) {
            Some(call) if call.is_stream => call.messages.push(message),
            _ => return NOT_FOUND,
        }
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_grpc_cancel(token: u32) -> u32 {
    with(|state| {
        called(state, "grpc_cancel");
        if state.grpc.open.remove(&token).is_none() {
            return NOT_FOUND;
        }
        state.grpc.cancelled.push(token);
        OK
    })
}

unsafe extern "C" {
    fn proxy_on_grpc_receive(id: u32, token: u32, size: usize);
    fn proxy_on_grpc_close(id: u32, token: u32, status: u32);
}

impl Envoy {
    pub(super) fn created(&self, id: u32) {
        with(|state| state.grpc.streams.insert(id, Place::Head));
    }

    /// Calls that wait for an answer, oldest first.
    pub fn grpc_calls(&self) -> Vec<(u32, Call)> {
        with(|state| {
            let calls = state.grpc.open.iter().filter(|(_, call)| !call.is_stream);
            calls.map(|(token, call)| (*token, call.clone())).collect()
        })
    }

    /// Streams that are open.
    pub fn grpc_streams(&self) -> Vec<(u32, Call)> {
        with(|state| {
            let streams = state.grpc.open.iter().filter(|(_, call)| call.is_stream);
            streams.map(|(token, call)| (*token, call.clone())).collect()
        })
    }

    /// Calls that the filter has cancelled.
    pub fn cancelled(&self) -> Vec<u32> {
        with(|state| state.grpc.cancelled.clone())
    }

    /// The service answers a call; Envoy itself would not if the call was cancelled, a test may.
    pub fn grpc_answer(&self, token: u32, message: &[u8]) {
        with(|state| {
            state.grpc.answer = message.to_vec();
            state.grpc.open.remove(&token);
        });
        calling(self.root());
        unsafe { proxy_on_grpc_receive(self.root(), token, message.len()) };
    }

    /// A call or a stream ends with this status.
    pub fn grpc_close(&self, token: u32, status: u32) {
        with(|state| state.grpc.open.remove(&token));
        calling(self.root());
        unsafe { proxy_on_grpc_close(self.root(), token, status) };
    }
}

impl Stream {
    /// Hands the head over; the stream is paused if the filter says so and has not answered.
    pub(super) fn in_head(&self, call: impl FnOnce() -> u32) {
        calling(self.id);
        let action = call();
        with(|state| {
            let place = state.grpc.streams.get_mut(&self.id).unwrap();
            match (&place, action) {
                (Place::Head, CONTINUE) => *place = Place::Gone,
                (Place::Head, PAUSE) => *place = Place::Paused,
                (Place::Answered(_), PAUSE) => {}
                (place, action) => crash(&format!("action {action} in {place:?}")),
            }
        });
    }

    pub(super) fn over(&self) {
        calling(self.id);
        with(|state| state.grpc.streams.insert(self.id, Place::Over));
    }

    pub(super) fn deleted(&self) {
        with(|state| state.grpc.deleted.insert(self.id));
    }

    /// Envoy logs it, since the client has left, and has not deleted it.
    pub fn leave(&self) {
        super::leave(self.id);
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        with(|state| state.grpc.streams[&self.id].clone())
    }

    /// Envoy passes the filter's own answer through its response callbacks.
    pub fn pass_reply(&self) -> Reply {
        let Place::Answered(reply) = self.place() else { panic!("{:?}", self.place()) };
        self.response_head(&reply.status.to_string(), "text/plain", false);
        self.response_body(reply.body.as_bytes(), true);
        reply
    }
}
