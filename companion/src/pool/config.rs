//! A pool's part of the config.
//!
//! In: YAML. Out: a [`PoolPlan`], in which everything is parsed, or the key that is wrong and what was expected of it.
//! It reads no file and asks no cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tally_core::exposition::read::Spec;

use crate::config::duration;
use crate::discovery::{Source, Target};
use crate::model_server::{Engine, Overrides};
use crate::scrape::{ScrapePlan, TlsError, TlsPlan, Token};

/// A pool as its user writes it. What is left out has the endpoint picker's default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Name of the pool: the label `name`, and the InferencePool's name where there is one.
    pub name: String,
    /// Namespace of the pool in Kubernetes.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Where its endpoints come from.
    pub discovery: DiscoveryConfig,
    /// Engine of its endpoints: `vllm`, `sglang`, `trtllm`, `triton`, `llamacpp`, `tgi` or `auto`.
    #[serde(default)]
    pub engine: Option<String>,
    /// Where the endpoints show their metrics.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// Own series in place of the engine's.
    #[serde(default)]
    pub mapping: MappingConfig,
    /// From one scrape of an endpoint to the next; `50ms`.
    #[serde(default)]
    pub refresh_metrics_interval: Option<String>,
    /// An older sample counts for nothing; `2s`.
    #[serde(default)]
    pub metrics_staleness_threshold: Option<String>,
    /// For one scrape; `5s`.
    #[serde(default)]
    pub timeout: Option<String>,
    /// Greatest page in bytes; 16 MiB.
    #[serde(default)]
    pub max_body: Option<u64>,
}

/// Where endpoints come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum DiscoveryConfig {
    /// All addresses of a name.
    Dns {
        /// Host name.
        name: String,
        /// Port of each; `metrics.port` if left out.
        #[serde(default)]
        port: Option<u16>,
    },
    /// A file with one `host:port` a line, read again when it changes.
    File(PathBuf),
    /// These.
    Static(Vec<String>),
}

/// Where endpoints show their metrics, and how to ask.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Port of endpoints that come without one; 8000. In Kubernetes it replaces the target port of a pool that has one.
    pub port: Option<u16>,
    /// `/metrics`
    pub path: Option<String>,
    /// `http` or `https`
    pub scheme: Option<String>,
    /// Take any certificate; true unless there is a `ca_file`.
    pub insecure_skip_verify: Option<bool>,
    /// Certificates that may sign the endpoints', in PEM.
    pub ca_file: Option<PathBuf>,
    /// File with a bearer token; read again every 30 s.
    pub token_file: Option<PathBuf>,
    /// Ask for compressed pages: less traffic for more CPU on both sides; false.
    pub gzip: bool,
}

/// Series in the endpoint picker's grammar: `name` or `name{label=value}`; an empty text switches a meaning off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MappingConfig {
    /// Requests waiting.
    pub waiting: Option<String>,
    /// Requests running.
    pub running: Option<String>,
    /// KV cache in use, 0 to 1.
    pub kv_usage: Option<String>,
    /// LoRA adapters, as vLLM writes them.
    pub lora_info: Option<String>,
}

/// Which key is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}, found {found}")]
pub struct PoolConfigError {
    /// Path below the pool, as `metrics.scheme`.
    pub key: &'static str,
    /// What the key takes.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// A pool, ready to start.
#[derive(Clone, Debug)]
pub struct PoolPlan {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) engine: Engine,
    pub(super) overrides: Overrides,
    pub(super) staleness: Duration,
    interval: Duration,
    timeout: Duration,
    max_body: usize,
    path: String,
    gzip: bool,
    tls: Option<TlsPlan>,
    token_file: Option<PathBuf>,
}

impl PoolPlan {
    /// Its name, as in the label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl PoolConfig {
    /// Parses every value.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn plan(self) -> Result<PoolPlan, PoolConfigError> {
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return Err(wrong("name", "a name of 1 to 253 bytes", &self.name));
        }
        let engine = self.engine.as_deref().unwrap_or("auto");
        let engine = engine.parse().map_err(|()| wrong("engine", Engine::EXPECTED, engine))?;
        let path = self.metrics.path.clone().unwrap_or_else(|| "/metrics".to_owned());
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(wrong("metrics.path", "a path that begins with /", &path));
        }
        let max_body = self.max_body.unwrap_or(DEFAULT_MAX_BODY);
        if !(1024..=MOST_MAX_BODY).contains(&max_body) {
            return Err(wrong("max_body", "bytes from 1024 to 1073741824", &max_body.to_string()));
        }
        let interval = span("refresh_metrics_interval", self.refresh_metrics_interval.as_deref(), "50ms")?;
        if interval < LEAST_INTERVAL {
            let text = self.refresh_metrics_interval.as_deref().unwrap_or_default();
            return Err(wrong("refresh_metrics_interval", "at least 1ms", text));
        }
        Ok(PoolPlan {
            source: source(&self)?,
            tls: tls(&self.metrics)?,
            engine,
            overrides: overrides(&self.mapping)?,
            staleness: span("metrics_staleness_threshold", self.metrics_staleness_threshold.as_deref(), "2s")?,
            timeout: span("timeout", self.timeout.as_deref(), "5s")?,
            interval,
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
            path,
            gzip: self.metrics.gzip,
            token_file: self.metrics.token_file,
            name: self.name,
        })
    }
}

impl PoolPlan {
    /// How to scrape; reads the CA file.
    pub(super) fn scrape(&self) -> Result<ScrapePlan, TlsError> {
        Ok(ScrapePlan {
            interval: self.interval,
            timeout: self.timeout,
            max_body: self.max_body,
            path: self.path.clone(),
            gzip: self.gzip,
            tls: self.tls.as_ref().map(|tls| tls.client().map(Arc::new)).transpose()?,
            token: self.token_file.clone().map(|path| Arc::new(Token::new(path))),
        })
    }
}

fn source(config: &PoolConfig) -> Result<Source, PoolConfigError> {
    let default_port = config.metrics.port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT);
    Ok(match &config.discovery {
        DiscoveryConfig::Dns { name, port } => {
            let Some(target) = Target::parse(name, default_port).filter(|_| !name.contains(':')) else {
                return Err(wrong("discovery.dns.name", "a host name without port", name));
            };
            Source::Dns { name: target.host.to_string(), port: port.unwrap_or(default_port) }
        }
        DiscoveryConfig::File(path) if path.as_os_str().is_empty() => {
            return Err(wrong("discovery.file", "a path", ""));
        }
        DiscoveryConfig::File(path) => Source::File { path: path.clone(), default_port },
        DiscoveryConfig::Static(entries) => {
            let read = |entry: &String| {
                Target::parse(entry, default_port).ok_or_else(|| wrong("discovery.static", "host:port", entry))
            };
            Source::Static(entries.iter().map(read).collect::<Result<_, _>>()?)
        }
    })
}

fn tls(metrics: &MetricsConfig) -> Result<Option<TlsPlan>, PoolConfigError> {
    match (metrics.scheme.as_deref().unwrap_or("http"), &metrics.ca_file, metrics.insecure_skip_verify) {
        ("http", ..) => Ok(None),
        ("https", Some(path), None | Some(false)) => Ok(Some(TlsPlan::CaFile(path.clone()))),
        ("https", None, None | Some(true)) => Ok(Some(TlsPlan::Anyone)),
        ("https", None, Some(false)) => {
            Err(wrong("metrics.ca_file", "a file with certificates when insecure_skip_verify is false", ""))
        }
        ("https", Some(_), Some(true)) => {
            Err(wrong("metrics.insecure_skip_verify", "false when there is a ca_file", "true"))
        }
        (other, ..) => Err(wrong("metrics.scheme", "http or https", other)),
    }
}

fn overrides(mapping: &MappingConfig) -> Result<Overrides, PoolConfigError> {
    let read = |key, text: &Option<String>| match text.as_deref() {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => match text.parse::<Spec>() {
            Ok(spec) => Ok(Some(vec![spec])),
            Err(_) => Err(wrong(key, "a metric as name or name{label=value}", text)),
        },
    };
    Ok(Overrides {
        waiting: read("mapping.waiting", &mapping.waiting)?,
        running: read("mapping.running", &mapping.running)?,
        kv_usage: read("mapping.kv_usage", &mapping.kv_usage)?,
        lora_info: read("mapping.lora_info", &mapping.lora_info)?,
    })
}

fn span(key: &'static str, text: Option<&str>, default: &str) -> Result<Duration, PoolConfigError> {
    let text = text.unwrap_or(default);
    duration::parse(text).filter(|span| !span.is_zero()).ok_or_else(|| wrong(key, duration::EXPECTED, text))
}

fn wrong(key: &'static str, expected: &str, found: &str) -> PoolConfigError {
    let found = if found.is_empty() { "nothing".to_owned() } else { format!("\"{found}\"") };
    PoolConfigError { key, expected: expected.to_owned(), found }
}

/// As Kubernetes allows for an object.
const MAX_NAME_BYTES: usize = 253;
const DEFAULT_PORT: u16 = 8000;
const DEFAULT_MAX_BODY: u64 = 16 << 20;
const MOST_MAX_BODY: u64 = 1 << 30;
const LEAST_INTERVAL: Duration = Duration::from_millis(1);
