//! The question and the answer between filter and companion, as protobuf messages by derive.
//!
//! In: fields. Out: bytes, and back. `core/proto/admission.proto` documents the same messages for
//! other clients; a test here keeps both in step. This file never decides anything: who may go is
//! the companion's; [`ask`] is the filter's side, what a refusal says to the client is in [`reply`].

pub mod ask;
pub mod reply;

use alloc::string::String;
use alloc::vec::Vec;

/// Full name of the gRPC service.
pub const SERVICE: &str = "tally.admission.v1.FlowControl";
/// The unary method that waits.
pub const ENQUEUE_AND_WAIT: &str = "EnqueueAndWait";
/// The client-streaming method that tells what has ended.
pub const REPORT: &str = "Report";
/// The flow of requests that name none, as in EPP.
pub const DEFAULT_FAIRNESS_ID: &str = "default-flow";

/// May this request go to the pool?
#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct EnqueueAndWaitRequest {
    /// Whose turn this is; empty means [`DEFAULT_FAIRNESS_ID`].
    #[prost(string, tag = "1")]
    pub fairness_id: String,
    /// Name of an InferenceObjective, for the priority when `priority` is absent.
    #[prost(string, tag = "2")]
    pub objective: String,
    /// Higher goes first; below zero may be shed.
    #[prost(sint32, optional, tag = "3")]
    pub priority: Option<i32>,
    /// Body bytes as far as known; 0 is not known.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    /// Model asked for, if known.
    #[prost(string, tag = "5")]
    pub model: String,
    /// Model rewritten to, if known.
    #[prost(string, tag = "6")]
    pub target_model: String,
    /// How long the caller waits; 0 is the server's default.
    #[prost(uint32, tag = "7")]
    pub patience_millis: u32,
    /// Hoped time to first token; 0 is none.
    #[prost(uint32, tag = "8")]
    pub first_token_millis: u32,
    /// Who asks, as on its report stream; 0 is nobody.
    #[prost(fixed64, tag = "9")]
    pub reporter: u64,
    /// The caller's number for this request.
    #[prost(uint64, tag = "10")]
    pub request: u64,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct EnqueueAndWaitResponse {
    /// The decision.
    #[prost(enumeration = "Outcome", tag = "1")]
    pub outcome: i32,
    /// Nanoseconds from entering to the decision.
    #[prost(uint64, tag = "2")]
    pub waited_nanos: u64,
    /// The priority that counted.
    #[prost(sint32, tag = "3")]
    pub priority: i32,
    /// What to tell the client; absent when dispatched.
    #[prost(message, optional, tag = "4")]
    pub refusal: Option<Refusal>,
}

/// How a request leaves flow control. The first six names are EPP's, the last two llm-d's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Outcome {
    /// Never sent.
    Unspecified = 0,
    /// Let go.
    Dispatched = 1,
    /// A limit was reached, or it may be shed and the pool is full.
    RejectedCapacity = 2,
    /// Refused before it was queued, otherwise.
    RejectedOther = 3,
    /// Waited as long as allowed.
    EvictedTtl = 4,
    /// The caller left.
    EvictedContextCancelled = 5,
    /// Taken out otherwise.
    EvictedOther = 6,
    /// The pool is empty.
    RejectedNoEndpoints = 7,
    /// Waited its time with the pool empty.
    EvictedNoEndpoints = 8,
}

/// What the client is told.
#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct Refusal {
    /// HTTP status.
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// Plain text.
    #[prost(string, tag = "2")]
    pub body: String,
    /// llm-d's dropped reason; empty if the header is not wanted.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// Seconds for `retry-after`; 0 for no header.
    #[prost(uint32, tag = "4")]
    pub retry_after_seconds: u32,
    /// Flow control is stopping: act as if it could not be reached.
    #[prost(bool, tag = "5")]
    pub unavailable: bool,
}

/// One message of a caller's report stream.
#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct ReportRequest {
    /// Who reports.
    #[prost(fixed64, tag = "1")]
    pub reporter: u64,
    /// What has ended since the last message.
    #[prost(message, repeated, tag = "2")]
    pub completed: Vec<Completed>,
    /// All that is still running, from time to time.
    #[prost(message, optional, tag = "3")]
    pub running: Option<Running>,
}

/// A request that has ended, whatever ended it.
#[derive(Clone, Copy, PartialEq, Eq, ::prost::Message)]
pub struct Completed {
    /// [`EnqueueAndWaitRequest::request`].
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// Prompt tokens by the model server; 0 is not known.
    #[prost(uint64, tag = "2")]
    pub prompt_tokens: u64,
    /// Output tokens by the model server; 0 is not known.
    #[prost(uint64, tag = "3")]
    pub output_tokens: u64,
}

/// The requests a caller still has running.
#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct Running {
    /// [`EnqueueAndWaitRequest::request`] of each.
    #[prost(uint64, repeated, tag = "1")]
    pub requests: Vec<u64>,
}

/// The end of a report stream; says nothing.
#[derive(Clone, Copy, PartialEq, Eq, ::prost::Message)]
pub struct ReportResponse {}

impl Outcome {
    /// Every outcome that a request can have.
    pub const ALL: [Self; 8] = [
        Self::Dispatched,
        Self::RejectedCapacity,
        Self::RejectedOther,
        Self::EvictedTtl,
        Self::EvictedContextCancelled,
        Self::EvictedOther,
        Self::RejectedNoEndpoints,
        Self::EvictedNoEndpoints,
    ];

    /// Value of the `outcome` label, in EPP's spelling.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unspecified => "NotYetFinalized",
            Self::Dispatched => "Dispatched",
            Self::RejectedCapacity => "RejectedCapacity",
            Self::RejectedOther => "RejectedOther",
            Self::EvictedTtl => "EvictedTTL",
            Self::EvictedContextCancelled => "EvictedContextCancelled",
            Self::EvictedOther => "EvictedOther",
            Self::RejectedNoEndpoints => "RejectedNoEndpoints",
            Self::EvictedNoEndpoints => "EvictedNoEndpoints",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::ToString, vec};
    use prost::Message;

    const PROTO: &str = include_str!("../proto/admission.proto");

    /// `message.field` to (number, wire type), read from the proto file.
    fn declared() -> Vec<(String, u32, u32)> {
        let mut message = String::new();
        let mut fields = Vec::new();
        for line in PROTO.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            if let Some(name) = line.strip_prefix("message ") {
                message = name.split([' ', '{']).next().unwrap().to_string();
            } else if line.starts_with("enum ") || line.starts_with("service ") || line == "}" {
                message.clear();
            } else if let (false, Some((left, right))) = (message.is_empty(), line.split_once(" = ")) {
                let number = right.trim_end_matches(';').parse().unwrap();
                let words: Vec<&str> = left.split_whitespace().collect();
                let kind = words[words.len() - 2];
                let wire = match kind {
                    "fixed64" => 1,
                    _ if words[0] == "repeated" => 2,
                    "string" | "Refusal" | "Running" => 2,
                    "uint32" | "uint64" | "sint32" | "bool" | "Outcome" => 0,
                    other => panic!("type {other} is not in the table of wire types"),
                };
                fields.push((format!("{message}.{}", words[words.len() - 1]), number, wire));
            }
        }
        fields
    }

    /// First key of the encoded message: the number and wire type of the one field that is set.
    fn key(bytes: &[u8]) -> (u32, u32) {
        (u32::from(bytes[0]) >> 3, u32::from(bytes[0]) & 7)
    }

    /// Every field of every message, each set alone.
    fn written() -> Vec<(String, u32, u32)> {
        let mut fields = Vec::new();
        let mut put = |name: &str, bytes: Vec<u8>| {
            let (number, wire) = key(&bytes);
            fields.push((name.to_string(), number, wire));
        };
        macro_rules! each {
            ($message:ident: $($field:ident = $value:expr),*) => {
                $(put(
                    concat!(stringify!($message), ".", stringify!($field)),
                    #[allow(clippy::needless_update)]
                    $message { $field: $value, ..Default::default() }.encode_to_vec(),
                );)*
            };
        }
        each!(EnqueueAndWaitRequest: fairness_id = "a".into(), objective = "a".into(), priority = Some(-1), bytes = 1,
            model = "a".into(), target_model = "a".into(), patience_millis = 1, first_token_millis = 1, reporter = 1,
            request = 1);
        each!(EnqueueAndWaitResponse: outcome = 1, waited_nanos = 1, priority = 1, refusal = Some(Refusal::default()));
        each!(Refusal: status = 1, body = "a".into(), reason = "a".into(), retry_after_seconds = 1, unavailable = true);
        each!(ReportRequest: reporter = 1, completed = vec![Completed::default()], running = Some(Running::default()));
        each!(Completed: request = 1, prompt_tokens = 1, output_tokens = 1);
        each!(Running: requests = vec![1]);
        fields
    }

    #[test]
    fn every_field_has_the_number_and_type_that_the_proto_file_documents() {
        assert_eq!(declared(), written());
    }

    #[test]
    fn every_outcome_has_the_number_that_the_proto_file_documents() {
        let body = PROTO.split_once("enum Outcome {").and_then(|(_, rest)| rest.split_once('}')).unwrap().0;
        let mut seen = 0;
        for (name, number) in body.lines().filter_map(|line| line.trim().split_once(" = ")) {
            let outcome = Outcome::try_from(number.trim_end_matches(';').parse::<i32>().unwrap()).unwrap();
            let expected = name.trim_start_matches("OUTCOME_").replace('_', "").to_lowercase();
            assert_eq!(format!("{outcome:?}").to_lowercase(), expected);
            seen += 1;
        }
        assert_eq!(seen, Outcome::ALL.len() + 1);
    }

    #[test]
    fn service_and_methods_are_spelled_as_in_the_proto_file() {
        let (package, service) = SERVICE.rsplit_once('.').unwrap();
        assert!(PROTO.contains(&format!("package {package};")));
        assert!(PROTO.contains(&format!("service {service} {{")));
        assert!(
            PROTO.contains(&format!("rpc {ENQUEUE_AND_WAIT}(EnqueueAndWaitRequest) returns (EnqueueAndWaitResponse);"))
        );
        assert!(PROTO.contains(&format!("rpc {REPORT}(stream ReportRequest) returns (ReportResponse);")));
    }

    /// Bytes by hand after the encoding rules: key 1 length-delimited, key 3 zigzag varint, key 9 fixed64.
    #[test]
    fn a_question_has_the_bytes_that_protobuf_prescribes() {
        let question = EnqueueAndWaitRequest {
            fairness_id: "ab".into(),
            priority: Some(-1),
            reporter: 0x0102_0304_0506_0708,
            ..Default::default()
        };
        let bytes = [0x0a, 2, b'a', b'b', 0x18, 1, 0x49, 8, 7, 6, 5, 4, 3, 2, 1];
        assert_eq!(question.encode_to_vec(), bytes);
        assert_eq!(EnqueueAndWaitRequest::decode(&bytes[..]).unwrap(), question);
    }

    #[test]
    fn priority_zero_is_told_from_no_priority() {
        let zero = EnqueueAndWaitRequest { priority: Some(0), ..Default::default() };
        assert_eq!(EnqueueAndWaitRequest::decode(&zero.encode_to_vec()[..]).unwrap().priority, Some(0));
        assert_eq!(EnqueueAndWaitRequest::decode(&[][..]).unwrap().priority, None);
    }
}
