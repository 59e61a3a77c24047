//! One pool: who belongs to it, and what it publishes.
//!
//! In: sets of targets from discovery, news from its members. Out: snapshots. Its task takes members in and drops those
//! that left; it never scrapes itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::member::{Cell, Member, Tally};
use super::plan::PoolPlan;
use super::snapshot::{EndpointState, Snapshot};
use crate::discovery::{self, Target, Targets};
use crate::model_server::{Engine, Mapping, Overrides};
use crate::scrape::{self, ScrapePlan};

/// See the file's head.
pub(super) struct Pool {
    pub(super) name: Arc<str>,
    pub(super) tally: Arc<Tally>,
    staleness: Duration,
    members: Mutex<Members>,
    sender: watch::Sender<Arc<Snapshot>>,
}

#[derive(Default)]
struct Members {
    is_known: bool,
    by_name: BTreeMap<Arc<str>, (Target, Member)>,
}

/// How a pool scrapes whoever joins it.
struct Scraper {
    plan: Arc<ScrapePlan>,
    engine: Engine,
    overrides: Overrides,
    mappings: HashMap<Engine, Arc<Mapping>>,
    tracker: TaskTracker,
}

/// Starts one pool.
pub(super) fn start(plan: PoolPlan, tracker: &TaskTracker, shutdown: CancellationToken) -> anyhow::Result<Arc<Pool>> {
    let scrape = plan.scrape().with_context(|| format!("pool {}", plan.name))?;
    let name: Arc<str> = plan.name.as_str().into();
    let empty = Snapshot {
        pool: name.clone(),
        is_known: false,
        staleness: plan.staleness,
        taken_at: Instant::now(),
        endpoints: Vec::new(),
    };
    let pool = Arc::new(Pool {
        name: name.clone(),
        tally: Arc::default(),
        staleness: plan.staleness,
        members: Mutex::default(),
        sender: watch::Sender::new(Arc::new(empty)),
    });
    let scraper = Scraper {
        plan: Arc::new(scrape),
        engine: plan.engine,
        overrides: plan.overrides,
        mappings: HashMap::new(),
        tracker: tracker.clone(),
    };
    let targets = discovery::watch(plan.source, name, tracker, shutdown.clone());
    tracker.spawn(run(pool.clone(), scraper, targets, shutdown));
    Ok(pool)
}

async fn run(
    pool: Arc<Pool>,
    mut scraper: Scraper,
    mut targets: watch::Receiver<Targets>,
    shutdown: CancellationToken,
) {
    let mut is_watched = true;
    loop {
        let newest = targets.borrow_and_update().clone();
        if let Some(newest) = newest {
            pool.update(&newest, &mut scraper);
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = targets.changed(), if is_watched => is_watched = changed.is_ok(),
            () = pool.tally.news.notified() => {
                // News of a thousand endpoints become one snapshot.
                tokio::time::sleep(PUBLISH_EVERY).await;
                pool.publish();
            }
        }
    }
    pool.members.lock().unwrap_or_else(PoisonError::into_inner).by_name.clear();
}

impl Pool {
    /// The pool now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            pool: self.name.clone(),
            is_known: members.is_known,
            staleness: self.staleness,
            taken_at: Instant::now(),
            endpoints: members.by_name.values().map(|(_, member)| member.cell.state()).collect(),
        }
    }

    /// Snapshots from now on, the newest at once.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        let receiver = self.sender.subscribe();
        self.publish();
        receiver
    }

    fn publish(&self) {
        if self.sender.receiver_count() > 0 {
            self.sender.send_replace(Arc::new(self.snapshot()));
        }
    }

    /// Takes in who is new or has another address, and drops who is gone.
    fn update(&self, targets: &[Target], scraper: &mut Scraper) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut members.by_name);
        members.is_known = true;
        for target in targets {
            let kept = before.remove(&target.name).filter(|(known, _)| known == target);
            let member = kept.unwrap_or_else(|| (target.clone(), scraper.start(target, &self.tally)));
            members.by_name.insert(target.name.clone(), member);
        }
        drop(members);
        self.publish();
    }
}

impl Scraper {
    fn start(&mut self, target: &Target, tally: &Arc<Tally>) -> Member {
        let engine = target.engine.unwrap_or(self.engine);
        let overrides = &self.overrides;
        let mapping = self.mappings.entry(engine).or_insert_with(|| Arc::new(Mapping::new(engine, overrides))).clone();
        let state = EndpointState {
            name: target.name.clone(),
            address: target.authority().into(),
            engine,
            sample: None,
            sampled_at: None,
            failing: None,
        };
        let cell = Cell::new(state, tally.clone());
        let task = self.tracker.spawn(scrape::run(target.clone(), self.plan.clone(), mapping, cell.clone()));
        Member::new(cell, task.abort_handle())
    }
}

/// Flow control need not know sooner; a snapshot of a thousand endpoints costs some ten microseconds.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
