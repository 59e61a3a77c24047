//! `tallyd serve`: one port with metrics, profiles and health.
//!
//! In: a [`Config`]. Out: the pages, until told to stop; then `/readyz` says no, answers under way are finished, and at
//! the deadline what is left is cut. Parts (Envoys, pools, flow control) run beside and stop after them.

mod health;
mod listener;
mod router;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::collect::Collect;
use crate::config::Config;
use crate::envoy::Envoys;
use crate::metrics;
use health::Readiness;
use router::Pages;

/// Runs until told to stop.
///
/// # Errors
/// If something of the configuration does not work here: an address in use, a file that is not there.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    // A second installation in one process is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listen = &config.listen;
    let listener = TcpListener::bind(listen.address).await.with_context(|| format!("listen on {}", listen.address))?;
    let address = listener.local_addr()?;
    // The parts go on while the last answers are given, so that these are true.
    let parts_stop = CancellationToken::new();
    let _stop_parts_at_return = parts_stop.clone().drop_guard();
    let readiness = Arc::new(Readiness::default());
    let pages = Pages {
        auth: Arc::new(Auth::start(&config.auth, parts_stop.clone()).await?),
        parts: parts(&config, &parts_stop).into(),
        readiness: readiness.clone(),
    };
    let certificates = config.tls.clone().map(|tls| tls::watch(tls, parts_stop.clone())).transpose()?;
    let accepting = CancellationToken::new();
    let router = router::router(pages);
    let server = tokio::spawn(listener::serve(listener, certificates, router, accepting.clone(), listen.drain));
    readiness.set(true);
    tracing::info!(%address, tls = config.tls.is_some(), "serving");
    if let Some(path) = &listen.address_file {
        announce(path, address)?;
    }
    shutdown.cancelled().await;
    readiness.set(false);
    tracing::info!(linger = ?listen.linger, drain = ?listen.drain, "stopping");
    tokio::time::sleep(listen.linger).await;
    accepting.cancel();
    server.await.context("the listener's task")
}

/// Whatever has families on the page, started. Pools and flow control come in here.
fn parts(config: &Config, stop: &CancellationToken) -> Vec<Arc<dyn Collect>> {
    vec![Arc::new(Envoys::start(&config.envoy, stop)), Arc::new(metrics::Info)]
}

/// Whole or not at all: a reader never sees half an address.
fn announce(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, format!("{address}\n"))
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("--address-file {}", path.display()))
}
