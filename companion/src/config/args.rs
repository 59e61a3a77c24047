//! The flags of `tallyd serve`: EPP's names where EPP has them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Tls, duration};

/// Flags win over the file.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// YAML file; see docs/TALLYD.md.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Port of /metrics and all other pages [default: 9090]; 0: any free one.
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Port of flow control, if it is switched on [default: 9002]; 0: any free one.
    #[arg(long, value_name = "PORT")]
    pub grpc_port: Option<u16>,
    /// Port of flow control's gRPC health [default: 9003]; 0: any free one.
    #[arg(long, value_name = "PORT")]
    pub grpc_health_port: Option<u16>,
    /// Address of the pages [default: all interfaces; without auth: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Write the real address here once it is open.
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
    /// EPP's switch: false is `--auth none`, true is any other mode.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub metrics_endpoint_auth: Option<bool>,
    /// Who may read the pages [default: kubernetes in a pod, else none].
    #[arg(long, value_enum)]
    pub auth: Option<AuthMode>,
    /// Tokens, one a line; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How to reach the Kubernetes API [default: as a pod, else as kubectl does].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Allow `--auth none` on addresses that other machines can reach.
    #[arg(long)]
    pub insecure_no_auth: bool,
    /// Folder with tls.crt and tls.key: HTTPS.
    #[arg(long, value_name = "FOLDER")]
    pub metrics_cert_dir: Option<PathBuf>,
    /// PEM file with authorities: clients have to show a certificate that one of them signed.
    #[arg(long, value_name = "FILE", requires = "metrics_cert_dir")]
    pub metrics_client_ca_file: Option<PathBuf>,
    /// Admin of an Envoy whose families go on the page; may be repeated.
    #[arg(long, value_name = "URL")]
    pub envoy: Vec<String>,
    /// Serve /debug/pprof/ [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_pprof: Option<bool>,
    /// Log lines for people or for machines.
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Levels, such as info or info,tallyd::auth=debug.
    #[arg(long, env = "RUST_LOG", value_parser = log_level)]
    pub log_level: Option<String>,
    /// Flags for a single pool.
    #[command(flatten)]
    pub pool: PoolFlags,
}

/// EPP's flags for its one pool.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFlags {
    /// Name of the InferencePool.
    #[arg(long, value_name = "NAME")]
    pub pool_name: Option<String>,
    /// Its namespace [default: $NAMESPACE, else default].
    #[arg(long, value_name = "NAME", env = "NAMESPACE")]
    pub pool_namespace: Option<String>,
    /// Its API group [default: inference.networking.k8s.io].
    #[arg(long, value_name = "GROUP")]
    pub pool_group: Option<String>,
    /// Time between two scrapes of an endpoint [default: 50ms].
    #[arg(long, value_name = "DURATION", value_parser = duration::flag)]
    pub refresh_metrics_interval: Option<Duration>,
    /// Accepted for compatibility: the gauges are computed when the page is read.
    #[arg(long, value_name = "DURATION", value_parser = duration::flag)]
    pub refresh_prometheus_metrics_interval: Option<Duration>,
    /// Age from which an endpoint's sample no longer counts [default: 2s].
    #[arg(long, value_name = "DURATION", value_parser = duration::flag)]
    pub metrics_staleness_threshold: Option<Duration>,
    /// Port of the endpoints' metrics [default: the target port].
    #[arg(long, value_name = "PORT")]
    pub model_server_metrics_port: Option<u16>,
    /// Path of the endpoints' metrics [default: /metrics].
    #[arg(long, value_name = "PATH")]
    pub model_server_metrics_path: Option<String>,
    /// http or https [default: http].
    #[arg(long, value_name = "SCHEME", value_parser = ["http", "https"])]
    pub model_server_metrics_scheme: Option<String>,
}

/// Who may read the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// Whoever Kubernetes allows (TokenReview, SubjectAccessReview).
    Kubernetes,
    /// Anybody; only on loopback, unless forced.
    None,
    /// Whoever shows a token of a file.
    TokenFile,
}

/// Log lines for people or for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text.
    Text,
}

impl ServeArgs {
    pub(super) fn tls(&self) -> Result<Option<Tls>, String> {
        let Some(folder) = &self.metrics_cert_dir else { return Ok(None) };
        if !folder.is_dir() {
            return Err(format!("--metrics-cert-dir {}: expected a folder", folder.display()));
        }
        Ok(Some(Tls {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            client_ca: self.metrics_client_ca_file.clone(),
        }))
    }
}

fn log_level(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected a level, or levels by module such as info,tallyd::auth=debug".to_owned()),
    }
}
