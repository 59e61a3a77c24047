//! One per VM and plugin configuration: reads the configuration, makes streams, flushes the table on a tick.
//!
//! In: Envoy's callbacks. Out: stats. What streams share is in [`Shared`]; a VM has one thread, so it is never contended.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use tally_core::config::Config;
use tally_core::table::{Global, Table};

use crate::admit::Admission;
use crate::host::{self, HostError};
use crate::route::Heads;
use crate::slot::Slot;
use crate::stats::EnvoyStats;
use crate::stream::Stream;

/// New stats per flush: to define one costs Envoy some fifty microseconds of the worker, which other requests wait for.
const DEFINITIONS_PER_FLUSH: usize = 40;
/// Time between flushes while stats wait to be defined.
const BACKLOG_TICK: Duration = Duration::from_millis(20);

/// Longest time between ticks with admission on: deadlines and reports depend on them.
const ADMISSION_TICK: Duration = Duration::from_secs(1);

/// What a root context and its streams share.
pub(crate) struct Shared {
    /// How to measure.
    pub(crate) config: Config,
    /// What was measured.
    pub(crate) table: RefCell<Table>,
    /// `None`: off.
    pub(crate) admission: Option<Admission>,
    slot: RefCell<Slot>,
    /// No tick will come any more: every end of a stream flushes.
    is_done: Cell<bool>,
    number: Cell<u64>,
    /// Requests whose heads wait.
    pub(crate) heads: Heads,
}

impl Shared {
    fn new(config: Config, root: u32) -> Self {
        let table = RefCell::new(Table::new(&config));
        let admission = config.admission.clone().map(|config| Admission::new(config, root));
        Self {
            config,
            table,
            admission,
            slot: RefCell::default(),
            is_done: Cell::new(false),
            number: Cell::new(0),
            heads: Heads::default(),
        }
    }

    /// Counts a call that Envoy refused; the value is then the type's default.
    pub(crate) fn or_default<T: Default>(&self, result: Result<T, HostError>) -> T {
        result.unwrap_or_else(|HostError { call }| {
            self.failed(call);
            T::default()
        })
    }

    /// Another number at each call.
    pub(crate) fn next_number(&self) -> u64 {
        self.number.replace(self.number.get().wrapping_add(1))
    }

    /// Counts a call that Envoy refused.
    pub(crate) fn failed(&self, call: &'static str) {
        self.table.borrow_mut().count(Global::HostCallError(call), 1);
    }

    /// Whether the root has ended: no tick will come any more.
    pub(crate) const fn is_done(&self) -> bool {
        self.is_done.get()
    }

    /// Time between ticks while nothing waits to be defined.
    fn period(&self) -> Duration {
        let period = Duration::from_millis(self.config.flush_interval_ms.into());
        if self.admission.is_some() { period.min(ADMISSION_TICK) } else { period }
    }

    /// A stream has ended and is counted.
    pub(crate) fn stream_ended(&self) {
        if self.is_done.get() || self.table.borrow().is_full() {
            self.flush(usize::MAX);
        }
    }

    /// Writes the table to Envoy. True: some new stats have to wait.
    fn flush(&self, definitions: usize) -> bool {
        let began = host::now();
        let (mut table, mut slot) = (self.table.borrow_mut(), self.slot.borrow_mut());
        if slot.was_claimed() {
            table.was_reaped();
        }
        let mut stats = EnvoyStats::default();
        if let Some(shares) = slot.claim_stale(began) {
            table.reap(&shares, &mut stats);
        }
        let has_backlog = table.flush(&mut stats, definitions, host::memory_bytes());
        let shares = table.held();
        let ended = host::now();
        if self.is_done.get() && shares.is_empty() {
            slot.free();
        } else if slot.write(&shares, ended.after(self.period())) {
            table.was_told();
        } else {
            table.was_reaped();
        }
        table.count(Global::FlushNanos, ended.since(began).0);
        for call in stats.failures() {
            table.count(Global::HostCallError(call), 1);
        }
        has_backlog
    }
}

/// The root context.
pub(crate) struct Root {
    id: u32,
    shared: Option<Rc<Shared>>,
    is_hurried: bool,
}

impl Root {
    /// One that is not configured yet.
    pub(crate) const fn new(id: u32) -> Self {
        Self { id, shared: None, is_hurried: false }
    }

    fn configure(&mut self) -> Result<(), String> {
        let text = host::configuration().map_err(|error| format!("Envoy refused {}", error.call))?;
        let config = Config::parse(&text).map_err(|error| error.to_string())?;
        let shared = Shared::new(config, self.id);
        host::tick_every(shared.period()).map_err(|error| format!("Envoy refused {}", error.call))?;
        let worst_case = Table::worst_case(&shared.config);
        log::info!("tally: at most {worst_case} stats, for {} models and those configured", shared.config.max_models);
        for doubt in shared.config.doubts() {
            log::warn!("tally: configuration key {doubt}");
        }
        self.shared = Some(Rc::new(shared));
        Ok(())
    }
}

impl Context for Root {
    fn on_done(&mut self) -> bool {
        if let Some(shared) = &self.shared {
            shared.is_done.set(true);
            if let Some(admission) = &shared.admission {
                admission.close(shared);
            }
            shared.flush(usize::MAX);
        }
        true
    }

    fn on_grpc_stream_close(&mut self, token: u32, _status: u32) {
        if let Some(admission) = self.shared.as_ref().and_then(|shared| shared.admission.as_ref()) {
            admission.stream_closed(token, host::now());
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match self.configure() {
            Ok(()) => true,
            Err(problem) => {
                log::error!("tally: {problem}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        let Some(shared) = &self.shared else { return };
        if let Some(admission) = &shared.admission {
            admission.tick(shared, host::now());
        }
        let has_backlog = shared.flush(DEFINITIONS_PER_FLUSH);
        if has_backlog != self.is_hurried {
            let usual = shared.period();
            shared.or_default(host::tick_every(if has_backlog { BACKLOG_TICK.min(usual) } else { usual }));
            self.is_hurried = has_backlog;
        }
        shared.heads.send_on(shared, self.id);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let shared = self.shared.clone()?;
        Some(Box::new(Stream::new(shared, context_id)))
    }
}
