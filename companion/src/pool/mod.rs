//! The pools that `tallyd` watches: discovery and scraping put together, averages and spread taken out.
//!
//! In: plans. Out: gauges for the page, snapshots for flow control, a summary for the live page. All of them answer from
//! the last samples and never wait for an endpoint. A sample older than the plan's threshold counts for nothing.

mod collect;
mod config;
mod member;
mod plan;
mod snapshot;
mod spread;
mod view;
mod watcher;

use std::sync::Arc;

use anyhow::ensure;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{DiscoveryConfig, DnsConfig, KubernetesConfig, MappingConfig, MetricsConfig, PoolConfig};
pub use plan::{PoolConfigError, PoolPlan};
pub use snapshot::{EndpointState, EndpointSummary, PoolSummary, Snapshot, Summary};
use watcher::Pool;

/// All pools of this process.
#[derive(Clone)]
pub struct Pools {
    pools: Arc<[Arc<Pool>]>,
}

impl Pools {
    /// Starts to watch and to scrape, until `shutdown`. Its tasks are the tracker's.
    ///
    /// # Errors
    /// Two pools have one name, a CA file is no use, or the cluster's address is not known.
    pub fn start(plans: Vec<PoolPlan>, tracker: &TaskTracker, shutdown: CancellationToken) -> anyhow::Result<Self> {
        for (index, plan) in plans.iter().enumerate() {
            let is_first = plans.iter().position(|other| other.name == plan.name) == Some(index);
            ensure!(is_first, "pools: two pools are named \"{}\"; metrics could not tell them apart", plan.name);
        }
        let start = |plan| watcher::start(plan, tracker, shutdown.clone());
        Ok(Self { pools: plans.into_iter().map(start).collect::<anyhow::Result<_>>()? })
    }

    /// The newest snapshots of a pool; nothing if there is no such pool.
    #[must_use]
    pub fn watch(&self, name: &str) -> Option<watch::Receiver<Arc<Snapshot>>> {
        self.pools.iter().find(|pool| &*pool.name == name).map(|pool| pool.subscribe())
    }

    /// All pools, in the order of the config, ready for JSON.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { pools: self.pools.iter().map(|pool| pool.snapshot().summary()).collect() }
    }
}
