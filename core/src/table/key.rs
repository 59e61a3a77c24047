//! What the requests of a row have in common: their models; for llm-d's names whose they are too; for OpenTelemetry's the
//! operation.
//!
//! In: what was measured. Out: a key, its labels, its row beyond the cap. All label values but symbols are of enums.

use alloc::string::{String, ToString};

use super::spelling::{GEN_AI, LLM_D, SEED, Spelling};
use super::stat::Label;
use crate::api::Api;
use crate::config::Config;
use crate::labels::{Names, Symbol};
use crate::outcome::ErrorCode;

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RowKey {
    /// Model and target model.
    Models(Symbol, Symbol),
    /// Model, target model, fairness id, priority; no priority beyond the cap.
    Flow(Symbol, Symbol, Symbol, Option<i32>),
    /// API, model, the model that answered, what went wrong.
    Operation(Api, Symbol, Symbol, Option<ErrorCode>),
}

/// Distinct model names.
pub(super) const fn max_names(config: &Config) -> usize {
    config.max_models as usize + config.models.len()
}

impl RowKey {
    /// How many kinds there are.
    pub(super) const KINDS: usize = 3;

    /// The rows that each kind may have.
    pub(super) const fn room(config: &Config) -> [usize; Self::KINDS] {
        // Most requests are for their own model; a rewritten one makes a second pair.
        let pairs = 2 * max_names(config) + 2;
        [pairs, pairs + config.max_fairness_ids as usize, pairs]
    }

    /// The most stats that the rows may define.
    pub(super) fn worst_case(config: &Config) -> usize {
        let [pairs, flows, operations] = Self::room(config);
        // Requests without an objective have a priority too.
        let priorities = if config.priority_label { config.objectives.len() } else { 0 };
        let mut stats = (pairs + 1) * (SEED.worst_case() + priorities);
        if config.profile.llm_d_epp {
            stats += (flows + 1) * LLM_D.worst_case();
        }
        if config.profile.gen_ai {
            stats += (operations + Api::ALL.len()) * GEN_AI.worst_case();
        }
        stats
    }

    /// Its kind's place.
    pub(super) const fn kind(self) -> usize {
        match self {
            Self::Models(..) => 0,
            Self::Flow(..) => 1,
            Self::Operation(..) => 2,
        }
    }

    /// The families that its row is written to.
    pub(super) const fn spelling(self) -> &'static Spelling {
        match self {
            Self::Models(..) => &SEED,
            Self::Flow(..) => &LLM_D,
            Self::Operation(..) => &GEN_AI,
        }
    }

    /// The row that counts what is beyond the cap.
    pub(super) const fn folded(self) -> Self {
        const OTHER: Symbol = Symbol::OTHER;
        match self {
            Self::Models(..) => Self::Models(OTHER, OTHER),
            Self::Flow(..) => Self::Flow(OTHER, OTHER, OTHER, None),
            Self::Operation(api, ..) => Self::Operation(api, OTHER, OTHER, None),
        }
    }

    /// The text of its label that is a number, if it has one.
    pub(super) fn number(self) -> String {
        match self {
            Self::Flow(.., Some(priority)) => priority.to_string(),
            _ => "other".to_string(),
        }
    }

    /// Its labels, and how many there are.
    pub(super) fn labels<'a>(
        self,
        models: &'a Names,
        fairness_ids: &'a Names,
        number: &'a str,
    ) -> ([Label<'a>; 5], usize) {
        const NONE: Label<'static> = ("", "");
        match self {
            Self::Models(model, target) => {
                let [model, target] = [model, target].map(|symbol| models.text(symbol));
                ([("model_name", model), ("target_model_name", target), NONE, NONE, NONE], 2)
            }
            Self::Flow(model, target, fairness, _) => {
                let [model, target] = [model, target].map(|symbol| models.text(symbol));
                let fairness = ("fairness_id", fairness_ids.text(fairness));
                ([("model_name", model), ("target_model_name", target), fairness, ("priority", number), NONE], 4)
            }
            Self::Operation(api, model, answered, error) => {
                let [model, answered] = [model, answered].map(|symbol| models.text(symbol));
                let labels = [
                    ("gen_ai_operation_name", operation(api)),
                    ("gen_ai_provider_name", provider(api)),
                    ("gen_ai_request_model", model),
                    ("gen_ai_response_model", answered),
                    ("error_type", error.map_or("", ErrorCode::label)),
                ];
                (labels, 4 + usize::from(error.is_some()))
            }
        }
    }
}

/// `gen_ai.operation.name`.
const fn operation(api: Api) -> &'static str {
    match api {
        Api::Chat | Api::Messages | Api::Responses => "chat",
        Api::Completions | Api::Generate => "text_completion",
        Api::Embeddings => "embeddings",
        Api::Other => "other",
    }
}

/// `gen_ai.provider.name`: the provider whose API it is, as the conventions ask where the real one is not known.
const fn provider(api: Api) -> &'static str {
    match api {
        Api::Chat | Api::Completions | Api::Embeddings | Api::Responses => "openai",
        Api::Messages => "anthropic",
        Api::Generate | Api::Other => "_OTHER",
    }
}
