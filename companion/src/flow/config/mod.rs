//! Flow control's configuration: EPP's keys where EPP has them, and a plan out of it.
//!
//! In: the `flow_control` block of the companion's file, by serde. Out: a [`FlowPlan`], or which key
//! cannot be and why. An unknown key is an error; nothing here is read from elsewhere.

mod bands;
mod names;
mod plan;

use std::collections::HashMap;

use serde::Deserialize;

use super::objective_watch::ObjectiveWatch;
use super::units::{Bytes, Nanos};
pub use bands::{Band, PriorityBand};
pub use names::{Detector, FairnessPolicy, MetricLabels, OrderingPolicy, Reply, Work};
pub use plan::{FlowConfigError, FlowPlan};

/// The block as written. Keys in camel case are EPP's or named after EPP's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct FlowConfig {
    /// Bytes that may wait in all; 0 is no limit.
    pub max_bytes: Bytes,
    /// Requests that may wait in all (EPP has no limit here); 0 is no limit.
    pub max_requests: u64,
    /// Longest wait, of those who name none too; 0 is no end.
    #[serde(rename = "defaultRequestTTL")]
    pub default_request_ttl: Nanos,
    /// Bands that always exist.
    pub priority_bands: Vec<PriorityBand>,
    /// The band of a priority that is not listed.
    pub default_priority_band: Band,
    /// The band of a priority below 0 that is not listed; absent: as the default band.
    pub default_negative_priority_band: Option<Band>,
    /// What counts as full.
    pub saturation_detector: SaturationDetector,
    /// Weighted fairness counts requests or tokens.
    pub fairness_cost: Work,
    /// Refuse requests below priority 0 while the pool is full, as EPP v1.2 did, instead of queueing them.
    pub reject_sheddable: bool,
    /// Priorities by InferenceObjective name.
    pub objectives: HashMap<String, i32>,
    /// Take InferenceObjective objects of a cluster too; they win over `objectives`.
    pub objective_watch: Option<ObjectiveWatch>,
    /// Flows held apart at once; further ids of a band share one.
    pub max_flows: usize,
    /// A flow without requests is forgotten after this time, and its series with it.
    pub flow_idle: Nanos,
    /// Waiting requests may stay this long after the signal to stop.
    pub drain_timeout: Nanos,
    /// Which labels the series have.
    #[serde(rename = "metric_labels")]
    pub metric_labels: MetricLabels,
    /// Fairness ids (and pairs of models) written as labels at once; the rest is `other`.
    #[serde(rename = "max_fairness_ids")]
    pub max_fairness_ids: usize,
    /// Whose statuses refused clients get.
    pub reply: Reply,
    /// `retry-after` of a refusal, in seconds; 0 leaves the header out.
    #[serde(rename = "retry_after_seconds")]
    pub retry_after_seconds: u32,
}

/// What counts as full.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SaturationDetector {
    /// Which detectors; the fullest counts. Empty: utilization if the companion scrapes a pool, else concurrency.
    pub detectors: Vec<Detector>,
    /// Waiting requests of an endpoint that count as full.
    pub queue_depth_threshold: f64,
    /// Share of an endpoint's KV cache that counts as full.
    pub kv_cache_util_threshold: f64,
    /// An older sample counts as a full endpoint.
    pub metrics_staleness_threshold: Nanos,
    /// Count requests sent since the last sample as if they waited already.
    pub dispatch_budget: bool,
    /// Most requests sent to one endpoint between two of its samples.
    pub dispatch_budget_max: u32,
    /// What the concurrency detector counts.
    pub concurrency_mode: Work,
    /// Requests an endpoint may run.
    pub max_concurrency: u64,
    /// Tokens an endpoint may have running.
    pub max_token_concurrency: u64,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            max_bytes: Bytes(0),
            max_requests: 100_000,
            default_request_ttl: Nanos::from_millis(60_000),
            priority_bands: Vec::new(),
            default_priority_band: Band::default(),
            default_negative_priority_band: None,
            saturation_detector: SaturationDetector::default(),
            fairness_cost: Work::Requests,
            reject_sheddable: false,
            objectives: HashMap::new(),
            objective_watch: None,
            max_flows: 10_000,
            flow_idle: Nanos::from_millis(300_000),
            drain_timeout: Nanos::from_millis(5_000),
            metric_labels: MetricLabels::Seed,
            max_fairness_ids: 100,
            reply: Reply::Epp,
            retry_after_seconds: 1,
        }
    }
}

impl Default for SaturationDetector {
    fn default() -> Self {
        Self {
            detectors: Vec::new(),
            queue_depth_threshold: 5.0,
            kv_cache_util_threshold: 0.8,
            metrics_staleness_threshold: Nanos::from_millis(200),
            dispatch_budget: true,
            dispatch_budget_max: 256,
            concurrency_mode: Work::Requests,
            max_concurrency: 100,
            max_token_concurrency: 1_000_000,
        }
    }
}

#[cfg(test)]
mod tests;
