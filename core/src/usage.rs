//! Tokens of one request, out of what its server reports.
//!
//! In: counts by field, one document (a JSON body, or the data of one event) after the other. Out: a [`Usage`].
//! The last value of a field wins, as the APIs define it; only servers that report each choice apart are added up.

use crate::api::Api;
use crate::schema::Field;

/// Beyond this a count is no count of tokens, and would drown every sum.
pub const MAX_TOKENS: u64 = 1_000_000_000;

/// The tokens of a request, in one meaning for all APIs. `None`: the server did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens, cached ones included.
    pub input: Option<u64>,
    /// Output tokens, reasoning included.
    pub output: Option<u64>,
    /// Input tokens read from the cache.
    pub cached: Option<u64>,
    /// Input tokens written to the cache.
    pub cache_write: Option<u64>,
    /// Reasoning tokens.
    pub reasoning: Option<u64>,
    /// Audio tokens of the input.
    pub audio_input: Option<u64>,
    /// Audio tokens of the output.
    pub audio_output: Option<u64>,
}

impl Usage {
    /// Tokens as another reader of the answer has counted them: `count` gives a number by its path in Envoy's
    /// `envoy.ai.token_usage`. They include cached and reasoning tokens, as here. `None`: it has counted nothing.
    #[must_use]
    pub fn of_envoy(count: impl Fn(&[&str]) -> Option<u64>) -> Option<Self> {
        let (input, output) = (count(&["input_tokens"]), count(&["output_tokens"]));
        if input.is_none() && output.is_none() {
            return None;
        }
        Some(Self {
            input,
            output,
            cached: count(&["input_token_details", "cached_tokens"]),
            cache_write: count(&["input_token_details", "cache_creation_tokens"]),
            reasoning: count(&["output_token_details", "reasoning_tokens"]),
            ..Self::default()
        })
    }
}

/// A count out of metadata, where all numbers are doubles.
#[must_use]
pub fn count_of_double(number: f64) -> Option<u64> {
    let is_count = number >= 0.0 && number <= MAX_TOKENS as f64 && number % 1.0 == 0.0;
    is_count.then_some(number as u64)
}

/// Counts by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([Option<u64>; Field::COUNT]);

impl Counts {
    /// Takes over a count; a later one of the same field wins.
    pub fn set(&mut self, field: Field, count: u64) {
        if let Some(place) = self.0.get_mut(field as usize) {
            *place = Some(count);
        }
    }

    /// The count of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<u64> {
        self.0.get(field as usize).copied().flatten()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Takes over what a later document says.
    pub fn merge(&mut self, later: &Self, how: Merge) {
        for (index, (total, later)) in self.0.iter_mut().zip(later.0).enumerate() {
            let Some(later) = later else { continue };
            let is_output = index == Field::Output as usize || index == Field::Reasoning as usize;
            *total = Some(match (how, *total) {
                (Merge::Add, Some(earlier)) => earlier.saturating_add(later),
                (Merge::AddOutput, Some(earlier)) if is_output => earlier.saturating_add(later),
                (Merge::AddOutput, Some(earlier)) => earlier.max(later),
                (Merge::Last, _) | (_, None) => later,
            });
        }
    }

    /// The tokens of the request. Anthropic counts cached input beside the input. `timings`: llama.cpp's own counts stand
    /// in where it sent no usage.
    #[must_use]
    pub fn usage(&self, api: Api, timings: bool) -> Usage {
        let mut usage = Usage {
            input: self.get(Field::Input),
            output: self.get(Field::Output),
            cached: self.get(Field::CacheRead).or_else(|| self.get(Field::Cached)),
            cache_write: self.get(Field::CacheCreation).or_else(|| self.get(Field::CacheWrite)),
            reasoning: self.get(Field::Reasoning),
            audio_input: self.get(Field::AudioInput),
            audio_output: self.get(Field::AudioOutput),
        };
        if api == Api::Messages {
            let beside = [Field::CacheRead, Field::CacheCreation].into_iter().filter_map(|field| self.get(field));
            usage.input = usage.input.map(|input| input + beside.sum::<u64>());
        }
        if timings && usage.input.is_none() && usage.output.is_none() {
            let cached = self.get(Field::TimedCached);
            usage.input = self.get(Field::TimedInput).map(|input| input + cached.unwrap_or(0));
            usage.output = self.get(Field::TimedOutput);
            usage.cached = cached;
        }
        usage
    }
}

/// How a document's counts join the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// They are of another request of the same batch.
    Add,
    /// They are of another choice of the same prompt.
    AddOutput,
    /// They are newer.
    Last,
}

/// What an answer said of its usage: the `quality` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageQuality {
    /// All that the API promises.
    Found,
    /// The answer came whole and says nothing.
    Missing,
    /// Some of it, or of an answer that broke off.
    Partial,
    /// The answer is not what its type says.
    Unparsed,
    /// Compressed in a way that the filter does not read.
    UnsupportedEncoding,
    /// An answer of this kind has none: an error, a refusal, a cancel before the first token.
    NotExpected,
}

impl UsageQuality {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Found, Self::Missing, Self::Partial, Self::Unparsed, Self::UnsupportedEncoding, Self::NotExpected];

    /// Value of the label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Missing => "missing",
            Self::Partial => "partial",
            Self::Unparsed => "unparsed",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::NotExpected => "not_expected",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(Field, u64)]) -> Counts {
        let mut counts = Counts::default();
        for (field, count) in of {
            counts.set(*field, *count);
        }
        counts
    }

    #[test]
    fn anthropic_counts_cached_input_beside_the_input_and_the_last_value_of_a_field_wins() {
        let mut total =
            counts(&[(Field::Input, 5), (Field::CacheRead, 7), (Field::CacheCreation, 3), (Field::Output, 0)]);
        total.merge(&counts(&[(Field::Output, 9)]), Merge::Last);
        let usage = total.usage(Api::Messages, false);
        assert_eq!((usage.input, usage.output, usage.cached, usage.cache_write), (Some(15), Some(9), Some(7), Some(3)));
    }

    #[test]
    fn choices_reported_apart_add_their_output_and_share_their_prompt() {
        let mut total = counts(&[(Field::Input, 7), (Field::Output, 10), (Field::Cached, 2)]);
        total.merge(&counts(&[(Field::Input, 7), (Field::Output, 11), (Field::Cached, 6)]), Merge::AddOutput);
        let usage = total.usage(Api::Chat, false);
        assert_eq!((usage.input, usage.output, usage.cached), (Some(7), Some(21), Some(6)));
    }

    #[test]
    fn timings_stand_in_only_if_asked_and_only_where_usage_is_missing() {
        let timed = counts(&[(Field::TimedInput, 4), (Field::TimedCached, 19), (Field::TimedOutput, 24)]);
        assert_eq!(timed.usage(Api::Chat, false), Usage::default());
        let usage = timed.usage(Api::Chat, true);
        assert_eq!((usage.input, usage.output, usage.cached), (Some(23), Some(24), Some(19)));
        let mut both = timed;
        both.set(Field::Output, 1);
        assert_eq!(both.usage(Api::Chat, true).output, Some(1));
    }
}
