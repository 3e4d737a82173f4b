//! The headers of a request. A value may be a secret, which is shown nowhere.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};

use super::Url;

/// Debug shows `Sensitive` for what is secret.
#[derive(Debug, Clone, Default)]
pub struct Headers(HeaderMap);

/// Without the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of header {0} has a character that no header may have")]
pub struct BadHeader(HeaderName);

impl Headers {
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes the place of one by the same name.
    pub fn with(mut self, name: HeaderName, value: &str) -> Result<Self, BadHeader> {
        let value = HeaderValue::from_str(value).map_err(|_| BadHeader(name.clone()))?;
        self.0.insert(name, value);
        Ok(self)
    }

    pub fn secret(mut self, name: HeaderName, value: &str) -> Result<Self, BadHeader> {
        let mut value = HeaderValue::from_str(value).map_err(|_| BadHeader(name.clone()))?;
        value.set_sensitive(true);
        self.0.insert(name, value);
        Ok(self)
    }

    pub(super) fn of_request(&self, url: &Url, json: bool) -> HeaderMap {
        let mut all = self.0.clone();
        let authority = HeaderValue::from_str(url.authority()).expect("an authority is printable");
        all.insert(HOST, authority);
        all.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("sluice/", env!("CARGO_PKG_VERSION"))));
        all.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        if json {
            all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        all
    }
}
