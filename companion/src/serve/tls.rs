//! Certificates from files, read again when they change.
//!
//! In: paths of PEM files. Out: the newest good set. A broken change is logged and the set before it is kept: a mounted
//! Secret is not always swapped in one piece.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch::{self, Receiver};
use tokio_util::sync::CancellationToken;

use crate::config::Tls;
use crate::pprof;

/// The newest good set.
pub(super) type Certificates = Receiver<Arc<ServerConfig>>;

/// Reads the files, so that a mistake stops the start, then goes on looking.
pub(super) fn watch(tls: Tls, stop: CancellationToken) -> anyhow::Result<Certificates> {
    let mut files = Files::read(&tls)?;
    let (sender, receiver) = watch::channel(Arc::new(files.server()?));
    pprof::spawn("certificate files", async move {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        // Said once, not at each look.
        let mut complaint = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let paths = tls.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || Files::read(&paths)).await else { continue };
            let changed = now.and_then(|now| Ok(if now == files { None } else { Some((now.server()?, now)) }));
            match changed {
                Ok(None) => complaint = None,
                Ok(Some((server, now))) => {
                    files = now;
                    complaint = None;
                    sender.send_replace(Arc::new(server));
                    tracing::info!("certificates read again");
                }
                Err(error) => {
                    let problem = Some(format!("{error:#}"));
                    if complaint != problem {
                        tracing::error!(problem, "changed certificates can't be used, the ones before are kept");
                    }
                    complaint = problem;
                }
            }
        }
    });
    Ok(receiver)
}

/// The files' content.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn read(tls: &Tls) -> anyhow::Result<Self> {
        let read = |key, path: &Path| std::fs::read(path).with_context(|| format!("tls.{key}: {}", path.display()));
        Ok(Self {
            certificate: read("certificate", &tls.certificate)?,
            key: read("key", &tls.key)?,
            client_ca: tls.client_ca.as_deref().map(|path| read("client_ca", path)).transpose()?,
        })
    }

    fn server(&self) -> anyhow::Result<ServerConfig> {
        let chain = certificates(&self.certificate).context("tls.certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("tls.key")?;
        let builder = ServerConfig::builder();
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(pem).context("tls.client_ca")? {
                    roots.add(authority).context("tls.client_ca")?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().context("tls.client_ca")?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder.with_single_cert(chain, key).context("tls.certificate and tls.key")?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(server)
    }
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!found.is_empty(), "no certificate in the file");
    Ok(found)
}

/// A new certificate counts within this; the kubelet itself takes up to a minute to bring one.
const LOOK_EVERY: Duration = Duration::from_secs(2);
