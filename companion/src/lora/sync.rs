//! The loop: health, one listing, calls in parallel; again after a while, a change or an answer.
//!
//! In: the watched file and the server. Out: calls, and what [`Status`] shows.
//! It never waits for one adapter before it cares for another, and never acts without a listing.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Args;
use super::client::Client;
use super::config::LoraConfig;
use super::diff::Action;
use super::engine::{Engine, Reason, Verdict, words};
use super::reconcile::Reconciler;
use super::status::Status;
use crate::watch::Newest;

/// One server, kept as one file says.
pub(super) struct Syncer {
    engine: Engine,
    client: Client,
    status: Arc<Status>,
    reconciler: Reconciler,
    calls: JoinSet<(Action, Verdict, String)>,
    authority: Option<String>,
    every: Duration,
    health_every: Duration,
    health_timeout: Duration,
    start: Instant,
    healthy_at: Duration,
    is_complained: bool,
}

impl Syncer {
    /// From the command line.
    pub(super) fn new(args: &Args, client: Client, status: Arc<Status>) -> Self {
        let seed = getrandom::u64().unwrap_or(1);
        Self {
            engine: args.engine,
            client,
            status,
            reconciler: Reconciler::new(args.engine, seed),
            calls: JoinSet::new(),
            authority: None,
            every: Duration::from_secs(args.reconcile_trigger),
            health_every: Duration::from_secs(args.health_check_interval),
            health_timeout: Duration::from_secs(args.health_check_timeout),
            start: Instant::now(),
            healthy_at: Duration::ZERO,
            is_complained: false,
        }
    }

    /// Until told to stop; calls under way are dropped then.
    pub(super) async fn run(mut self, mut file: watch::Receiver<Newest>, shutdown: CancellationToken) {
        loop {
            let pause = if self.authority.is_some() { self.reconcile().await } else { self.every };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                changed = file.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let newest = file.borrow_and_update().clone();
                    self.read(newest);
                }
                Some(Ok((action, verdict, said))) = self.calls.join_next() => self.answered(&action, verdict, &said),
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn read(&mut self, newest: Newest) {
        let Some(newest) = newest else { return };
        match newest.and_then(|text| LoraConfig::parse(&text).map_err(|error| error.to_string())) {
            Ok(config) => {
                for warning in &config.warnings {
                    warn!("{warning}");
                }
                let (loads, unloads) = (config.desired.exist.len(), config.desired.forbidden.len());
                info!(name = config.name.as_deref().unwrap_or_default(), loads, unloads, "configuration read");
                self.authority = Some(format!("{}:{}", config.host, config.port));
                let now = self.now();
                self.reconciler.desire(config.desired, now);
                let mut shown = self.status.lock();
                shown.generation += 1;
                shown.is_config_valid = true;
            }
            Err(reason) => {
                let mut shown = self.status.lock();
                shown.is_config_valid = false;
                let kept = if shown.generation > 0 {
                    "the last good one is kept"
                } else {
                    "nothing is done until it is mended"
                };
                error!("configuration: {reason}; {kept}");
            }
        }
    }

    /// One run; says how long to pause.
    async fn reconcile(&mut self) -> Duration {
        let began = Instant::now();
        let result = self.look().await;
        let mut waits_for = None;
        let (result, pause) = match result {
            Ok(()) if self.reconciler.is_satisfied() => ("ok", self.every),
            Ok(()) => {
                let untried: Vec<_> = self.reconciler.untried().collect();
                if !untried.is_empty() {
                    waits_for = Some(format!("not tried yet: {}", untried.join(", ")));
                }
                ("partial", self.every)
            }
            Err(reason) => {
                waits_for = Some(format!("the model server does not answer: {}", reason.class()));
                ("failed", self.health_every)
            }
        };
        let mut shown = self.status.lock();
        shown.set_adapters(self.reconciler.statuses());
        *shown.reconciles.entry(result).or_default() += 1;
        shown.duration = began.elapsed();
        shown.waits_for = waits_for;
        if result == "ok" {
            shown.last_success = Some(SystemTime::now());
        }
        pause
    }

    async fn look(&mut self) -> Result<(), Reason> {
        let Some(authority) = self.authority.clone() else { return Ok(()) };
        if let Err(reason) = self.client.is_healthy(&authority).await {
            self.lost(reason, "health check");
            return Err(reason);
        }
        self.healthy_at = self.now();
        self.is_complained = false;
        let listing = self.client.models(&authority).await;
        let listing = listing.and_then(|answer| Engine::read_listing(answer.status, &answer.body));
        let listing = listing.inspect_err(|reason| self.lost(*reason, "listing"))?;
        let now = self.now();
        let plan = self.reconciler.plan(&listing, now);
        for (id, reason) in &plan.failures {
            warn!(adapter = id, reason = reason.class(), "{}", reason.advice());
            self.status.lock().count_error(id, reason.class());
        }
        for action in plan.actions {
            self.call(authority.clone(), action);
        }
        Ok(())
    }

    fn lost(&mut self, reason: Reason, what: &str) {
        let now = self.now();
        self.reconciler.lost(reason, now);
        self.status.lock().count_error("", reason.class());
        if !self.is_complained && now.saturating_sub(self.healthy_at) >= self.health_timeout {
            self.is_complained = true;
            error!(
                reason = reason.class(),
                "{what} has failed for {} s; {}",
                self.health_timeout.as_secs(),
                reason.advice()
            );
        }
    }

    fn call(&mut self, authority: String, action: Action) {
        let (client, engine) = (self.client.clone(), self.engine);
        self.calls.spawn(async move {
            let call = match &action {
                Action::Load(adapter) => engine.load(adapter, false),
                Action::Replace(adapter) => engine.load(adapter, true),
                Action::Unload(id) => engine.unload(id),
            };
            match client.call(&authority, call).await {
                Ok(answer) => {
                    let verdict = match &action {
                        Action::Unload(_) => engine.read_unload(answer.status, &answer.body),
                        _ => engine.read_load(answer.status, &answer.body),
                    };
                    let said = words(&answer.body);
                    (action, verdict, said)
                }
                Err(reason) => (action, Verdict::Failed(reason), String::new()),
            }
        });
    }

    fn answered(&mut self, action: &Action, verdict: Verdict, said: &str) {
        let now = self.now();
        self.reconciler.finish(action, verdict, now);
        let what = match action {
            Action::Load(_) => "load",
            Action::Replace(_) => "replace",
            Action::Unload(_) => "unload",
        };
        let adapter = action.id();
        match verdict {
            Verdict::Failed(reason) => {
                warn!(adapter, reason = reason.class(), "{what} failed: {said}; {}", reason.advice());
                self.status.lock().count_error(adapter, reason.class());
            }
            Verdict::AlreadySo | Verdict::Done => info!(adapter, "{what}: {said}"),
        }
    }
}
