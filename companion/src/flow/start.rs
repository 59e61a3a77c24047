//! Flow control as a running part of the companion: listeners, tasks, an orderly end.
//!
//! In: a plan, sockets, perhaps a pool to watch, the signal to stop. Out: the service on its port,
//! health on another, and the families for the page. Its end: health says no, nothing new enters,
//! who waits gets a decision, then the ports close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use tally_core::admission::SERVICE;
use tally_core::exposition::Writer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::config::FlowPlan;
use super::gate::Gate;
use super::listener;
use super::objective_watch::follow;
use super::pool::PoolView;
use crate::collect::Collect;

/// Sockets of flow control, bound by the caller.
#[derive(Debug)]
pub struct FlowListeners {
    /// Where Envoys ask.
    pub flow: TcpListener,
    /// The newest certificate, for each connection anew; `None` is plain text.
    pub tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Where gRPC health is answered, in plain text.
    pub health: Option<TcpListener>,
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
    /// When the plan needs a pool that is not there.
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
        let (health, health_service) = tonic_health::server::health_reporter();
        if let Some(listener) = listeners.health {
            let served = Server::builder().add_service(health_service);
            let ended = closing.clone();
            tracker.spawn(async move {
                let end = ended.clone().cancelled_owned();
                let served = served.serve_with_incoming_shutdown(TcpIncoming::from(listener), end);
                finish(served, &ended).await;
            });
        }
        tracker.spawn(listener::serve(listeners.flow, listeners.tls, gate.clone(), closing.clone()));
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

/// Waits for the health server's end, but not long for peers that do not close.
async fn finish(served: impl Future<Output = Result<(), tonic::transport::Error>>, closing: &CancellationToken) {
    let late = async {
        closing.cancelled().await;
        tokio::time::sleep(CLOSE_GRACE).await;
    };
    tokio::select! {
        ended = served => if let Err(error) = ended { tracing::error!(%error, "flow control's health server ended") },
        () = late => tracing::warn!("flow control's health server: peers did not close in {CLOSE_GRACE:?}"),
    }
}

/// After the last decision, connections get this long to close.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
