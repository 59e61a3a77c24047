//! The filter's configuration: JSON to a [`Config`] that cannot be wrong.
//!
//! In: `plugin_config`. Out: a configuration, or one sentence that names the key and what was expected. Nothing is
//! half-accepted: an unknown key is an error, since a misspelt one would be a silent default.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde_json::{Map, Value};

use crate::api::Api;

mod admission;

pub use admission::{Admission, KEYS as ADMISSION_KEYS, OnFailure};

/// How the filter works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Distinct model names out of traffic that get series of their own.
    pub max_models: usize,
    /// Model names that always have series of their own.
    pub models: Vec<String>,
    /// Milliseconds between two flushes into Envoy's stats.
    pub flush_interval_ms: u64,
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
    /// Distinct tenants that get series of their own.
    pub max_tenants: usize,
    /// Count the output events of complete streams without usage, in a family of their own.
    pub estimate_missing_usage: bool,
    /// Take llama.cpp's `timings` where it sends no usage.
    pub llama_timings: bool,
    /// Ask the companion before a request goes on; `None`: admission is off.
    pub admission: Option<Admission>,
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
            max_tenants: 100,
            estimate_missing_usage: false,
            llama_timings: false,
            admission: None,
        }
    }
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

/// A key of the configuration: documentation and reading in one place.
pub struct Key<T = Config> {
    /// Its name.
    pub name: &'static str,
    /// What may stand there.
    pub expected: &'static str,
    /// What it does.
    pub meaning: &'static str,
    read: fn(&Value, &mut T) -> Option<()>,
}

/// All keys, in the order docs list them.
pub const KEYS: &[Key] = &[
    Key {
        name: "max_models",
        expected: "a whole number from 1 to 10000",
        meaning: "Distinct model names out of traffic that get series of their own; later ones are counted as `other`.",
        read: |value, config| whole(value, 1, 10_000).map(|n| config.max_models = usize::try_from(n).unwrap_or(1)),
    },
    Key {
        name: "models",
        expected: "a list of model names",
        meaning: "Model names that always have series of their own, beside `max_models`.",
        read: |value, config| texts(value).map(|names| config.models = names),
    },
    Key {
        name: "flush_interval_ms",
        expected: "a whole number from 10 to 60000",
        meaning: "Milliseconds between two flushes of the filter's counts into Envoy's stats; what a failing VM may lose.",
        read: |value, config| whole(value, 10, 60_000).map(|n| config.flush_interval_ms = n),
    },
    Key {
        name: "paths",
        expected: "an object from path endings to one of chat, completions, embeddings, messages, generate, responses, other",
        meaning: "Path endings beside the built-in ones, with the API they speak. They are tried first.",
        read: |value, config| paths(value).map(|paths| config.paths = paths),
    },
    Key {
        name: "measure_unknown_paths",
        expected: "true or false",
        meaning: "Measure requests with a body on unknown paths too, as API `other`.",
        read: |value, config| value.as_bool().map(|flag| config.measure_unknown_paths = flag),
    },
    Key {
        name: "target_model_header",
        expected: "a header name",
        meaning: "Request header with the model that a router in front has rewritten the request to.",
        read: |value, config| header(value).map(|name| config.target_model_header = name),
    },
    Key {
        name: "tenant_header",
        expected: "a header name",
        meaning: "Request header that names a tenant; switches the tenant families on.",
        read: |value, config| header(value).map(|name| config.tenant_header = name),
    },
    Key {
        name: "hash_tenant",
        expected: "true or false",
        meaning: "Write a hash of the tenant's name (64-bit FNV-1a, as 16 hexadecimal digits) instead of the name.",
        read: |value, config| value.as_bool().map(|flag| config.hash_tenant = flag),
    },
    Key {
        name: "max_tenants",
        expected: "a whole number from 1 to 10000",
        meaning: "Distinct tenants that get series of their own; later ones are counted as `other`.",
        read: |value, config| whole(value, 1, 10_000).map(|n| config.max_tenants = usize::try_from(n).unwrap_or(1)),
    },
    Key {
        name: "estimate_missing_usage",
        expected: "true or false",
        meaning: "Count the output events of complete streams whose server reported no usage, in a family of their own.",
        read: |value, config| value.as_bool().map(|flag| config.estimate_missing_usage = flag),
    },
    Key {
        name: "llama_timings",
        expected: "true or false",
        meaning: "Take llama.cpp's `timings` as usage where it sends none.",
        read: |value, config| value.as_bool().map(|flag| config.llama_timings = flag),
    },
    Key {
        name: "admission",
        expected: "an object",
        meaning: "Switches admission on: a request waits until the companion lets it go. See docs/ADMISSION.md.",
        // Its keys are read before the others, so that an error can name the inner key.
        read: |value, _| value.is_object().then_some(()),
    },
];

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
        if let Some(value) = object.get("admission") {
            config.admission = Some(Admission::parse(value)?);
        }
        read_keys(&object, KEYS, "", &mut config)?;
        if config.hash_tenant && config.tenant_header.is_empty() {
            return Err(error("hash_tenant".to_string(), "expected `tenant_header` beside it".to_string()));
        }
        Ok(config)
    }

    /// The API of a request's path; `None`: it is not measured.
    #[must_use]
    pub fn api(&self, path: &[u8]) -> Option<Api> {
        let plain = crate::api::without_query(path);
        let own = self.paths.iter().find(|(suffix, _)| plain.ends_with(suffix.as_bytes())).map(|(_, api)| *api);
        own.or_else(|| Api::of_path(path)).or(if self.measure_unknown_paths { Some(Api::Other) } else { None })
    }
}

const fn error(key: String, problem: String) -> ConfigError {
    ConfigError { key, problem }
}

/// Reads every value of an object by its key; `prefix` stands before the names in errors.
fn read_keys<T>(object: &Map<String, Value>, keys: &[Key<T>], prefix: &str, to: &mut T) -> Result<(), ConfigError> {
    for (name, value) in object {
        let path = format!("{prefix}{name}");
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            return Err(error(path, format!("there is no such key; expected one of {}", known.join(", "))));
        };
        if (key.read)(value, to).is_none() {
            return Err(error(path, format!("expected {}, found {}", key.expected, shown(value))));
        }
    }
    Ok(())
}

fn whole(value: &Value, least: u64, most: u64) -> Option<u64> {
    value.as_u64().filter(|number| (least..=most).contains(number))
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().filter(|text| !text.is_empty()).map(str::to_string)).collect()
}

fn paths(value: &Value) -> Option<Vec<(String, Api)>> {
    let pair = |(suffix, api): (&String, &Value)| {
        let api = Api::by_name(api.as_str()?)?;
        suffix.starts_with('/').then(|| (suffix.clone(), api))
    };
    value.as_object()?.iter().map(pair).collect()
}

fn header(value: &Value) -> Option<String> {
    let name = value.as_str()?.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token)).then_some(name)
}

/// A value in an error sentence: never longer than a line.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.chars().count() > 60 {
        text = text.chars().take(60).collect();
        text.push('…');
    }
    text
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
            (r#"{"models":[1]}"#, "configuration key `models`: expected a list of model names, found [1]"),
            (
                r#"{"paths":{"/x":"chats"}}"#,
                "configuration key `paths`: expected an object from path endings to one of chat,",
            ),
            (r#"{"tenant_header":"a b"}"#, "configuration key `tenant_header`: expected a header name, found \"a b\""),
            (r#"{"hash_tenant":true}"#, "configuration key `hash_tenant`: expected `tenant_header` beside it"),
        ] {
            let found = Config::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(found.starts_with(sentence), "{text}: {found}");
        }
    }

    #[test]
    fn own_paths_are_tried_before_the_built_in_ones() {
        let config = Config::parse(br#"{"paths":{"/ask":"chat","/v2/completions":"chat"}}"#).unwrap();
        assert_eq!(config.api(b"/tenant/ask?x=1"), Some(Api::Chat));
        assert_eq!(config.api(b"/v2/completions"), Some(Api::Chat));
        assert_eq!(config.api(b"/v1/completions"), Some(Api::Completions));
        assert_eq!(config.api(b"/v1/models"), None);
        let all = Config::parse(br#"{"measure_unknown_paths":true}"#).unwrap();
        assert_eq!(all.api(b"/v1/models"), Some(Api::Other));
    }
}
