//! One question's place: from entering until it is decided or its caller has gone.
//!
//! In: the decision. Out: the answer, once. Dropping it before that is leaving. It is kept small, because a hundred
//! thousand of them may wait.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tally_core::admission::reply::Cause;
use tally_core::admission::{EnqueueAndWaitResponse, Outcome};
use tokio::sync::oneshot;

use super::gate::Gate;
use super::queue::RequestId;

/// See the file's head.
#[derive(Debug)]
#[must_use = "a place that is dropped is given up"]
pub struct Place<'a> {
    pub(super) gate: &'a Gate,
    /// Its name in the queue; none if it was refused.
    pub(super) request: RequestId,
    /// Until it is answered.
    pub(super) decided: Option<oneshot::Receiver<Answer>>,
    /// Who asks, and the caller's number of the request.
    pub(super) caller: (u64, u64),
}

/// What was decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) cause: Option<Cause>,
    pub(super) priority: i32,
    pub(super) waited_nanos: u64,
}

impl Answer {
    /// Of a gate that is no longer there, or to who asks again after the answer.
    const STOPPED: Self =
        Self { outcome: Outcome::RejectedOther, cause: Some(Cause::Stopping), priority: 0, waited_nanos: 0 };
}

impl Future for Place<'_> {
    type Output = EnqueueAndWaitResponse;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<EnqueueAndWaitResponse> {
        let answer = match &mut self.decided {
            Some(decided) => ready!(Pin::new(decided).poll(context)).unwrap_or(Answer::STOPPED),
            None => Answer::STOPPED,
        };
        self.decided = None;
        Poll::Ready(self.gate.respond(answer))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(decided) = self.decided.take() {
            self.gate.leave(self.request, decided, self.caller);
        }
    }
}
