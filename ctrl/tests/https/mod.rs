//! A web server that the tests play, over TLS or plainly. What it says, and by which certificate, can be changed
//! while it runs.

#![allow(dead_code, reason = "each test binary uses its part")]

mod ca;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub use ca::Ca;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose as Eku, KeyPair, KeyUsagePurpose as Use, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use x509_parser::prelude::{FromDer as _, X509Certificate};

impl Ca {
    /// DER. Revokes an intermediate of it.
    pub fn crl_against(&self, number: u64, below: &Ca, next: u64) -> Vec<u8> {
        let (_, certificate) = X509Certificate::from_der(below.0.der()).unwrap();
        let serial = SerialNumber::from_slice(certificate.tbs_certificate.raw_serial());
        self.crl_of(number, [serial].into_iter(), next).der().to_vec()
    }

    /// For `localhost` and 127.0.0.1.
    pub fn local(&self) -> Arc<ServerConfig> {
        self.server(vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
        ])
    }

    /// For whoever has these names.
    pub fn server(&self, names: Vec<SanType>) -> Arc<ServerConfig> {
        self.server_of(leaf(names))
    }

    pub fn server_of(&self, params: CertificateParams) -> Arc<ServerConfig> {
        self.server_by(params, &[])
    }

    /// With what leads up from the leaf.
    pub fn server_with(&self, names: Vec<SanType>, between: &[&Ca]) -> Arc<ServerConfig> {
        self.server_by(leaf(names), between)
    }

    fn server_by(&self, params: CertificateParams, between: &[&Ca]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let between = between.iter().map(|ca| ca.0.der().clone());
        let chain = [certificate.der().clone()].into_iter().chain(between).collect();
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}

fn leaf(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.key_usages = vec![Use::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
    params
}

pub fn spiffe(id: &str) -> Vec<SanType> {
    vec![SanType::URI(id.try_into().unwrap())]
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes, then the end.
    Raw(Vec<u8>),
    /// These bytes, and the connection stays open until the other side closes it.
    Hang(Vec<u8>),
    /// The connection is taken, and nothing at all is said on it, TLS included.
    Deaf,
}

impl Reply {
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status("200 OK", "", body)
    }

    /// `headers` are lines that end with CRLF.
    pub fn status(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        Self::Raw([head.as_bytes(), body].concat())
    }
}

struct Says {
    tls: Option<Arc<ServerConfig>>,
    reply: Reply,
}

/// Ends with its owner.
pub struct Server {
    pub address: SocketAddr,
    says: Arc<Mutex<Says>>,
    /// Heads and bodies of the requests that came.
    asked: watch::Receiver<Vec<String>>,
    /// Of connections whose other side has closed them.
    left: watch::Receiver<usize>,
    /// Handshakes in which a session was resumed, and no certificate shown.
    resumed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(tls: Option<Arc<ServerConfig>>, reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(Says { tls, reply }));
        let (asked_in, asked) = watch::channel(vec![]);
        let (left_in, left) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let (shared, resumed) = (says.clone(), Arc::new(AtomicUsize::new(0)));
        let count = resumed.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, reply) = {
                    let says = shared.lock().unwrap();
                    (says.tls.clone(), says.reply.clone())
                };
                let (asked, left, resumed) = (asked_in.clone(), left_in.clone(), count.clone());
                connections.spawn(async move {
                    serve(tcp, tls, reply, &asked, &resumed).await;
                    left.send_modify(|count| *count += 1);
                });
            }
        });
        Self { address, says, asked, left, resumed, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.says.lock().unwrap().tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    pub fn reply(&self, reply: Reply) {
        self.says.lock().unwrap().reply = reply;
    }

    pub fn show(&self, tls: Arc<ServerConfig>) {
        self.says.lock().unwrap().tls = Some(tls);
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    pub fn resumed(&self) -> usize {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Until it was asked so often.
    pub async fn await_asked(&self, times: usize) {
        self.asked.clone().wait_for(|all| all.len() >= times).await.unwrap();
    }

    /// Until so many connections are over.
    pub async fn await_left(&self, times: usize) {
        self.left.clone().wait_for(|count| *count >= times).await.unwrap();
    }
}

async fn serve(
    mut tcp: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    reply: Reply,
    asked: &watch::Sender<Vec<String>>,
    resumed: &AtomicUsize,
) {
    match (reply, tls) {
        (Reply::Deaf, _) => until_left(&mut tcp).await,
        (reply, Some(tls)) => {
            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(tcp).await {
                let kind = stream.get_ref().1.handshake_kind();
                resumed.fetch_add(usize::from(kind == Some(HandshakeKind::Resumed)), Ordering::Relaxed);
                talk(stream, reply, asked).await;
            }
        }
        (reply, None) => talk(tcp, reply, asked).await,
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, reply: Reply, asked: &watch::Sender<Vec<String>>) {
    let Some(request) = request(&mut stream).await else { return };
    asked.send_modify(|all| all.push(request));
    match reply {
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            until_left(&mut stream).await;
        }
        Reply::Deaf => unreachable!("nothing is said on it"),
    }
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = String::new();
    let mut piece = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
}

async fn until_left(stream: &mut (impl AsyncRead + Unpin)) {
    let mut piece = [0; 4096];
    while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
}
