//! `tallyd lora-syncer`: keeps a model server's LoRA adapters as a ConfigMap says.
//!
//! In: the old sidecar's YAML file (`config.rs`), watched by content (`watch.rs`), and the server's listing.
//! Out: load and unload calls (`diff.rs` and `reconcile.rs` choose, `engine.rs` words, `client.rs` sends,
//! `sync.rs` loops) and a page of metrics with `/healthz` and `/readyz` (`status.rs`).
//! It needs no Kubernetes API and no rights, and it never touches adapters that the file does not name.

mod client;
mod config;
mod diff;
mod engine;
mod reconcile;
mod status;
mod sync;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use client::Client;
pub use engine::Engine;
use status::Status;
use sync::Syncer;

use crate::watch;

/// Flags, environment and defaults of the dynamic LoRA sidecar, and a few more.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// File that lists the adapters; mount the ConfigMap as a volume without subPath.
    #[arg(long, env = "DYNAMIC_LORA_ROLLOUT_CONFIG", default_value = "/config/configmap.yaml")]
    config: PathBuf,
    /// Accepted for compatibility; the file is always checked.
    #[arg(long)]
    config_validation: bool,
    /// Seconds after which a server that is not healthy is complained of.
    #[arg(long, default_value_t = 300)]
    health_check_timeout: u64,
    /// Seconds between health checks while the server is not healthy.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    health_check_interval: u64,
    /// Seconds between looks at the server.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    reconcile_trigger: u64,
    /// Port of /metrics, /healthz and /readyz; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    metrics_port: u16,
    /// File that gets the page's real address once it is open.
    #[arg(long)]
    address_file: Option<PathBuf>,
    /// Model server's API.
    #[arg(long, value_enum, default_value = "vllm")]
    engine: Engine,
    /// Seconds that one load or unload may take.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    load_timeout: u64,
    /// The server's key, sent as a bearer token.
    #[arg(long, env = "VLLM_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// File with the server's key; read again for each call.
    #[arg(long, conflicts_with = "api_key")]
    api_key_file: Option<PathBuf>,
    /// Speak HTTPS to the server.
    #[arg(long)]
    tls: bool,
    /// PEM file with the authorities that sign the server's certificate; implies --tls.
    #[arg(long)]
    tls_ca_file: Option<PathBuf>,
}

/// Runs until told to stop.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = Client::new(&args)?;
    let listener = listen(args.metrics_port).await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "metrics page open");
    if let Some(path) = &args.address_file {
        tokio::fs::write(path, format!("{address}\n"))
            .await
            .with_context(|| format!("--address-file {}", path.display()))?;
    }
    let status = Arc::new(Status::default());
    let file = watch::watch(args.config.clone(), WATCH_EVERY, shutdown.clone());
    let syncer = Syncer::new(&args, client, status.clone());
    tokio::select! {
        served = axum::serve(listener, status::router(status)).into_future() => served.context("serve /metrics"),
        ended = syncer.run(file, shutdown) => ended,
    }
}

/// What an adapters' file asks for; see [`check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Adapters that it names.
    pub adapters: usize,
    /// What was accepted and deserves a look.
    pub warnings: Vec<String>,
}

/// Reads the text of an adapters' file as `run` does.
///
/// # Errors
/// One sentence with line, key and what was expected.
pub fn check(text: &str) -> Result<Checked, String> {
    let config = config::LoraConfig::parse(text).map_err(|error| error.to_string())?;
    let desired = &config.desired;
    let adapters = desired.exist.len() + desired.forbidden.len() + desired.contradicted.len();
    Ok(Checked { adapters, warnings: config.warnings })
}

/// On all addresses of both kinds, or of IPv4 where there is no IPv6.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    if let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        return Ok(listener);
    }
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.with_context(|| format!("listen on port {port}"))
}

/// How often the file is looked at; a ConfigMap's swap is seen within this.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use clap::Parser;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{ConfigMap, Container};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// A manifest, if Kubernetes knows each of its fields.
    fn known<T: serde::de::DeserializeOwned + serde::Serialize>(text: &str) -> T {
        let written: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let read: T = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written, "a field that Kubernetes does not know is dropped");
        read
    }

    #[test]
    fn the_deploy_snippet_is_a_native_sidecar_with_a_file_that_reads_without_a_warning() {
        let text = include_str!("../../../deploy/lora-sidecar.yaml");
        let (map, deployment) = text.split_once("\n---\n").unwrap();
        let map: ConfigMap = known(map);
        let files = map.data.unwrap();
        let config = config::LoraConfig::parse(&files["configmap.yaml"]).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
        let deployment: Deployment = known(deployment);
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        let sidecar: &Container = &pod.init_containers.as_ref().unwrap()[0];
        assert_eq!(sidecar.restart_policy.as_deref(), Some("Always"));
        assert!(sidecar.startup_probe.is_none(), "the server's container would never start");
        assert_eq!(pod.service_account_name, None);
        let mount = &sidecar.volume_mounts.as_ref().unwrap()[0];
        assert!(mount.sub_path.is_none(), "updates would not be seen");
        let file = format!("{}/{}", mount.mount_path, files.keys().next().unwrap());
        let environment = &sidecar.env.as_ref().unwrap()[0];
        assert_eq!(
            (environment.name.as_str(), environment.value.as_ref()),
            ("DYNAMIC_LORA_ROLLOUT_CONFIG", Some(&file))
        );
        assert_eq!(sidecar.command.as_ref().unwrap()[..2], ["tallyd", "lora-syncer"]);
        let server = &pod.containers[0];
        assert_eq!(server.env.as_ref().unwrap()[0].name, "VLLM_ALLOW_RUNTIME_LORA_UPDATING");
        assert!(server.args.as_ref().unwrap().contains(&format!("--port={}", config.port)));
    }

    #[test]
    fn flags_and_defaults_are_the_old_sidecars() {
        let args = Line::parse_from(["x"]).args;
        assert_eq!((args.health_check_timeout, args.health_check_interval, args.reconcile_trigger), (300, 2, 5));
        assert_eq!(args.metrics_port, 8080);
        assert_eq!(args.config, PathBuf::from("/config/configmap.yaml"));
        let old = ["x", "--health-check-timeout", "10", "--health-check-interval", "1", "--reconcile-trigger", "7"];
        let args =
            Line::parse_from([&old[..], &["--config", "/c", "--config-validation", "--metrics-port", "9"]].concat())
                .args;
        assert_eq!((args.reconcile_trigger, args.metrics_port, args.config), (7, 9, PathBuf::from("/c")));
    }
}
