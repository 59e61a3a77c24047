//! The bands as configured, and a band's plan.
//!
//! In: a list entry or the settings of bands that requests make. Out: a [`BandPlan`], or which key cannot be.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::super::band::{BandPlan, Fairness, Ordering};
use super::super::units::Bytes;
use super::names::{FairnessPolicy, OrderingPolicy};
use super::plan::{FlowConfigError, range};

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
    pub(super) fn plan(self) -> Result<BandPlan, FlowConfigError> {
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

/// EPP's default for a band.
const fn band_bytes() -> Bytes {
    Bytes(1_000_000_000)
}

const fn whole() -> f64 {
    1.0
}

/// Keeps virtual time's whole numbers fine enough for shares within 2 %.
const MAX_WEIGHT: u32 = 1_000;
