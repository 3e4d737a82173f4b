//! What can be wrong with an exchange, in words for who has to mend it. A URL is shown without its query,
//! and nothing that was sent or came is.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, LOCATION};
use rustls::CertificateError;

use super::Url;
use crate::causes::with_causes;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{url}: http:// is not taken here, since anybody on the way could answer; give an https:// URL")]
    Plain { url: Url },
    #[error("{url}: no connection: {why}; check that it can be reached from this node")]
    Unreachable { url: Url, why: String },
    #[error("{url}: {why}")]
    Certificate { url: Url, why: String },
    #[error("{url}: TLS does not come about: {why}")]
    Tls { url: Url, why: String },
    #[error("{url}: {stage} within {} s", whole.as_secs_f32())]
    Slow { url: Url, whole: Duration, stage: Stage },
    #[error("{url}: the answer is larger than {most} bytes, the most that is taken")]
    Large { url: Url, most: usize },
    #[error("{url}: the answer breaks off, or is no HTTP: {why}")]
    Broken { url: Url, why: String },
    #[error("{url}: {status}, a redirect to {to}, is not followed; give that URL itself if it is to be trusted")]
    Redirect { url: Url, status: StatusCode, to: String },
    #[error("{url}: {status} is the answer")]
    Status { url: Url, status: StatusCode },
    #[error("{url}: the answer is not the JSON that is expected (line {line}, column {column})")]
    Json { url: Url, line: usize, column: usize },
    #[error("{url}: what is to be sent does not fit into JSON")]
    Unsendable { url: Url },
}

/// What has not happened in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Stage {
    #[error("no connection, or no end of the TLS handshake,")]
    Connect,
    #[error("no answer")]
    Answer,
    #[error("no end of the answer")]
    Body,
}

impl Error {
    pub(super) fn unconnected(url: &Url, error: &(dyn StdError + Send + Sync + 'static)) -> Self {
        let url = url.clone();
        match of_tls(error) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                let why = in_words(why, url.host());
                Self::Certificate { url, why }
            }
            Some(other) => Self::Tls { url, why: other.to_string() },
            None => Self::Unreachable { url, why: chain(error) },
        }
    }

    pub(super) fn broken(url: &Url, error: &hyper::Error) -> Self {
        Self::Broken { url: url.clone(), why: chain(error) }
    }

    pub(super) fn redirect(url: &Url, status: StatusCode, headers: &HeaderMap) -> Self {
        let to = headers.get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.map_or("nowhere".into(), |to| Url::parse(to).map_or("another place".into(), |to| to.to_string()));
        Self::Redirect { url: url.clone(), status, to }
    }

    /// Where, and not what: serde's own text repeats what was there.
    pub(super) fn json(url: &Url, error: &serde_json::Error) -> Self {
        Self::Json { url: url.clone(), line: error.line(), column: error.column() }
    }
}

/// An `io::Error` hides what it holds from `source`.
pub(crate) fn of_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let held = || Some(error.downcast_ref::<io::Error>()?.get_ref()? as &(dyn StdError + 'static));
    error.downcast_ref().or_else(|| of_tls(held().or_else(|| error.source())?))
}

pub(crate) fn in_words(error: &CertificateError, host: &str) -> String {
    match error {
        // Of another CA by the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is signed by none of the roots that are trusted for it; give the root that its CA has"
                .into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for {host}; give a URL with a name that it has")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; check the clock".into()
        }
        // What a verifier of ours says.
        CertificateError::Other(why) => why.to_string(),
        // rustls's own are many, and grow.
        other => format!("its certificate is refused: {other}"),
    }
}

/// No longer than anybody reads.
fn chain(error: &(dyn StdError + 'static)) -> String {
    with_causes(&error.to_string(), error).chars().take(LONGEST_WHY).collect()
}

const LONGEST_WHY: usize = 300;
