//! Who a server has to prove to be: one that the system's roots vouch for, or these roots and no others, or
//! whoever a verifier of our own takes.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::client::WantsClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the system has no root certificates: {0}; install ca-certificates, or give the roots in a file")]
    System(std::io::Error),
}

/// TLS 1.2 and 1.3 by the one provider of cryptography.
pub fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().expect("the provider has suites of both versions")
}

/// The roots that the system has: `SSL_CERT_FILE`, else where distributions keep them.
pub fn system() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Unusable> {
    builder().with_native_roots().map_err(Unusable::System)
}

/// These and no others.
pub fn only(roots: RootCertStore) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    builder().with_root_certificates(roots)
}

/// Whom `verifier` takes.
pub fn verified(verifier: Arc<dyn ServerCertVerifier>) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    builder().dangerous().with_custom_certificate_verifier(verifier)
}

/// The certificates of a PEM file, for [`only`].
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (nth, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|why| format!("is no PEM: {why}"))?;
        let nth = nth + 1;
        roots.add(certificate).map_err(|why| format!("certificate {nth} cannot be a root: {why}"))?;
        if nth > MOST_ROOTS {
            return Err(format!("holds more than {MOST_ROOTS} certificates"));
        }
    }
    match roots.is_empty() {
        true => Err("holds no certificate (PEM is expected)".into()),
        false => Ok(roots),
    }
}

/// A whole file of the system's has some 150.
const MOST_ROOTS: usize = 500;
