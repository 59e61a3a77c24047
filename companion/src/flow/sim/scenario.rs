//! A simulation's file: traffic by class, a pool of model servers, flow control's own configuration.
//!
//! In: YAML by serde. Out: a [`Scenario`] whose numbers make sense, or which key does not. It runs nothing.

use serde::Deserialize;

use crate::flow::config::FlowConfig;

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Heading of the picture.
    pub title: String,
    /// Virtual time simulated.
    pub seconds: f64,
    /// Same seed, same run.
    #[serde(default)]
    pub seed: u64,
    /// The model servers.
    pub pool: Pool,
    /// As in the companion's configuration.
    #[serde(default)]
    pub flow_control: FlowConfig,
    /// The traffic.
    pub classes: Vec<Class>,
}

/// Model servers, all alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// How many at the start.
    pub endpoints: usize,
    /// Requests that one runs at once; further ones wait inside it.
    pub max_running: usize,
    /// Tokens that fit into the KV cache of one.
    pub kv_cache_tokens: u64,
    /// Prompt tokens read per second, for one request.
    pub prefill_tokens_per_second: f64,
    /// Output tokens written per second, for a request that runs alone.
    pub decode_tokens_per_second: f64,
    /// How much slower each further running request makes the writing: 0.02 is 2 %.
    #[serde(default)]
    pub slowdown: f64,
    /// Time between two scrapes.
    #[serde(default = "fifty")]
    pub scrape_millis: u64,
    /// Time between two reports of ended requests.
    #[serde(default = "fifty")]
    pub report_millis: u64,
    /// Later sizes of the pool.
    #[serde(default)]
    pub changes: Vec<Change>,
}

/// The pool gets another size.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When.
    pub at_seconds: f64,
    /// How many are there from then on; those that go finish what they have.
    pub endpoints: usize,
}

/// Traffic of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its name; its fairness ids are `name-0`, `name-1`, …
    pub name: String,
    /// Its priority.
    #[serde(default)]
    pub priority: i32,
    /// How many fairness ids share it.
    #[serde(default = "one")]
    pub fairness_ids: usize,
    /// Requests per second, of all ids together.
    pub per_second: f64,
    /// Times with more.
    #[serde(default)]
    pub burst: Option<Burst>,
    /// Mean prompt.
    pub prompt_tokens: f64,
    /// Mean answer.
    pub output_tokens: f64,
    /// Sigma of the log-normal lengths.
    #[serde(default = "some_spread")]
    pub spread: f64,
    /// The client leaves if there is no first token by then; 0 never leaves.
    #[serde(default)]
    pub patience_millis: u32,
    /// A first token later than this is no good; 0 takes any.
    #[serde(default)]
    pub first_token_goal_millis: u32,
}

/// Times with more traffic, again and again.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// From one beginning to the next.
    pub every_seconds: f64,
    /// How long.
    pub for_seconds: f64,
    /// How much more: 5 is five times.
    pub times: f64,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// One sentence: where the YAML, or which number, is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let pool = &scenario.pool;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let holds = [
            (positive(scenario.seconds) && scenario.seconds <= MAX_SECONDS, "seconds: above 0, up to a week"),
            ((1..=MAX_ENDPOINTS).contains(&pool.endpoints), "pool.endpoints: from 1 to 1000"),
            (pool.changes.iter().all(|change| change.endpoints <= MAX_ENDPOINTS), "pool.changes: up to 1000 endpoints"),
            (pool.max_running >= 1, "pool.max_running: at least 1"),
            (pool.kv_cache_tokens >= 1, "pool.kv_cache_tokens: at least 1"),
            (positive(pool.prefill_tokens_per_second), "pool.prefill_tokens_per_second: above 0"),
            (positive(pool.decode_tokens_per_second), "pool.decode_tokens_per_second: above 0"),
            (pool.slowdown >= 0.0 && pool.slowdown.is_finite(), "pool.slowdown: 0 or above"),
            (pool.scrape_millis >= 1 && pool.report_millis >= 1, "pool: scrape_millis and report_millis at least 1"),
            ((1..=MAX_CLASSES).contains(&scenario.classes.len()), "classes: from 1 to 8"),
        ];
        if let Some((_, expected)) = holds.iter().find(|(holds, _)| !holds) {
            return Err(format!("expected {expected}"));
        }
        for class in &scenario.classes {
            let burst = class.burst.is_none_or(|burst| {
                positive(burst.every_seconds) && burst.for_seconds <= burst.every_seconds && burst.times >= 1.0
            });
            let numbers = [class.per_second, class.prompt_tokens, class.output_tokens];
            if !burst || !numbers.into_iter().all(positive) || !(1..=MAX_IDS).contains(&class.fairness_ids) {
                return Err(format!("class {}: expected numbers above 0, and bursts within their period", class.name));
            }
        }
        let most: f64 = scenario.classes.iter().map(|class| class.highest_rate() * scenario.seconds).sum();
        if most > MAX_REQUESTS {
            return Err("expected at most 20 million requests in all".to_owned());
        }
        Ok(scenario)
    }
}

impl Class {
    /// Requests per second at a moment.
    #[must_use]
    pub fn rate_at(&self, seconds: f64) -> f64 {
        match self.burst {
            Some(burst) if seconds % burst.every_seconds < burst.for_seconds => self.per_second * burst.times,
            _ => self.per_second,
        }
    }

    /// The most there ever are.
    #[must_use]
    pub fn highest_rate(&self) -> f64 {
        self.per_second * self.burst.map_or(1.0, |burst| burst.times)
    }
}

const fn fifty() -> u64 {
    50
}

const fn one() -> usize {
    1
}

const fn some_spread() -> f64 {
    0.6
}

const MAX_SECONDS: f64 = 604_800.0;
const MAX_ENDPOINTS: usize = 1_000;
/// As many as the picture has colours for.
const MAX_CLASSES: usize = 8;
const MAX_IDS: usize = 10_000;
const MAX_REQUESTS: f64 = 20e6;
