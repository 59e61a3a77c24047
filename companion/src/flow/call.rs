//! One gRPC call: a question that is read, waits and is answered, or a stream of reports.
//!
//! In: a method, a body, the way to answer. Out: what is told to the gate, the answer. It never decides: a call that its
//! caller resets is dropped, and the gate takes that as leaving.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tally_core::admission::{ENQUEUE_AND_WAIT, EnqueueAndWaitRequest, REPORT, ReportRequest, ReportResponse, SERVICE};
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::place::Place;
use super::wire::{self, Messages, Status};

/// A method of `tally.admission.v1.FlowControl`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    EnqueueAndWait,
    Report,
}

impl Method {
    pub(super) fn of(path: &str) -> Option<Self> {
        match path.strip_prefix('/')?.split_once('/')? {
            (SERVICE, ENQUEUE_AND_WAIT) => Some(Self::EnqueueAndWait),
            (SERVICE, REPORT) => Some(Self::Report),
            _ => None,
        }
    }
}

/// A question that waits. Of all that belongs to a call only this is kept meanwhile.
pub(super) struct Waiting<'a> {
    place: Place<'a>,
    respond: SendResponse<Bytes>,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Before the decision: who has gone will not run, and the drop says so.
        if self.respond.poll_reset(context).is_ready() {
            return Poll::Ready(());
        }
        let answer = ready!(Pin::new(&mut self.place).poll(context));
        wire::answer(&mut self.respond, &answer);
        Poll::Ready(())
    }
}

/// Reads a call: the question it puts, or all its reports. A call that was reset or refused puts none.
pub(super) async fn read<'a>(
    method: Method,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    gate: &'a Gate,
    closing: &CancellationToken,
) -> Option<Waiting<'a>> {
    let read = match method {
        Method::EnqueueAndWait => {
            question(&mut body).await.map(|question| question.map(|question| gate.ask(&question)))
        }
        Method::Report => {
            let ended = tokio::select! {
                ended = reports(&mut body, gate) => ended,
                () = closing.cancelled() => Ok(Some(())),
            };
            if matches!(ended, Ok(Some(()))) {
                wire::answer(&mut respond, &ReportResponse {});
            }
            ended.map(|_| None)
        }
    };
    match read {
        Ok(place) => Some(Waiting { place: place?, respond }),
        Err(status) => {
            wire::refuse(&mut respond, status);
            None
        }
    }
}

/// The call's one message; `None` if the caller has gone.
async fn question(body: &mut RecvStream) -> Result<Option<EnqueueAndWaitRequest>, Status> {
    let mut messages = Messages::new(MAX_QUESTION_BYTES);
    while let Some(piece) = piece(body).await {
        let Some(piece) = piece else { return Ok(None) };
        messages.push(&piece);
        if let Some(question) = messages.next()? {
            return Ok(Some(question));
        }
    }
    Err(Status::BROKEN)
}

/// Passes reports on until the stream ends; `None` if it was broken off.
async fn reports(body: &mut RecvStream, gate: &Gate) -> Result<Option<()>, Status> {
    let mut messages = Messages::new(MAX_REPORT_BYTES);
    while let Some(piece) = piece(body).await {
        let Some(piece) = piece else { return Ok(None) };
        messages.push(&piece);
        while let Some(report) = messages.next::<ReportRequest>()? {
            if report.reporter == 0 {
                return Err(Status::invalid("reporter: expected a number other than 0"));
            }
            gate.report(&report);
        }
    }
    Ok(Some(()))
}

/// The next piece of a body, `Some(None)` if the stream was reset. It gives the sender its room back at once.
async fn piece(body: &mut RecvStream) -> Option<Option<Bytes>> {
    let piece = body.data().await?.ok();
    if let Some(piece) = &piece {
        let _ = body.flow_control().release_capacity(piece.len());
    }
    Some(piece)
}

/// A question is names and numbers.
const MAX_QUESTION_BYTES: usize = 64 << 10;
/// A report lists thousands of requests at most.
const MAX_REPORT_BYTES: usize = 1 << 20;
