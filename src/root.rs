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

use crate::host::{self, HostError};
use crate::route::Heads;
use crate::slot::Slot;
use crate::stats::EnvoyStats;
use crate::stream::Stream;

/// New stats per flush: to define one costs Envoy some fifty microseconds of the worker, which other requests wait for.
const DEFINITIONS_PER_FLUSH: usize = 40;
/// Time between flushes while stats wait to be defined.
const BACKLOG_TICK: Duration = Duration::from_millis(20);

/// What a root context and its streams share.
pub(crate) struct Shared {
    /// How to measure.
    pub(crate) config: Config,
    /// What was measured.
    pub(crate) table: RefCell<Table>,
    slot: RefCell<Slot>,
    /// No tick will come any more: every end of a stream flushes.
    is_done: Cell<bool>,
    number: Cell<u64>,
    /// Requests whose heads wait.
    pub(crate) heads: Heads,
}

impl Shared {
    fn new(config: Config) -> Self {
        let table = RefCell::new(Table::new(&config));
        Self {
            config,
            table,
            slot: RefCell::default(),
            is_done: Cell::new(false),
            number: Cell::new(0),
            heads: Heads::default(),
        }
    }

    /// Counts a call that Envoy refused; the value is then the type's default.
    pub(crate) fn or_default<T: Default>(&self, result: Result<T, HostError>) -> T {
        result.unwrap_or_else(|HostError { call }| {
            self.table.borrow_mut().count(Global::HostCallError(call), 1);
            T::default()
        })
    }

    /// Another number at each call.
    pub(crate) fn next_number(&self) -> u64 {
        self.number.replace(self.number.get().wrapping_add(1))
    }

    /// A stream has ended and is counted.
    pub(crate) fn stream_ended(&self) {
        if self.is_done.get() {
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
        } else if slot.write(&shares, ended) {
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
    shared: Option<Rc<Shared>>,
    is_hurried: bool,
}

impl Root {
    /// One that is not configured yet.
    pub(crate) const fn new() -> Self {
        Self { shared: None, is_hurried: false }
    }

    fn configure(&mut self) -> Result<(), String> {
        let text = host::configuration().map_err(|error| format!("Envoy refused {}", error.call))?;
        let config = Config::parse(&text).map_err(|error| error.to_string())?;
        let period = Duration::from_millis(config.flush_interval_ms);
        host::tick_every(period).map_err(|error| format!("Envoy refused {}", error.call))?;
        let shared = Shared::new(config);
        let worst_case = shared.table.borrow().worst_case(&shared.config);
        log::info!("tally: at most {worst_case} stats, for {} models and those configured", shared.config.max_models);
        self.shared = Some(Rc::new(shared));
        Ok(())
    }
}

impl Context for Root {
    fn on_done(&mut self) -> bool {
        if let Some(shared) = &self.shared {
            shared.is_done.set(true);
            shared.flush(usize::MAX);
        }
        true
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
        let has_backlog = shared.flush(DEFINITIONS_PER_FLUSH);
        if has_backlog != self.is_hurried {
            let usual = Duration::from_millis(shared.config.flush_interval_ms);
            shared.or_default(host::tick_every(if has_backlog { BACKLOG_TICK.min(usual) } else { usual }));
            self.is_hurried = has_backlog;
        }
        shared.heads.send_on(shared);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let shared = self.shared.clone()?;
        Some(Box::new(Stream::new(shared, context_id)))
    }
}
