//! A pool as flow control looks at it.

use std::time::Instant;

use super::snapshot::Snapshot;
use crate::flow::pool::PoolView;
use crate::flow::saturation::EndpointSample;

impl PoolView for Snapshot {
    fn name(&self) -> &str {
        &self.pool
    }

    fn endpoints(&self, nanos: impl Fn(Instant) -> u64) -> Vec<EndpointSample> {
        let sample = |endpoint: &super::EndpointState| EndpointSample {
            waiting: endpoint.sample.as_ref().map_or(0.0, |sample| sample.waiting),
            kv_usage: endpoint.sample.as_ref().and_then(|sample| sample.kv_usage).unwrap_or(0.0),
            sampled_nanos: endpoint.sampled_at.map(&nanos),
        };
        self.endpoints.iter().map(sample).collect()
    }
}
