//! A kept HTTP/1.1 connection to one endpoint.
//!
//! In: a request. Out: the response's head and its body, piece by piece. The connection is driven by whoever waits on it,
//! in the same task: an endpoint costs no second task and no channel between two threads.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Reason, ScrapePlan, Token};
use crate::discovery::Target;

/// The question, the same each time.
pub(super) struct Ask {
    target: Target,
    path: String,
    headers: HeaderMap,
    token: Option<std::sync::Arc<Token>>,
}

/// See the file's head.
pub(super) struct Link {
    sender: SendRequest<Empty<Bytes>>,
    driver: Driver,
}

/// The connection's own work; `None` once it has ended.
struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Ask {
    pub(super) fn new(target: &Target, plan: &ScrapePlan) -> Self {
        let mut headers = HeaderMap::new();
        // A target's host has only bytes that a header may have.
        if let Ok(host) = HeaderValue::try_from(target.authority()) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4,*/*;q=0.1"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("tallyd/", env!("CARGO_PKG_VERSION"))));
        if plan.gzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Self { target: target.clone(), path: plan.path.clone(), headers, token: plan.token.clone() }
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, Reason> {
        let mut request = Request::get(self.path.as_str()).body(Empty::new()).map_err(|_| Reason::Connect)?;
        *request.headers_mut() = self.headers.clone();
        if let Some(token) = self.token.as_ref().and_then(|token| token.header()) {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        Ok(request)
    }
}

impl Link {
    /// Opens a connection.
    pub(super) async fn connect(ask: &Ask, plan: &ScrapePlan) -> Result<Self, Reason> {
        let (host, port) = (&*ask.target.host, ask.target.port);
        let stream = TcpStream::connect((host, port)).await.map_err(|_| Reason::Connect)?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &plan.tls else { return Self::handshake(stream).await };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Reason::Connect)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|_| Reason::Connect)?;
        Self::handshake(stream).await
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Self, Reason> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Reason::Connect)?;
        let driver = Driver(Some(Box::pin(async move {
            // Its error comes out at whoever waits for the answer.
            let _ = connection.await;
        })));
        Ok(Self { sender, driver })
    }

    /// Asks, and waits for the head of the answer.
    pub(super) async fn get(&mut self, ask: &Ask) -> Result<Response<Incoming>, Reason> {
        let Self { sender, driver } = self;
        let answer = async {
            sender.ready().await?;
            Ok(sender.send_request(ask.request()?).await?)
        };
        driver.with(answer).await.map_err(|error: Failure| error.0)
    }

    /// The next frame of the answer's body.
    pub(super) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, Reason>> {
        let frame = self.driver.with(body.frame()).await?;
        Some(frame.map_err(|_| Reason::Truncated))
    }
}

impl Driver {
    /// Waits for `wanted` and does the connection's work meanwhile.
    async fn with<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = pin!(wanted);
        std::future::poll_fn(|context: &mut Context<'_>| {
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            match wanted.as_mut().poll(context) {
                Poll::Pending => Poll::Pending,
                ready => ready,
            }
        })
        .await
    }
}

struct Failure(Reason);

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self(reason)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self(if error.is_parse() {
            Reason::Parse
        } else if error.is_incomplete_message() {
            Reason::Truncated
        } else {
            Reason::Connect
        })
    }
}

/// What one connection holds of a page at a time: two reads for a page of vLLM, and a thousand connections fit in 64 MB.
const BUFFER_BYTES: usize = 32 << 10;
