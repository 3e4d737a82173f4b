//! Calls gateway B over TLS from the wire, with a certificate that it takes and with none.
//!
//! A gateway that answers a caller without a certificate does less than the others, and its
//! figures are no comparison: that is an error, found before anything is timed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pktgen_tests::netns::Namespace;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as lc};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::load::{MESSAGE, echo};
use crate::peers::certificate::Certificate;

/// How a call came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The server answered the request.
    Answered,
    /// It ended before an answer, with these words.
    Refused(String),
}

/// A caller with the certificate is answered, one without is not.
pub fn verifies_clients(from: &Namespace, gateway: SocketAddr, certificate: &Certificate) -> Result<()> {
    let call = |certificate| from.enter(|| call(gateway, certificate))?;
    if let Outcome::Refused(why) = call(Some(certificate)).context("call with a certificate")? {
        bail!("a caller with a right certificate is refused: {why}");
    }
    let without = call(None).context("call without a certificate")?;
    ensure!(without != Outcome::Answered, "{gateway} serves a caller without a certificate: it verifies no clients");
    Ok(())
}

fn call(gateway: SocketAddr, certificate: Option<&Certificate>) -> Result<Outcome> {
    let stream = TcpStream::connect_timeout(&gateway, PATIENCE).with_context(|| format!("connect to {gateway}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let client = ClientConnection::new(Arc::new(configuration(certificate)?), ServerName::try_from("b.peer")?)?;
    let mut tls = StreamOwned::new(client, stream);
    let mut answer = [0; MESSAGE];
    let exchanged = tls.write_all(&echo(1)).and_then(|()| tls.read_exact(&mut answer));
    match exchanged {
        Ok(()) => Ok(Outcome::Answered),
        // With TLS 1.3 the refusal may come behind the client's own handshake. Silence is none.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!("{gateway} was silent for {PATIENCE:?}"),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}

/// A client of anybody's, with TLS 1.3 and X25519.
pub fn configuration(certificate: Option<&Certificate>) -> Result<ClientConfig> {
    let kx_groups = vec![lc::kx_group::X25519, lc::kx_group::X25519MLKEM768];
    let provider = Arc::new(CryptoProvider { kx_groups, ..lc::default_provider() });
    let anyone = Arc::new(Anyone(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(anyone);
    let Some(certificate) = certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_file_iter(&certificate.chain)?.collect::<Result<Vec<_>, _>>()?;
    Ok(builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&certificate.key)?)?)
}

/// Takes every server: who it is, is not in question here.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
