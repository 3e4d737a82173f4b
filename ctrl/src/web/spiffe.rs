//! Who may answer where a server proves to be somebody by its SPIFFE ID: the holder of an SVID with exactly one ID,
//! under the roots of its trust domain, whom nobody has revoked. A name or an address proves nothing.
//!
//! So it is for bundle endpoints of the profile `https_spiffe` (SPIFFE Federation §5.2.2) and for an agent's broker
//! endpoint (SPIFFE Broker Endpoint §5).

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use snapshot::IdPattern;

use crate::source::svid;
use crate::trusted::Trusted;

#[derive(Debug)]
pub struct Verifier {
    whom: IdPattern,
    trusted: Trusted,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl Verifier {
    /// `trusted` is of the pattern's trust domain.
    pub fn new(whom: IdPattern, trusted: Trusted) -> Self {
        Self { whom, trusted, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> = [leaf].into_iter().chain(between).map(|one| one.to_vec()).collect();
        let (now, path) = (now.as_secs(), Path::new("its certificate"));
        let checked = svid::check_server(&chain, &self.trusted.roots, &self.whom, path, now);
        let checked = checked.map_err(|why| why.to_string()).and_then(|()| self.trusted.check(&chain, now));
        checked.map(|()| ServerCertVerified::assertion()).map_err(|why| {
            let why = OtherError(Arc::new(Refused(why)));
            rustls::Error::InvalidCertificate(CertificateError::Other(why))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
