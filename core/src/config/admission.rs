//! The part of the configuration that switches admission on.
//!
//! In: the object under `admission`. Out: an [`Admission`] that cannot be wrong, or one sentence that names the key.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::{ConfigError, Key, header, read_keys, texts, whole};

/// Whom to ask, how long to wait, and what to do without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Envoy's cluster with the companion's gRPC service.
    pub cluster: String,
    /// Milliseconds that a request may wait.
    pub timeout_ms: u32,
    /// What becomes of a request on which there is no decision.
    pub on_failure: OnFailure,
    /// Request headers with the fairness id, the first that is there counts; lower case.
    pub fairness_headers: Vec<String>,
    /// Request headers with the name of the objective, the first that is there counts; lower case.
    pub objective_headers: Vec<String>,
    /// Priorities of objectives that the companion need not know.
    pub objectives: Vec<(String, i32)>,
}

/// What becomes of a request if the companion is gone, slow or talks nonsense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It goes on as if admission were off.
    Open,
    /// The client gets 503.
    Closed,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            cluster: "tallyd".to_string(),
            timeout_ms: 60_000,
            on_failure: OnFailure::Open,
            fairness_headers: FAIRNESS_HEADERS.map(str::to_string).to_vec(),
            objective_headers: OBJECTIVE_HEADERS.map(str::to_string).to_vec(),
            objectives: Vec::new(),
        }
    }
}

/// EPP's name first, then llm-d's.
const FAIRNESS_HEADERS: [&str; 2] = ["x-gateway-inference-fairness-id", "x-llm-d-inference-fairness-id"];
/// EPP's name first, then llm-d's.
const OBJECTIVE_HEADERS: [&str; 2] = ["x-gateway-inference-objective", "x-llm-d-inference-objective"];
/// Longest cluster name: its length has to be one byte in what Envoy is told.
const MAX_CLUSTER_NAME: usize = 120;
/// Most headers in a list: each costs a call to Envoy.
const MAX_HEADERS: usize = 8;

/// All keys under `admission`, in the order docs list them.
pub const KEYS: &[Key<Admission>] = &[
    Key {
        name: "cluster",
        expected: "a cluster name of at most 120 ASCII characters",
        meaning: "Envoy's cluster with the gRPC port of `tallyd serve`. Default: `tallyd`.",
        read: |value, to| cluster(value).map(|name| to.cluster = name),
    },
    Key {
        name: "timeout_ms",
        expected: "a whole number from 1 to 3600000",
        meaning: "Milliseconds a request may wait; the companion is told. If it has not decided one second later it is \
                  taken for gone. Default: 60000.",
        read: |value, to| whole(value, 1, 3_600_000).map(|n| to.timeout_ms = u32::try_from(n).unwrap_or(u32::MAX)),
    },
    Key {
        name: "on_failure",
        expected: "\"open\" or \"closed\"",
        meaning: "What becomes of a request if the companion is gone, slow or answers nonsense: it passes, or gets 503. \
                  Default: `open`.",
        read: |value, to| on_failure(value).map(|choice| to.on_failure = choice),
    },
    Key {
        name: "fairness_headers",
        expected: "a list of at most 8 header names",
        meaning: "Request headers with the fairness id; the first that is there counts. Default: \
                  `x-gateway-inference-fairness-id`, `x-llm-d-inference-fairness-id`.",
        read: |value, to| headers(value).map(|names| to.fairness_headers = names),
    },
    Key {
        name: "objective_headers",
        expected: "a list of at most 8 header names",
        meaning: "Request headers with the name of an InferenceObjective; the first that is there counts. Default: \
                  `x-gateway-inference-objective`, `x-llm-d-inference-objective`.",
        read: |value, to| headers(value).map(|names| to.objective_headers = names),
    },
    Key {
        name: "objectives",
        expected: "an object from objective names to priorities from -1000000 to 1000000",
        meaning: "Priorities of objectives; names that are not here are left to the companion. Default: none.",
        read: |value, to| objectives(value).map(|found| to.objectives = found),
    },
];

impl Admission {
    /// Reads the value of `admission`.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn parse(value: &Value) -> Result<Self, ConfigError> {
        let mut admission = Self::default();
        if let Value::Object(object) = value {
            read_keys(object, KEYS, "admission.", &mut admission)?;
        }
        Ok(admission)
    }

    /// The priority of an objective, if the configuration gives one.
    #[must_use]
    pub fn priority(&self, objective: &str) -> Option<i32> {
        self.objectives.iter().find(|(name, _)| name == objective).map(|(_, priority)| *priority)
    }
}

fn cluster(value: &Value) -> Option<String> {
    let is_good =
        |name: &&str| (1..=MAX_CLUSTER_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    value.as_str().filter(is_good).map(str::to_string)
}

fn on_failure(value: &Value) -> Option<OnFailure> {
    match value.as_str()? {
        "open" => Some(OnFailure::Open),
        "closed" => Some(OnFailure::Closed),
        _ => None,
    }
}

fn headers(value: &Value) -> Option<Vec<String>> {
    texts(value)?;
    let names = value.as_array().filter(|names| names.len() <= MAX_HEADERS)?;
    names.iter().map(header).collect()
}

fn objectives(value: &Value) -> Option<Vec<(String, i32)>> {
    let pair = |(name, priority): (&String, &Value)| {
        let priority = priority.as_i64().filter(|priority| (-1_000_000..=1_000_000).contains(priority))?;
        Some((name.clone(), i32::try_from(priority).ok()?))
    };
    value.as_object()?.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parsed(text: &str) -> Result<Option<Admission>, String> {
        Config::parse(text.as_bytes()).map(|config| config.admission).map_err(|error| error.to_string())
    }

    #[test]
    fn admission_is_off_unless_its_object_is_there() {
        assert_eq!(parsed("{}"), Ok(None));
        assert_eq!(parsed(r#"{"admission":{}}"#), Ok(Some(Admission::default())));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"{"admission":{"cluster":"outbound|9002||tallyd.llm.svc.cluster.local","timeout_ms":5000,
            "on_failure":"closed","fairness_headers":["X-Tenant"],"objective_headers":[],
            "objectives":{"premium":10,"batch":-1}}}"#;
        let found = parsed(text).unwrap().unwrap();
        let expected = Admission {
            cluster: "outbound|9002||tallyd.llm.svc.cluster.local".to_string(),
            timeout_ms: 5_000,
            on_failure: OnFailure::Closed,
            fairness_headers: ["x-tenant".to_string()].to_vec(),
            objective_headers: Vec::new(),
            objectives: [("batch".to_string(), -1), ("premium".to_string(), 10)].to_vec(),
        };
        assert_eq!(found, expected);
        assert_eq!((found.priority("batch"), found.priority("other")), (Some(-1), None));
    }

    #[test]
    fn an_error_names_the_inner_key() {
        for (text, sentence) in [
            (r#"{"admission":true}"#, "configuration key `admission`: expected an object"),
            (
                r#"{"admission":{"on_failure":"ajar"}}"#,
                "configuration key `admission.on_failure`: expected \"open\" or \"closed\", found \"ajar\"",
            ),
            (
                r#"{"admission":{"timeout":5}}"#,
                "configuration key `admission.timeout`: there is no such key; expected one of cluster, timeout_ms,",
            ),
            (
                r#"{"admission":{"objectives":{"a":"high"}}}"#,
                "configuration key `admission.objectives`: expected an object from objective names to priorities",
            ),
            (r#"{"admission":{"cluster":""}}"#, "configuration key `admission.cluster`: expected a cluster name"),
        ] {
            let found = parsed(text).unwrap_err();
            assert!(found.starts_with(sentence), "{text}: {found}");
        }
    }
}
