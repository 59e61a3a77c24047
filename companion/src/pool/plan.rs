//! What a pool's config means.
//!
//! In: a [`PoolConfig`]. Out: a [`PoolPlan`], in which everything is parsed, or the key that is wrong and what was expected
//! of it. It reads no file and asks no cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tally_core::exposition::read::Spec;

use super::config::{DiscoveryConfig, DnsConfig, KubernetesConfig, MappingConfig, MetricsConfig, PoolConfig};
use crate::config::duration;
use crate::discovery::{DnsName, KubernetesPlan, Pick, Source, Target, VERSIONS};
use crate::model_server::{Engine, Overrides};
use crate::scrape::{ScrapePlan, TlsError, TlsPlan, Token};

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
    /// Its name, as in the label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From one scrape of an endpoint to the next.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// An older sample counts for nothing.
    #[must_use]
    pub const fn staleness(&self) -> Duration {
        self.staleness
    }

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
    let metrics_port = config.metrics.port.filter(|port| *port != 0);
    let default_port = metrics_port.unwrap_or(DEFAULT_PORT);
    Ok(match &config.discovery {
        DiscoveryConfig::Dns(dns) => Source::Dns(name(dns, default_port)?),
        DiscoveryConfig::File(path) if path.as_os_str().is_empty() => {
            return Err(wrong("discovery.file", "a path", ""));
        }
        DiscoveryConfig::File(path) => Source::File { path: path.clone(), default_port },
        DiscoveryConfig::Kubernetes(kubernetes) => Source::Kubernetes(KubernetesPlan {
            namespace: config.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            pick: pick(kubernetes, &config.name)?,
            metrics_port,
            kubeconfig: kubernetes.kubeconfig.clone(),
        }),
        DiscoveryConfig::Static(entries) => {
            let read = |entry: &String| {
                Target::parse(entry, default_port).ok_or_else(|| wrong("discovery.static", "host:port", entry))
            };
            Source::Static(entries.iter().map(read).collect::<Result<_, _>>()?)
        }
    })
}

fn name(dns: &DnsConfig, default_port: u16) -> Result<DnsName, PoolConfigError> {
    let is_name = |name: &String| Target::parse(name, 1).is_some() && !name.contains(':');
    match (&dns.name, &dns.srv) {
        (Some(name), None) if is_name(name) => {
            Ok(DnsName::Addresses { name: name.clone(), port: dns.port.unwrap_or(default_port) })
        }
        (Some(name), None) => Err(wrong("discovery.dns.name", "a host name without port", name)),
        (None, Some(name)) if is_name(name) && dns.port.is_none() => {
            Ok(DnsName::Services { name: name.clone(), server: dns.server })
        }
        (None, Some(name)) => Err(wrong("discovery.dns.srv", "a name, and no port: the records have it", name)),
        (None, None) => Err(wrong("discovery.dns", "name or srv", "")),
        (Some(_), Some(name)) => Err(wrong("discovery.dns", "either name or srv", name)),
    }
}

fn pick(kubernetes: &KubernetesConfig, pool: &str) -> Result<Pick, PoolConfigError> {
    if let Some(labels) = &kubernetes.endpoint_selector {
        let is_term =
            |term: &str| term.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.contains('='));
        if !labels.split(',').all(is_term) {
            return Err(wrong("discovery.kubernetes.endpoint_selector", "labels as app=vllm,tier=gpu", labels));
        }
        if kubernetes.pool.is_some() || kubernetes.group.is_some() {
            return Err(wrong("discovery.kubernetes", "either pool and group or endpoint_selector", labels));
        }
        if kubernetes.target_ports.is_empty() || kubernetes.target_ports.contains(&0) {
            return Err(wrong("discovery.kubernetes.target_ports", "ports to go with endpoint_selector", ""));
        }
        return Ok(Pick::Selector { labels: labels.clone(), ports: kubernetes.target_ports.clone() });
    }
    if !kubernetes.target_ports.is_empty() {
        return Err(wrong("discovery.kubernetes.endpoint_selector", "labels to go with target_ports", ""));
    }
    if let Some(group) = kubernetes.group.as_ref().filter(|group| VERSIONS.iter().all(|(known, _)| known != group)) {
        let expected = VERSIONS.map(|(known, _)| known).join(" or ");
        return Err(wrong("discovery.kubernetes.group", &expected, group));
    }
    let name = kubernetes.pool.clone().unwrap_or_else(|| pool.to_owned());
    Ok(Pick::InferencePool { name, group: kubernetes.group.clone() })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(yaml: &str) -> Result<PoolPlan, String> {
        let config: PoolConfig = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        config.plan().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_the_endpoint_pickers_default() {
        let plan = plan("name: p\ndiscovery: {static: [\"a:1\", \"b\"]}\n").unwrap();
        assert_eq!((plan.interval, plan.staleness), (Duration::from_millis(50), Duration::from_secs(2)));
        assert_eq!((plan.timeout, plan.path.as_str(), plan.tls), (Duration::from_secs(5), "/metrics", None));
        let Source::Static(targets) = plan.source else { panic!("static") };
        assert_eq!(targets.iter().map(Target::authority).collect::<Vec<_>>(), ["a:1", "b:8000"]);
    }

    #[test]
    fn kubernetes_needs_nothing_but_the_pools_name() {
        let source = |yaml: &str| match plan(&format!("name: p\nnamespace: n\ndiscovery: {{kubernetes: {yaml}}}\n")) {
            Ok(PoolPlan { source: Source::Kubernetes(plan), .. }) => plan,
            other => panic!("{other:?}"),
        };
        assert_eq!(source("{}").pick, Pick::InferencePool { name: "p".into(), group: None });
        assert_eq!(source("{pool: q}").pick, Pick::InferencePool { name: "q".into(), group: None });
        assert_eq!(source("{}").namespace, "n");
        let selector = source("{endpoint_selector: \"app=a,b=c\", target_ports: [1, 2]}").pick;
        assert_eq!(selector, Pick::Selector { labels: "app=a,b=c".into(), ports: vec![1, 2] });
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key_and_what_was_expected() {
        let said = |more: &str| plan(&format!("name: p\ndiscovery: {{static: []}}\n{more}\n")).unwrap_err();
        for (more, expected) in [
            ("engine: gpt", "engine: expected vllm, sglang, trtllm, triton, llamacpp, tgi or auto, found \"gpt\""),
            ("timeout: 5", "timeout: expected a duration such as 50ms, 2s or 1m30s, found \"5\""),
            ("timeout: 0s", "timeout: expected a duration such as 50ms, 2s or 1m30s, found \"0s\""),
            ("refresh_metrics_interval: 10us", "refresh_metrics_interval: expected at least 1ms, found \"10us\""),
            ("metrics: {scheme: ftp}", "metrics.scheme: expected http or https, found \"ftp\""),
            ("metrics: {path: metrics}", "metrics.path: expected a path that begins with /, found \"metrics\""),
            (
                "metrics: {scheme: https, insecure_skip_verify: false}",
                "metrics.ca_file: expected a file with certificates when insecure_skip_verify is false, found nothing",
            ),
            (
                "mapping: {waiting: \"a{b\"}",
                "mapping.waiting: expected a metric as name or name{label=value}, found \"a{b\"",
            ),
            ("max_body: 5", "max_body: expected bytes from 1024 to 1073741824, found \"5\""),
        ] {
            assert_eq!(said(more), expected);
        }
        assert!(said("metrics: {prot: 1}").contains("prot"));
        let discovery = |text: &str| plan(&format!("name: p\ndiscovery: {{{text}}}\n")).unwrap_err();
        assert!(discovery("static: [\"http://a\"]").starts_with("discovery.static: expected host:port"));
        assert!(discovery("dns: {}").starts_with("discovery.dns: expected name or srv"));
        assert!(discovery("dns: {name: \"a:1\"}").starts_with("discovery.dns.name: "));
        assert!(discovery("kubernetes: {target_ports: [1]}").starts_with("discovery.kubernetes.endpoint_selector: "));
        assert!(discovery("kubernetes: {endpoint_selector: a=b}").starts_with("discovery.kubernetes.target_ports: "));
        assert!(discovery("kubernetes: {group: x}").contains("inference.networking.x-k8s.io"));
        assert!(discovery("consul: {}").contains("consul"));
    }
}
