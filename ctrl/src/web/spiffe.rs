//! Who may answer where a server proves to be somebody by its SPIFFE ID: the holder of an SVID with exactly one ID,
//! under the roots of its trust domain. A name or an address proves nothing.
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

#[derive(Debug)]
pub struct Verifier {
    whom: IdPattern,
    /// DER, of its trust domain.
    roots: Vec<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl Verifier {
    pub fn new(whom: IdPattern, roots: Vec<Vec<u8>>) -> Self {
        Self { whom, roots, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms }
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
        match svid::check_server(&chain, &self.roots, &self.whom, Path::new("its certificate"), now.as_secs()) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(why) => {
                let why = OtherError(Arc::new(Refused(why.to_string())));
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
            }
        }
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
