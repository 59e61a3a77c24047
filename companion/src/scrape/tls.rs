//! How the scraper trusts an endpoint.
//!
//! In: a CA file, or that any certificate will do, as the endpoint picker's default is. Out: a client configuration.
//! It never falls back from one to the other.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsPlan {
    /// Whoever answers: encrypted, not authenticated.
    Anyone,
    /// Certificates signed by one of these.
    CaFile(PathBuf),
}

/// The CA file is no use.
#[derive(Debug, thiserror::Error)]
#[error("metrics.ca_file: {}: expected certificates in PEM: {cause}", path.display())]
pub struct TlsError {
    path: PathBuf,
    cause: String,
}

impl TlsPlan {
    /// The configuration for all connections of a pool.
    ///
    /// # Errors
    /// The CA file can't be read or has no certificate.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let wrong = |path: &PathBuf, cause: String| TlsError { path: path.clone(), cause };
        let builder = versions.map_err(|error| wrong(&PathBuf::new(), error.to_string()))?;
        match self {
            Self::Anyone => {
                let verifier = Arc::new(Anyone(provider));
                Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
            }
            Self::CaFile(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in
                    CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error.to_string()))?
                {
                    let certificate = certificate.map_err(|error| wrong(path, error.to_string()))?;
                    roots.add(certificate).map_err(|error| wrong(path, error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(wrong(path, "none found".to_owned()));
                }
                Ok(builder.with_root_certificates(roots).with_no_client_auth())
            }
        }
    }
}

/// Checks that the peer has the key of its certificate, and nothing else about it.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
