//! Calls to the model server: bounded in time and in size.
//!
//! In: a path and a body. Out: status and body, or a [`Failure`]. It never retries: `reconcile.rs` does.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::HeaderValue;
use reqwest::{Certificate, Method};
use tokio::io::AsyncReadExt;

use super::Args;
use super::engine::{Call, Engine, Listing, Reason, words};

/// Talks to one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    scheme: &'static str,
    key: Key,
    load_timeout: Duration,
}

#[derive(Clone, Debug)]
enum Key {
    File(PathBuf),
    None,
    Text(HeaderValue),
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Its class.
    pub(super) reason: Reason,
    /// What the system or the server said, for the log.
    pub(super) said: String,
}

/// An answer.
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// Body, cut at a cap.
    pub(super) body: Bytes,
}

impl Client {
    /// From the command line.
    pub(super) fn new(args: &Args) -> anyhow::Result<Self> {
        // A second installation in one process is refused, and that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let tls = args.tls || args.tls_ca_file.is_some();
        if !tls {
            // Else it would not start in an image without the system's certificates.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = &args.tls_ca_file {
            let pem = std::fs::read(path).with_context(|| format!("--tls-ca-file {}", path.display()))?;
            let bundle =
                Certificate::from_pem_bundle(&pem).with_context(|| format!("--tls-ca-file {}", path.display()))?;
            builder = builder.tls_certs_only(bundle);
        }
        let key = match (&args.api_key, &args.api_key_file) {
            (_, Some(path)) => Key::File(path.clone()),
            (Some(text), None) if !text.is_empty() => Key::Text(bearer(text).context("--api-key")?),
            _ => Key::None,
        };
        let scheme = if tls { "https" } else { "http" };
        let load_timeout = Duration::from_secs(args.load_timeout);
        Ok(Self { http: builder.build().context("set up the HTTP client")?, scheme, key, load_timeout })
    }

    /// Does the server serve?
    pub(super) async fn is_healthy(&self, authority: &str) -> Result<(), Failure> {
        let answer = self.send(Method::GET, authority, Engine::HEALTH, None, QUICK_TIMEOUT).await?;
        let reason = match answer.status {
            200..=299 => return Ok(()),
            401 | 403 => Reason::Unauthorized,
            _ => Reason::ServerError,
        };
        Err(Failure { reason, said: format!("{} has status {}", Engine::HEALTH, answer.status) })
    }

    /// What the server has.
    pub(super) async fn models(&self, authority: &str) -> Result<Listing, Failure> {
        let answer = self.send(Method::GET, authority, Engine::MODELS, None, QUICK_TIMEOUT).await?;
        Engine::read_listing(answer.status, &answer.body).map_err(|reason| {
            let said = format!("{} has status {}: {}", Engine::MODELS, answer.status, words(&answer.body));
            Failure { reason, said }
        })
    }

    /// A load or an unload.
    pub(super) async fn call(&self, authority: &str, call: Call) -> Result<Answer, Failure> {
        self.send(Method::POST, authority, call.path, Some(call.body), self.load_timeout).await
    }

    async fn key(&self) -> Result<Option<HeaderValue>, Failure> {
        match &self.key {
            Key::File(path) => {
                let said = |error: &dyn std::fmt::Display| Failure {
                    reason: Reason::Unauthorized,
                    said: format!("{}: {error}", path.display()),
                };
                let file = tokio::fs::File::open(path).await.map_err(|error| said(&error))?;
                let mut text = String::new();
                file.take(MAX_KEY_BYTES).read_to_string(&mut text).await.map_err(|error| said(&error))?;
                bearer(&text).map(Some).map_err(|error| said(&error))
            }
            Key::None => Ok(None),
            Key::Text(key) => Ok(Some(key.clone())),
        }
    }

    async fn send(
        &self,
        method: Method,
        authority: &str,
        path: &str,
        body: Option<String>,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let mut request = self.http.request(method, format!("{}://{authority}{path}", self.scheme)).timeout(timeout);
        if let Some(key) = self.key().await? {
            request = request.header(http::header::AUTHORIZATION, key);
        }
        if let Some(body) = body {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                let said = format!("{path}: longer than {MAX_BODY_BYTES} bytes");
                return Err(Failure { reason: Reason::BadAnswer, said });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body: body.into() })
    }
}

/// A key as the header says it; logs never show it.
fn bearer(key: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn failure(error: &reqwest::Error) -> Failure {
    let reason = if error.is_connect() {
        Reason::Unreachable
    } else if error.is_timeout() {
        Reason::Timeout
    } else {
        // The server went away while it answered.
        Reason::ServerError
    };
    // The innermost says what happened; those around it only say that sending failed.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Failure { reason, said: cause.to_string() }
}

/// A key file is read up to here.
const MAX_KEY_BYTES: u64 = 1 << 14;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Health and listing; a server under load answers late, a dead one never.
const QUICK_TIMEOUT: Duration = Duration::from_secs(10);
/// A listing holds the names and sources of a file of 1 MiB and half a kilobyte for each of its thousand adapters; a
/// longer answer is none of ours.
const MAX_BODY_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use rustls::ServerConfig;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn client(flags: &[&str]) -> anyhow::Result<Client> {
        Client::new(&Line::parse_from([&["x"], flags].concat()).args)
    }

    /// Reads one request's head and answers it.
    async fn answer(
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        heads: mpsc::UnboundedSender<String>,
        status: u16,
    ) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        heads.send(String::from_utf8(head).unwrap()).unwrap();
        let text = format!("HTTP/1.1 {status} X\r\nlocation: /x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.ok();
    }

    /// A server that answers each connection once; its port and the heads that it got.
    async fn server(tls: Option<ServerConfig>, status: u16) -> (u16, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, receiver) = mpsc::unbounded_channel();
        let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream, sender.clone(), status).await;
                        }
                    }
                    None => answer(stream, sender.clone(), status).await,
                }
            }
        });
        (port, receiver)
    }

    #[tokio::test]
    async fn the_key_goes_with_each_request_and_its_file_is_read_each_time() {
        let (port, mut heads) = server(None, 200).await;
        let authority = format!("127.0.0.1:{port}");
        client(&["--api-key=first"]).unwrap().is_healthy(&authority).await.unwrap();
        assert!(heads.recv().await.unwrap().contains("authorization: Bearer first\r\n"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let by_file = client(&["--api-key-file", path.to_str().unwrap()]).unwrap();
        let refused = by_file.is_healthy(&authority).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Unauthorized, "no file, no request");
        assert!(refused.said.contains("No such file"), "{}", refused.said);
        for key in ["second", "third"] {
            std::fs::write(&path, format!("{key}\n")).unwrap();
            by_file.call(&authority, Engine::Vllm.unload("a")).await.unwrap();
            let head = heads.recv().await.unwrap();
            assert!(head.contains(&format!("authorization: Bearer {key}\r\n")), "{head}");
        }
        assert!(client(&["--api-key=a\nb"]).is_err(), "no header can hold it");
    }

    #[tokio::test]
    async fn only_a_certificate_of_the_named_authority_is_trusted() {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = ServerConfig::builder().with_no_client_auth();
        let tls = tls.with_single_cert(vec![certificate.cert.der().clone()], key).unwrap();
        let (port, mut heads) = server(Some(tls), 200).await;
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("own.pem"), folder.path().join("other.pem"));
        std::fs::write(&own, certificate.cert.pem()).unwrap();
        let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&other, stranger.cert.pem()).unwrap();
        let authority = format!("localhost:{port}");
        let trusting = client(&["--tls-ca-file", own.to_str().unwrap()]).unwrap();
        assert_eq!(trusting.is_healthy(&authority).await, Ok(()));
        assert!(heads.recv().await.unwrap().starts_with("GET /health "));
        let wary = client(&["--tls-ca-file", other.to_str().unwrap()]).unwrap();
        let refused = wary.is_healthy(&authority).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Unreachable);
        assert!(refused.said.contains("invalid peer certificate"), "{}", refused.said);
        assert!(client(&["--tls-ca-file=/nonexistent"]).is_err());
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (port, mut heads) = server(None, 307).await;
        let listing = client(&["--api-key=k"]).unwrap().models(&format!("127.0.0.1:{port}")).await;
        assert_eq!(listing.unwrap_err().reason, Reason::BadAnswer);
        assert!(heads.recv().await.unwrap().starts_with("GET /v1/models "));
        assert!(heads.try_recv().is_err());
    }
}
