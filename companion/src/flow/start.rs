//! Flow control as a running part of the companion: listeners, tasks, an orderly end.
//!
//! In: a plan, sockets, perhaps a pool to watch, the signal to stop. Out: the service on its port,
//! health on another, and the families for the page. Its end: health says no, nothing new enters,
//! who waits gets a decision, then the ports close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tally_core::admission::SERVICE;
use tally_core::exposition::Writer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::config::FlowPlan;
use super::gate::Gate;
use super::objective_watch::follow;
use super::pool::PoolView;
use super::service::FlowService;
use crate::collect::Collect;

/// Sockets of flow control, bound by the caller.
#[derive(Debug)]
pub struct FlowListeners {
    /// Where Envoys ask.
    pub flow: TcpListener,
    /// Certificate chain and private key in PEM; `None` is plain text.
    pub tls: Option<Pem>,
    /// Where gRPC health is answered, in plain text.
    pub health: Option<TcpListener>,
}

/// A server's identity in PEM.
#[derive(Clone)]
pub struct Pem {
    /// Certificate chain.
    pub certificate: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(..)")
    }
}

/// Running flow control.
#[derive(Clone, Debug)]
pub struct FlowControl {
    gate: Arc<Gate>,
    address: SocketAddr,
}

impl FlowControl {
    /// Starts all tasks on `tracker`. They end by themselves after `shutdown`, when the drain is over.
    ///
    /// # Errors
    /// When the plan needs a pool that is not there, or the certificate cannot be used.
    pub fn start<P: PoolView + Send + Sync + 'static>(
        plan: FlowPlan,
        pool: Option<watch::Receiver<Arc<P>>>,
        listeners: FlowListeners,
        tracker: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        let plan = plan.with_pool(pool.is_some()).context("flow_control")?;
        let (drain, objectives) = (plan.drain, plan.objective_watch.clone());
        let gate = Arc::new(Gate::new(plan));
        let address = listeners.flow.local_addr().context("flow control's port")?;
        let closing = CancellationToken::new();
        let mut server = server();
        if let Some(Pem { certificate, key }) = &listeners.tls {
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            server = server.tls_config(tls).context("flow control's certificate")?;
        }
        let (health, health_service) = tonic_health::server::health_reporter();
        if let Some(listener) = listeners.health {
            let served = Server::builder().add_service(health_service);
            let ended = closing.clone();
            tracker.spawn(async move {
                let end = ended.clone().cancelled_owned();
                let served = served.serve_with_incoming_shutdown(TcpIncoming::from(listener), end);
                finish("health", served, &ended).await;
            });
        }
        let incoming = TcpIncoming::from(listeners.flow).with_nodelay(Some(true));
        let service = FlowService::new(gate.clone(), closing.clone());
        let ended = closing.clone();
        tracker.spawn(async move {
            let served = server.serve_with_incoming_shutdown(service, incoming, ended.clone().cancelled_owned());
            finish("flow control", served, &ended).await;
        });
        if let Some(pool) = pool {
            tracker.spawn(watch_pool(gate.clone(), pool, closing.clone()));
        }
        if let Some(objectives) = objectives {
            tracker.spawn(follow(gate.clone(), objectives, closing.clone()));
        }
        tracker.spawn(keep_time(gate.clone(), closing.clone()));
        tracker.spawn(end(gate.clone(), health, drain, shutdown, closing));
        Ok(Self { gate, address })
    }

    /// Where Envoys ask.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The gate behind the service, for those in the same process.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Collect for FlowControl {
    fn collect(&self, page: &mut Writer) {
        self.gate.write(page);
    }
}

/// A server for callers that hold many calls open and drop many at once.
fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_CALLS_PER_CONNECTION as usize))
        .http2_max_local_error_reset_streams(Some(MAX_CALLS_PER_CONNECTION as usize))
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

async fn watch_pool<P: PoolView>(gate: Arc<Gate>, mut pool: watch::Receiver<Arc<P>>, closing: CancellationToken) {
    loop {
        let seen = pool.borrow_and_update().clone();
        gate.observe(&*seen);
        tokio::select! {
            changed = pool.changed() => if changed.is_err() { return },
            () = closing.cancelled() => return,
        }
    }
}

async fn keep_time(gate: Arc<Gate>, closing: CancellationToken) {
    gate.keep_time(closing).await;
}

async fn end(
    gate: Arc<Gate>,
    health: HealthReporter,
    drain: Duration,
    shutdown: CancellationToken,
    closing: CancellationToken,
) {
    health.set_service_status(SERVICE, ServingStatus::Serving).await;
    shutdown.cancelled().await;
    for name in ["", SERVICE] {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
    gate.drain(drain).await;
    closing.cancel();
}

/// Waits for a server's end, but not long for peers that do not close.
async fn finish(
    name: &str,
    served: impl Future<Output = Result<(), tonic::transport::Error>>,
    closing: &CancellationToken,
) {
    let late = async {
        closing.cancelled().await;
        tokio::time::sleep(CLOSE_GRACE).await;
    };
    tokio::select! {
        ended = served => if let Err(error) = ended { tracing::error!(%error, "{name} server ended") },
        () = late => tracing::warn!("{name} server: peers did not close in {CLOSE_GRACE:?}"),
    }
}

/// An Envoy worker keeps one connection; each request that waits is one call on it.
const MAX_CALLS_PER_CONNECTION: u32 = 1 << 20;
/// The HTTP/2 library closes a connection on which more than half its window is taken by small frames that nobody has
/// read yet, each counted as a quarter of a kilobyte: with its default, about 2,000 questions sent at once by a client
/// that ends its calls in a frame of their own. This is room for 60,000.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Most of one call that is held unread.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// After the last decision, connections get this long to close.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
