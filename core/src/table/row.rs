//! The counts of one row: a pair of model and target model, or what another profile tells apart.
//!
//! In: one [`Measured`] after the other. Out, at a flush: deltas under the names of a [`Spelling`]. Every place is an array
//! index: recording a request hashes nothing and allocates only at the first value of a family.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::spelling::{Count, Of, Spelling};
use super::stat::{Budget, Counter, Distribution, Gauge, Label, NO_MORE, Sink, stat_name};
use crate::catalog::Family;
use crate::exchange::Measured;
use crate::outcome::{ErrorCode, Outcome};
use crate::usage::UsageQuality;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Row {
    spelling: &'static Spelling,
    counters: [Counter; Count::ALL],
    outcomes: [Counter; Outcome::ALL.len()],
    errors: [Counter; ErrorCode::ALL.len()],
    histograms: [Option<Box<Distribution>>; Of::ALL],
    /// Requests by priority; instead of the plain count, if told.
    priorities: Vec<(i32, Counter)>,
    /// Requests in flight, where the spelling names them.
    pub(super) running: Gauge,
    /// Histograms are the proxy's own where it can hold the values.
    is_native: bool,
    is_pending: bool,
    is_full: bool,
}

impl Row {
    /// An empty one.
    pub(super) fn new(spelling: &'static Spelling, is_native: bool) -> Self {
        Self {
            spelling,
            is_native,
            is_full: false,
            counters: Default::default(),
            outcomes: Default::default(),
            errors: Default::default(),
            histograms: Default::default(),
            priorities: Vec::new(),
            running: Gauge::default(),
            is_pending: false,
        }
    }

    /// Counts an exchange. `estimate`: output events may stand in, in their own family, for missing usage. `priority`:
    /// requests are told apart by it. True: a flush is due.
    pub(super) fn record(
        &mut self,
        measured: &Measured,
        is_mismatch: bool,
        estimate: bool,
        priority: Option<i32>,
    ) -> bool {
        self.is_pending = true;
        match priority {
            Some(priority) => self.count_priority(priority),
            None => self.count(Count::Requests, 1),
        }
        if self.spelling.outcomes.is_some() {
            add(&mut self.outcomes, measured.outcome as usize);
        }
        if let (Some(code), Some(_)) = (measured.error, self.spelling.errors) {
            add(&mut self.errors, code as usize);
        }
        self.count(Count::Mismatches, u64::from(is_mismatch));
        self.observe(Of::RequestSize, Some(measured.request_bytes));
        self.observe(Of::ResponseSize, Some(measured.response_bytes));
        self.times(measured);
        if measured.outcome == Outcome::Complete {
            self.tokens(measured, estimate);
        } else {
            let output = measured.usage.output.filter(|output| *output > 0);
            self.count(Count::PartialInput, measured.usage.input.unwrap_or(0));
            self.count(Count::PartialOutput, output.unwrap_or(measured.output_events));
        }
        self.is_full
    }

    fn times(&mut self, measured: &Measured) {
        // A client that left early says nothing of how long the answer takes.
        let left = measured.outcome == Outcome::ClientCancelled;
        self.observe(Of::Duration, (!left).then_some(measured.duration.0));
        if self.spelling.is_of_good_ones && measured.outcome != Outcome::Complete {
            return;
        }
        self.observe(Of::FirstByte, measured.first_byte.map(|time| time.0));
        self.observe(Of::WholeFirstByte, measured.first_byte.filter(|_| !measured.is_stream).map(|time| time.0));
        self.observe(Of::FirstToken, measured.first_token.map(|time| time.0));
        if measured.first_token.is_some() && measured.gaps.counts.iter().any(|count| *count > 0) {
            let gaps = &measured.gaps;
            if let Some(histogram) = self.histogram(Of::InterToken) {
                histogram.observe_counted(&gaps.counts, gaps.sum);
            }
        }
    }

    fn tokens(&mut self, measured: &Measured, estimate: bool) {
        let usage = &measured.usage;
        self.observe(Of::Input, usage.input);
        self.observe(Of::Output, usage.output.filter(|_| measured.api.has_output()));
        self.observe(Of::Cached, usage.cached);
        self.count(Count::CacheWrite, usage.cache_write.unwrap_or(0));
        self.count(Count::Reasoning, usage.reasoning.unwrap_or(0));
        self.count(Count::AudioInput, usage.audio_input.unwrap_or(0));
        self.count(Count::AudioOutput, usage.audio_output.unwrap_or(0));
        if let Some(output @ 1..) = usage.output.filter(|_| measured.api.has_output()) {
            let normalized = Some(measured.duration.0 / output);
            self.observe(Of::Normalized, normalized);
            self.observe(Of::NormalizedShort, normalized);
            if let (Some(first), 2..) = (measured.first_token, output) {
                self.observe(Of::PerToken, Some(measured.duration.since(first).0 / (output - 1)));
            }
        } else if estimate && measured.usage_quality == UsageQuality::Missing {
            self.count(Count::Estimated, measured.output_events);
        }
    }

    /// Writes what is pending under these labels.
    pub(super) fn flush(&mut self, sink: &mut impl Sink, budget: &mut Budget, labels: &[Label<'_>]) {
        let others_short = core::mem::take(&mut budget.is_short);
        let spelling = self.spelling;
        let mut one = |counter: &mut Counter, family: Option<&Family>, more: Option<Label<'_>>| {
            if let Some(family) = family {
                counter.flush(sink, budget, || stat_name(labels, [more, None], family.name, ""));
            }
        };
        for (counter, family) in self.counters.iter_mut().zip(spelling.counters) {
            one(counter, family, None);
        }
        for (counter, outcome) in self.outcomes.iter_mut().zip(Outcome::ALL) {
            one(counter, spelling.outcomes, Some(("outcome", outcome.label())));
        }
        for (counter, code) in self.errors.iter_mut().zip(ErrorCode::ALL) {
            one(counter, spelling.errors, Some(("error_code", code.label())));
        }
        let [requests, ..] = spelling.counters;
        for (priority, counter) in &mut self.priorities {
            one(counter, requests, Some(("priority", &priority.to_string())));
        }
        for histogram in self.histograms.iter_mut().flatten() {
            histogram.flush(sink, budget, labels);
        }
        if let Some(family) = spelling.running {
            self.running.flush(sink, budget, || stat_name(labels, NO_MORE, family.name, ""));
        }
        self.is_full = false;
        self.is_pending = budget.is_short;
        budget.is_short |= others_short;
    }

    /// Whether something waits for a flush.
    pub(super) const fn is_pending(&self) -> bool {
        self.is_pending || !self.running.is_settled()
    }

    fn count_priority(&mut self, priority: i32) {
        if !self.priorities.iter().any(|(known, _)| *known == priority) {
            self.priorities.push((priority, Counter::default()));
        }
        for (_, counter) in self.priorities.iter_mut().filter(|(known, _)| *known == priority) {
            counter.add(1);
        }
    }

    fn count(&mut self, what: Count, delta: u64) {
        if let Some(counter) = self.counters.get_mut(what as usize) {
            counter.add(delta);
        }
    }

    fn observe(&mut self, what: Of, value: Option<u64>) {
        if let Some(value) = value
            && let Some(histogram) = self.histogram(what)
        {
            let is_full = histogram.observe(value);
            self.is_full |= is_full;
        }
    }

    fn histogram(&mut self, what: Of) -> Option<&mut Distribution> {
        let slot = self.histograms.get_mut(what as usize)?;
        if slot.is_none() {
            let (family, label) = (*self.spelling.histograms.get(what as usize)?)?;
            *slot = Distribution::new(family, label, self.is_native).map(Box::new);
        }
        slot.as_deref_mut()
    }
}

fn add(counters: &mut [Counter], place: usize) {
    if let Some(counter) = counters.get_mut(place) {
        counter.add(1);
    }
}
