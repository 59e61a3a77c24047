//! Envoy's families on our page: read in the background, typed, added up.
//!
//! In: the admins of one or many Envoys (`fetch.rs` reads, `families.rs` types, `carry.rs` bridges restarts). Out: the
//! catalog's families of all of them as one (`merge.rs`), others as they are, and how each Envoy does. While an Envoy is
//! away its counters stay with their age; its gauges go after a while: nobody knows them.

mod carry;
mod families;
mod fetch;
mod merge;
mod show;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::EnvoyAdmin;
use crate::pprof;
use carry::Carry;
use families::Families;

/// All Envoys.
#[derive(Debug)]
pub(crate) struct Envoys {
    envoys: Vec<Arc<Envoy>>,
    /// Reads with a family that does not fit, by family.
    conflicts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

/// One Envoy.
#[derive(Debug)]
struct Envoy {
    name: String,
    /// Age from which its gauges are no longer shown.
    stale_after: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Did the last read succeed? `None` before the first.
    is_up: Option<bool>,
    /// The last good read and its time.
    good: Option<(Arc<Families>, Instant)>,
}

impl Envoys {
    /// Starts to read them.
    pub(crate) fn start(admins: &[EnvoyAdmin], stop: &CancellationToken) -> Self {
        let conflicts = Arc::default();
        let envoys: Vec<_> = admins.iter().map(|admin| Arc::new(Envoy::new(admin))).collect();
        for (admin, envoy) in admins.iter().zip(&envoys) {
            let (admin, envoy, conflicts) = (admin.clone(), envoy.clone(), Arc::clone(&conflicts));
            let stop = stop.clone();
            pprof::spawn("reader of an Envoy", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = read_forever(&admin, &envoy, &conflicts) => {}
                }
            });
        }
        Self { envoys, conflicts }
    }
}

impl Envoy {
    fn new(admin: &EnvoyAdmin) -> Self {
        let stale_after = STALE_AFTER.max(admin.interval * 3);
        Self { name: admin.name.clone(), stale_after, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

async fn read_forever(admin: &EnvoyAdmin, envoy: &Envoy, conflicts: &Mutex<BTreeMap<&'static str, u64>>) {
    let mut carry = Carry::default();
    let mut ticks = tokio::time::interval(admin.interval);
    // A slow Envoy is read less often, never twice at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let page = match fetch::page(admin).await {
            Ok(page) => page,
            Err(fault) => {
                // Said when it begins; the page says how it goes on.
                if envoy.state().is_up.replace(false) != Some(false) {
                    tracing::warn!(envoy = envoy.name, %fault, "cannot read Envoy's stats");
                }
                continue;
            }
        };
        let also = admin.also.clone();
        // Megabytes of text: not on the threads that answer.
        let typed = tokio::task::spawn_blocking(move || Families::parse(&page, also.as_ref()));
        let Ok(families) = typed.await else { continue };
        for name in &families.conflicts {
            *lock(conflicts).entry(name).or_default() += 1;
        }
        let families = Arc::new(carry.add(families));
        let mut state = envoy.state();
        if state.is_up.replace(true) != Some(true) {
            tracing::info!(envoy = envoy.name, "reading Envoy's stats");
        }
        state.good = Some((families, Instant::now()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gauges older than this, or than three intervals, are not shown.
const STALE_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
