//! Stock rustls on the far side: clients and servers that speak mutual TLS with one gateway.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::clock::EPOCH;
use super::pki::Identity;

/// A client that shows `identity`, if it has one, and trusts `root`; over TLS 1.2 if it is `old`.
pub fn client(
    provider: &Arc<CryptoProvider>,
    root: CertificateDer<'static>,
    identity: Option<&Identity>,
    old: bool,
) -> Arc<ClientConfig> {
    let roots = Arc::new(roots(root));
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().expect("roots");
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(AtStart))
        .with_protocol_versions(&[if old { &TLS12 } else { &TLS13 }])
        .expect("the provider has TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName(inner)));
    Arc::new(match identity {
        // Not `with_client_auth_cert`, which would see that a key does not fit.
        Some(identity) => {
            let key = provider.key_provider.load_private_key(identity.private_key()).expect("a key");
            let shown = CertifiedKey::new(identity.chain(), key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
        }
        None => builder.with_no_client_auth(),
    })
}

/// A server that shows `identity`, and asks its callers for a certificate under `root`, if any.
pub fn server(
    provider: &Arc<CryptoProvider>,
    root: Option<CertificateDer<'static>>,
    identity: &Identity,
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(AtStart))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3");
    let builder = match root {
        Some(root) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(root)), provider.clone());
            builder.with_client_cert_verifier(verifier.build().expect("roots"))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(identity.chain(), identity.private_key()).expect("a key that fits");
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn roots(root: CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("a root certificate");
    roots
}

/// Certificates of a simulation are valid for all of it, so its start will do.
#[derive(Debug)]
struct AtStart;

impl TimeProvider for AtStart {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(EPOCH)))
    }
}

/// The stock verifier, without the host's name: a SPIFFE certificate has none.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // Names are looked at last, when the chain has been found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
