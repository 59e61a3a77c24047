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

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
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
    /// Port of /metrics, /healthz and /readyz.
    #[arg(long, default_value_t = 8080)]
    metrics_port: u16,
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
    let address = SocketAddr::from(([0, 0, 0, 0], args.metrics_port));
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    run_on(listener, args, shutdown).await
}

async fn run_on(listener: tokio::net::TcpListener, args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let status = Arc::new(Status::default());
    let file = watch::watch(args.config.clone(), WATCH_EVERY, shutdown.clone());
    let client = Client::new(&args)?;
    let syncer = Syncer::new(&args, client, status.clone());
    let stop = shutdown.clone();
    let pages =
        axum::serve(listener, status::router(status)).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::select! {
        served = pages.into_future() => served.context("serve /metrics"),
        () = syncer.run(file, shutdown.clone()) => Ok(()),
    }
}

/// How often the file is looked at; a ConfigMap's swap is seen within this.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
