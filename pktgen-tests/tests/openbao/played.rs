//! A vault as far as a client can tell, that answers as no OpenBao would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use rcgen::{CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, KeyPair, SanType};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is said to a path.
#[derive(Clone)]
pub enum Answer {
    Json(u16, Value),
    Bytes(u16, Vec<u8>),
    Elsewhere(String),
    /// The head, half of a body, and no more of it.
    Broken,
    /// Nothing, for as long as the other side waits.
    Silence,
    /// By what was asked for.
    Of(Arc<dyn Fn(&Value) -> Value + Send + Sync>),
}

#[derive(Clone)]
struct Said {
    /// By the end of the path.
    answers: Arc<Mutex<BTreeMap<&'static str, Answer>>>,
    asked: watch::Sender<u64>,
}

pub struct Played {
    pub server: String,
    said: Said,
    pub asked: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Played {
    /// It lets everybody in, and has that root.
    pub async fn start(root: &str) -> Self {
        let (sender, asked) = watch::channel(0);
        let said = Said { answers: Arc::default(), asked: sender };
        let router = Router::new().fallback(answer).with_state(said.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let played = Self { server, said, asked, task };
        let lease = json!({ "auth": { "client_token": "s.hidden-token", "lease_duration": 3600, "renewable": true } });
        played.say("/login", Answer::Json(200, lease));
        played.say("/lookup-self", Answer::Json(200, json!({ "data": { "ttl": 3600, "renewable": true } })));
        played.say("/issuers", Answer::Json(200, json!({ "data": { "keys": ["one"] } })));
        played
            .say("/issuer/one/json", Answer::Json(200, json!({ "data": { "certificate": root, "ca_chain": [root] } })));
        played
    }

    pub fn say(&self, end: &'static str, answer: Answer) {
        self.said.answers.lock().unwrap().insert(end, answer);
    }
}

async fn answer(State(said): State<Said>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    let found = {
        let answers = said.answers.lock().unwrap();
        answers.iter().find(|(end, _)| path.ends_with(**end)).map(|(_, answer)| answer.clone())
    };
    said.asked.send_modify(|asked| *asked += 1);
    let reply = |status: u16, body: Body| Response::builder().status(status).body(body).unwrap();
    match found {
        Some(Answer::Json(status, value)) => reply(status, value.to_string().into()),
        Some(Answer::Bytes(status, bytes)) => reply(status, bytes.into()),
        Some(Answer::Elsewhere(to)) => Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, to)
            .body(Body::empty())
            .unwrap(),
        Some(Answer::Broken) => {
            let parts = [Ok(Bytes::from_static(b"{\"data\": {")), Err(std::io::Error::other("it is cut"))];
            reply(200, Body::from_stream(stream::iter(parts)))
        }
        Some(Answer::Silence) => std::future::pending().await,
        Some(Answer::Of(by)) => reply(200, by(&serde_json::from_slice(&body).unwrap_or_default()).to_string().into()),
        None => reply(404, json!({ "errors": ["no handler"] }).to_string().into()),
    }
}

pub type Ca = CertifiedIssuer<'static, KeyPair>;

/// An answer to `sign`, by a CSR and with whatever is changed in its certificate.
pub fn signs(ca: &Arc<Ca>, change: impl Fn(&mut CertificateParams) + Send + Sync + 'static) -> Answer {
    let ca = ca.clone();
    Answer::Of(Arc::new(move |asked| {
        let mut csr = CertificateSigningRequestParams::from_pem(asked["csr"].as_str().unwrap()).unwrap();
        usual(&mut csr.params, asked);
        change(&mut csr.params);
        let leaf = csr.signed_by(&*ca).unwrap();
        json!({ "data": { "certificate": leaf.pem(), "ca_chain": [ca.pem()] } })
    }))
}

/// As [`signs`], for a key that is nobody's.
pub fn signs_another_key(ca: &Arc<Ca>) -> Answer {
    let ca = ca.clone();
    Answer::Of(Arc::new(move |asked| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(asked["uri_sans"].as_str().unwrap().try_into().unwrap())];
        usual(&mut params, asked);
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &*ca).unwrap();
        json!({ "data": { "certificate": leaf.pem(), "ca_chain": [ca.pem()] } })
    }))
}

/// For as long as was asked for.
fn usual(params: &mut CertificateParams, asked: &Value) {
    use rcgen::{ExtendedKeyUsagePurpose as Eku, KeyUsagePurpose, date_time_ymd};
    let at = |seconds: u64| date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds);
    let now = ctrl::clock::now();
    let ttl: u64 = asked["ttl"].as_str().and_then(|ttl| ttl.strip_suffix('s')?.parse().ok()).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (at(now - 30), at(now + ttl));
}

pub fn ca(id: &str) -> Arc<Ca> {
    use rcgen::{BasicConstraints, DnType, IsCa, KeyUsagePurpose as Use, date_time_ymd};
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("root of {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Use::KeyCertSign, Use::CrlSign];
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
    Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
}
