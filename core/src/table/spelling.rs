//! Which family a measurement is written to: the seed's names, llm-d's, OpenTelemetry's.
//!
//! In: nothing. Out: one static table for each. What a table does not name is not kept.

use super::stat::Label;
use crate::catalog::{Family, objective as seed, profile};
use crate::outcome::{ErrorCode, Outcome};

/// Places of the histograms.
#[derive(Clone, Copy)]
pub(super) enum Of {
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
    /// The first byte of what is no stream.
    WholeFirstByte,
}

impl Of {
    /// How many there are.
    pub(super) const ALL: usize = 13;
}

/// Places of the counters.
#[derive(Clone, Copy)]
pub(super) enum Count {
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

impl Count {
    /// How many there are.
    pub(super) const ALL: usize = 9;
}

/// A histogram's family, and the label that tells it from another one of the same family.
type Spelled = Option<(&'static Family, Option<Label<'static>>)>;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Spelling {
    /// By place.
    pub(super) counters: [Option<&'static Family>; Count::ALL],
    pub(super) outcomes: Option<&'static Family>,
    pub(super) errors: Option<&'static Family>,
    /// Requests in flight; the seed's are by model alone, and no row's.
    pub(super) running: Option<&'static Family>,
    /// By place.
    pub(super) histograms: [Spelled; Of::ALL],
    /// Of a request that did not end well only the duration counts.
    pub(super) is_of_good_ones: bool,
}

const fn plain(family: &'static Family) -> Spelled {
    Some((family, None))
}

const fn labelled(family: &'static Family, label: Label<'static>) -> Spelled {
    Some((family, Some(label)))
}

/// The names of the endpoint picker, as everybody has them.
pub(super) static SEED: Spelling = Spelling {
    counters: [
        Some(&seed::REQUEST_TOTAL),
        Some(&seed::CACHE_WRITE_TOKENS_TOTAL),
        Some(&seed::REASONING_TOKENS_TOTAL),
        Some(&seed::AUDIO_INPUT_TOKENS_TOTAL),
        Some(&seed::AUDIO_OUTPUT_TOKENS_TOTAL),
        Some(&seed::PARTIAL_INPUT_TOKENS_TOTAL),
        Some(&seed::PARTIAL_OUTPUT_TOKENS_TOTAL),
        Some(&seed::ESTIMATED_OUTPUT_TOKENS_TOTAL),
        Some(&seed::MODEL_MISMATCH_TOTAL),
    ],
    outcomes: Some(&seed::REQUEST_OUTCOME_TOTAL),
    errors: Some(&seed::REQUEST_ERROR_TOTAL),
    running: None,
    histograms: [
        plain(&seed::REQUEST_DURATION),
        plain(&seed::REQUEST_SIZES),
        plain(&seed::RESPONSE_SIZES),
        plain(&seed::INPUT_TOKENS_FAMILY),
        plain(&seed::OUTPUT_TOKENS_FAMILY),
        plain(&seed::PROMPT_CACHED_TOKENS),
        plain(&seed::NORMALIZED_TIME_PER_OUTPUT_TOKEN),
        plain(&seed::NORMALIZED_TIME_PER_OUTPUT_TOKEN_SHORT),
        plain(&seed::REQUEST_TTFT),
        plain(&seed::REQUEST_TPOT),
        plain(&seed::REQUEST_FIRST_BYTE),
        plain(&seed::REQUEST_ITL),
        None,
    ],
    is_of_good_ones: false,
};

/// llm-d's names.
pub(super) static LLM_D: Spelling = Spelling {
    counters: [Some(&profile::REQUEST_TOTAL), None, None, None, None, None, None, None, None],
    outcomes: None,
    errors: Some(&profile::REQUEST_ERROR_TOTAL),
    running: Some(&profile::REQUEST_RUNNING),
    histograms: [
        plain(&profile::REQUEST_DURATION),
        plain(&profile::REQUEST_SIZE_BYTES),
        plain(&profile::RESPONSE_SIZE_BYTES),
        plain(&profile::REQUEST_INPUT_TOKENS),
        plain(&profile::REQUEST_OUTPUT_TOKENS),
        plain(&profile::REQUEST_CACHED_TOKENS),
        plain(&profile::REQUEST_NTPOT),
        None,
        labelled(&profile::REQUEST_TTFT, ("streaming", "true")),
        plain(&profile::REQUEST_STREAMING_TPOT),
        None,
        plain(&profile::REQUEST_STREAMING_ITL),
        labelled(&profile::REQUEST_TTFT, ("streaming", "false")),
    ],
    is_of_good_ones: false,
};

/// OpenTelemetry's names.
pub(super) static GEN_AI: Spelling = Spelling {
    counters: [None; Count::ALL],
    outcomes: None,
    errors: None,
    running: None,
    histograms: [
        plain(&profile::SERVER_REQUEST_DURATION),
        None,
        None,
        labelled(&profile::CLIENT_TOKEN_USAGE, ("gen_ai_token_type", "input")),
        labelled(&profile::CLIENT_TOKEN_USAGE, ("gen_ai_token_type", "output")),
        None,
        None,
        None,
        plain(&profile::SERVER_TIME_TO_FIRST_TOKEN),
        plain(&profile::SERVER_TIME_PER_OUTPUT_TOKEN),
        None,
        None,
        None,
    ],
    is_of_good_ones: true,
};

impl Spelling {
    /// The most stats that a row may define.
    pub(super) fn worst_case(&self) -> usize {
        let histograms: usize = self.histograms.iter().flatten().map(|(family, _)| family.stats()).sum();
        let outcomes = self.outcomes.map_or(0, |_| Outcome::ALL.len());
        let errors = self.errors.map_or(0, |_| ErrorCode::ALL.len());
        let singles = self.counters.iter().flatten().count() + self.running.iter().count();
        histograms + singles + outcomes + errors
    }
}
