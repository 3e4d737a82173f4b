//! HTTPS of the API server: a CA of its own, a certificate for 127.0.0.1, and clients with certificates.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Cheap to clone; the CA stays the same.
#[derive(Clone)]
pub struct Tls {
    ca: Arc<(rcgen::Certificate, Issuer<'static, KeyPair>)>,
    /// Of the server.
    name: &'static str,
    asks_certificate: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

impl Tls {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self { ca: Arc::new((certificate, Issuer::new(params, key))), name: "127.0.0.1", asks_certificate: false }
    }

    /// It answers by another name than its address.
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Whoever shows no certificate of the CA is not let in.
    pub fn asking_certificate(self) -> Self {
        Self { asks_certificate: true, ..self }
    }

    /// PEM, as `ca.crt` is.
    pub fn ca(&self) -> String {
        self.ca.0.pem()
    }

    /// Certificate and key of a client, in PEM.
    pub fn client(&self) -> (String, String) {
        let (certificate, key) = self.issue("system:node:node-a", ExtendedKeyUsagePurpose::ClientAuth);
        (certificate.pem(), key.serialize_pem())
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names = if name.contains(':') { vec![] } else { vec![name.to_owned()] };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.ca.1).unwrap(), key)
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.0.der().clone()).unwrap();
        let clients = match self.asks_certificate {
            false => WebPkiClientVerifier::no_client_auth(),
            true => WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap(),
        };
        let (certificate, key) = self.issue(self.name, ExtendedKeyUsagePurpose::ServerAuth);
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = config.with_client_cert_verifier(clients).with_single_cert(vec![certificate.der().clone()], key);
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }
}

/// Connections whose handshake stands; those that fail are the client's to tell of.
pub(super) struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener {
    pub(super) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        Self { listener, acceptor }
    }
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
