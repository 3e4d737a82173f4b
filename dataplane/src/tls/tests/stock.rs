//! The far side in a test: the plain TLS library, which trusts everybody and shows whatever
//! certificate it is given; and the pipe between the two.

use std::io::Write;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::certs::Leaf;
use crate::tls::{Failure, TlsLeg, provider};

pub const ALL: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn resolver(leaf: &Leaf) -> Arc<SingleCertAndKey> {
    let chain = leaf.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.pkcs8.as_slice()));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

pub fn client(leaf: Option<&Leaf>, versions: &[&'static SupportedProtocolVersion]) -> Connection {
    client_of(&client_config(leaf, versions))
}

/// One of several that share what they remember.
pub fn client_of(config: &Arc<ClientConfig>) -> Connection {
    ClientConnection::new(config.clone(), ServerName::try_from("peer.test").unwrap()).unwrap().into()
}

pub fn client_config(leaf: Option<&Leaf>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider::production()).with_protocol_versions(versions);
    let builder = builder.unwrap().dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    Arc::new(match leaf {
        Some(leaf) => builder.with_client_cert_resolver(resolver(leaf)),
        None => builder.with_no_client_auth(),
    })
}

pub fn server(leaf: &Leaf, ask: bool, versions: &[&'static SupportedProtocolVersion]) -> Connection {
    let builder = ServerConfig::builder_with_provider(provider::production()).with_protocol_versions(versions);
    let builder = match ask {
        true => builder.unwrap().with_client_cert_verifier(Arc::new(Anybody)),
        false => builder.unwrap().with_no_client_auth(),
    };
    ServerConnection::new(Arc::new(builder.with_cert_resolver(resolver(leaf)))).unwrap().into()
}

/// Carries bytes both ways until both are silent. What ended either side: the leg's failure, and
/// the error of the stock side (in which a received alert shows).
pub fn carry(leg: &mut TlsLeg, stock: &mut Connection) -> (Option<Failure>, Option<Error>) {
    let (mut failure, mut error) = (None, None);
    loop {
        let mut wire = Vec::new();
        while stock.wants_write() {
            stock.write_tls(&mut wire).unwrap();
        }
        if !wire.is_empty()
            && let Err(e) = leg.read_tls(&wire)
        {
            failure = Some(e);
        }
        let mut back = vec![0; leg.pending()];
        let n = leg.write_tls(&mut back);
        assert_eq!(n, back.len(), "pending() promises what write_tls() gives");
        let mut rest = &back[..n];
        while !rest.is_empty() {
            stock.read_tls(&mut rest).unwrap();
            if let Err(e) = stock.process_new_packets() {
                error.get_or_insert(e);
                break;
            }
        }
        if wire.is_empty() && n == 0 {
            return (failure, error);
        }
    }
}

/// The same for two legs. Pieces of `piece` bytes.
pub fn carry_legs(a: &mut TlsLeg, b: &mut TlsLeg, piece: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    loop {
        let moved = shift(a, b, piece, &mut seen) + shift(b, a, piece, &mut seen);
        if moved == 0 {
            return seen;
        }
    }
}

fn shift(from: &mut TlsLeg, to: &mut TlsLeg, piece: usize, seen: &mut Vec<u8>) -> usize {
    let mut bytes = vec![0; piece];
    let n = from.write_tls(&mut bytes);
    seen.extend(&bytes[..n]);
    let mut rest = &bytes[..n];
    while !rest.is_empty() {
        match to.read_tls(rest) {
            Ok(0) => panic!("a leg of an unread megabyte is the test's mistake"),
            Ok(taken) => rest = &rest[taken..],
            Err(_) => break,
        }
    }
    n
}

/// Writes through the stock side.
pub fn say(stock: &mut Connection, bytes: &[u8]) {
    stock.writer().write_all(bytes).unwrap();
}

#[derive(Debug)]
struct Anybody;

/// Both roles ask it alike.
macro_rules! believes_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider::production().signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    believes_signatures!();
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    believes_signatures!();
}
