//! Names that a setting may have: EPP's plugins and words, and what stands for which.
//!
//! In: a word of the configuration, by serde. Out: one of an enum. A word that is none of them is an error.

use serde::Deserialize;

/// A saturation detector, by EPP's plugin name.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Detector {
    /// In-flight work against capacity.
    ConcurrencyDetector,
    /// Scraped queues and caches.
    UtilizationDetector,
}

/// A fairness policy, by EPP's plugin name; the last is Tally's.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum FairnessPolicy {
    /// First of all flows' first.
    GlobalStrictFairnessPolicy,
    /// Each flow in turn.
    #[default]
    RoundRobinFairnessPolicy,
    /// Shares by weight.
    WeightedFairnessPolicy,
}

/// An ordering policy, by EPP's plugin name.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OrderingPolicy {
    /// Whose time in the queue ends first.
    EdfOrderingPolicy,
    /// Who came first.
    #[default]
    FcfsOrderingPolicy,
    /// Whose first token is due first.
    SloDeadlineOrderingPolicy,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Requests.
    #[default]
    Requests,
    /// Tokens, as a flow's requests usually use.
    Tokens,
}

/// Which labels the series have.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MetricLabels {
    /// `fairness_id`, `priority` (and `outcome`).
    #[default]
    Seed,
    /// EPP v1.5's: also `inference_pool`, `model_name`, `target_model_name`.
    V15,
}

/// Whose statuses refused clients get.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// EPP's.
    #[default]
    Epp,
    /// llm-d's.
    LlmD,
}
