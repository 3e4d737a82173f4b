//! HTTPS for what this process fetches by itself: bundles of other trust domains, CRLs, a vault's answers.
//!
//! One connection carries one exchange, and is driven only as long as somebody waits for it: dropping the
//! future closes it, and nothing is left in a pool. An exchange has one deadline, from the look-up of the name
//! to the last byte, and a body has a largest size. No redirect is followed: a URL says who is asked, and who
//! is asked is who has to prove it. What is sent and what comes may be secret, so neither is in any error,
//! log or Debug, and both are wiped.

pub(crate) mod error;
mod headers;
mod names;
pub mod spiffe;
pub mod tls;
mod url;

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use tonic::codegen::Service as _;
use zeroize::Zeroizing;

pub use error::{Error, Stage};
pub use headers::{BadHeader, Headers};
pub use names::{Reach, is_near};
pub use url::{BadUrl, Url};

use names::Names;

/// What an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the look-up of the name to the last byte.
    pub whole: Duration,
    /// Bytes of a body.
    pub largest: usize,
}

/// Whether a URL may begin with `http://`, where nobody proves who they are and everybody can read along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schemes {
    HttpsOnly,
    /// For what is signed by itself, or does not leave the machine.
    HttpToo,
}

/// Asks servers that prove to be who the given TLS configuration wants.
#[derive(Debug, Clone)]
pub struct Client {
    connect: HttpsConnector<HttpConnector<Names>>,
    schemes: Schemes,
    limits: Limits,
}

/// What came, whatever its status but a redirect.
pub struct Answer {
    url: Url,
    pub status: StatusCode,
    body: Zeroizing<Vec<u8>>,
}

impl Client {
    /// `tls` is one of [`tls`], or made beginning with [`tls::builder`].
    pub fn new(tls: ClientConfig, schemes: Schemes, limits: Limits) -> Self {
        Self::within(Reach::Anywhere, tls, schemes, limits)
    }

    /// The same, for those who are not to have everything asked.
    pub fn within(reach: Reach, mut tls: ClientConfig, schemes: Schemes, limits: Limits) -> Self {
        // A resumed session shows no certificate, so nobody would look again at who is trusted by now.
        tls.resumption = rustls::client::Resumption::disabled();
        let mut http = HttpConnector::new_with_resolver(Names::new(reach));
        http.enforce_http(false);
        http.set_nodelay(true);
        Self { connect: (http, tls).into(), schemes, limits }
    }

    pub async fn get(&self, url: &Url, headers: &Headers) -> Result<Answer, Error> {
        self.ask(Method::GET, url, headers, Bytes::new()).await
    }

    pub async fn post(&self, url: &Url, headers: &Headers, body: &impl Serialize) -> Result<Answer, Error> {
        self.ask(Method::POST, url, headers, json(url, body)?).await
    }

    pub async fn put(&self, url: &Url, headers: &Headers, body: &impl Serialize) -> Result<Answer, Error> {
        self.ask(Method::PUT, url, headers, json(url, body)?).await
    }

    async fn ask(&self, method: Method, url: &Url, headers: &Headers, body: Bytes) -> Result<Answer, Error> {
        if url.is_plain() && self.schemes == Schemes::HttpsOnly {
            return Err(Error::Plain { url: url.clone() });
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.target();
        *request.headers_mut() = headers.of_request(url, !request.body().is_end_stream());
        self.exchange(url, request).await
    }

    async fn exchange(&self, url: &Url, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.limits.whole;
        let late = |stage| Error::Slow { url: url.clone(), whole: self.limits.whole, stage };
        let broken = |why: hyper::Error| Error::broken(url, &why);
        let mut connect = self.connect.clone();
        let connected = async {
            poll_fn(|cx| connect.poll_ready(cx)).await?;
            connect.call(url.uri().clone()).await
        };
        let stream = timeout_at(deadline, connected).await.map_err(|_| late(Stage::Connect))?;
        let stream = stream.map_err(|why| Error::unconnected(url, why.as_ref()))?;
        let mut http = http1::Builder::new();
        http.max_buf_size(LARGEST_HEAD);
        let (mut sender, connection) = http.handshake(stream).await.map_err(broken)?;
        let talk = async {
            let answered = timeout_at(deadline, sender.send_request(request)).await;
            let response = answered.map_err(|_| late(Stage::Answer))?.map_err(broken)?;
            let read = timeout_at(deadline, self.read(url, response)).await;
            read.map_err(|_| late(Stage::Body))?
        };
        let (mut talk, mut connection) = (pin!(talk), pin!(connection));
        tokio::select! {
            biased;
            done = &mut talk => done,
            // How it ended, the exchange hears too.
            _ = &mut connection => talk.await,
        }
    }

    async fn read(&self, url: &Url, response: Response<Incoming>) -> Result<Answer, Error> {
        let (head, mut body) = response.into_parts();
        if head.status.is_redirection() {
            return Err(Error::redirect(url, head.status, &head.headers));
        }
        let large = || Error::Large { url: url.clone(), most: self.limits.largest };
        let announced = body.size_hint().lower();
        if announced > self.limits.largest as u64 {
            return Err(large());
        }
        // Of the announced length from the start: a buffer that grows leaves copies behind.
        let mut whole = Zeroizing::new(Vec::with_capacity(announced as usize));
        while let Some(frame) = body.frame().await {
            // What is no data is a trailer, which nobody asks about.
            let Ok(data) = frame.map_err(|why| Error::broken(url, &why))?.into_data() else { continue };
            if whole.len() + data.len() > self.limits.largest {
                return Err(large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(Answer { url: url.clone(), status: head.status, body: whole })
    }
}

impl Answer {
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Itself, if its status is one of success.
    pub fn success(self) -> Result<Self, Error> {
        match self.status.is_success() {
            true => Ok(self),
            false => Err(Error::Status { url: self.url, status: self.status }),
        }
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|why| Error::json(&self.url, &why))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, status, body } = self;
        write!(f, "Answer({url}: {status}, {} bytes)", body.len())
    }
}

/// Wiped when the connection has sent it.
fn json(url: &Url, body: &impl Serialize) -> Result<Bytes, Error> {
    let mut text = Zeroizing::new(Vec::with_capacity(USUAL_BODY));
    serde_json::to_writer(&mut *text, body).map_err(|_| Error::Unsendable { url: url.clone() })?;
    Ok(Bytes::from_owner(text))
}

/// Of the headers of an answer together.
const LARGEST_HEAD: usize = 64 << 10;
/// Of a request: a CSR, a token.
const USUAL_BODY: usize = 16 << 10;
