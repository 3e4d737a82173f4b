//! The way to one socket of an agent: a connection that all streams share, made anew when one of them finds
//! it broken.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

pub struct Link {
    path: PathBuf,
    /// Numbered, so that of many streams that it broke under the first alone replaces it.
    current: Mutex<(u64, Channel)>,
}

impl Link {
    /// Connects when it is first used.
    pub fn to(path: &Path) -> Self {
        Self { path: path.to_owned(), current: Mutex::new((0, channel(path))) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn channel(&self) -> (u64, Channel) {
        self.current.lock().expect("no holder panics").clone()
    }

    /// The one of that number is of no use any more.
    pub fn renew(&self, number: u64) {
        let mut current = self.current.lock().expect("no holder panics");
        if current.0 == number {
            *current = (number + 1, channel(&self.path));
        }
    }
}

fn channel(path: &Path) -> Channel {
    // The name stands in the requests' :authority and is not looked up.
    let endpoint = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .http2_max_header_list_size(MOST_HEADERS)
        .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .expect("a version is a header");
    endpoint.connect_with_connector_lazy(Dial(path.to_owned()))
}

struct Dial(PathBuf);

impl Service<Uri> for Dial {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}

/// A Unix socket answers at once, or its backlog is full.
const CONNECT: Duration = Duration::from_secs(5);
const MOST_HEADERS: u32 = 16 << 10;
