//! The filter's side of admission: the question about a request's head, and what the answer means.
//!
//! In: header values as bytes, the companion's answer. Out: the encoded question; a [`Verdict`]. It never waits and
//! never talks to anybody. A broken answer is no decision, never a refusal.

use alloc::string::String;
use alloc::vec::Vec;

use prost::Message;

use super::reply::{Cause, Dialect};
use super::{Completed, EnqueueAndWaitRequest, EnqueueAndWaitResponse, Outcome, Refusal, ReportRequest, Running};
use crate::config::Admission;

/// Header with the time to first token that the client hopes for, in milliseconds; EPP's name.
pub const FIRST_TOKEN_HEADER: &str = "x-slo-ttft-ms";
/// Longest name that is passed on: longer ones are cut, so that a client cannot fill the companion's memory.
pub const MAX_NAME_BYTES: usize = 200;
/// `retry-after` of a refusal for want of a companion, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// What the filter reads of a request's head for the question; empty values are absent headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct AskHead<'a> {
    /// Whose turn it is.
    pub fairness_id: &'a [u8],
    /// Name of the objective.
    pub objective: &'a [u8],
    /// `content-length`.
    pub content_length: &'a [u8],
    /// Model that the request was rewritten to.
    pub target_model: &'a [u8],
    /// [`FIRST_TOKEN_HEADER`].
    pub first_token: &'a [u8],
}

/// What the answer means for the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go.
    Go,
    /// The client is told this.
    Refuse(Refusal),
    /// There is no decision: the companion could not be reached, is stopping, or said nothing that can be understood.
    NoDecision,
}

/// The question about a request, encoded. `reporter` and `request` name it for the report stream.
#[must_use]
pub fn question(config: &Admission, head: &AskHead<'_>, reporter: u64, request: u64) -> Vec<u8> {
    let objective = name(head.objective);
    let question = EnqueueAndWaitRequest {
        fairness_id: name(head.fairness_id),
        priority: config.priority(&objective),
        objective,
        bytes: number(head.content_length),
        model: String::new(),
        target_model: name(head.target_model),
        patience_millis: config.timeout_ms,
        first_token_millis: u32::try_from(number(head.first_token)).unwrap_or(0),
        reporter,
        request,
    };
    question.encode_to_vec()
}

/// What an answer with this gRPC status and message means.
#[must_use]
pub fn verdict(status: u32, message: &[u8]) -> Verdict {
    if status != 0 {
        return Verdict::NoDecision;
    }
    let Ok(answer) = EnqueueAndWaitResponse::decode(message) else { return Verdict::NoDecision };
    match (answer.outcome(), answer.refusal) {
        (Outcome::Dispatched, _) => Verdict::Go,
        (Outcome::Unspecified, _) | (_, None) => Verdict::NoDecision,
        (_, Some(refusal)) if refusal.unavailable || !(400..600).contains(&refusal.status) => Verdict::NoDecision,
        (_, Some(refusal)) => Verdict::Refuse(refusal),
    }
}

/// A message of the report stream: what has ended, and, from time to time, all that runs.
#[must_use]
pub fn report(reporter: u64, completed: Vec<Completed>, running: Option<Vec<u64>>) -> Vec<u8> {
    let running = running.map(|requests| Running { requests });
    ReportRequest { reporter, completed, running }.encode_to_vec()
}

/// What the client is told if there is no decision and the configuration says to fail closed.
#[must_use]
pub fn unreachable() -> Refusal {
    Refusal::new(Outcome::RejectedOther, Cause::Unreachable, Dialect::Epp, RETRY_AFTER_SECONDS)
}

/// Envoy's `envoy.config.core.v3.GrpcService` for a cluster. The bare name would do only for names that do not happen to
/// be a protobuf message, which `admission` for one is.
#[must_use]
pub fn grpc_service(cluster: &str) -> String {
    let service = GrpcService { envoy_grpc: Some(EnvoyGrpc { cluster_name: cluster.into() }) };
    // Tags and lengths of a short name are below 128, so that the message is ASCII as the name is.
    String::from_utf8(service.encode_to_vec()).unwrap_or_default()
}

#[derive(Clone, PartialEq, Eq, Message)]
struct GrpcService {
    #[prost(message, optional, tag = "1")]
    envoy_grpc: Option<EnvoyGrpc>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct EnvoyGrpc {
    #[prost(string, tag = "1")]
    cluster_name: String,
}

/// A header's value as a name: text, and not too long.
fn name(value: &[u8]) -> String {
    let cut = value.get(..MAX_NAME_BYTES).unwrap_or(value);
    let mut text = String::from_utf8_lossy(cut).into_owned();
    while text.len() > MAX_NAME_BYTES {
        text.pop();
    }
    text
}

/// A header's value as a number; 0 if it is none.
fn number(value: &[u8]) -> u64 {
    core::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn asked(config: &Admission, head: &AskHead<'_>) -> EnqueueAndWaitRequest {
        EnqueueAndWaitRequest::decode(&question(config, head, 7, 8)[..]).unwrap()
    }

    #[test]
    fn a_question_carries_what_the_head_says() {
        let config = Admission { objectives: vec![("batch".into(), -1)], timeout_ms: 5_000, ..Admission::default() };
        let head = AskHead {
            fairness_id: b"alice",
            objective: b"batch",
            content_length: b"1234",
            target_model: b"m-v2",
            first_token: b"300",
        };
        let expected = EnqueueAndWaitRequest {
            fairness_id: "alice".into(),
            objective: "batch".into(),
            priority: Some(-1),
            bytes: 1_234,
            model: String::new(),
            target_model: "m-v2".into(),
            patience_millis: 5_000,
            first_token_millis: 300,
            reporter: 7,
            request: 8,
        };
        assert_eq!(asked(&config, &head), expected);
    }

    #[test]
    fn an_objective_that_the_configuration_does_not_know_is_left_to_the_companion() {
        let found = asked(&Admission::default(), &AskHead { objective: b"premium", ..AskHead::default() });
        assert_eq!((found.objective.as_str(), found.priority), ("premium", None));
    }

    #[test]
    fn hostile_header_values_are_cut_and_made_text() {
        let head =
            AskHead { fairness_id: &[0xff; 1_000], content_length: b"-1", first_token: b"9e9", ..AskHead::default() };
        let found = asked(&Admission::default(), &head);
        assert!(found.fairness_id.len() <= MAX_NAME_BYTES && !found.fairness_id.is_empty());
        assert_eq!((found.bytes, found.first_token_millis), (0, 0));
    }

    fn answer(outcome: Outcome, refusal: Option<Refusal>) -> Vec<u8> {
        EnqueueAndWaitResponse { outcome: outcome as i32, refusal, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn only_a_clear_answer_is_a_decision() {
        let refusal = Refusal { status: 429, body: "full".into(), ..Refusal::default() };
        assert_eq!(verdict(0, &answer(Outcome::Dispatched, None)), Verdict::Go);
        let refused = answer(Outcome::RejectedCapacity, Some(refusal.clone()));
        assert_eq!(verdict(0, &refused), Verdict::Refuse(refusal.clone()));
        let stopping = Refusal { unavailable: true, ..refusal.clone() };
        let odd = Refusal { status: 200, ..refusal };
        for (status, message) in [
            (14, Vec::new()),
            (8, refused),
            (0, Vec::new()),
            (0, b"\xff\xff".to_vec()),
            (0, answer(Outcome::Unspecified, None)),
            (0, answer(Outcome::EvictedTtl, None)),
            (0, answer(Outcome::EvictedOther, Some(stopping))),
            (0, answer(Outcome::EvictedOther, Some(odd))),
        ] {
            assert_eq!(verdict(status, &message), Verdict::NoDecision, "{status} {message:?}");
        }
    }

    /// By hand after `grpc_service.proto`: field 1 is `envoy_grpc`, whose field 1 is `cluster_name`.
    #[test]
    fn a_cluster_is_named_as_envoy_reads_it() {
        assert_eq!(grpc_service("admission"), "\n\x0b\n\tadmission");
    }
}
