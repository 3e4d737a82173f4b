//! The way to one endpoint of an agent: a connection that all streams share, made anew when one of them finds
//! it broken, or when there is another way, such as with a newer certificate.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::fault::Fault;
use super::mutual::Mutual;

pub struct Link {
    /// As it is shown: a socket's path, or an address.
    name: PathBuf,
    ways: Ways,
    /// Numbered, so that of many streams that it broke under the first alone replaces it.
    current: Mutex<Option<(Number, Channel)>>,
    /// Of a way that never changes.
    _fixed: Option<watch::Sender<Known>>,
}

/// How to connect, as far as it is known.
pub type Ways = watch::Receiver<Known>;

/// None: nobody has looked yet.
pub type Known = Option<Result<Way, Fault>>;

#[derive(Debug, Clone)]
pub struct Way {
    /// Another one for each that is another way.
    pub nth: u64,
    pub dial: Dial,
}

#[derive(Debug, Clone)]
pub enum Dial {
    Socket(PathBuf),
    Mutual(Mutual),
}

/// Of the way, and of connections on it.
type Number = (u64, u64);

impl Link {
    /// Connects when it is first used.
    pub fn to(path: &Path) -> Self {
        let way = Way { nth: 0, dial: Dial::Socket(path.to_owned()) };
        let (fixed, ways) = watch::channel(Some(Ok(way)));
        Self { _fixed: Some(fixed), ..Self::by(path.to_owned(), ways) }
    }

    pub fn by(name: PathBuf, ways: Ways) -> Self {
        Self { name, ways, current: Mutex::new(None), _fixed: None }
    }

    pub fn path(&self) -> &Path {
        &self.name
    }

    /// For [`Link::channel`], and for whoever has to know that there is another way than the one it took.
    pub fn ways(&self) -> Ways {
        self.ways.clone()
    }

    /// The connection by the newest way, once there is one.
    pub async fn channel(&self, ways: &mut Ways) -> Result<(Number, Channel), Fault> {
        let known = ways.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
        let way = match known {
            Some(known) => known.inspect_err(|_| *self.current.lock().expect("no holder panics") = None)?,
            // Who would know has ended, and with it who asks.
            None => std::future::pending().await,
        };
        let mut current = self.current.lock().expect("no holder panics");
        match &*current {
            // Another stream may know of a newer way already.
            Some((number, channel)) if number.0 >= way.nth => Ok((*number, channel.clone())),
            Some(_) | None => {
                let made = ((way.nth, 0), channel(way.dial));
                *current = Some(made.clone());
                Ok(made)
            }
        }
    }

    /// The one of that number is of no use any more.
    pub fn renew(&self, number: Number) {
        let mut current = self.current.lock().expect("no holder panics");
        let Some((newest, channel_now)) = &mut *current else { return };
        let way = self.ways.borrow();
        if let (true, Some(Ok(way))) = (*newest == number, way.as_ref()) {
            (*newest, *channel_now) = ((way.nth, number.1 + 1), channel(way.dial.clone()));
        }
    }
}

fn channel(dial: Dial) -> Channel {
    let origin = match &dial {
        Dial::Socket(_) => "http://localhost",
        Dial::Mutual(_) => "https://localhost",
    };
    // The name stands in the requests' :authority and is not looked up.
    let endpoint = Endpoint::from_static("http://localhost")
        .origin(Uri::from_static(origin))
        .connect_timeout(CONNECT)
        .http2_max_header_list_size(MOST_HEADERS)
        .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .expect("a version is a header");
    endpoint.connect_with_connector_lazy(dial)
}

/// What bytes go over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dial {
    pub async fn connect(self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Mutual(mutual) => mutual.connect().await,
        }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect().await.map(TokioIo::new) })
    }
}

/// A Unix socket answers at once, or its backlog is full.
const CONNECT: Duration = Duration::from_secs(5);
const MOST_HEADERS: u32 = 16 << 10;
