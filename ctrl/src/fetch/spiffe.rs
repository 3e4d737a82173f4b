//! Who may answer for an endpoint of the profile `https_spiffe`: the holder of an SVID with exactly one ID, under
//! the roots of its trust domain (SPIFFE Federation §5.2.2), whom nobody has revoked. The name in the URL proves
//! nothing.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::trusted::Trusted;
use crate::config::SpiffeId;
use crate::source::svid;

#[derive(Debug)]
pub struct Verifier {
    id: SpiffeId,
    trusted: Trusted,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl Verifier {
    /// `trusted` is of the ID.
    pub fn new(id: SpiffeId, trusted: Trusted) -> Self {
        Self { id, trusted, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms }
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
        let checked = svid::check_server(&chain, &self.trusted.roots, &self.id, path, now);
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
