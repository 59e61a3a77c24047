//! What a client is told when its request was not let go: status, body and reason by outcome.
//!
//! In: an outcome, its cause and the dialect of the configuration. Out: a [`Refusal`].
//! Words and numbers are EPP's (its v1.2 admission and error types) or llm-d's; nothing here waits,
//! counts or sends.

use alloc::format;
use alloc::string::String;

use super::{Outcome, Refusal};

/// Whose statuses are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// EPP of Gateway API Inference Extension: 503 for a time-out, no reason header.
    #[default]
    Epp,
    /// llm-d's router: 429 for a time-out, 503 for stopping, and `x-llm-d-request-dropped-reason`.
    LlmD,
}

/// Why an outcome came about, where the outcome alone does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A limit in requests or bytes.
    Capacity,
    /// The caller left.
    CallerLeft,
    /// Given up for a request of higher priority.
    Displaced,
    /// The pool has no endpoint.
    NoEndpoints,
    /// May be shed, and the pool is full.
    Sheddable,
    /// Flow control is stopping.
    Stopping,
    /// Its time in the queue is over.
    TimedOut,
    /// The companion could not be asked and the configuration says to fail closed.
    Unreachable,
}

/// Name of llm-d's header that carries [`Refusal::reason`].
pub const REASON_HEADER: &str = "x-llm-d-request-dropped-reason";

impl Refusal {
    /// What to tell the client after `outcome` for `cause`; `retry_after_seconds` 0 leaves the header out.
    #[must_use]
    pub fn new(outcome: Outcome, cause: Cause, dialect: Dialect, retry_after_seconds: u32) -> Self {
        let (status, code) = status(outcome, cause, dialect);
        let reason = match dialect {
            Dialect::Epp => String::new(),
            Dialect::LlmD => reason(cause).into(),
        };
        Self {
            status,
            body: format!("inference gateway: {code} - {}", message(outcome, cause)),
            reason,
            retry_after_seconds,
            unavailable: matches!(cause, Cause::Stopping | Cause::Unreachable),
        }
    }
}

/// HTTP status and EPP's error code.
const fn status(outcome: Outcome, cause: Cause, dialect: Dialect) -> (u32, &'static str) {
    match (outcome, cause, dialect) {
        (Outcome::RejectedCapacity, ..) | (_, Cause::Displaced, _) => (429, "InferencePoolResourceExhausted"),
        (Outcome::EvictedTtl, _, Dialect::LlmD) => (429, "ResourceExhausted"),
        (Outcome::EvictedTtl | Outcome::EvictedContextCancelled, ..)
        | (Outcome::RejectedNoEndpoints | Outcome::EvictedNoEndpoints, ..)
        | (_, Cause::Unreachable, _)
        | (_, Cause::Stopping, Dialect::LlmD) => (503, "ServiceUnavailable"),
        _ => (500, "Internal"),
    }
}

/// EPP's prefix by outcome, then its chain of errors: which side of the queue, and why.
fn message(outcome: Outcome, cause: Cause) -> String {
    let why = match cause {
        Cause::Capacity => "queue at capacity",
        Cause::CallerLeft => "request context cancelled",
        Cause::Displaced => "displaced by a request of higher priority",
        Cause::NoEndpoints => "no endpoints in the pool",
        Cause::Sheddable => return "system saturated, sheddable request dropped".into(),
        Cause::Stopping => "flow controller is not running",
        Cause::TimedOut => "request TTL expired",
        Cause::Unreachable => return "flow control could not be reached".into(),
    };
    match outcome {
        Outcome::RejectedCapacity => format!("request rejected pre-queue: {why}"),
        Outcome::EvictedTtl => format!("request timed out in queue: request evicted from queue: {why}"),
        Outcome::EvictedContextCancelled => format!("client disconnected: request evicted from queue: {why}"),
        Outcome::RejectedNoEndpoints => format!("request rejected pre-queue: {why}"),
        Outcome::EvictedNoEndpoints => format!("request evicted from queue: {why}"),
        Outcome::RejectedOther => format!("internal flow control error: request rejected pre-queue: {why}"),
        _ => format!("internal flow control error: request evicted from queue: {why}"),
    }
}

/// llm-d's words for the reason header.
const fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::Capacity | Cause::Sheddable => "rejected-saturated",
        Cause::CallerLeft => "rejected-context-cancelled",
        Cause::Displaced => "evicted-queue-pressure",
        Cause::NoEndpoints => "rejected-no-endpoints",
        Cause::Stopping | Cause::Unreachable => "rejected-shutting-down",
        Cause::TimedOut => "rejected-ttl-expired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcome: Outcome, cause: Cause, dialect: Dialect) -> (u32, String, String) {
        let refusal = Refusal::new(outcome, cause, dialect, 0);
        (refusal.status, refusal.body, refusal.reason)
    }

    /// Expected words: EPP v1.2.0 `pkg/epp/requestcontrol/admission.go`, `flowcontrol/types/errors.go`,
    /// `util/error/error.go`.
    #[test]
    fn a_time_out_and_a_full_queue_read_as_in_epp() {
        assert_eq!(
            told(Outcome::EvictedTtl, Cause::TimedOut, Dialect::Epp),
            (
                503,
                "inference gateway: ServiceUnavailable - request timed out in queue: request evicted from queue: \
                 request TTL expired"
                    .into(),
                String::new()
            )
        );
        assert_eq!(
            told(Outcome::RejectedCapacity, Cause::Capacity, Dialect::Epp),
            (
                429,
                "inference gateway: InferencePoolResourceExhausted - request rejected pre-queue: queue at capacity"
                    .into(),
                String::new()
            )
        );
        assert_eq!(
            told(Outcome::RejectedCapacity, Cause::Sheddable, Dialect::Epp).1,
            "inference gateway: InferencePoolResourceExhausted - system saturated, sheddable request dropped"
        );
    }

    #[test]
    fn llm_d_answers_429_to_a_time_out_and_names_the_reason() {
        let (status, _, reason) = told(Outcome::EvictedTtl, Cause::TimedOut, Dialect::LlmD);
        assert_eq!((status, reason.as_str()), (429, "rejected-ttl-expired"));
        let (status, _, reason) = told(Outcome::EvictedNoEndpoints, Cause::NoEndpoints, Dialect::LlmD);
        assert_eq!((status, reason.as_str()), (503, "rejected-no-endpoints"));
        let (status, _, reason) = told(Outcome::RejectedOther, Cause::Stopping, Dialect::LlmD);
        assert_eq!((status, reason.as_str()), (503, "rejected-shutting-down"));
    }

    #[test]
    fn stopping_is_an_internal_error_in_epp_and_tells_the_filter_to_act_as_if_alone() {
        let refusal = Refusal::new(Outcome::EvictedOther, Cause::Stopping, Dialect::Epp, 0);
        assert_eq!(refusal.status, 500);
        assert!(refusal.unavailable);
        assert!(!Refusal::new(Outcome::EvictedTtl, Cause::TimedOut, Dialect::Epp, 0).unavailable);
    }

    #[test]
    fn an_unreachable_companion_is_a_503_with_a_clear_body() {
        let (status, body, _) = told(Outcome::RejectedOther, Cause::Unreachable, Dialect::Epp);
        assert_eq!(
            (status, body.as_str()),
            (503, "inference gateway: ServiceUnavailable - flow control could not be reached")
        );
    }
}
