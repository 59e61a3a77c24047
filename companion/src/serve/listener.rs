//! Accepts connections and serves them, until told to stop; then finishes what is under way, within a deadline.
//!
//! In: a bound socket, a router, certificates if it is to be HTTPS. Out: answers. A peer that sends its head too slowly, or one too many peers, is cut off.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::tls::Certificates;
use crate::pprof;

/// Serves until `stop`, then waits for answers under way, at most `drain`.
pub(super) async fn serve(
    listener: TcpListener,
    certificates: Option<Certificates>,
    router: axum::Router,
    stop: CancellationToken,
    drain: Duration,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: accepting at once again would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, watcher) = (router.clone(), graceful.watcher());
        let certificates = certificates.as_ref().map(|newest| newest.borrow().clone());
        pprof::spawn("connection", async move {
            let ended = match certificates {
                None => answer(stream, router, watcher).await,
                Some(certificates) => encrypted(stream, certificates, router, watcher).await,
            };
            if let Err(error) = ended {
                tracing::debug!(error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(?drain, "answers were still under way at the deadline");
    }
}

async fn encrypted(
    stream: TcpStream,
    certificates: Arc<ServerConfig>,
    router: axum::Router,
    watcher: Watcher,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let handshake = TlsAcceptor::from(certificates).accept(stream);
    let stream = tokio::time::timeout(HEAD_TIMEOUT, handshake).await??;
    answer(stream, router, watcher).await
}

async fn answer<S>(stream: S, router: axum::Router, watcher: Watcher) -> Result<(), Box<dyn Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    watcher.watch(connection.into_owned()).await
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // A page is written at once; waiting for more would only delay it.
    let _ = stream.set_nodelay(true);
    Ok((stream, place))
}

/// Prometheus needs one. At the cap new peers wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// A peer that takes longer for its request's head is cut off; it would hold a place.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
