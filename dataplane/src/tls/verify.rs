//! One connection's judge: the peer's chain, its SPIFFE ID, and then policy.
//!
//! The TLS library calls it while the handshake runs; what it says no to becomes the alert that the
//! peer hears. What it found is left in a [`Slot`] that the leg shares: a peer that policy refused
//! is known by name there, and a verdict without a valid signature is a refusal.

use std::sync::{Arc, OnceLock};

use ::snapshot::RefuseReason::{self, *};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::path::{self, Question};
use super::tickets::{Resumed, Unused};
use super::verified::{ChainId, Role};
use super::{Outcome, Peer, Refusal, identity};
use crate::policy::{self, Route, Verdict};
use crate::snapshot::Compiled;

/// What is known of the peer so far.
#[derive(Debug, Default)]
pub(super) struct Slot {
    peer: OnceLock<Peer>,
    outcome: OnceLock<Outcome>,
    /// What it showed, where that is kept for a ticket.
    pub chain: OnceLock<Chain>,
    /// What a ticket remembers, once that was judged anew. It counts if the handshake resumes, and only then.
    pub remembered: OnceLock<Resumed>,
    /// Why a ticket was not used.
    pub unused: OnceLock<Unused>,
    /// Set when the peer could not show that it holds the key: overrides the outcome.
    impostor: OnceLock<Outcome>,
}

impl Slot {
    pub fn peer(&self) -> Option<&Peer> {
        if self.impostor.get().is_some() { None } else { self.peer.get() }
    }

    pub fn outcome(&self) -> Option<&Outcome> {
        self.impostor.get().or_else(|| self.outcome.get())
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        self.outcome().and_then(|outcome| outcome.as_ref().err())
    }

    pub fn decided(&self, outcome: Outcome) {
        // A second decision on one connection would be a second certificate: the first one stands.
        let _ = self.outcome.set(outcome);
    }
}

/// Certificates, leaf first.
pub(super) type Chain = Arc<[CertificateDer<'static>]>;

#[derive(Debug)]
pub(super) struct Verifier {
    pub compiled: Arc<Compiled>,
    pub route: Route,
    pub slot: Arc<Slot>,
    /// Whether a ticket will want the chain.
    pub keeps: bool,
}

impl Verifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<(), Error> {
        let (peer, outcome) = self.weigh(leaf, intermediates, now, role);
        if let Some(peer) = peer {
            let _ = self.slot.peer.set(peer);
        }
        let said = match &outcome {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Error::InvalidCertificate(as_alert(refusal.reason))),
        };
        if self.keeps && outcome.is_ok() {
            let shown = std::iter::once(leaf).chain(intermediates);
            let _ = self.slot.chain.set(shown.map(|certificate| certificate.clone().into_owned()).collect());
        }
        self.slot.decided(outcome);
        said
    }

    /// Who it is and whether they may, by the snapshot in force. Leaves no trace in the slot.
    pub fn weigh(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> (Option<Peer>, Outcome) {
        let peer = match self.authenticate(leaf, intermediates, now, role) {
            Ok(peer) => peer,
            Err(refusal) => return (None, Err(refusal)),
        };
        // By the clock of this moment: ctrl may be late with the snapshot that says so, or gone.
        let stale = self.compiled.revoked.stale_at(&peer, now.as_secs());
        let verdict = match (policy::decide(&self.compiled, &self.route, Some(&peer)), stale) {
            (Verdict::Allow(_), Some(rule)) => Verdict::Refuse(CrlStale, Some(rule)),
            (verdict, _) => verdict,
        };
        let outcome = match verdict {
            Verdict::Allow(rule) => Ok(rule),
            Verdict::Refuse(reason, rule) => {
                let detail = policy::why_not(&self.compiled, &self.route, (reason, rule), Some(&peer.spiffe_id));
                Err(Refusal { reason, rule, detail })
            }
        };
        (Some(peer), outcome)
    }

    fn authenticate(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<Peer, Refusal> {
        path::check_size(leaf, intermediates)?;
        let (claim, certificate) = identity::read_leaf(leaf)?;
        let roots = self.compiled.roots(&claim.trust_domain).ok_or_else(|| {
            Refusal::new(PeerTrustDomainUnknown, format!("{} claims trust domain {}", claim.id, claim.trust_domain))
        })?;
        let chain = ChainId::of(role, leaf, intermediates);
        if let Some(peer) = roots.verified.find(chain, now.as_secs()) {
            return Ok(peer);
        }
        let question = Question {
            algorithms: self.compiled.provider.signature_verification_algorithms.all,
            roots,
            role,
            now: now.as_secs().try_into().unwrap_or(i64::MAX),
        };
        let path = question.answer(certificate, intermediates).map_err(|refusal| refusal.about(&claim.id))?;
        let root = roots.root(path.root).clone();
        let (spiffe_id, serial, issued) = (claim.id.into(), claim.serial.into(), path.issued.into());
        let peer = Peer { spiffe_id, serial, not_after: claim.not_after, root, issued };
        roots.verified.keep(chain, &peer, path.valid);
        Ok(peer)
    }

    fn signature(&self, checked: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
        checked.inspect_err(|error| {
            let refusal = Refusal::new(PeerBadSignature, error.to_string());
            let _ = self.slot.impostor.set(Err(refusal));
        })
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.compiled.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What the library makes the right alert of.
fn as_alert(reason: RefuseReason) -> CertificateError {
    match reason {
        PeerTrustDomainUnknown | PeerUntrusted => CertificateError::UnknownIssuer,
        PeerExpired => CertificateError::Expired,
        PeerRevoked => CertificateError::Revoked,
        PeerNoSpiffeId | PeerBadCertificate => CertificateError::BadEncoding,
        // The rest is policy: access_denied.
        _ => CertificateError::ApplicationVerificationFailure,
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A stranger need not learn whom we trust.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now, Role::Client).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.compiled.provider.signature_verification_algorithms;
        self.signature(verify_tls12_signature(message, cert, dss, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.compiled.provider.signature_verification_algorithms;
        self.signature(verify_tls13_signature(message, cert, dss, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The SPIFFE ID is the name that counts, not the host's.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now, Role::Server).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
