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
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::collect::Collect;
use crate::config::{Config, Tls};
use crate::envoy::Envoys;
use crate::flow::{FlowControl, FlowListeners};
use crate::pool::Pools;
use crate::{metrics, pprof};
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
    let listener = bind(listen.address).await?;
    let address = listener.local_addr()?;
    // The parts go on while the last answers are given, so that these are true.
    let parts_stop = CancellationToken::new();
    let _stop_parts_at_return = parts_stop.clone().drop_guard();
    let tracker = TaskTracker::new();
    let parts = parts(&config, &tracker, &shutdown, &parts_stop).await?;
    let readiness = Arc::new(Readiness::default());
    let pages = Pages {
        auth: Arc::new(Auth::start(&config.auth, parts_stop.clone()).await?),
        is_pprof_on: config.is_pprof_on,
        parts: parts.into(),
        readiness: readiness.clone(),
    };
    let certificates = config.tls.clone().map(|tls| tls::watch(tls, parts_stop.clone())).transpose()?;
    let accepting = CancellationToken::new();
    let router = router::router(pages);
    let server =
        pprof::spawn("listener", listener::serve(listener, certificates, router, accepting.clone(), listen.drain));
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
    server.await.context("the listener's task")?;
    parts_stop.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(())
}

/// Whatever has families on the page, started. Flow control stops with the signal, so that who waits there gets a decision;
/// what others look at stays until the last answer is given.
async fn parts(
    config: &Config,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Arc<dyn Collect>>> {
    let pools = Pools::start(config.pools.clone(), tracker, stop.clone())?;
    let mut parts: Vec<Arc<dyn Collect>> =
        vec![Arc::new(Envoys::start(&config.envoy, stop)), Arc::new(metrics::Info), Arc::new(pools.clone())];
    if let Some(plan) = &config.flow {
        let listeners = FlowListeners {
            flow: bind(config.listen.flow).await?,
            tls: config.tls.as_ref().map(|tls| tls::watch(for_envoys(tls), stop.clone())).transpose()?,
            health: Some(bind(config.listen.flow_health).await?),
        };
        // The gate is one, and so is its pool: the first.
        let pool = config.pools.first().and_then(|pool| pools.watch(pool.name()));
        let flow = FlowControl::start(plan.clone(), pool, listeners, tracker, shutdown.clone())?;
        tracing::info!(address = %flow.address(), "flow control");
        parts.push(Arc::new(flow));
    }
    Ok(parts)
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

/// The same certificate. Who may ask there is the network's to say, as without TLS.
fn for_envoys(pages: &Tls) -> Tls {
    Tls { client_ca: None, ..pages.clone() }
}

/// Whole or not at all: a reader never sees half an address.
fn announce(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, format!("{address}\n"))
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("--address-file {}", path.display()))
}
