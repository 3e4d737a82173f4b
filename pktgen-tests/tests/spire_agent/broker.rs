//! The agent's broker endpoint: the SPIFFE Broker API by mutual TLS, on a socket and on a port of loopback, with
//! SPIRE's rules. A broker is taken by the SPIFFE ID of its certificate, in TLS; a request has to be marked as one;
//! a reference has to be of a kind that the broker may use, and of something that there is.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message as _;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use super::proto::spiffe::broker::api_server::{Api, ApiServer};
use super::proto::spiffe::broker::{
    KubernetesObjectReference, SubscribeToX509svidRequest, SubscribeToX509svidResponse, X509svid,
};
use super::{Answer, Pushed, State, Svid, Told, World, joined};

/// A broker that the agent knows.
#[derive(Debug, Clone)]
pub struct Broker {
    pub id: String,
    /// Type URLs of references, or `*`.
    pub kinds: Vec<String>,
    /// These by a port too.
    pub over_tcp: bool,
}

/// Serves on the runtime that this is called in. Returns the port's address.
pub(super) fn serve(state: &State, socket: &Path) -> SocketAddr {
    let _ = std::fs::remove_file(socket);
    let unix = UnixListener::bind(socket).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let (tcp, address) = (TcpListener::from_std(tcp.try_clone().unwrap()).unwrap(), tcp.local_addr().unwrap());
    let (taken, incoming) = mpsc::channel(16);
    let (of_unix, of_tcp) = ((state.clone(), taken.clone()), (state.clone(), taken));
    tokio::spawn(async move {
        while let Ok((stream, _)) = unix.accept().await {
            shake(&of_unix.0, stream, false, &of_unix.1);
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            shake(&of_tcp.0, stream, true, &of_tcp.1);
        }
    });
    let incoming = futures_util::stream::unfold(incoming, |mut taken: mpsc::Receiver<Tls>| async {
        taken.recv().await.map(|tls| (Ok::<_, io::Error>(tls), taken))
    });
    tokio::spawn(Server::builder().serve_with_incoming(ApiServer::new(state.clone()), incoming));
    address
}

/// One that hangs holds up nobody else.
fn shake(state: &State, stream: impl Io + 'static, tcp: bool, taken: &mpsc::Sender<Tls>) {
    let (state, taken) = (state.clone(), taken.clone());
    tokio::spawn(async move {
        let Some(config) = config(&state) else { return };
        let stream: Box<dyn Io> = Box::new(stream);
        if let Ok(tls) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let leaf = tls.get_ref().1.peer_certificates().expect("it was asked for")[0].to_vec();
            let known = |world: &World| world.brokers.iter().map(|one| one.id.clone()).find(|id| names(&leaf, id));
            // It was taken, unless the world has changed since.
            let Some(id) = known(&state.world.lock().unwrap()) else { return };
            state.note(|world| {
                world.shown.push(leaf);
                world.open += 1;
            });
            let _ = taken.send(Tls { tls: Box::new(tls), by: By { id, tcp }, state }).await;
        }
    });
}

/// As the world is now: who is trusted, and what the agent shows.
fn config(state: &State) -> Option<ServerConfig> {
    let world = state.world.lock().unwrap();
    let agent = world.agent.clone()?;
    let mut roots = RootCertStore::empty();
    for der in world.bundles.values().flat_map(|ders| certificates(ders)) {
        // A bundle that the tests make wrong is wrong for clients.
        let _ = roots.add(CertificateDer::from(der.to_vec()));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chains = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().ok()?;
    let known = world.brokers.iter().map(|broker| broker.id.clone()).collect();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = agent.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(agent.key.clone()));
    let verifier = Arc::new(Known { chains, known });
    let mut config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // SPIRE switches tickets off.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Some(config)
}

/// One behind the other, each of two bytes' length.
fn certificates(mut ders: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let [0x30, 0x82, high, low, ..] = *ders {
        let length = 4 + usize::from(u16::from_be_bytes([high, low]));
        let Some((one, rest)) = ders.split_at_checked(length) else { break };
        (ders, _) = (rest, found.push(one));
    }
    found
}

/// Whether the certificate has this URI as a SAN: uniformResourceIdentifier is [6] IMPLICIT (RFC 5280 §4.2.1.6).
fn names(leaf: &[u8], id: &str) -> bool {
    let san: Vec<u8> = [0x86, id.len() as u8].into_iter().chain(id.bytes()).collect();
    leaf.windows(san.len()).any(|window| window == san)
}

/// Certificates of brokers that the agent knows, and no others.
#[derive(Debug)]
struct Known {
    chains: Arc<dyn ClientCertVerifier>,
    known: Vec<String>,
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chains.verify_client_cert(leaf, between, now)?;
        match self.known.iter().any(|id| names(leaf, id)) {
            true => Ok(verified),
            false => Err(rustls::CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// A connection, and whose it is.
struct Tls {
    tls: Box<dyn Io>,
    by: By,
    state: State,
}

#[derive(Clone)]
struct By {
    id: String,
    tcp: bool,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.state.note(|world| world.open -= 1);
    }
}

impl Connected for Tls {
    type ConnectInfo = By;

    fn connect_info(&self) -> By {
        self.by.clone()
    }
}

impl AsyncRead for Tls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

#[tonic::async_trait]
impl Api for State {
    type SubscribeToX509SVIDStream = Told<SubscribeToX509svidResponse>;

    async fn subscribe_to_x509svid(
        &self,
        request: Request<SubscribeToX509svidRequest>,
    ) -> Pushed<SubscribeToX509svidResponse> {
        // SPIFFE Broker Endpoint §3.
        match request.metadata().get("broker.spiffe.io") {
            Some(value) if value == "true" => {}
            _ => return Err(Status::invalid_argument("security header missing from request")),
        }
        self.count();
        let by = request.extensions().get::<By>().expect("each connection has it").clone();
        let brokers = self.world.lock().unwrap().brokers.clone();
        let broker = brokers.iter().find(|broker| broker.id == by.id);
        let broker = broker.ok_or_else(|| Status::unauthenticated("unable to determine caller identity"))?;
        let about = about(request.into_inner(), broker, by.tcp)?;
        self.push(move |world| said(world, &about))
    }
}

/// `plural.group namespace/name`, or `pod UID`.
fn about(request: SubscribeToX509svidRequest, by: &Broker, tcp: bool) -> Result<String, Status> {
    let reference = request.reference.and_then(|reference| reference.reference);
    let reference = reference.ok_or_else(|| Status::invalid_argument("workload reference must be provided"))?;
    if !by.kinds.iter().any(|kind| kind == "*" || *kind == reference.type_url) {
        let words = format!("broker {:?} is not allowed to use reference type {:?}", by.id, reference.type_url);
        return Err(Status::permission_denied(words));
    }
    if tcp && !by.over_tcp {
        let words = format!("reference type {:?} is not allowed over TCP for broker {:?}", reference.type_url, by.id);
        return Err(Status::permission_denied(words));
    }
    if reference.type_url != "type.googleapis.com/spiffe.broker.KubernetesObjectReference" {
        return Err(Status::invalid_argument("unsupported workload reference"));
    }
    let object = KubernetesObjectReference::decode(reference.value.as_slice());
    let object = object.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let kind = object.r#type.ok_or_else(|| Status::invalid_argument("type is required"))?;
    match (object.key, object.uid.as_str()) {
        (_, "") if kind.plural == "pods" => Err(Status::invalid_argument("the tests ask about pods by UID")),
        (Some(key), "") => Ok(format!("{}.{} {}/{}", kind.plural, kind.group, key.namespace, key.name)),
        (key, uid) if kind.plural == "pods" && kind.group == "core" => {
            let key = key.map(|key| format!(" {}/{}", key.namespace, key.name)).unwrap_or_default();
            Ok(format!("pod {uid}{key}"))
        }
        (_, _) => Err(Status::invalid_argument("at least one of key and uid is required")),
    }
}

fn said(world: &World, about: &str) -> Result<Option<SubscribeToX509svidResponse>, Status> {
    if world.unauthenticated {
        return Err(Status::unauthenticated("the client cannot be identified"));
    }
    let federated = world.federates_with.iter().filter_map(|name| {
        let domain = name.trim_start_matches("spiffe://");
        Some((format!("spiffe://{domain}"), world.bundles.get(domain)?.clone()))
    });
    let federated_bundles = federated.collect();
    let svids = match world.objects.get(about) {
        None => return Err(Status::not_found(format!("{about} was not found"))),
        Some(Answer::Denied) => return Err(Status::permission_denied("no identity issued")),
        Some(Answer::Silence) => return Ok(None),
        Some(Answer::Huge(bytes)) => {
            let crl = vec![vec![0; *bytes]];
            return Ok(Some(SubscribeToX509svidResponse { crl, federated_bundles, ..Default::default() }));
        }
        Some(Answer::Svids(svids)) => svids.iter().map(|svid| given(world, svid)).collect(),
    };
    Ok(Some(SubscribeToX509svidResponse { svids, federated_bundles, ..Default::default() }))
}

fn given(world: &World, svid: &Svid) -> X509svid {
    let domain = svid.id.trim_start_matches("spiffe://").split('/').next().unwrap();
    X509svid {
        spiffe_id: svid.id.clone(),
        x509_svid: joined(&svid.chain),
        x509_svid_key: svid.key.clone(),
        bundle: world.bundles.get(domain).cloned().unwrap_or_default(),
        ..X509svid::default()
    }
}
