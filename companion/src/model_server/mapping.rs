//! Which series of a page mean what.
//!
//! In: an engine and the user's own names. Out: a selector, and the meaning of each of its specs.
//! It never holds more specs than the selector reads.

use tally_core::exposition::read::{Selector, Spec};

use super::engine::{Engine, Names};

/// The user's own series in place of the engine's; an empty list switches a meaning off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Requests waiting.
    pub waiting: Option<Vec<Spec>>,
    /// Requests running.
    pub running: Option<Vec<Spec>>,
    /// KV cache in use, 0 to 1.
    pub kv_usage: Option<Vec<Spec>>,
    /// LoRA adapters, as vLLM writes them.
    pub lora_info: Option<Vec<Spec>>,
}

/// What a series means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    KvUsage,
    LoraInfo,
    Running,
    Waiting,
}

/// See the file's head.
#[derive(Debug)]
pub struct Mapping {
    pub(super) selector: Selector,
    /// One for each spec of the selector; of two with one meaning the earlier is preferred.
    pub(super) meanings: Vec<Meaning>,
    /// Meanings that a page of this engine has to have; a page without is worth an error.
    pub(super) expected: Vec<Meaning>,
}

impl Mapping {
    /// The engine's series with the user's in their places.
    #[must_use]
    pub fn new(engine: Engine, overrides: &Overrides) -> Self {
        let engines = if engine == Engine::Auto { Engine::KNOWN.as_slice() } else { std::slice::from_ref(&engine) };
        let built_in = |names: fn(&Names) -> &'static [&'static str]| -> Vec<Spec> {
            engines.iter().flat_map(|engine| names(&engine.names())).filter_map(|name| name.parse().ok()).collect()
        };
        let roles = [
            (Meaning::Waiting, &overrides.waiting, built_in(|names| names.waiting)),
            (Meaning::Running, &overrides.running, built_in(|names| names.running)),
            (Meaning::KvUsage, &overrides.kv_usage, built_in(|names| names.kv_usage)),
            (Meaning::LoraInfo, &overrides.lora_info, built_in(|names| names.lora_info)),
        ];
        let (mut specs, mut meanings, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (meaning, own, built_in) in roles {
            // Adapters show up with the first request only. Of an unknown engine nothing but the queue is certain.
            let is_known = own.is_some() || engine != Engine::Auto || meaning == Meaning::Waiting;
            let chosen = own.clone().unwrap_or(built_in);
            if is_known && meaning != Meaning::LoraInfo && !chosen.is_empty() {
                expected.push(meaning);
            }
            meanings.extend(chosen.iter().map(|_| meaning));
            specs.extend(chosen);
        }
        Self { selector: Selector::new(specs), meanings, expected }
    }
}
