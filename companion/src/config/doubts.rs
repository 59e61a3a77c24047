//! What a configuration may say but its writer hardly means.
//!
//! In: a whole [`Config`]. Out: one sentence for each doubt, for the log at the start and for `tallyd config check`.
//! It refuses nothing: what cannot be is an error elsewhere.

use std::time::Duration;

use super::{Auth, Config};

impl Config {
    /// Sentences to warn of, each with the key that it is about.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for (index, pool) in self.pools.iter().enumerate() {
            let (interval, staleness) = (pool.interval(), pool.staleness());
            if interval >= staleness {
                doubts.push(format!(
                    "pools[{index}].refresh_metrics_interval: {interval:?} is not below metrics_staleness_threshold, \
                     {staleness:?}: between two scrapes no endpoint counts as ready"
                ));
            }
        }
        self.doubt_flow_control(&mut doubts);
        let asks_for_certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if self.auth == Auth::None && !self.listen.address.ip().is_loopback() && !asks_for_certificates {
            doubts.push(format!(
                "auth.insecure_no_auth: anybody who reaches {} may read every page",
                self.listen.address
            ));
        }
        doubts
    }

    fn doubt_flow_control(&self, doubts: &mut Vec<String>) {
        let (Some(flow), Some(pool)) = (&self.flow, self.pools.first()) else { return };
        if self.pools.len() > 1 {
            doubts.push(format!(
                "flow_control: looks at one pool, the first, {}; the others' load holds nothing back",
                pool.name()
            ));
        }
        let saturation = &flow.controller.saturation;
        let staleness = Duration::from_nanos(saturation.staleness_nanos);
        if saturation.utilization && pool.interval() >= staleness {
            doubts.push(format!(
                "flow_control.saturationDetector.metricsStalenessThreshold: {staleness:?} is not above \
                 pools[0].refresh_metrics_interval, {:?}: between two scrapes every endpoint counts as full",
                pool.interval()
            ));
        }
    }
}
