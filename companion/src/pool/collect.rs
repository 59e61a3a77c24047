//! The pools' families on the page.
//!
//! In: snapshots taken for this page. Out: gauges and counters. No fresh endpoint: `ready_pods` is 0 and what would be an
//! average of nothing is not written. A pool whose source has not answered yet has no series but its counters.

use std::collections::BTreeMap;
use std::sync::Arc;

use tally_core::catalog::{Family, pool};
use tally_core::exposition::Writer;

use super::Pools;
use super::snapshot::Snapshot;
use super::spread::Spread;
use crate::collect::Collect;

impl Collect for Pools {
    fn collect(&self, page: &mut Writer) {
        let snapshots: Vec<Snapshot> =
            self.pools.iter().map(|pool| pool.snapshot()).filter(|snapshot| snapshot.is_known).collect();
        spreads(&snapshots, page);
        let mut ready = page.family(&pool::READY_PODS);
        for snapshot in &snapshots {
            ready.sample(&[("name", &snapshot.pool)], snapshot.fresh().count() as f64);
        }
        let mut queues = page.family(&pool::PER_POD_QUEUE_SIZE);
        for snapshot in &snapshots {
            for (endpoint, sample) in snapshot.fresh() {
                queues.sample(&[("name", &snapshot.pool), ("model_server_pod", &endpoint.name)], sample.waiting);
            }
        }
        let mut ages = page.family(&pool::SAMPLE_AGE);
        for snapshot in &snapshots {
            for endpoint in &snapshot.endpoints {
                let Some(age) = snapshot.age(endpoint) else { continue };
                let labels = [("name", &*snapshot.pool), ("model_server_pod", &*endpoint.name)];
                ages.sample(&labels, age.as_secs_f64());
            }
        }
        adapters(&snapshots, page);
        self.counters(page);
    }
}

impl Pools {
    fn counters(&self, page: &mut Writer) {
        let mut scrapes = page.family(&pool::SCRAPES_TOTAL);
        for pool in self.pools.iter() {
            scrapes.sample(&[("name", &pool.name)], pool.tally.scrapes() as f64);
        }
        let mut errors = page.family(&pool::SCRAPE_ERRORS_TOTAL);
        for pool in self.pools.iter() {
            for (reason, count) in pool.tally.errors() {
                errors.sample(&[("name", &pool.name), ("reason", reason.class())], count as f64);
            }
        }
    }
}

/// Mean, least, greatest and deviation of the three that are measured.
fn spreads(snapshots: &[Snapshot], page: &mut Writer) {
    type Measure = fn(&Snapshot) -> Option<Spread>;
    type Part = fn(&Spread) -> f64;
    let (queue, running, kv): (Measure, Measure, Measure) = (Snapshot::queue, Snapshot::running, Snapshot::kv_usage);
    let (mean, stddev, min, max): (Part, Part, Part, Part) = (|s| s.mean, |s| s.stddev, |s| s.min, |s| s.max);
    let families: [(&Family, Measure, Part); 12] = [
        (&pool::AVERAGE_KV_CACHE_UTILIZATION, kv, mean),
        (&pool::AVERAGE_QUEUE_SIZE, queue, mean),
        (&pool::AVERAGE_RUNNING_REQUESTS, running, mean),
        (&pool::STDDEV_KV_CACHE_UTILIZATION, kv, stddev),
        (&pool::STDDEV_QUEUE_SIZE, queue, stddev),
        (&pool::STDDEV_RUNNING_REQUESTS, running, stddev),
        (&pool::MIN_KV_CACHE_UTILIZATION, kv, min),
        (&pool::MAX_KV_CACHE_UTILIZATION, kv, max),
        (&pool::MIN_QUEUE_SIZE, queue, min),
        (&pool::MAX_QUEUE_SIZE, queue, max),
        (&pool::MIN_RUNNING_REQUESTS, running, min),
        (&pool::MAX_RUNNING_REQUESTS, running, max),
    ];
    for (family, measure, part) in families {
        let mut written = page.family(family);
        for snapshot in snapshots {
            if let Some(spread) = measure(snapshot) {
                written.sample(&[("name", &snapshot.pool)], part(&spread));
            }
        }
    }
}

/// How many fresh endpoints have an adapter at work, for the first [`MAX_ADAPTERS`] adapters of each pool by name.
fn adapters(snapshots: &[Snapshot], page: &mut Writer) {
    let mut written = page.family(&pool::LORA_RUNNING_PODS);
    for snapshot in snapshots {
        let mut pods: BTreeMap<&Arc<str>, u32> = BTreeMap::new();
        for adapter in snapshot.fresh().flat_map(|(_, sample)| &sample.loras.active) {
            *pods.entry(adapter).or_default() += 1;
        }
        for (adapter, count) in pods.into_iter().take(MAX_ADAPTERS) {
            written.sample(&[("name", &snapshot.pool), ("adapter_name", adapter)], f64::from(count));
        }
    }
}

/// Series of one pool.
const MAX_ADAPTERS: usize = 1000;
