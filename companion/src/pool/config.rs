//! A pool's part of the config.
//!
//! In: YAML. Out: its keys, as written; a key that does not exist is an error. What they mean is `plan.rs`'s.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

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

impl PoolConfig {
    /// The InferencePool of this name, and the endpoint picker's defaults for the rest.
    #[must_use]
    pub fn inference_pool(name: String) -> Self {
        Self {
            name,
            namespace: None,
            discovery: DiscoveryConfig::Kubernetes(KubernetesConfig::default()),
            engine: None,
            metrics: MetricsConfig::default(),
            mapping: MappingConfig::default(),
            refresh_metrics_interval: None,
            metrics_staleness_threshold: None,
            timeout: None,
            max_body: None,
        }
    }
}

/// Where endpoints come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum DiscoveryConfig {
    /// What a name stands for, looked up every second.
    Dns(DnsConfig),
    /// A file with one `host:port` a line, read again when it changes.
    File(PathBuf),
    /// Ready pods of an InferencePool, or with certain labels.
    Kubernetes(KubernetesConfig),
    /// These.
    Static(Vec<String>),
}

/// `name` with or without `port`: all its A and AAAA addresses. `srv`: all targets and ports of its SRV records.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// Host name.
    pub name: Option<String>,
    /// Port of each address; `metrics.port` if left out.
    pub port: Option<u16>,
    /// Name of SRV records, as `_metrics._tcp.vllm.default.svc.cluster.local`.
    pub srv: Option<String>,
    /// Who is asked for `srv`, as `10.0.0.10:53`; the servers of `/etc/resolv.conf` if left out.
    pub server: Option<SocketAddr>,
}

/// Which pods of a cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Name of the InferencePool; the pool's name if left out.
    pub pool: Option<String>,
    /// API group of the InferencePool; whichever has it if left out.
    pub group: Option<String>,
    /// Pods with these labels, as `app=vllm,tier=gpu`, and no InferencePool.
    pub endpoint_selector: Option<String>,
    /// With `endpoint_selector`: one endpoint of a pod for each port.
    pub target_ports: Vec<u16>,
    /// How to reach the API; as a pod does, else as kubectl does, if left out.
    pub kubeconfig: Option<PathBuf>,
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
