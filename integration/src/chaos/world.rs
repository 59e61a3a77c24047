//! The processes of a chaos run: Envoy with the filter and a hostile one beside it, tallyd with a pool and flow control,
//! a model server, clients. And what has to be true of all of them after a fault.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::book::{Book, Fate};
use super::load::{Books, Load, locked};
use super::pool::Pool;
use super::upstream::Upstream;
use crate::companion::Companion;
use crate::envoy::{Envoy, Options};
use crate::tools::{self, poll};

/// What was counted is seen after a flush and a scrape; a loaded machine takes its time.
pub(crate) const SOON: Duration = Duration::from_secs(40);
/// Shorter than the half minute after which tallyd forgets a filter that is silent: all ends have to be told.
const TOLD: Duration = Duration::from_secs(25);
const RUNNING: &str = "inference_objective_running_requests";
const QUEUE_SIZE: &str = "inference_extension_flow_control_queue_size";
const SATURATION: &str = "inference_extension_flow_control_pool_saturation";

/// What a fault may change of the usual Envoy.
pub(crate) type Tweak<'a> = &'a dyn Fn(Options) -> Options;

/// All processes, and what is known of their traffic.
#[derive(Debug)]
pub(crate) struct World {
    pub envoy: Envoy,
    pub companion: Option<Companion>,
    pub upstream: Upstream,
    pub pool: Pool,
    pub books: Books,
    pub load: Load,
    /// What Envoy's listener was last made of.
    pub options: Options,
    /// Watched requests have numbers of their own.
    pub next_watch: u64,
    vm_failures: f64,
    flow: u16,
    folder: TempDir,
}

/// What was found after a fault.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Requests in the book.
    pub requests: u64,
    /// Of them not counted.
    pub lost: u64,
    /// How many a fault may lose: only a trap of the filter's own VM loses any.
    pub allowed: u64,
    /// Counted more than once, or under another name.
    pub twice: u64,
    /// Envoy has ended by itself.
    pub has_crashed: bool,
    /// What is not as it should be, in words.
    pub wrong: Vec<String>,
}

impl World {
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(&|options| options)
    }

    /// One whose Envoy differs.
    pub(crate) fn start_with(tweak: Tweak<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (upstream, pool, flow) = (Upstream::start()?, Pool::start(folder.path())?, tools::free_port()?);
        fs::write(folder.path().join("pressure"), "0")?;
        let hostile = folder.path().join("hostile.wasm");
        fs::write(&hostile, wat::parse_str(include_str!("hostile.wat"))?)?;
        let mut options = Options { companion: flow, is_listener_dynamic: true, ..Options::to(upstream.port) };
        // Named from the start: an update that changes the address, and be it from 0, makes Envoy close the old socket with
        // all connections that it has not accepted yet.
        options.listener = tools::free_port()?;
        options = super::bootstrap::edited(options, &hostile, &folder.path().join("pressure"));
        let options = tweak(options.config(super::bootstrap::CONFIG));
        let envoy = Envoy::start(&options)?;
        let books: Books = Arc::default();
        let load = Load::start(envoy.port, Arc::clone(&books));
        let companion = None;
        let mut world = Self {
            envoy,
            companion,
            upstream,
            pool,
            books,
            load,
            options,
            next_watch: 0,
            vm_failures: 0.0,
            flow,
            folder,
        };
        // Before the companion is there the filter fails open: that is a beginning like any other.
        world.start_companion()?;
        world.load.after(20)?;
        Ok(world)
    }

    /// Starts tallyd at the port that Envoy knows.
    pub(crate) fn start_companion(&mut self) -> Result<()> {
        let config = format!(
            "envoy: [{{url: 'http://127.0.0.1:{}', interval: 250ms}}]\n\
             pools: [{{name: chaos, discovery: {{file: '{}'}}, engine: vllm, timeout: 1s}}]\n\
             flow_control: {{saturationDetector: {{detectors: [utilization-detector, concurrency-detector], \
             maxConcurrency: 64, metricsStalenessThreshold: 2s}}}}\n",
            self.envoy.admin,
            self.pool.file().display()
        );
        let port = self.flow.to_string();
        self.companion = Some(Companion::start(&config, &["--grpc-port", &port, "--grpc-health-port", "0"])?);
        ensure!(tools::listening(self.flow, SOON), "tallyd does not listen at {port}");
        Ok(())
    }

    /// Ends tallyd as a crash would.
    pub(crate) fn kill_companion(&mut self) -> Result<()> {
        let mut companion = self.companion.take().context("tallyd runs")?;
        companion.process().0.kill()?;
        companion.process().0.wait()?;
        Ok(())
    }

    /// A file that Envoy's overload manager reads as pressure, 0 to 1.
    pub(crate) fn pressure(&self, value: &str) -> Result<()> {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, value)?;
        Ok(fs::rename(&draft, self.folder.path().join("pressure"))?)
    }

    /// Requests in the book.
    pub(crate) fn requests(&self) -> u64 {
        locked(&self.books).requests()
    }

    /// The number of a request whose progress somebody waits for.
    pub(crate) fn watch(&mut self) -> u64 {
        self.next_watch += 1;
        self.next_watch
    }

    pub(crate) fn enter(&self, fate: Fate) {
        locked(&self.books).enter(fate);
    }

    /// Requests that tallyd holds back.
    pub(crate) fn waits(&self, requests: f64) -> Result<()> {
        let waiting = || self.companion.as_ref()?.page().ok().map(|page| page.total(QUEUE_SIZE, &[]));
        poll(SOON, || (waiting()? >= requests).then_some(()))
            .with_context(|| format!("{requests} should wait, {:?} do", waiting()))
    }

    /// A failure of a VM that a fault has caused on purpose is none.
    pub(crate) fn forgive_vm_failures(&mut self) -> Result<()> {
        self.vm_failures = self.envoy.vm_failures()?;
        Ok(())
    }

    /// Holds the traffic and compares everything with the book. The traffic goes on afterwards.
    pub(crate) fn check(&mut self) -> Result<Found> {
        let mut found = self.compare()?;
        self.check_companion(&mut found);
        self.load.resume();
        Ok(found)
    }

    /// The same without a look at tallyd.
    pub(crate) fn check_envoy(&mut self) -> Result<Found> {
        let found = self.compare()?;
        self.load.resume();
        Ok(found)
    }

    fn compare(&mut self) -> Result<Found> {
        self.load.pause()?;
        let mut found = Found { wrong: self.load.hurt(), ..Found::default() };
        if !self.envoy.alive() {
            bail!("Envoy has ended:\n{}", self.envoy.log());
        }
        let is_exact = |book: &Book, page: &crate::page::Page| {
            book.differences(page).is_empty()
                && page.total(RUNNING, &[]) == 0.0
                && page.total("tally_filter_live_streams", &[]) == 0.0
        };
        {
            let book = locked(&self.books);
            // Polled: the tick of the slowest worker may still be to come.
            poll(SOON, || is_exact(&book, &self.envoy.page().ok()?).then_some(()));
            let page = self.envoy.page()?;
            found.requests = book.requests();
            (found.lost, found.twice) = book.lost_and_twice(&page);
            for difference in book.differences(&page) {
                let (expected, seen) = (difference.expected, difference.found);
                found.wrong.push(format!("{}: {expected} by the ledger, {seen} counted", difference.series));
            }
            for gauge in [RUNNING, "tally_filter_live_streams"] {
                let value = page.total(gauge, &[]);
                if value != 0.0 {
                    found.wrong.push(format!("{gauge} is {value}"));
                }
            }
            let failed = page.total("tally_filter_host_call_errors_total", &[]);
            if failed != 0.0 {
                found.wrong.push(format!("{failed} calls to Envoy failed"));
            }
        }
        if self.envoy.vm_failures()? != self.vm_failures {
            found.wrong.push(format!("a VM failed:\n{}", self.envoy.log()));
        }
        Ok(found)
    }

    /// Nobody waits, nothing runs, and tallyd's page shows what Envoy's does.
    fn check_companion(&self, found: &mut Found) {
        let Some(companion) = &self.companion else { return };
        let requests = |page: &crate::page::Page| page.total("inference_objective_request_total", &[]);
        let look = || {
            let (page, own) = (companion.page().ok()?, self.envoy.page().ok()?);
            let is_idle = page.total(QUEUE_SIZE, &[]) == 0.0 && page.sum(SATURATION, &[])? == 0.0;
            (is_idle && requests(&page) == requests(&own)).then_some(())
        };
        if poll(TOLD, look).is_none() {
            let page = companion.page().unwrap_or_default();
            found.wrong.push(format!(
                "tallyd: {} wait, saturation {:?}, {} requests on its page and {} on Envoy's",
                page.total(QUEUE_SIZE, &[]),
                page.sum(SATURATION, &[]),
                requests(&page),
                self.envoy.page().map_or(-1.0, |page| requests(&page)),
            ));
        }
    }
}
