//! The table of all counts of one VM: exchanges go in, the proxy's stats come out at a flush.
//!
//! In: [`Measured`] exchanges, starts and ends of running requests. Out: deltas through a [`Sink`]. Recording costs no
//! call to the proxy. Memory and series are bounded: so many models, so many pairs, so many tenants; the rest is `other`.

mod global;
mod row;
mod stat;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use hashbrown::HashMap;

use crate::catalog::{Family, filter, objective};
use crate::config::Config;
use crate::exchange::Measured;
use crate::labels::{Names, Symbol, TenantKey, clean};
pub use global::{AdmissionResult, Global, Ignored, OverflowLabel};
use row::Row;
pub use stat::{Budget, Sink, StatKind, stat_name};
use stat::{Counter, Gauge};

/// See the file's head.
#[derive(Debug)]
pub struct Table {
    models: Names,
    rows: HashMap<(Symbol, Symbol), Row>,
    max_rows: usize,
    running: Vec<Gauge>,
    tenants: Names,
    tenant_rows: HashMap<(Symbol, Symbol), [Counter; TENANT_FAMILIES.len()]>,
    max_tenant_rows: usize,
    globals: HashMap<Global, Counter>,
    live_streams: Gauge,
    series: Gauge,
    memory: Gauge,
    info: Gauge,
    estimate: bool,
    tenant_key: Option<TenantKey>,
}

/// Families of the tenant rows, in the order of their counters.
const TENANT_FAMILIES: [&Family; 3] =
    [&objective::TENANT_REQUEST_TOTAL, &objective::TENANT_INPUT_TOKENS_TOTAL, &objective::TENANT_OUTPUT_TOKENS_TOTAL];

/// A running request: must be given back by [`Table::stop`].
#[derive(Debug)]
pub struct RunningMark(Symbol);

impl Table {
    /// An empty table within the configuration's bounds.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let max_tenants = if config.tenant_header.is_empty() { 0 } else { config.max_tenants as usize };
        Self {
            models: Names::new(config.max_models as usize, &config.models),
            rows: HashMap::new(),
            max_rows: max_rows(config),
            running: Vec::new(),
            tenants: Names::new(max_tenants, &[]),
            tenant_rows: HashMap::new(),
            max_tenant_rows: max_tenant_rows(config),
            globals: HashMap::new(),
            live_streams: Gauge::default(),
            series: Gauge::default(),
            memory: Gauge::default(),
            info: Gauge::default(),
            estimate: config.estimate_missing_usage,
            tenant_key: config.tenant_key.filter(|_| config.hash_tenant),
        }
    }

    /// The most stats that a table within these bounds may define in the proxy.
    #[must_use]
    pub fn worst_case(config: &Config) -> usize {
        let tenants =
            if config.tenant_header.is_empty() { 0 } else { (max_tenant_rows(config) + 1) * TENANT_FAMILIES.len() };
        let gauges = values(config) + 2;
        (max_rows(config) + 1) * Row::worst_case() + gauges + tenants + OWN_STATS
    }

    /// A request of this model is in flight; empty: of a model that nobody named.
    pub fn start(&mut self, model: &[u8]) -> RunningMark {
        let symbol = self.models.of(model);
        if self.running.len() <= symbol.index() {
            self.running.resize_with(symbol.index() + 1, Gauge::default);
        }
        self.change_running(symbol, 1);
        RunningMark(symbol)
    }

    /// It is no longer.
    pub fn stop(&mut self, mark: RunningMark) {
        self.change_running(mark.0, -1);
    }

    /// Counts an exchange that has ended.
    pub fn record(&mut self, measured: &Measured) {
        let asked = if measured.model.is_empty() { &measured.answered_model } else { &measured.model };
        let model = self.models.of(asked);
        let target = if measured.target_model.is_empty() { model } else { self.models.of(&measured.target_model) };
        let is_mismatch = !measured.answered_model.is_empty()
            && measured.answered_model != *asked
            && measured.answered_model != measured.target_model;
        let estimate = self.estimate;
        self.row(model, target).record(measured, is_mismatch, estimate);
        if !measured.tenant.is_empty() {
            self.record_tenant(model, measured);
        }
        self.count(Global::RequestQuality(measured.api, measured.request_quality), 1);
        self.count(Global::UsageQuality(measured.api, measured.usage_quality), 1);
        let [request, response] = measured.scanned;
        self.count(Global::ScannedRequest, request);
        self.count(Global::ScannedResponse, response);
    }

    /// Counts something that belongs to no model.
    pub fn count(&mut self, what: Global, delta: u64) {
        if delta > 0 {
            self.globals.entry(what).or_default().add(delta);
        }
    }

    /// A stream begins (+1) or ends (-1), measured or not.
    pub const fn live_streams(&mut self, change: i64) {
        self.live_streams.now += change;
    }

    /// Writes what has changed, defining at most so many new stats. True: some of it has to wait for the next flush.
    pub fn flush(&mut self, sink: &mut impl Sink, definitions: usize, memory_bytes: u64) -> bool {
        let mut budget = Budget::new(definitions);
        self.memory.now = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
        self.flush_gauges(sink, &mut budget);
        for ((model, target), row) in &mut self.rows {
            row.flush(sink, &mut budget, self.models.text(*model), self.models.text(*target));
        }
        for ((model, tenant), counters) in &mut self.tenant_rows {
            let labels = [("model_name", self.models.text(*model)), ("tenant", self.tenants.text(*tenant))];
            for (counter, family) in counters.iter_mut().zip(TENANT_FAMILIES) {
                counter.flush(sink, &mut budget, || stat_name(&labels, None, family.name, ""));
            }
        }
        let overflows = [
            (OverflowLabel::ModelName, self.models.take_overflow()),
            (OverflowLabel::Tenant, self.tenants.take_overflow()),
        ];
        for (label, folded) in overflows {
            self.count(Global::Overflow(label), folded);
        }
        self.count(Global::Flushes, 1);
        for (what, counter) in &mut self.globals {
            let (family, labels, len) = what.stat();
            counter
                .flush(sink, &mut budget, || stat_name(labels.get(..len).unwrap_or_default(), None, family.name, ""));
        }
        self.series.now += i64::try_from(budget.defined).unwrap_or(0);
        budget.is_short
    }

    /// This VM's shares of the gauges, as the proxy knows them: for [`Self::reap`] by another VM, should this one fail.
    #[must_use]
    pub fn held(&self) -> String {
        let own = [&self.live_streams, &self.series, &self.memory];
        let mut text = String::new();
        for (name, share) in self.running.iter().chain(own).filter_map(Gauge::held) {
            // Writing to a String cannot fail. A stat name holds no control characters (`labels.rs`).
            let _ = writeln!(text, "{share} {name}");
        }
        text
    }

    /// The other VMs were told of [`Self::held`].
    pub fn was_told(&mut self) {
        self.gauges().for_each(Gauge::was_told);
    }

    /// Another VM took this one for failed and its told shares out of the gauges: the next flush gives them again.
    pub fn was_reaped(&mut self) {
        self.gauges().for_each(Gauge::was_reaped);
    }

    /// Takes the shares of a failed VM out of the gauges.
    pub fn reap(&mut self, held: &str, sink: &mut impl Sink) {
        for line in held.lines() {
            let Some((share, name)) = line.split_once(' ') else { continue };
            let (Ok(share), Some(id)) = (share.parse::<i64>(), sink.define(StatKind::Gauge, name)) else { continue };
            sink.add(id, -share);
            if name == filter::LIVE_STREAMS.name {
                self.count(Global::Reaped, u64::try_from(share).unwrap_or(0));
            }
        }
    }

    fn gauges(&mut self) -> impl Iterator<Item = &mut Gauge> {
        self.running.iter_mut().chain([&mut self.live_streams, &mut self.series, &mut self.memory])
    }

    fn row(&mut self, model: Symbol, target: Symbol) -> &mut Row {
        let is_known = self.rows.contains_key(&(model, target));
        let key =
            if is_known || self.rows.len() < self.max_rows { (model, target) } else { (Symbol::OTHER, Symbol::OTHER) };
        if !is_known && key == (Symbol::OTHER, Symbol::OTHER) {
            self.count(Global::Overflow(OverflowLabel::ModelName), 1);
        }
        self.rows.entry(key).or_default()
    }

    fn record_tenant(&mut self, model: Symbol, measured: &Measured) {
        let tenant = match &self.tenant_key {
            Some(key) => self.tenants.of(key.hash(&measured.tenant).as_bytes()),
            None => self.tenants.of(&measured.tenant),
        };
        let is_known = self.tenant_rows.contains_key(&(model, tenant));
        let is_room = self.tenant_rows.len() < self.max_tenant_rows;
        let key = if is_known || is_room { (model, tenant) } else { (Symbol::OTHER, Symbol::OTHER) };
        let usage = &measured.usage;
        let [requests, input, output] = self.tenant_rows.entry(key).or_default();
        requests.add(1);
        input.add(usage.input.unwrap_or(0));
        output.add(usage.output.unwrap_or(0));
    }

    fn change_running(&mut self, symbol: Symbol, change: i64) {
        if let Some(gauge) = self.running.get_mut(symbol.index()) {
            gauge.now += change;
        }
    }

    fn flush_gauges(&mut self, sink: &mut impl Sink, budget: &mut Budget) {
        let mut symbols = self.models.symbols();
        for gauge in &mut self.running {
            let Some(symbol) = symbols.next() else { break };
            let labels = [("model_name", self.models.text(symbol))];
            gauge.flush(sink, budget, || stat_name(&labels, None, objective::RUNNING_REQUESTS.name, ""));
        }
        for (gauge, family) in [
            (&mut self.live_streams, &filter::LIVE_STREAMS),
            (&mut self.series, &filter::SERIES),
            (&mut self.memory, &filter::VM_MEMORY_BYTES),
        ] {
            gauge.flush(sink, budget, || String::from(family.name));
        }
        if self.info.now == 0 {
            self.info.now = 1;
            let version = clean(env!("CARGO_PKG_VERSION").as_bytes());
            let name = stat_name(&[("version", &version)], None, filter::INFO.name, "");
            if let Some(id) = sink.define(StatKind::Gauge, &name) {
                sink.set(id, 1);
            }
        }
    }
}

/// Distinct model names.
const fn values(config: &Config) -> usize {
    config.max_models as usize + config.models.len()
}

/// Most requests are for their own model; a rewritten one makes a second pair.
const fn max_rows(config: &Config) -> usize {
    2 * values(config) + 2
}

const fn max_tenant_rows(config: &Config) -> usize {
    10 * config.max_tenants as usize
}

/// Counters and gauges that the filter has of itself, with room for each failing call to the proxy.
const OWN_STATS: usize = 150;
