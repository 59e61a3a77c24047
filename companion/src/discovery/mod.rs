//! Which endpoints a pool has, now.
//!
//! In: a source from the config. Out: a channel with the newest set of endpoints, whatever the source.
//! It never talks to an endpoint, and never takes a set away because its source can't be asked for a while.

mod dns;
mod file;
mod kubernetes;
mod pods;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model_server::Engine;
pub use dns::DnsName;
pub use kubernetes::{KubernetesPlan, Pick, VERSIONS};

/// An endpoint to scrape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// What the label `model_server_pod` says; unique in its pool.
    pub name: Arc<str>,
    /// Address or host name, without brackets.
    pub host: Arc<str>,
    /// Port of the metrics page.
    pub port: u16,
    /// The engine, if the source knows it.
    pub engine: Option<Engine>,
}

/// Endpoints of a pool; `None` before the source has answered for the first time.
pub type Targets = Option<Arc<[Target]>>;

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// What a name stands for.
    Dns(DnsName),
    /// One `host:port` a line.
    File {
        /// Where it is.
        path: PathBuf,
        /// Port of a line without one.
        default_port: u16,
    },
    /// Ready pods, watched.
    Kubernetes(KubernetesPlan),
    /// As written in the config.
    Static(Vec<Target>),
}

/// Watches a source until told to stop.
pub(crate) fn watch(
    source: Source,
    pool: Arc<str>,
    tracker: &TaskTracker,
    shutdown: CancellationToken,
) -> watch::Receiver<Targets> {
    let (sender, receiver) = watch::channel(None);
    let stop = shutdown.clone();
    match source {
        Source::Dns(name) => {
            tracker.spawn(stop.run_until_cancelled_owned(dns::run(name, pool, sender)));
        }
        Source::File { path, default_port } => {
            tracker.spawn(stop.run_until_cancelled_owned(file::run(path, default_port, pool, sender, shutdown)));
        }
        Source::Kubernetes(plan) => {
            tracker.spawn(stop.run_until_cancelled_owned(kubernetes::run(plan, pool, sender)));
        }
        Source::Static(targets) => publish(&sender, targets),
    }
    receiver
}

/// Makes a set the newest, if it is another: sorted, each name once.
fn publish(sender: &watch::Sender<Targets>, mut targets: Vec<Target>) {
    targets.sort_unstable();
    targets.dedup_by(|next, kept| next.name == kept.name);
    targets.truncate(MAX_TARGETS);
    sender.send_if_modified(|newest| {
        let is_new = newest.as_deref() != Some(&targets[..]);
        if is_new {
            *newest = Some(targets.into());
        }
        is_new
    });
}

impl Target {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. Its name is host and port.
    #[must_use]
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let text = text.trim();
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > MAX_HOST_BYTES || !host.chars().all(is_host) {
            return None;
        }
        let port = if port.is_empty() && !text.ends_with(':') { default_port } else { port.parse().ok()? };
        (port != 0).then(|| Self::at(host, port))
    }

    /// The endpoint at an address, named by it.
    fn at(host: &str, port: u16) -> Self {
        Self { name: authority(host, port).into(), host: host.into(), port, engine: None }
    }

    /// Host and port as in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Endpoints of one pool; those beyond are left out, by name.
pub const MAX_TARGETS: usize = 10_000;
const MAX_HOST_BYTES: usize = 253;
/// How often a source without events is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
