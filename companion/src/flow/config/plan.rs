//! From the configuration to the plan.
//!
//! In: the block as written. Out: a [`FlowPlan`], or which key cannot be and why. It knows no defaults.

use std::collections::HashMap;
use std::time::Duration;

use tally_core::admission::reply::Dialect;

use super::super::band::BandPlan;
use super::super::controller::Plan;
use super::super::objective_watch::ObjectiveWatch;
use super::super::queue::{MAX_BANDS, QueuePlan};
use super::super::saturation::SaturationPlan;
use super::bands::Band;
use super::names::{Detector, MetricLabels, Reply, Work};
use super::{FlowConfig, SaturationDetector};

/// What flow control does; made by [`FlowConfig::plan`].
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// The machine's plan.
    pub controller: Plan,
    /// The detectors were left to the companion to choose.
    detectors_unset: bool,
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
            range(bands.len() < MAX_BANDS, "priorityBands", "at most 256 bands")?;
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

pub(super) fn range(holds: bool, key: &'static str, expected: &'static str) -> Result<(), FlowConfigError> {
    if holds { Ok(()) } else { Err(FlowConfigError::OutOfRange { key, expected }) }
}
