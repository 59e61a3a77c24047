//! The part of the configuration that switches admission on.
//!
//! In: the object under `admission`. Out: an [`Admission`] that cannot be wrong, or one sentence that names the key.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::{Config, ConfigError, Key, Kind, read_keys};
use crate::doc;

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
            fairness_headers: super::FAIRNESS_HEADERS.map(str::to_string).to_vec(),
            objective_headers: super::OBJECTIVE_HEADERS.map(str::to_string).to_vec(),
            objectives: Vec::new(),
        }
    }
}

/// Longest cluster name: its length has to be one byte in what Envoy is told.
const MAX_CLUSTER_NAME: usize = 120;
/// Farthest priority from 0.
pub(super) const MAX_PRIORITY: u32 = 1_000_000;
/// Most headers in a list: each costs a call to Envoy.
pub(super) const MAX_HEADERS: usize = 8;

/// All keys under `admission`, in the order docs list them.
pub const KEYS: &[Key] = &[
    Key {
        name: "cluster",
        kind: Kind::Text(MAX_CLUSTER_NAME, |to| &mut of(to).cluster),
        meaning: doc("Envoy's cluster with the gRPC port of `tallyd serve`."),
    },
    Key {
        name: "timeout_ms",
        kind: Kind::Whole(1, 3_600_000, |to| &mut of(to).timeout_ms),
        meaning: doc(
            "Milliseconds a request may wait; the companion is told. If it has not decided one second later it is \
                  taken for gone.",
        ),
    },
    Key {
        name: "on_failure",
        kind: Kind::OnFailure(|to| &mut of(to).on_failure),
        meaning: doc(
            "What becomes of a request if the companion is gone, slow or answers nonsense: it passes, or gets 503.",
        ),
    },
    Key {
        name: "fairness_headers",
        kind: Kind::Headers(MAX_HEADERS, |to| &mut to.fairness_headers),
        meaning: doc(
            "Request headers with the fairness id; the first that is there counts. Without it, the key of this name beside `admission`.",
        ),
    },
    Key {
        name: "objective_headers",
        kind: Kind::Headers(MAX_HEADERS, |to| &mut to.objective_headers),
        meaning: doc(
            "Request headers with the name of an InferenceObjective; the first that is there counts. Without it, the key of \
             this name beside `admission`.",
        ),
    },
    Key {
        name: "objectives",
        kind: Kind::Priorities(MAX_PRIORITY, |to| &mut to.objectives),
        meaning: doc(
            "Priorities of objectives; names that are not here are left to the companion. Without it, the key of this name beside `admission`.",
        ),
    },
];

fn of(config: &mut Config) -> &mut Admission {
    config.admission.get_or_insert_with(Admission::default)
}

impl OnFailure {
    /// The choice of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "open" => Some(Self::Open),
            "closed" => Some(Self::Closed),
            _ => None,
        }
    }
}

impl Admission {
    /// Reads the object under `admission`. Headers and objectives are one for labels and admission: what it says of them
    /// goes for both, what stands beside it too.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn read(object: &Map<String, Value>, config: &mut Config) -> Result<(), ConfigError> {
        config.admission = Some(Self::default());
        read_keys(object, KEYS, "admission.", config)?;
        if let Config { admission: Some(admission), fairness_headers, objective_headers, objectives, .. } = config {
            admission.fairness_headers.clone_from(fairness_headers);
            admission.objective_headers.clone_from(objective_headers);
            admission.objectives.clone_from(objectives);
        }
        Ok(())
    }

    /// The priority of an objective, if the configuration gives one.
    #[must_use]
    pub fn priority(&self, objective: &str) -> Option<i32> {
        self.objectives.iter().find(|(name, _)| name == objective).map(|(_, priority)| *priority)
    }
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
                "configuration key `admission.objectives`: expected an object from names to whole numbers from -1000000 to 1000000",
            ),
            (
                r#"{"admission":{"cluster":""}}"#,
                "configuration key `admission.cluster`: expected a text of at most 120 visible ASCII characters",
            ),
        ] {
            let found = parsed(text).unwrap_err();
            assert!(found.starts_with(sentence), "{text}: {found}");
        }
    }
}
