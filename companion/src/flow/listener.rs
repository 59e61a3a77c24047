//! The port where Envoys ask: accepts connections, with TLS where there is a certificate, and ends them in order.
//!
//! In: a bound socket, the newest certificates, the gate. Out: served connections. A peer that does not speak up in time
//! is cut off; after `closing` the rest gets [`CLOSE_GRACE`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use super::gate::Gate;
use crate::pprof;

/// Serves until `closing`, then until the connections have ended, but not long for peers that do not close.
pub(super) async fn serve(
    listener: TcpListener,
    certificates: Option<watch::Receiver<Arc<ServerConfig>>>,
    gate: Arc<Gate>,
    closing: CancellationToken,
) {
    let (connections, cut) = (TaskTracker::new(), CancellationToken::new());
    let _cut_at_the_end = cut.clone().drop_guard();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: accepting at once again would spin.
                tracing::warn!(%error, "flow control cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let newest = certificates.as_ref().map(|newest| newest.borrow().clone());
        let (gate, closing, cut) = (gate.clone(), closing.clone(), cut.clone());
        pprof::spawn(
            "flow control connection",
            connections.track_future(async move {
                tokio::select! {
                    ended = converse(stream, newest, &gate, &closing) => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "flow control connection ended");
                        }
                    }
                    () = cut.cancelled() => {}
                }
                drop(place);
            }),
        );
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(CLOSE_GRACE, connections.wait()).await.is_err() {
        tracing::warn!("flow control: peers did not close in {CLOSE_GRACE:?}");
    }
}

async fn converse(
    stream: TcpStream,
    certificates: Option<Arc<ServerConfig>>,
    gate: &Gate,
    closing: &CancellationToken,
) -> anyhow::Result<()> {
    match certificates {
        None => connection::serve(stream, gate, closing).await?,
        Some(certificates) => {
            let handshake = TlsAcceptor::from(certificates).accept(stream);
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
            connection::serve(stream, gate, closing).await?;
        }
    }
    Ok(())
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // An answer is written at once; waiting for more would only delay it.
    let _ = stream.set_nodelay(true);
    Ok((stream, place))
}

/// An Envoy worker needs one. At the cap new peers wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8_192;
/// A peer that takes longer for its greeting is cut off; it would hold a place.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After the last decision, connections get this long to close.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
