//! The filter's configuration: JSON to a [`Config`] that cannot be wrong.
//!
//! In: `plugin_config`. Out: a configuration, or one sentence that names the key and what was expected. Nothing is
//! half-accepted: an unknown key is an error, since a misspelt one would be a silent default.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde_json::Value;

use crate::api::Api;
use crate::change::rewrite::ModelRewrite;

mod admission;
mod doubts;
mod key;
mod keys;

use crate::labels::TenantKey;
pub use admission::{Admission, KEYS as ADMISSION_KEYS, OnFailure};
use key::read_keys;
pub(crate) use key::whole;
pub use key::{Key, Kind, Place};
pub use keys::{KEYS, MAX_FLUSH_INTERVAL_MS};

/// How the filter works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Distinct model names out of traffic that get series of their own.
    pub max_models: u32,
    /// Model names that always have series of their own.
    pub models: Vec<String>,
    /// Milliseconds between two flushes into Envoy's stats.
    pub flush_interval_ms: u32,
    /// Path endings beside the built-in ones.
    pub paths: Vec<(String, Api)>,
    /// Measure POSTs to unknown paths too, as API `other`.
    pub measure_unknown_paths: bool,
    /// Request header with the model that a router in front has chosen; lower case.
    pub target_model_header: String,
    /// Request header with a tenant; lower case, empty for none.
    pub tenant_header: String,
    /// Write a hash of the tenant instead of its name.
    pub hash_tenant: bool,
    /// What it is hashed with; there if `hash_tenant` is.
    pub tenant_key: Option<TenantKey>,
    /// Distinct tenants that get series of their own.
    pub max_tenants: u32,
    /// Other names of the families that are served beside the seed's.
    pub profile: Profile,
    /// Tell requests apart by priority in the total of requests, as EPP v1.5 does.
    pub priority_label: bool,
    /// Distributions of bytes and tokens are Envoy's own histograms.
    pub native_histograms: bool,
    /// Request headers with the fairness id, the first that is there counts; lower case. The same in `admission`.
    pub fairness_headers: Vec<String>,
    /// Request headers with the name of the objective, the first that is there counts; lower case. The same in `admission`.
    pub objective_headers: Vec<String>,
    /// Priorities of objectives. The same in `admission`.
    pub objectives: Vec<(String, i32)>,
    /// Distinct fairness ids that get series of their own.
    pub max_fairness_ids: u32,
    /// Count the output events of complete streams without usage, in a family of their own.
    pub estimate_missing_usage: bool,
    /// Take llama.cpp's `timings` where it sends no usage.
    pub llama_timings: bool,
    /// Ask the companion before a request goes on; `None`: admission is off.
    pub admission: Option<Admission>,
    /// Ask for the usage of streams whose clients did not, and keep the answer to it from them.
    pub inject_usage: bool,
    /// Models that are another one upstream.
    pub model_rewrites: Vec<ModelRewrite>,
    /// Ask model servers for plain answers, whatever the client would take.
    pub drop_accept_encoding: bool,
    /// Request header that tells the router the request's model; lower case, empty for none.
    pub route_header: String,
    /// Length of a body up to which it is gathered until its model is known.
    pub route_wait_bytes: u32,
    /// Take the tokens that another filter has left in Envoy's metadata.
    pub envoy_token_usage: bool,
    /// Leave what was measured where access logs can read it.
    pub log_fields: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_models: 100,
            models: Vec::new(),
            flush_interval_ms: 250,
            paths: Vec::new(),
            measure_unknown_paths: false,
            target_model_header: "x-gateway-model-name-rewrite".to_string(),
            tenant_header: String::new(),
            hash_tenant: false,
            tenant_key: None,
            max_tenants: 100,
            profile: Profile::default(),
            priority_label: false,
            native_histograms: false,
            fairness_headers: FAIRNESS_HEADERS.map(str::to_string).to_vec(),
            objective_headers: OBJECTIVE_HEADERS.map(str::to_string).to_vec(),
            objectives: Vec::new(),
            max_fairness_ids: 100,
            estimate_missing_usage: false,
            llama_timings: false,
            admission: None,
            inject_usage: false,
            model_rewrites: Vec::new(),
            drop_accept_encoding: false,
            route_header: String::new(),
            route_wait_bytes: 512 * 1024,
            envoy_token_usage: false,
            log_fields: false,
        }
    }
}

/// EPP's name first, then llm-d's.
const FAIRNESS_HEADERS: [&str; 2] = ["x-gateway-inference-fairness-id", "x-llm-d-inference-fairness-id"];
/// EPP's name first, then llm-d's.
const OBJECTIVE_HEADERS: [&str; 2] = ["x-gateway-inference-objective", "x-llm-d-inference-objective"];

/// Which other names of the families are served beside the seed's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// llm-d's.
    pub llm_d_epp: bool,
    /// OpenTelemetry's.
    pub gen_ai: bool,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Path of the key; empty for the whole.
    pub key: String,
    /// What is wrong, and what was expected.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, problem } = self;
        if key.is_empty() {
            write!(to, "configuration: {problem}")
        } else {
            write!(to, "configuration key `{key}`: {problem}")
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Reads the configuration; an empty text is the default.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if text.trim_ascii().is_empty() {
            return Ok(config);
        }
        let value: Value =
            serde_json::from_slice(text).map_err(|cause| error(String::new(), format!("expected JSON, {cause}")))?;
        let Value::Object(object) = value else {
            return Err(error(String::new(), "expected a JSON object".to_string()));
        };
        read_keys(&object, KEYS, "", &mut config)?;
        if let Some(Value::Object(admission)) = object.get("admission") {
            Admission::read(admission, &mut config)?;
        }
        if config.hash_tenant && (config.tenant_header.is_empty() || config.tenant_key.is_none()) {
            let problem = "expected `tenant_header` and `tenant_key` beside it".to_string();
            return Err(error("hash_tenant".to_string(), problem));
        }
        if config.admission.is_some() && !config.route_header.is_empty() {
            let problem = "expected no `admission` beside it: both let the head of a request wait".to_string();
            return Err(error("route_header".to_string(), problem));
        }
        // Names that an operator wrote are never folded into `other`.
        for name in config.model_rewrites.iter().flat_map(ModelRewrite::names) {
            if !config.models.iter().any(|known| known == name) {
                config.models.push(name.to_string());
            }
        }
        Ok(config)
    }

    /// Whether labels tell requests apart by priority.
    #[must_use]
    pub const fn has_priorities(&self) -> bool {
        self.priority_label || self.profile.llm_d_epp
    }

    /// The priority of an objective: 0 if the configuration gives none, as EPP's for an unknown one.
    #[must_use]
    pub fn priority(&self, objective: &[u8]) -> i32 {
        let found = self.objectives.iter().find(|(name, _)| name.as_bytes() == objective);
        found.map_or(0, |(_, priority)| *priority)
    }

    /// The API of a request's path; `None`: it is not measured.
    #[must_use]
    pub fn api(&self, path: &[u8]) -> Option<Api> {
        let plain = crate::api::without_query(path);
        // The longest: an ending that is the end of another one would hide it.
        let fitting = self.paths.iter().filter(|(ending, _)| plain.ends_with(ending.as_bytes()));
        let own = fitting.max_by_key(|(ending, _)| ending.len()).map(|(_, api)| *api);
        own.or_else(|| Api::of_path(path)).or(if self.measure_unknown_paths { Some(Api::Other) } else { None })
    }
}

const fn error(key: String, problem: String) -> ConfigError {
    ConfigError { key, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_the_default() {
        assert_eq!(Config::parse(b" \n"), Ok(Config::default()));
        assert_eq!(Config::parse(b"{}"), Ok(Config::default()));
    }

    #[test]
    fn every_error_names_the_key_and_what_was_expected() {
        for (text, sentence) in [
            ("{", "configuration: expected JSON, "),
            ("[]", "configuration: expected a JSON object"),
            (r#"{"max_models":0}"#, "configuration key `max_models`: expected a whole number from 1 to 10000, found 0"),
            (
                r#"{"max_model":5}"#,
                "configuration key `max_model`: there is no such key; expected one of max_models, models,",
            ),
            (
                r#"{"models":[1]}"#,
                "configuration key `models`: expected a list of names, none of them empty, found [1]",
            ),
            (
                r#"{"paths":{"/x":"chats"}}"#,
                "configuration key `paths`: expected an object from path endings that begin with / to one of chat,",
            ),
            (r#"{"tenant_header":"a b"}"#, "configuration key `tenant_header`: expected a header name, found \"a b\""),
            (
                r#"{"hash_tenant":true,"tenant_header":"t"}"#,
                "configuration key `hash_tenant`: expected `tenant_header` and `tenant_key` beside it",
            ),
            (
                r#"{"route_header":"x","admission":{}}"#,
                "configuration key `route_header`: expected no `admission` beside it",
            ),
        ] {
            let found = Config::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(found.starts_with(sentence), "{text}: {found}");
        }
    }

    #[test]
    fn own_paths_are_tried_before_the_built_in_ones() {
        let text = br#"{"paths":{"/ask":"chat","/v2/completions":"chat","/a/ask":"messages","/z/a/ask":"generate"}}"#;
        let config = Config::parse(text).unwrap();
        assert_eq!(config.api(b"/a/ask"), Some(Api::Messages), "the longest ending counts");
        assert_eq!(config.api(b"/z/a/ask"), Some(Api::Generate));
        assert_eq!(config.api(b"/tenant/ask?x=1"), Some(Api::Chat));
        assert_eq!(config.api(b"/v2/completions"), Some(Api::Chat));
        assert_eq!(config.api(b"/v1/completions"), Some(Api::Completions));
        assert_eq!(config.api(b"/v1/models"), None);
        let all = Config::parse(br#"{"measure_unknown_paths":true}"#).unwrap();
        assert_eq!(all.api(b"/v1/models"), Some(Api::Other));
    }
}
