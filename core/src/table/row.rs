//! The counts of one pair of model and target model.
//!
//! In: one [`Measured`] after the other. Out, at a flush: deltas. Every place is an array index: recording a request
//! hashes nothing and allocates only at the first value of a family.

use alloc::boxed::Box;

use super::stat::{Budget, Counter, Distribution, Sink, stat_name};
use crate::catalog::Family;
use crate::catalog::objective as families;
use crate::exchange::Measured;
use crate::outcome::{ErrorCode, Outcome};
use crate::usage::UsageQuality;

/// Places of the histograms.
#[derive(Clone, Copy)]
enum Of {
    Duration,
    RequestSize,
    ResponseSize,
    Input,
    Output,
    Cached,
    Normalized,
    NormalizedShort,
    FirstToken,
    PerToken,
    FirstByte,
    InterToken,
}

/// Families of the histograms, by place.
const HISTOGRAMS: [&Family; 12] = [
    &families::REQUEST_DURATION,
    &families::REQUEST_SIZES,
    &families::RESPONSE_SIZES,
    &families::INPUT_TOKENS_FAMILY,
    &families::OUTPUT_TOKENS_FAMILY,
    &families::PROMPT_CACHED_TOKENS,
    &families::NORMALIZED_TIME_PER_OUTPUT_TOKEN,
    &families::NORMALIZED_TIME_PER_OUTPUT_TOKEN_SHORT,
    &families::REQUEST_TTFT,
    &families::REQUEST_TPOT,
    &families::REQUEST_FIRST_BYTE,
    &families::REQUEST_ITL,
];

/// Places of the counters.
#[derive(Clone, Copy)]
enum Count {
    Requests,
    CacheWrite,
    Reasoning,
    AudioInput,
    AudioOutput,
    PartialInput,
    PartialOutput,
    Estimated,
    Mismatches,
}

/// Families of the counters, by place.
const COUNTERS: [&Family; 9] = [
    &families::REQUEST_TOTAL,
    &families::CACHE_WRITE_TOKENS_TOTAL,
    &families::REASONING_TOKENS_TOTAL,
    &families::AUDIO_INPUT_TOKENS_TOTAL,
    &families::AUDIO_OUTPUT_TOKENS_TOTAL,
    &families::PARTIAL_INPUT_TOKENS_TOTAL,
    &families::PARTIAL_OUTPUT_TOKENS_TOTAL,
    &families::ESTIMATED_OUTPUT_TOKENS_TOTAL,
    &families::MODEL_MISMATCH_TOTAL,
];

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Row {
    counters: [Counter; COUNTERS.len()],
    outcomes: [Counter; Outcome::ALL.len()],
    errors: [Counter; ErrorCode::ALL.len()],
    histograms: [Option<Box<Distribution>>; HISTOGRAMS.len()],
    is_pending: bool,
}

impl Row {
    /// The most stats that a row may define.
    pub(super) fn worst_case() -> usize {
        let histograms: usize = HISTOGRAMS.iter().map(|family| family.stats()).sum();
        histograms + COUNTERS.len() + Outcome::ALL.len() + ErrorCode::ALL.len()
    }

    /// Counts an exchange. `estimate`: output events may stand in, in their own family, for missing usage.
    pub(super) fn record(&mut self, measured: &Measured, is_mismatch: bool, estimate: bool) {
        self.is_pending = true;
        self.count(Count::Requests, 1);
        add(&mut self.outcomes, measured.outcome as usize);
        if let Some(code) = measured.error {
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
    }

    fn times(&mut self, measured: &Measured) {
        // A client that left early says nothing of how long the answer takes.
        let left = measured.outcome == Outcome::ClientCancelled;
        self.observe(Of::Duration, (!left).then_some(measured.duration.0));
        self.observe(Of::FirstByte, measured.first_byte.map(|time| time.0));
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

    /// Writes what is pending under these model labels.
    pub(super) fn flush(&mut self, sink: &mut impl Sink, budget: &mut Budget, model: &str, target: &str) {
        if !self.is_pending {
            return;
        }
        let others_short = core::mem::take(&mut budget.is_short);
        let labels = [("model_name", model), ("target_model_name", target)];
        let [model_label, target_label] = labels;
        for (counter, family) in self.counters.iter_mut().zip(COUNTERS) {
            counter.flush(sink, budget, || stat_name(&labels, None, family.name, ""));
        }
        for (counter, outcome) in self.outcomes.iter_mut().zip(Outcome::ALL) {
            let name = families::REQUEST_OUTCOME_TOTAL.name;
            let labels = [model_label, target_label, ("outcome", outcome.label())];
            counter.flush(sink, budget, || stat_name(&labels, None, name, ""));
        }
        for (counter, code) in self.errors.iter_mut().zip(ErrorCode::ALL) {
            let name = families::REQUEST_ERROR_TOTAL.name;
            let labels = [model_label, target_label, ("error_code", code.label())];
            counter.flush(sink, budget, || stat_name(&labels, None, name, ""));
        }
        for histogram in self.histograms.iter_mut().flatten() {
            histogram.flush(sink, budget, &labels);
        }
        self.is_pending = budget.is_short;
        budget.is_short |= others_short;
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
            histogram.observe(value);
        }
    }

    fn histogram(&mut self, what: Of) -> Option<&mut Distribution> {
        let slot = self.histograms.get_mut(what as usize)?;
        if slot.is_none() {
            *slot = HISTOGRAMS.get(what as usize).copied().and_then(Distribution::new).map(Box::new);
        }
        slot.as_deref_mut()
    }
}

fn add(counters: &mut [Counter], place: usize) {
    if let Some(counter) = counters.get_mut(place) {
        counter.add(1);
    }
}
