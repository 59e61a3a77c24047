//! The sections of the file that their own parts define: pools and flow control.
//!
//! In: the file's text, and EPP's flags for a single pool. Out: plans, or the first mistake in one sentence.

use serde::Deserialize;

use super::args::PoolFlags;
use crate::flow::config::{FlowConfig, FlowPlan};
use crate::pool::{DiscoveryConfig, PoolConfig, PoolPlan};
use crate::yaml::Document;

/// What the parts are to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) pools: Vec<PoolPlan>,
    pub(super) flow: Option<FlowPlan>,
}

/// The file with an eye for these sections only; the others are `file.rs`'s.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sections {
    pools: Vec<PoolConfig>,
    flow_control: Option<FlowConfig>,
}

impl Parts {
    pub(super) fn parse(text: &str, flags: &PoolFlags) -> Result<Self, String> {
        let mut sections = Sections::default();
        if !text.trim().is_empty() {
            let read: Option<Sections> = serde_saphyr::from_str(text).map_err(|error| {
                let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
                let message = error.without_snippet().to_string();
                format!("{}{}", place.unwrap_or_default(), message.lines().next().unwrap_or_default())
            })?;
            sections = read.unwrap_or_default();
        }
        apply(flags, &mut sections.pools)?;
        let mut pools = Vec::new();
        for (index, pool) in sections.pools.into_iter().enumerate() {
            pools.push(pool.plan().map_err(|problem| placed(text, &format!("pools[{index}].{problem}")))?);
        }
        let has_pool = !pools.is_empty();
        let flow = sections.flow_control.map(|flow| flow.plan()?.with_pool(has_pool)).transpose();
        Ok(Self { pools, flow: flow.map_err(|problem| placed(text, &format!("flow_control.{problem}")))? })
    }
}

/// The sentence with the line of the key that it begins with, or of what would hold that key.
fn placed(text: &str, sentence: &str) -> String {
    let Ok(document) = Document::parse(text) else { return sentence.to_owned() };
    let mut place = document.root();
    for part in sentence.split(':').next().unwrap_or_default().split('.') {
        let (name, index) = part.trim_end_matches(']').split_once('[').unwrap_or((part, ""));
        let Some(child) = place.get(name) else { break };
        let item = index.parse::<usize>().ok().and_then(|index| child.list().ok()?.into_iter().nth(index));
        place = item.unwrap_or(child);
    }
    match place.line() {
        0 => sentence.to_owned(),
        line => format!("line {line}: {sentence}"),
    }
}

/// EPP's flags are of one pool: the file's only one, or the InferencePool that they name.
fn apply(flags: &PoolFlags, pools: &mut Vec<PoolConfig>) -> Result<(), String> {
    // The namespace alone may also come from the environment of any pod.
    let nothing_said = PoolFlags { pool_namespace: flags.pool_namespace.clone(), ..PoolFlags::default() };
    if *flags == nothing_said {
        return Ok(());
    }
    if pools.len() > 1 {
        return Err("the flags for a pool are of one pool, and the file has several: say it there".to_owned());
    }
    if pools.is_empty() {
        let Some(name) = &flags.pool_name else {
            return Err("there are flags for a pool: expected --pool-name, or a pool in the file".to_owned());
        };
        pools.push(PoolConfig::inference_pool(name.clone()));
    }
    for pool in pools {
        if let Some(name) = &flags.pool_name {
            name.clone_into(&mut pool.name);
        }
        let text = |duration: Option<std::time::Duration>| duration.map(|time| format!("{}us", time.as_micros()));
        if let (Some(group), DiscoveryConfig::Kubernetes(kubernetes)) = (&flags.pool_group, &mut pool.discovery) {
            kubernetes.group = Some(group.clone());
        }
        pool.namespace = flags.pool_namespace.clone().or_else(|| pool.namespace.take());
        pool.refresh_metrics_interval =
            text(flags.refresh_metrics_interval).or_else(|| pool.refresh_metrics_interval.take());
        pool.metrics_staleness_threshold =
            text(flags.metrics_staleness_threshold).or_else(|| pool.metrics_staleness_threshold.take());
        pool.metrics.port = flags.model_server_metrics_port.or(pool.metrics.port);
        pool.metrics.path = flags.model_server_metrics_path.clone().or_else(|| pool.metrics.path.take());
        pool.metrics.scheme = flags.model_server_metrics_scheme.clone().or_else(|| pool.metrics.scheme.take());
    }
    Ok(())
}
