//! The table of all counts of one VM: exchanges go in, the proxy's stats come out at a flush.
//!
//! In: [`Measured`] exchanges, starts and ends of running requests. Out: deltas through a [`Sink`]. Recording costs no
//! call to the proxy. Memory and series are bounded: so many models, so many pairs, so many tenants; the rest is `other`.

mod global;
mod key;
mod row;
mod spelling;
mod stat;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use hashbrown::HashMap;

use crate::catalog::{Family, filter, objective};
use crate::config::{Config, Profile};
use crate::exchange::{Exchange, Flow, Measured};
use crate::labels::{Names, Symbol, TenantKey, clean};
pub use global::{AdmissionResult, Global, Ignored, OverflowLabel};
use key::{RowKey, max_names};
use row::Row;
pub use stat::{Budget, Sink, StatKind};
use stat::{Counter, Gauge, NO_MORE, stat_name};

/// See the file's head.
#[derive(Debug)]
pub struct Table {
    models: Names,
    rows: HashMap<RowKey, Row>,
    /// Rows that may still be made, by kind.
    room: [usize; RowKey::KINDS],
    fairness_ids: Names,
    profile: Profile,
    running: Vec<Gauge>,
    tenants: Names,
    tenant_rows: HashMap<(Symbol, Symbol), [Counter; TENANT_FAMILIES.len()]>,
    max_tenant_rows: usize,
    globals: HashMap<Global, Counter>,
    live_streams: Gauge,
    series: Gauge,
    memory: Gauge,
    info: Gauge,
    /// Requests are told apart by priority.
    has_priority: bool,
    is_native: bool,
    is_full: bool,
    estimate: bool,
    tenant_key: Option<TenantKey>,
}

/// Families of the tenant rows, in the order of their counters.
const TENANT_FAMILIES: [&Family; 3] =
    [&objective::TENANT_REQUEST_TOTAL, &objective::TENANT_INPUT_TOKENS_TOTAL, &objective::TENANT_OUTPUT_TOKENS_TOTAL];

/// A running request: must be given back by [`Table::stop`].
#[derive(Debug)]
pub struct RunningMark(Symbol, Option<RowKey>);

/// Flow control's name for requests that name no flow.
const DEFAULT_FLOW: &str = "default-flow";

impl Table {
    /// An empty table within the configuration's bounds.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let max_tenants = if config.tenant_header.is_empty() { 0 } else { config.max_tenants as usize };
        Self {
            models: Names::new(config.max_models as usize, &config.models),
            rows: HashMap::new(),
            room: RowKey::room(config),
            fairness_ids: Names::new(config.max_fairness_ids as usize, &[DEFAULT_FLOW.to_string()]),
            profile: config.profile,
            running: Vec::new(),
            tenants: Names::new(max_tenants, &[]),
            tenant_rows: HashMap::new(),
            max_tenant_rows: max_tenant_rows(config),
            globals: HashMap::new(),
            live_streams: Gauge::default(),
            series: Gauge::default(),
            memory: Gauge::default(),
            info: Gauge::default(),
            has_priority: config.priority_label,
            is_native: config.native_histograms,
            is_full: false,
            estimate: config.estimate_missing_usage,
            tenant_key: config.tenant_key.filter(|_| config.hash_tenant),
        }
    }

    /// The most stats that a table within these bounds may define in the proxy.
    #[must_use]
    pub fn worst_case(config: &Config) -> usize {
        let tenants =
            if config.tenant_header.is_empty() { 0 } else { (max_tenant_rows(config) + 1) * TENANT_FAMILIES.len() };
        let gauges = max_names(config) + 2;
        RowKey::worst_case(config) + gauges + tenants + OWN_STATS
    }

    /// A request is in flight, of the model that is known by now.
    pub fn start(&mut self, exchange: &Exchange) -> RunningMark {
        let symbol = self.models.of_first(exchange.model());
        if self.running.len() <= symbol.index() {
            self.running.resize_with(symbol.index() + 1, Gauge::default);
        }
        self.change_running(symbol, 1);
        let flow = self.profile.llm_d_epp.then(|| {
            let target = exchange.target_model();
            let target = if target.is_empty() { symbol } else { self.models.of_first(target) };
            let flow = exchange.flow();
            let fairness_id = self.fairness_ids.of_first(name(flow));
            let key = self.bounded(RowKey::Flow(symbol, target, fairness_id, Some(flow.priority)));
            self.row(key).running.now += 1;
            key
        });
        RunningMark(symbol, flow)
    }

    /// It is no longer.
    pub fn stop(&mut self, mark: RunningMark) {
        self.change_running(mark.0, -1);
        if let Some(key) = mark.1 {
            self.row(key).running.now -= 1;
        }
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
        let priority = self.has_priority.then_some(measured.flow.priority);
        let key = self.counted(RowKey::Models(model, target), OverflowLabel::ModelName);
        self.is_full |= self.row(key).record(measured, is_mismatch, estimate, priority);
        self.record_profiles(model, target, measured);
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

    /// Whether so much waits that a flush of everything is due.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Writes what has changed, defining at most so many new stats. True: some of it has to wait for the next flush.
    pub fn flush(&mut self, sink: &mut impl Sink, definitions: usize, memory_bytes: u64) -> bool {
        let mut budget = Budget::new(definitions);
        self.is_full = false;
        self.memory.now = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
        self.flush_gauges(sink, &mut budget);
        for (key, row) in &mut self.rows {
            if row.is_pending() {
                let number = key.number();
                let (labels, len) = key.labels(&self.models, &self.fairness_ids, &number);
                row.flush(sink, &mut budget, labels.get(..len).unwrap_or_default());
            }
        }
        for ((model, tenant), counters) in &mut self.tenant_rows {
            let labels = [("model_name", self.models.text(*model)), ("tenant", self.tenants.text(*tenant))];
            for (counter, family) in counters.iter_mut().zip(TENANT_FAMILIES) {
                counter.flush(sink, &mut budget, || stat_name(&labels, NO_MORE, family.name, ""));
            }
        }
        let overflows = [
            (OverflowLabel::FairnessId, self.fairness_ids.take_overflow()),
            (OverflowLabel::ModelName, self.models.take_overflow()),
            (OverflowLabel::Tenant, self.tenants.take_overflow()),
        ];
        for (label, folded) in overflows {
            self.count(Global::Overflow(label), folded);
        }
        self.count(Global::Flushes, 1);
        for (what, counter) in &mut self.globals {
            let (family, labels, len) = what.stat();
            counter.flush(sink, &mut budget, || {
                stat_name(labels.get(..len).unwrap_or_default(), NO_MORE, family.name, "")
            });
        }
        self.series.now += i64::try_from(budget.defined).unwrap_or(0);
        budget.is_short
    }

    /// This VM's shares of the gauges, as the proxy knows them: for [`Self::reap`] by another VM, should this one fail.
    #[must_use]
    pub fn held(&self) -> String {
        let own = [&self.live_streams, &self.series, &self.memory];
        let mut text = String::new();
        for (name, share) in
            self.running.iter().chain(self.rows.values().map(|row| &row.running)).chain(own).filter_map(Gauge::held)
        {
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
        self.running.iter_mut().chain(self.rows.values_mut().map(|row| &mut row.running)).chain([
            &mut self.live_streams,
            &mut self.series,
            &mut self.memory,
        ])
    }

    /// Counts under the names of other profiles.
    fn record_profiles(&mut self, model: Symbol, target: Symbol, measured: &Measured) {
        if self.profile.llm_d_epp {
            let fairness_id = self.fairness_ids.of(name(&measured.flow));
            let key = RowKey::Flow(model, target, fairness_id, Some(measured.flow.priority));
            let key = self.counted(key, OverflowLabel::Profile);
            self.is_full |= self.row(key).record(measured, false, false, None);
        }
        if self.profile.gen_ai {
            let answered = &measured.answered_model;
            let answered = if answered.is_empty() { target } else { self.models.of(answered) };
            let key = RowKey::Operation(measured.api, model, answered, measured.error);
            let key = self.counted(key, OverflowLabel::Profile);
            self.is_full |= self.row(key).record(measured, false, false, None);
        }
    }

    /// The key that a request goes by: its own while there is room. Counts one that does not.
    fn counted(&mut self, wanted: RowKey, label: OverflowLabel) -> RowKey {
        let key = self.bounded(wanted);
        if key != wanted {
            self.count(Global::Overflow(label), 1);
        }
        key
    }

    fn bounded(&self, wanted: RowKey) -> RowKey {
        let is_room = self.room.get(wanted.kind()).is_some_and(|room| *room > 0);
        if is_room || self.rows.contains_key(&wanted) { wanted } else { wanted.folded() }
    }

    /// The row of a key that is bounded.
    fn row(&mut self, key: RowKey) -> &mut Row {
        self.rows.entry(key).or_insert_with(|| {
            if let Some(room) = self.room.get_mut(key.kind()) {
                *room = room.saturating_sub(1);
            }
            Row::new(key.spelling(), self.is_native)
        })
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
            gauge.flush(sink, budget, || stat_name(&labels, NO_MORE, objective::RUNNING_REQUESTS.name, ""));
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
            let name = stat_name(&[("version", &version)], NO_MORE, filter::INFO.name, "");
            if let Some(id) = sink.define(StatKind::Gauge, &name) {
                sink.set(id, 1);
            }
        }
    }
}

fn name(flow: &Flow) -> &[u8] {
    if flow.fairness_id.is_empty() { DEFAULT_FLOW.as_bytes() } else { &flow.fairness_id }
}

const fn max_tenant_rows(config: &Config) -> usize {
    10 * config.max_tenants as usize
}

/// Counters and gauges that the filter has of itself, with room for each failing call to the proxy.
const OWN_STATS: usize = 150;
