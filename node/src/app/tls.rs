//! TLS for outgoing connections: apps that serve `https` are not verified, external endpoints are.

use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme};

/// Material of an external endpoint, as PEM text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    pub root_ca: Option<String>,
    pub certificate: Option<String>,
    pub private_key: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is not valid PEM")]
    Pem(&'static str),
    #[error("a client certificate needs both certificate and privateKey")]
    Incomplete,
    #[error("{0}")]
    Rustls(#[from] RustlsError),
}

/// Accepts whatever certificate the app shows: it is on the same machine, and Dapr does not look either.
pub fn unverified() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(ring::default_provider());
            let config = builder(&provider)
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
                .with_no_client_auth();
            Arc::new(config)
        })
        .clone()
}

/// Verifies by the machine's trust store, or by the well-known roots where it has none.
pub fn public() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(ring::default_provider());
            Arc::new(builder(&provider).with_root_certificates(public_roots()).with_no_client_auth())
        })
        .clone()
}

/// Verifies by the endpoint's own root if it names one, and shows its client certificate if it has one.
pub fn endpoint(tls: &ClientTls) -> Result<Arc<ClientConfig>, Error> {
    if *tls == ClientTls::default() {
        return Ok(public());
    }
    let roots = match &tls.root_ca {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem, "rootCA")? {
                roots.add(certificate)?;
            }
            roots
        }
        None => public_roots(),
    };
    let provider = Arc::new(ring::default_provider());
    let builder = builder(&provider).with_root_certificates(roots);
    let config = match (&tls.certificate, &tls.private_key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Error::Pem("privateKey"))?;
            builder.with_client_auth_cert(certificates(certificate, "certificate")?, key)?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) | (None, Some(_)) => return Err(Error::Incomplete),
    };
    Ok(Arc::new(config))
}

fn certificates(pem: &str, field: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(Error::Pem(field)),
    }
}

fn public_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    // The provider is the one rustls ships: it supports the default versions, always.
    builder.expect("ring supports TLS 1.2 and 1.3")
}

#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
