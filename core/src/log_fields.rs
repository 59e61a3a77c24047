//! What is known of an exchange, as texts for access logs.
//!
//! In: one [`Measured`] exchange. Out: names and values, only of what is known. A value is one line of plain text: what
//! clients and servers wrote is cleaned as labels are (`labels.rs`). It never decides where the texts go.

use alloc::format;
use alloc::string::{String, ToString};

use crate::exchange::Measured;
use crate::labels::clean;
use crate::timing::Nanos;

/// All names, in the order docs list them.
pub const NAMES: [&str; 14] = [
    "tally.api",
    "tally.model",
    "tally.target_model",
    "tally.answered_model",
    "tally.outcome",
    "tally.error_code",
    "tally.usage_quality",
    "tally.input_tokens",
    "tally.output_tokens",
    "tally.cached_tokens",
    "tally.reasoning_tokens",
    "tally.first_byte_ms",
    "tally.ttft_ms",
    "tally.duration_ms",
];

/// The fields of an exchange; see the file's head. Milliseconds have three decimals.
pub fn fields(measured: &Measured) -> impl Iterator<Item = (&'static str, String)> {
    let Measured { usage, .. } = measured;
    let name = |text: &[u8]| (!text.is_empty()).then(|| clean(text));
    let count = |count: Option<u64>| count.map(|count| count.to_string());
    let values = [
        Some(measured.api.name().to_string()),
        name(&measured.model),
        name(&measured.target_model),
        name(&measured.answered_model),
        Some(measured.outcome.label().to_string()),
        measured.error.map(|code| code.label().to_string()),
        Some(measured.usage_quality.label().to_string()),
        count(usage.input),
        count(usage.output),
        count(usage.cached),
        count(usage.reasoning),
        measured.first_byte.map(millis),
        measured.first_token.map(millis),
        Some(millis(measured.duration)),
    ];
    NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)))
}

fn millis(Nanos(nanos): Nanos) -> String {
    let micros = nanos / 1_000;
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}
