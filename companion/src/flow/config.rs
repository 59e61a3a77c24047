//! Flow control's configuration: EPP's keys where EPP has them, and a plan out of it.
//!
//! In: the `flow_control` block of the companion's file, by serde. Out: a [`FlowPlan`], or which key
//! cannot be and why. An unknown key is an error; nothing here is read from elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tally_core::admission::reply::Dialect;

use super::band::{BandPlan, Fairness, Ordering};
use super::controller::Plan;
use super::objective_watch::ObjectiveWatch;
use super::queue::QueuePlan;
use super::saturation::SaturationPlan;
use super::units::{Bytes, Nanos};

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

/// Settings of a band.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Band {
    /// Bytes that may wait; 0 is no limit.
    pub max_bytes: Bytes,
    /// Requests that may wait; 0 is no limit.
    pub max_requests: u64,
    /// Whose turn it is.
    pub fairness_policy_ref: FairnessPolicy,
    /// Who is first in a flow.
    pub ordering_policy_ref: OrderingPolicy,
    /// The band may send while the pool's saturation is below this: less than 1 leaves room to higher bands.
    pub usage_limit: f64,
    /// Shares by fairness id under weighted fairness; an id not named has 1.
    pub weights: HashMap<String, u32>,
}

/// A band with its priority.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PriorityBand {
    /// Higher goes first.
    pub priority: i32,
    /// Bytes that may wait; 0 is no limit.
    #[serde(default = "band_bytes")]
    pub max_bytes: Bytes,
    /// Requests that may wait; 0 is no limit.
    #[serde(default)]
    pub max_requests: u64,
    /// Whose turn it is.
    #[serde(default)]
    pub fairness_policy_ref: FairnessPolicy,
    /// Who is first in a flow.
    #[serde(default)]
    pub ordering_policy_ref: OrderingPolicy,
    /// As [`Band::usage_limit`].
    #[serde(default = "whole")]
    pub usage_limit: f64,
    /// As [`Band::weights`].
    #[serde(default)]
    pub weights: HashMap<String, u32>,
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

/// What flow control does; made by [`FlowConfig::plan`].
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// The machine's plan.
    pub controller: Plan,
    /// The detectors were left to the companion to choose.
    pub(super) detectors_unset: bool,
    /// Priorities by objective.
    pub objectives: HashMap<String, i32>,
    /// Objects of a cluster with further ones.
    pub objective_watch: Option<ObjectiveWatch>,
    /// Labels of the series.
    pub metric_labels: MetricLabels,
    /// Fairness ids, and pairs of models, as labels at once.
    pub max_fairness_ids: usize,
    /// Whose statuses.
    pub dialect: Dialect,
    /// For `retry-after`; 0 is no header.
    pub retry_after_seconds: u32,
    /// Longest drain.
    pub drain: Duration,
}

/// Why a configuration is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowConfigError {
    /// A number outside of what makes sense.
    #[error("{key}: expected {expected}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What may stand there.
        expected: &'static str,
    },
    /// Two bands of one priority.
    #[error("priorityBands: priority {0} is listed twice")]
    TwiceListed(i32),
    /// Utilization needs a pool that is scraped.
    #[error("saturationDetector.detectors: utilization-detector needs a pool, and none is scraped")]
    NoPool,
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

impl Default for Band {
    fn default() -> Self {
        Self {
            max_bytes: band_bytes(),
            max_requests: 0,
            fairness_policy_ref: FairnessPolicy::default(),
            ordering_policy_ref: OrderingPolicy::default(),
            usage_limit: whole(),
            weights: HashMap::new(),
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

impl FlowConfig {
    /// Checks the numbers and makes the plan.
    ///
    /// # Errors
    /// Names the key whose value cannot be.
    pub fn plan(self) -> Result<FlowPlan, FlowConfigError> {
        let queue = self.queue_plan()?;
        let saturation = self.saturation_detector.plan()?;
        let dialect = match self.reply {
            Reply::Epp => Dialect::Epp,
            Reply::LlmD => Dialect::LlmD,
        };
        Ok(FlowPlan {
            controller: Plan {
                queue,
                saturation,
                cost_in_tokens: self.fairness_cost == Work::Tokens,
                concurrency_in_tokens: self.saturation_detector.concurrency_mode == Work::Tokens,
                ttl_nanos: self.default_request_ttl.0,
                reject_sheddable: self.reject_sheddable,
                tell_no_endpoints: dialect == Dialect::LlmD,
            },
            detectors_unset: self.saturation_detector.detectors.is_empty(),
            objectives: self.objectives,
            objective_watch: self.objective_watch,
            metric_labels: self.metric_labels,
            max_fairness_ids: self.max_fairness_ids,
            dialect,
            retry_after_seconds: self.retry_after_seconds,
            drain: Duration::from_nanos(self.drain_timeout.0),
        })
    }

    fn queue_plan(&self) -> Result<QueuePlan, FlowConfigError> {
        range(self.max_flows >= 1, "maxFlows", "at least 1")?;
        let other_bands = self.default_priority_band.clone().plan()?;
        let other_negative_bands = match self.default_negative_priority_band.clone() {
            Some(band) => band.plan()?,
            None => other_bands.clone(),
        };
        let mut bands: Vec<(i32, BandPlan)> = Vec::new();
        for band in self.priority_bands.iter().cloned() {
            if bands.iter().any(|(priority, _)| *priority == band.priority) {
                return Err(FlowConfigError::TwiceListed(band.priority));
            }
            range(bands.len() < super::queue::MAX_BANDS, "priorityBands", "at most 256 bands")?;
            bands.push((band.priority, Band::from(band).plan()?));
        }
        if bands.is_empty() {
            bands.push((0, other_bands.clone()));
        }
        Ok(QueuePlan {
            bands,
            other_bands,
            other_negative_bands,
            max_requests: self.max_requests,
            max_bytes: self.max_bytes.0,
            max_flows: self.max_flows,
            idle_nanos: self.flow_idle.0,
        })
    }
}

impl FlowPlan {
    /// Chooses the detectors where the configuration did not, now that it is known whether a pool is scraped.
    ///
    /// # Errors
    /// When utilization is asked for and nothing is scraped: every request would wait for ever.
    pub(crate) fn with_pool(mut self, scraped: bool) -> Result<Self, FlowConfigError> {
        let saturation = &mut self.controller.saturation;
        if self.detectors_unset {
            (saturation.utilization, saturation.concurrency) = (scraped, !scraped);
        } else if saturation.utilization && !scraped {
            return Err(FlowConfigError::NoPool);
        }
        Ok(self)
    }
}

impl From<PriorityBand> for Band {
    fn from(band: PriorityBand) -> Self {
        let PriorityBand {
            priority: _,
            max_bytes,
            max_requests,
            fairness_policy_ref,
            ordering_policy_ref,
            usage_limit,
            weights,
        } = band;
        Self { max_bytes, max_requests, fairness_policy_ref, ordering_policy_ref, usage_limit, weights }
    }
}

impl Band {
    fn plan(self) -> Result<BandPlan, FlowConfigError> {
        range(self.usage_limit > 0.0 && self.usage_limit.is_finite(), "usageLimit", "a number above 0")?;
        range(
            self.weights.values().all(|weight| (1..=MAX_WEIGHT).contains(weight)),
            "weights",
            "numbers from 1 to 1000",
        )?;
        Ok(BandPlan {
            fairness: match self.fairness_policy_ref {
                FairnessPolicy::GlobalStrictFairnessPolicy => Fairness::GlobalStrict,
                FairnessPolicy::RoundRobinFairnessPolicy => Fairness::RoundRobin,
                FairnessPolicy::WeightedFairnessPolicy => Fairness::Weighted,
            },
            ordering: match self.ordering_policy_ref {
                OrderingPolicy::EdfOrderingPolicy => Ordering::EarliestDeadline,
                OrderingPolicy::FcfsOrderingPolicy => Ordering::Fcfs,
                OrderingPolicy::SloDeadlineOrderingPolicy => Ordering::SloDeadline,
            },
            max_requests: self.max_requests,
            max_bytes: self.max_bytes.0,
            ceiling: self.usage_limit,
            weights: Arc::new(self.weights),
        })
    }
}

impl SaturationDetector {
    fn plan(&self) -> Result<SaturationPlan, FlowConfigError> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        range(positive(self.queue_depth_threshold), "saturationDetector.queueDepthThreshold", "a number above 0")?;
        range(positive(self.kv_cache_util_threshold), "saturationDetector.kvCacheUtilThreshold", "a number above 0")?;
        range(self.dispatch_budget_max >= 1, "saturationDetector.dispatchBudgetMax", "at least 1")?;
        let max_concurrency = match self.concurrency_mode {
            Work::Requests => self.max_concurrency,
            Work::Tokens => self.max_token_concurrency,
        };
        range(max_concurrency >= 1, "saturationDetector.maxConcurrency", "at least 1")?;
        Ok(SaturationPlan {
            utilization: self.detectors.contains(&Detector::UtilizationDetector),
            concurrency: self.detectors.contains(&Detector::ConcurrencyDetector),
            queue_depth_threshold: self.queue_depth_threshold,
            kv_cache_util_threshold: self.kv_cache_util_threshold,
            staleness_nanos: self.metrics_staleness_threshold.0,
            budget: self.dispatch_budget,
            budget_max: f64::from(self.dispatch_budget_max),
            max_concurrency: max_concurrency as f64,
        })
    }
}

fn range(holds: bool, key: &'static str, expected: &'static str) -> Result<(), FlowConfigError> {
    if holds { Ok(()) } else { Err(FlowConfigError::OutOfRange { key, expected }) }
}

/// EPP's default for a band.
const fn band_bytes() -> Bytes {
    Bytes(1_000_000_000)
}

const fn whole() -> f64 {
    1.0
}

/// Keeps virtual time's whole numbers fine enough for shares within 2 %.
const MAX_WEIGHT: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> FlowConfig {
        serde_saphyr::from_str(text).unwrap()
    }

    /// The thresholds and limits by hand from EPP's documentation of its defaults.
    #[test]
    fn an_empty_block_has_epps_thresholds_and_band_limits() {
        let plan = read("{}").plan().unwrap();
        let saturation = plan.controller.saturation;
        assert_eq!((saturation.queue_depth_threshold, saturation.kv_cache_util_threshold), (5.0, 0.8));
        assert_eq!((saturation.staleness_nanos, saturation.max_concurrency), (200_000_000, 100.0));
        let (priority, band) = plan.controller.queue.bands.first().unwrap();
        assert_eq!((*priority, band.max_bytes, band.max_requests, band.ceiling), (0, 1_000_000_000, 0, 1.0));
    }

    #[test]
    fn a_block_as_epp_users_write_it_is_understood() {
        let plan = read(
            "maxBytes: 2Gi\nmaxRequests: 5000\ndefaultRequestTTL: 1m30s\n\
             priorityBands:\n- priority: 100\n  fairnessPolicyRef: global-strict-fairness-policy\n  \
             orderingPolicyRef: edf-ordering-policy\n  maxBytes: 500M\n\
             - priority: -10\n  usageLimit: 0.7\n  weights: {a: 3}\n  fairnessPolicyRef: weighted-fairness-policy\n\
             saturationDetector: {detectors: [utilization-detector], queueDepthThreshold: 10}\n\
             objectives: {chat: 100}\nmetric_labels: v15\nreply: llm-d\n",
        )
        .plan()
        .unwrap();
        assert_eq!((plan.controller.queue.max_bytes, plan.controller.ttl_nanos), (1 << 31, 90_000_000_000));
        let (_, first) = &plan.controller.queue.bands[0];
        assert_eq!((first.fairness, first.ordering), (Fairness::GlobalStrict, Ordering::EarliestDeadline));
        let (_, second) = &plan.controller.queue.bands[1];
        assert_eq!((second.fairness, second.weights["a"], second.ceiling), (Fairness::Weighted, 3, 0.7));
        assert_eq!((plan.objectives["chat"], plan.metric_labels), (100, MetricLabels::V15));
    }

    #[test]
    fn a_value_that_cannot_be_is_named_with_its_key() {
        for (text, said) in [
            (
                "saturationDetector: {queueDepthThreshold: 0}",
                "saturationDetector.queueDepthThreshold: expected a number",
            ),
            ("priorityBands: [{priority: 1}, {priority: 1}]", "priorityBands: priority 1 is listed twice"),
            ("defaultPriorityBand: {weights: {a: 0}}", "weights: expected numbers from 1 to 1000"),
            ("defaultPriorityBand: {usageLimit: 0}", "usageLimit: expected a number above 0"),
        ] {
            let error = read(text).plan().unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
        let error = serde_saphyr::from_str::<FlowConfig>("maxByte: 1").unwrap_err().to_string();
        assert!(error.contains("maxByte") && error.contains("maxBytes"), "{error}");
    }

    #[test]
    fn without_a_pool_the_default_counts_what_runs_and_utilization_is_refused() {
        let plan = read("{}").plan().unwrap().with_pool(false).unwrap().controller.saturation;
        assert_eq!((plan.utilization, plan.concurrency), (false, true));
        let plan = read("{}").plan().unwrap().with_pool(true).unwrap().controller.saturation;
        assert_eq!((plan.utilization, plan.concurrency), (true, false));
        let asked = read("saturationDetector: {detectors: [utilization-detector]}").plan().unwrap();
        assert_eq!(asked.with_pool(false).unwrap_err(), FlowConfigError::NoPool);
    }
}
