//! The CLI's side of the admin API: one HTTP request over the Unix socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::view::Failure;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}; is sluice-ctrl running? (start it with `sluice up --config DIR`)", socket.display())]
    Unreachable { socket: PathBuf, source: std::io::Error },
    #[error("{}: {source}", socket.display())]
    Http { socket: PathBuf, source: hyper::Error },
    #[error("{0}")]
    Body(#[from] serde_json::Error),
    #[error("{}", .0.error)]
    Refused(Failure),
}

/// A connection a request: the CLI asks once, or once a second.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Error> {
        let http = |source| Error::Http { socket: self.socket.clone(), source };
        let stream = tokio::net::UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Unreachable { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sluice")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("path and headers are ours");
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(http)?.to_bytes();
        if status == StatusCode::OK {
            return Ok(serde_json::from_slice(&body)?);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let plain = || Failure { error: format!("{status}: {text}"), details: vec![] };
        Err(Error::Refused(serde_json::from_slice(&body).unwrap_or_else(|_| plain())))
    }
}

/// A value in a query string: everything but unreserved characters is escaped (RFC 3986 §2.3).
pub fn escape(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
