//! Reads the stats page of one Envoy: over TCP or a Unix socket, bounded in time and in size.
//!
//! In: where its admin listens. Out: the page, or a [`Fault`]. It never retries: the next round does.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{AdminAddress, EnvoyAdmin};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("the exchange broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the page broke off, or has more than {MAX_PAGE_BYTES} bytes: {0}")]
    Page(Box<dyn std::error::Error + Send + Sync>),
    #[error("no request can be made for this address: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
}

/// One read.
pub(super) async fn page(admin: &EnvoyAdmin) -> Result<Bytes, Fault> {
    let read = async {
        match &admin.at {
            AdminAddress::Tcp(authority) => get(TcpStream::connect(authority).await?, authority, admin).await,
            AdminAddress::Unix(path) => get(UnixStream::connect(path).await?, "localhost", admin).await,
        }
    };
    tokio::time::timeout(admin.timeout, read).await.unwrap_or(Err(Fault::Timeout(admin.timeout)))
}

async fn get<S>(stream: S, host: &str, admin: &EnvoyAdmin) -> Result<Bytes, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let path = if admin.also.is_some() { EVERYTHING } else { OURS };
    let request =
        Request::get(path).header(header::HOST, host).header(header::CONNECTION, "close").body(Body::empty())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(Fault::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_PAGE_BYTES).collect().await.map_err(Fault::Page)?;
        Ok(body.to_bytes())
    };
    // Driven here and not in a task of its own: dropping this future then closes the connection.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        page = &mut exchange => page,
        ended = &mut connection => match ended {
            // The body may have been read whole before the peer closed.
            Ok(()) => exchange.await,
            Err(error) => Err(Fault::Http(error)),
        },
    }
}

const EVERYTHING: &str = "/stats/prometheus";
/// Envoy holds what a wasm filter makes under this prefix. It filters by this name, before it knows labels:
/// a page of thousands of cluster stats is then never written.
const OURS: &str = "/stats/prometheus?filter=%5Ewasmcustom%5C.";
/// 100 models take 10 MB at most; a longer page is refused.
const MAX_PAGE_BYTES: usize = 64 << 20;
