//! The loop: health and one listing a cycle, calls in parallel, the page kept in step.
//!
//! In: the watched file and the server. Out: calls, and what [`Status`] shows.
//! It never waits for one adapter before it cares for another, and a server that hangs never keeps it from
//! reading the file or from stopping.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Args;
use super::client::{Client, Failure};
use super::config::LoraConfig;
use super::diff::Action;
use super::engine::{Engine, Listing, Verdict, words};
use super::reconcile::Reconciler;
use super::status::Status;
use crate::watch::Newest;

/// One server, kept as one file says.
pub(super) struct Syncer {
    engine: Engine,
    client: Client,
    status: Arc<Status>,
    path: PathBuf,
    reconciler: Reconciler,
    /// At most one look at the server.
    looks: JoinSet<Result<Listing, Failure>>,
    calls: JoinSet<(Action, Verdict, String)>,
    authority: Option<String>,
    every: Duration,
    health_every: Duration,
    health_timeout: Duration,
    start: Instant,
    look_began: Instant,
    next_look: tokio::time::Instant,
    lost_since: Option<Instant>,
    is_complained: bool,
}

impl Syncer {
    /// From the command line.
    pub(super) fn new(args: &Args, client: Client, status: Arc<Status>) -> Self {
        Self {
            engine: args.engine,
            client,
            status,
            path: args.config.clone(),
            reconciler: Reconciler::new(args.engine, seed()),
            looks: JoinSet::new(),
            calls: JoinSet::new(),
            authority: None,
            every: Duration::from_secs(args.reconcile_trigger),
            health_every: Duration::from_secs(args.health_check_interval),
            health_timeout: Duration::from_secs(args.health_check_timeout),
            start: Instant::now(),
            look_began: Instant::now(),
            next_look: tokio::time::Instant::now(),
            lost_since: None,
            is_complained: false,
        }
    }

    /// Until told to stop; calls under way are dropped then.
    pub(super) async fn run(
        mut self,
        mut file: watch::Receiver<Newest>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let is_looking = !self.looks.is_empty();
            tokio::select! {
                // The end first: it ends the watching of the file too, which is no error then.
                biased;
                () = shutdown.cancelled() => return Ok(()),
                changed = file.changed() => {
                    changed.context("the file is not watched any more")?;
                    let newest = file.borrow_and_update().clone();
                    self.read(newest);
                }
                Some(Ok(listing)) = self.looks.join_next() => self.looked(listing),
                // Not during a look: its listing may be older than the answer.
                Some(Ok((action, verdict, said))) = self.calls.join_next(), if !is_looking => {
                    self.answered(&action, verdict, &said);
                }
                () = tokio::time::sleep_until(self.next_look), if !is_looking && self.authority.is_some() => self.look(),
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn read(&mut self, newest: Newest) {
        let Some(newest) = newest else { return };
        let parse =
            |text: String| LoraConfig::parse(&text).map_err(|error| format!("{}: {error}", self.path.display()));
        match newest.and_then(parse) {
            Ok(config) => self.accept(config),
            Err(reason) => {
                let mut shown = self.status.lock();
                shown.is_config_valid = false;
                let kept = if shown.generation > 0 {
                    "the last good configuration is kept"
                } else {
                    "nothing is done until it is mended"
                };
                error!("{reason}; {kept}");
            }
        }
    }

    fn accept(&mut self, config: LoraConfig) {
        for warning in &config.warnings {
            warn!("{}: {warning}", self.path.display());
        }
        let (loads, unloads) = (config.desired.exist.len(), config.desired.forbidden.len());
        info!(name = config.name.as_deref().unwrap_or_default(), loads, unloads, "configuration read");
        let authority = Some(format!("{}:{}", config.host, config.port));
        if self.authority != authority {
            // What is known is another server's; calls to it are dropped.
            self.authority = authority;
            self.reconciler = Reconciler::new(self.engine, seed());
            (self.looks, self.calls) = (JoinSet::new(), JoinSet::new());
        }
        let now = self.now();
        self.reconciler.desire(config.desired, now);
        self.next_look = tokio::time::Instant::now();
        {
            let mut shown = self.status.lock();
            shown.generation += 1;
            shown.is_config_valid = true;
        }
        self.show();
    }

    /// Starts one look: health first, then the listing.
    fn look(&mut self) {
        let Some(authority) = self.authority.clone() else { return };
        self.look_began = Instant::now();
        let client = self.client.clone();
        self.looks.spawn(async move {
            client.is_healthy(&authority).await?;
            client.models(&authority).await
        });
    }

    fn looked(&mut self, listing: Result<Listing, Failure>) {
        let now = self.now();
        let (result, pause) = match listing {
            Ok(listing) => {
                self.found();
                for (id, reason) in self.reconciler.listed(listing, now) {
                    warn!(adapter = id, reason = reason.class(), "{}", reason.advice());
                    self.status.lock().count_error(&id, reason.class());
                }
                self.call_next();
                (if self.reconciler.is_satisfied() { "ok" } else { "partial" }, self.every)
            }
            Err(failure) => {
                self.reconciler.lost(failure.reason, now);
                self.lost(&failure);
                ("failed", self.health_every)
            }
        };
        self.next_look = tokio::time::Instant::now() + pause;
        self.show();
        let mut shown = self.status.lock();
        *shown.reconciles.entry(result).or_default() += 1;
        shown.duration = self.look_began.elapsed();
        if result == "ok" {
            shown.last_success = Some(SystemTime::now());
        }
    }

    fn found(&mut self) {
        if self.lost_since.take().is_some() {
            info!("the model server answers");
        }
        self.is_complained = false;
    }

    fn lost(&mut self, Failure { reason, said }: &Failure) {
        let (class, advice) = (reason.class(), reason.advice());
        self.status.lock().count_error("", class);
        if self.lost_since.is_none() {
            warn!(reason = class, "the model server does not answer: {said}; {advice}");
        }
        let since = *self.lost_since.get_or_insert(self.look_began);
        if !self.is_complained && since.elapsed() >= self.health_timeout {
            self.is_complained = true;
            let seconds = self.health_timeout.as_secs();
            error!(reason = class, "the model server has not answered for {seconds} s: {said}; {advice}");
        }
    }

    /// Starts the calls that are due and have a place.
    fn call_next(&mut self) {
        let Some(authority) = self.authority.clone() else { return };
        for action in self.reconciler.next(self.start.elapsed()) {
            self.call(authority.clone(), action);
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
                Err(Failure { reason, said }) => (action, Verdict::Failed(reason), said),
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
            Verdict::AlreadySo | Verdict::Done | Verdict::UnloadFirst => info!(adapter, "{what}: {said}"),
        }
        self.call_next();
        self.show();
    }

    fn show(&self) {
        let mut shown = self.status.lock();
        shown.set_adapters(self.reconciler.statuses());
        shown.waits_for = self.reconciler.waits_for();
    }
}

/// Of the jitter; without the system's randomness pods march in step, and that is all.
fn seed() -> u64 {
    getrandom::u64().unwrap_or(1)
}
