//! One caller's connection: HTTP/2 with as many calls open as there are requests waiting.
//!
//! In: a socket. Out: answered calls. The HTTP/2 library is used as it is, without a server framework on top, so that a
//! call that waits costs its stream and its place and no more: no task, no headers, no buffers. It ends when the peer
//! goes or is silent, or after `closing` when the last call has its answer.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream};
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::call::{self, Method, Waiting};
use super::gate::Gate;
use super::sips::{Leave, Sips};
use super::wire::{self, Status};

/// Serves one connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    gate: &Gate,
    closing: &CancellationToken,
) -> Result<(), h2::Error> {
    let (socket, leave) = Sips::of(socket);
    let greeting = greet(settings().handshake::<_, Bytes>(socket), &leave);
    // A peer that does not speak up would hold a place.
    let Ok(connection) = tokio::time::timeout(GREETING_TIMEOUT, greeting).await else { return Ok(()) };
    let mut connection = connection?;
    let mut heart = Heart::new(connection.ping_pong());
    let mut calls = Calls { gate, closing, reading: FuturesUnordered::new(), waiting: FuturesUnordered::new() };
    let mut closed = pin!(closing.cancelled());
    let mut is_closing = false;
    std::future::poll_fn(move |context| {
        if !is_closing && closed.as_mut().poll(context).is_ready() {
            is_closing = true;
            connection.graceful_shutdown();
        }
        if heart.has_stopped(context) {
            return Poll::Ready(Ok(()));
        }
        let mut are_all_taken = true;
        loop {
            if are_all_taken {
                leave.give();
            }
            are_all_taken = false;
            let mut is_idle = true;
            // Answers are written at the next look at the socket: many calls share one.
            for _ in 0..CALLS_AT_ONCE {
                match connection.poll_accept(context) {
                    Poll::Ready(Some(Ok((request, respond)))) => calls.begin(request, respond),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => {
                        are_all_taken = true;
                        break;
                    }
                }
                is_idle = false;
            }
            if !calls.go_on(context) && is_idle && !leave.was_missed() {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// The peer's first bytes may come in many reads.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    mut handshake: Handshake<S, Bytes>,
    leave: &Leave,
) -> Result<Connection<S, Bytes>, h2::Error> {
    std::future::poll_fn(|context| {
        loop {
            leave.give();
            let greeted = Pin::new(&mut handshake).poll(context);
            if greeted.is_ready() || !leave.was_missed() {
                return greeted;
            }
        }
    })
    .await
}

/// For callers that hold many calls open and drop many at once.
fn settings() -> Builder {
    let mut settings = h2::server::Builder::new();
    settings
        .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
        .max_pending_accept_reset_streams(MAX_CALLS_PER_CONNECTION as usize)
        .max_local_error_reset_streams(Some(MAX_CALLS_PER_CONNECTION as usize))
        .max_header_list_size(MAX_HEAD_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .data_frame_budget(SMALL_FRAMES_BUDGET_BYTES);
    settings
}

/// The calls of a connection.
struct Calls<'a> {
    gate: &'a Gate,
    closing: &'a CancellationToken,
    /// In boxes, so that what reading takes is free again when a question waits.
    reading: FuturesUnordered<Reading<'a>>,
    waiting: FuturesUnordered<Waiting<'a>>,
}

type Reading<'a> = Pin<Box<dyn Future<Output = Option<Waiting<'a>>> + Send + 'a>>;

impl Calls<'_> {
    fn begin(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        match Method::of(request.uri().path()) {
            Some(method) => {
                // The headers go here.
                let body = request.into_body();
                self.reading.push(Box::pin(call::read(method, body, respond, self.gate, self.closing)));
            }
            None => wire::refuse(&mut respond, Status::unimplemented("no such method")),
        }
    }

    /// Whether anything was read or answered.
    fn go_on(&mut self, context: &mut Context<'_>) -> bool {
        let mut has_moved = false;
        while let Poll::Ready(Some(read)) = Pin::new(&mut self.reading).poll_next(context) {
            has_moved = true;
            self.waiting.extend(read);
        }
        while let Poll::Ready(Some(())) = Pin::new(&mut self.waiting).poll_next(context) {
            has_moved = true;
        }
        has_moved
    }
}

/// Asks the peer now and then whether it is there: a machine that has gone closes no connection.
struct Heart {
    ping: Option<PingPong>,
    beats: Interval,
    /// Beats since the question that has no answer yet.
    missed: Option<u32>,
}

impl Heart {
    fn new(ping: Option<PingPong>) -> Self {
        let mut beats = tokio::time::interval(BEAT);
        // After this process was stopped for a while, the peer gets its time again.
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ping, beats, missed: None }
    }

    fn has_stopped(&mut self, context: &mut Context<'_>) -> bool {
        let Some(ping) = &mut self.ping else { return false };
        while self.beats.poll_tick(context).is_ready() {
            self.missed = match self.missed {
                Some(MAX_MISSED..) => return true,
                Some(missed) => Some(missed + 1),
                None => ping.send_ping(Ping::opaque()).is_ok().then_some(0),
            };
        }
        // Asked also to be woken. A broken connection shows elsewhere.
        if self.missed.is_some() && ping.poll_pong(context).is_ready() {
            self.missed = None;
        }
        false
    }
}

/// An Envoy worker keeps one connection; each request that waits is one call on it.
const MAX_CALLS_PER_CONNECTION: u32 = 1 << 20;
/// Calls taken before what they ask is looked at, and answered in one write.
const CALLS_AT_ONCE: usize = 64;
/// gRPC's headers of a call.
const MAX_HEAD_BYTES: u32 = 16 << 10;
/// Questions are read as they come; this is room for what is under way.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Most of one call that is held unread.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The HTTP/2 library closes a connection for small frames that nobody has read yet, each counted as a quarter of a
/// kilobyte: by itself beyond about 2,000 questions sent at once. This is room for 60,000.
const SMALL_FRAMES_BUDGET_BYTES: usize = 16 << 20;
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that answers none of three questions is gone.
const BEAT: Duration = Duration::from_secs(5);
const MAX_MISSED: u32 = 2;
