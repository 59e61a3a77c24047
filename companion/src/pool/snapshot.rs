//! A pool at one moment.
//!
//! In: the last samples. Out: the same for others to judge, as data and as JSON. It never hides a stale endpoint: it says
//! when it was sampled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::spread::Spread;
use crate::model_server::{Engine, Sample};

/// A pool's endpoints with their last samples.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Name of the pool.
    pub pool: Arc<str>,
    /// The source has answered at least once: an empty list means that there are none.
    pub is_known: bool,
    /// An older sample counts for nothing.
    pub staleness: Duration,
    /// When the snapshot was taken.
    pub taken_at: Instant,
    /// Sorted by name.
    pub endpoints: Vec<EndpointState>,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// As in the label `model_server_pod`.
    pub name: Arc<str>,
    /// Host and port.
    pub address: Arc<str>,
    /// Its engine, as far as known.
    pub engine: Engine,
    /// The last good sample, however old.
    pub sample: Option<Arc<Sample>>,
    /// When that was.
    pub sampled_at: Option<Instant>,
    /// Why the last scrape failed, if it did.
    pub failing: Option<&'static str>,
}

/// All pools as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// In the order of the config.
    pub pools: Vec<PoolSummary>,
}

/// One pool as JSON. Absent means are absent: no fresh endpoint says it.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each field is named like its metric")]
pub struct PoolSummary {
    pub name: String,
    pub ready_pods: usize,
    pub average_queue_size: Option<f64>,
    pub average_running_requests: Option<f64>,
    pub average_kv_cache_utilization: Option<f64>,
    pub endpoints: Vec<EndpointSummary>,
}

/// One endpoint as JSON.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each field is named like its metric")]
pub struct EndpointSummary {
    pub name: String,
    pub address: String,
    pub engine: Engine,
    pub is_fresh: bool,
    pub waiting: Option<f64>,
    pub running: Option<f64>,
    pub kv_usage: Option<f64>,
    pub loras: Vec<String>,
    pub sample_age_seconds: Option<f64>,
    pub failing: Option<&'static str>,
}

impl Snapshot {
    /// Samples that count.
    pub fn fresh(&self) -> impl Iterator<Item = (&EndpointState, &Sample)> {
        self.endpoints.iter().filter_map(|endpoint| Some((endpoint, self.fresh_sample(endpoint)?)))
    }

    /// Waiting requests over the fresh endpoints.
    pub(super) fn queue(&self) -> Option<Spread> {
        Spread::of(self.fresh().map(|(_, sample)| sample.waiting))
    }

    /// Running requests over the fresh endpoints that tell.
    pub(super) fn running(&self) -> Option<Spread> {
        Spread::of(self.fresh().filter_map(|(_, sample)| sample.running))
    }

    /// KV cache use over the fresh endpoints that tell.
    pub(super) fn kv_usage(&self) -> Option<Spread> {
        Spread::of(self.fresh().filter_map(|(_, sample)| sample.kv_usage))
    }

    /// Ready for JSON.
    #[must_use]
    pub fn summary(&self) -> PoolSummary {
        let endpoint = |endpoint: &EndpointState| {
            let sample = endpoint.sample.as_deref();
            EndpointSummary {
                name: endpoint.name.to_string(),
                address: endpoint.address.to_string(),
                engine: endpoint.engine,
                is_fresh: self.fresh_sample(endpoint).is_some(),
                waiting: sample.map(|sample| sample.waiting),
                running: sample.and_then(|sample| sample.running),
                kv_usage: sample.and_then(|sample| sample.kv_usage),
                loras: sample
                    .map_or_else(Vec::new, |sample| sample.loras.active.iter().map(|name| name.to_string()).collect()),
                sample_age_seconds: self.age(endpoint).map(|age| age.as_secs_f64()),
                failing: endpoint.failing,
            }
        };
        PoolSummary {
            name: self.pool.to_string(),
            ready_pods: self.fresh().count(),
            average_queue_size: self.queue().map(|spread| spread.mean),
            average_running_requests: self.running().map(|spread| spread.mean),
            average_kv_cache_utilization: self.kv_usage().map(|spread| spread.mean),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
        }
    }

    /// How old the endpoint's last good sample was when the snapshot was taken.
    #[must_use]
    pub fn age(&self, endpoint: &EndpointState) -> Option<Duration> {
        endpoint.sampled_at.map(|at| self.taken_at.saturating_duration_since(at))
    }

    fn fresh_sample<'a>(&self, endpoint: &'a EndpointState) -> Option<&'a Sample> {
        let is_fresh = self.age(endpoint).is_some_and(|age| age <= self.staleness);
        endpoint.sample.as_deref().filter(|_| is_fresh)
    }
}
