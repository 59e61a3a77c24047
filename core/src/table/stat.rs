//! Counts that wait for the next flush, and the stats of the proxy that they go to.
//!
//! In: increments, observations. Out, at a flush: deltas through a [`Sink`]. A stat is defined at its first delta and its
//! id is kept: to define one costs the proxy some fifty microseconds, and each definition leaks an id.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::catalog::{Bound, Family, Kind, Unit};

/// What a stat is to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatKind {
    /// Grows.
    Counter,
    /// Goes up and down; the proxy wraps below zero.
    Gauge,
    /// The proxy's own; takes values one by one.
    Histogram,
}

/// The proxy's stats.
pub trait Sink {
    /// Makes a stat of this name known; its id, or `None` if the proxy refuses.
    fn define(&mut self, kind: StatKind, name: &str) -> Option<u32>;
    /// Adds to a stat; `delta` is never 0.
    fn add(&mut self, id: u32, delta: i64);
    /// Sets a gauge, or gives a histogram a value.
    fn set(&mut self, id: u32, value: u64);
}

/// How many stats a flush may still define.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: usize,
    /// Nothing was defined yet: even a histogram larger than the budget gets its turn.
    is_fresh: bool,
    /// Something had to wait for the next flush.
    pub is_short: bool,
    /// Stats defined.
    pub defined: u64,
}

impl Budget {
    /// So many definitions, and at least one series.
    #[must_use]
    pub const fn new(definitions: usize) -> Self {
        Self { left: definitions, is_fresh: true, is_short: false, defined: 0 }
    }

    const fn take(&mut self, definitions: usize) -> bool {
        if definitions > self.left && !self.is_fresh {
            self.is_short = true;
            return false;
        }
        self.is_fresh = false;
        self.left = self.left.saturating_sub(definitions);
        self.defined += definitions as u64;
        true
    }
}

/// A label: key and value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// No labels but the given ones.
pub(super) const NO_MORE: [Option<Label<'static>>; 2] = [None, None];

/// The name of a stat: labels first, in the catalog's order, the metric last. Values must be clean (`labels.rs`).
#[must_use]
pub(super) fn stat_name(labels: &[Label<'_>], more: [Option<Label<'_>>; 2], family: &str, suffix: &str) -> String {
    let mut name = String::with_capacity(192);
    for (key, value) in labels.iter().copied().chain(more.into_iter().flatten()) {
        for part in [key, "=.=", value, ";.;"] {
            name.push_str(part);
        }
    }
    name.push_str(family);
    name.push_str(suffix);
    name
}

/// A counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counter {
    pending: u64,
    id: Option<u32>,
}

impl Counter {
    /// Adds.
    pub(super) const fn add(&mut self, delta: u64) {
        self.pending = self.pending.saturating_add(delta);
    }

    /// Writes what is pending.
    pub(super) fn flush(&mut self, sink: &mut impl Sink, budget: &mut Budget, name: impl FnOnce() -> String) {
        if self.pending == 0 || (self.id.is_none() && !budget.take(1)) {
            return;
        }
        self.id = self.id.or_else(|| sink.define(StatKind::Counter, &name()));
        if let Some(id) = self.id {
            sink.add(id, i64::try_from(self.pending).unwrap_or(i64::MAX));
            self.pending = 0;
        }
    }
}

/// A gauge that this VM adds its share to.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge {
    /// This VM's share now.
    pub(super) now: i64,
    /// The share that the proxy knows.
    flushed: i64,
    /// The share that the other VMs were last told of.
    told: i64,
    id: Option<u32>,
    name: String,
}

impl Gauge {
    /// Writes the change since the last flush.
    pub(super) fn flush(&mut self, sink: &mut impl Sink, budget: &mut Budget, name: impl FnOnce() -> String) {
        if self.now == self.flushed || (self.id.is_none() && !budget.take(1)) {
            return;
        }
        if self.name.is_empty() {
            self.name = name();
        }
        self.id = self.id.or_else(|| sink.define(StatKind::Gauge, &self.name));
        if let Some(id) = self.id {
            sink.add(id, self.now - self.flushed);
            self.flushed = self.now;
        }
    }

    /// Whether the proxy knows the share of now.
    pub(super) const fn is_settled(&self) -> bool {
        self.now == self.flushed
    }

    /// The stat's name and the share that the proxy knows, if there is one.
    pub(super) fn held(&self) -> Option<(&str, i64)> {
        (self.flushed != 0).then_some((self.name.as_str(), self.flushed))
    }

    /// The other VMs were told of that share.
    pub(super) const fn was_told(&mut self) {
        self.told = self.flushed;
    }

    /// Another VM took the told share out of the proxy's gauge: the next flush gives it again.
    pub(super) const fn was_reaped(&mut self) {
        self.flushed -= self.told;
        self.told = 0;
    }
}

/// Values of one histogram of the proxy's that may wait for a flush: at so many the table asks for one.
const MAX_VALUES: usize = 1_024;

/// A histogram as counters, or one of the proxy's. Counters: one for each cumulative bucket, `_count`, and `_sum` in whole units.
#[derive(Debug)]
pub(super) struct Distribution {
    family: &'static Family,
    /// What tells it from another one of its family.
    label: Option<Label<'static>>,
    bounds: &'static [Bound],
    /// Pending values in each bucket alone; the last is beyond every bound.
    counts: Box<[u64]>,
    /// Pending sum in base integers; what is less than a unit stays for the next flush.
    sum: u64,
    /// Ids of the buckets, of `+Inf`, of `_count` and of `_sum`; empty before the first flush.
    ids: Vec<Option<u32>>,
    /// Values that wait for the proxy's own histogram; `None`: it is kept as counters.
    values: Option<Vec<u64>>,
    is_pending: bool,
}

impl Distribution {
    /// An empty one; `None` if the family is no histogram. `is_native`: the proxy's own, if it can hold the values, which
    /// seconds it cannot.
    pub(super) fn new(family: &'static Family, label: Option<Label<'static>>, is_native: bool) -> Option<Self> {
        let Kind::Histogram(bounds) = family.kind else { return None };
        let counts = vec![0; bounds.len() + 1].into_boxed_slice();
        let values = (is_native && family.unit != Unit::Seconds).then(Vec::new);
        Some(Self { family, label, bounds, counts, sum: 0, ids: Vec::new(), values, is_pending: false })
    }

    /// Adds a value in the base integer of the bounds. True: a flush is due.
    pub(super) fn observe(&mut self, value: u64) -> bool {
        self.is_pending = true;
        if let Some(values) = &mut self.values {
            values.push(value);
            return values.len() >= MAX_VALUES;
        }
        let bucket = self.bounds.partition_point(|bound| bound.at < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
        false
    }

    /// Adds values that were counted elsewhere over the same bounds.
    pub(super) fn observe_counted(&mut self, counts: &[u32], sum: u64) {
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count += u64::from(*more);
            self.is_pending |= *more > 0;
        }
        self.sum = self.sum.saturating_add(sum);
    }

    /// Writes what is pending.
    pub(super) fn flush(&mut self, sink: &mut impl Sink, budget: &mut Budget, labels: &[Label<'_>]) {
        let stats = if self.values.is_some() { 1 } else { self.bounds.len() + 3 };
        if !self.is_pending || (self.ids.is_empty() && !budget.take(stats)) {
            return;
        }
        if self.ids.is_empty() {
            self.define(sink, labels);
        }
        self.is_pending = false;
        let mut ids = self.ids.iter();
        if let Some(values) = &mut self.values {
            let id = ids.next().copied().flatten();
            for value in values.drain(..) {
                if let Some(id) = id {
                    sink.set(id, value);
                }
            }
            return;
        }
        let mut total = 0;
        for count in &mut self.counts {
            total += core::mem::take(count);
            add(sink, ids.next(), total);
        }
        add(sink, ids.next(), total);
        let unit = if self.family.unit == Unit::Seconds { 1_000_000_000 } else { 1 };
        add(sink, ids.next(), self.sum / unit);
        self.sum %= unit;
    }

    fn define(&mut self, sink: &mut impl Sink, labels: &[Label<'_>]) {
        if self.values.is_some() {
            let name = stat_name(labels, [self.label, None], self.family.name, "");
            self.ids = vec![sink.define(StatKind::Histogram, &name)];
            return;
        }
        let bounds = self.bounds.iter().map(|bound| bound.le).chain(["+Inf"]);
        let buckets = bounds.map(|le| stat_name(labels, [self.label, Some(("le", le))], self.family.name, "_bucket"));
        let rest = ["_count", "_sum"].map(|suffix| stat_name(labels, [self.label, None], self.family.name, suffix));
        self.ids = buckets.chain(rest).map(|name| sink.define(StatKind::Counter, &name)).collect();
    }
}

fn add(sink: &mut impl Sink, id: Option<&Option<u32>>, delta: u64) {
    if let (Some(Some(id)), 1..) = (id, delta) {
        sink.add(*id, i64::try_from(delta).unwrap_or(i64::MAX));
    }
}
