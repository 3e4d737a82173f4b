//! A URL that can be asked: http or https, a host, no user and no fragment. Whatever shows it leaves the query
//! out, where tokens stand.

use std::cmp::Ordering;
use std::fmt;

use hyper::Uri;
use hyper::http::uri::{PathAndQuery, Scheme};

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url(Uri);

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Those that are equal differ at most in the case of the host, where both are as good.
impl Ord for Url {
    fn cmp(&self, other: &Self) -> Ordering {
        if self == other { Ordering::Equal } else { self.whole().cmp(&other.whole()) }
    }
}

/// None of these repeats the text: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    #[error("is no URL")]
    Syntax,
    #[error("does not begin with https:// (or http://, where that is allowed)")]
    Scheme,
    #[error("names a user before the host; credentials do not belong into a URL")]
    User,
    #[error("has a fragment (#), which is not sent")]
    Fragment,
    #[error("names no host")]
    Host,
    #[error("has a port that is none of 1 to 65535")]
    Port,
    #[error("is longer than {LONGEST} bytes")]
    Long,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        if text.len() > LONGEST {
            return Err(BadUrl::Long);
        }
        // The parser takes it away without a word.
        if text.contains('#') {
            return Err(BadUrl::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| BadUrl::Syntax)?;
        if !matches!(uri.scheme(), Some(scheme) if *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP) {
            return Err(BadUrl::Scheme);
        }
        let authority = uri.authority().ok_or(BadUrl::Host)?.as_str();
        if authority.contains('@') {
            return Err(BadUrl::User);
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(BadUrl::Host);
        }
        // Behind the host, and behind the brackets of an IPv6 address.
        let named = authority.get(host.len()..).unwrap_or_default();
        if !named.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(BadUrl::Port);
        }
        Ok(Self(uri))
    }

    /// The same server, with `path` behind the path that this one has.
    pub fn below(&self, path: &str) -> Result<Self, BadUrl> {
        let path = format!("{}/{}", self.0.path().trim_end_matches('/'), path.trim_start_matches('/'));
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(path.parse::<PathAndQuery>().map_err(|_| BadUrl::Syntax)?);
        Uri::from_parts(parts).map(Self).map_err(|_| BadUrl::Syntax)
    }

    /// With its query: not for showing.
    pub fn whole(&self) -> String {
        self.0.to_string()
    }

    /// Whether nothing is encrypted.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTP)
    }

    /// Without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_plain() { 80 } else { 443 })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(super) fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// What stands in the first line of a request.
    pub(super) fn target(&self) -> Uri {
        self.0.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = if self.0.query().is_some() { "?…" } else { "" };
        write!(f, "{}://{}{}{query}", self.0.scheme_str().unwrap_or_default(), self.authority(), self.0.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_whom_to_ask_and_shows_no_secret() {
        for (text, shown, host) in [
            ("https://partner.org", "https://partner.org/", "partner.org"),
            ("https://partner.org:8443/bundle.json", "https://partner.org:8443/bundle.json", "partner.org"),
            ("http://[::1]:8200/v1", "http://[::1]:8200/v1", "::1"),
            ("https://[2001:db8::1]/", "https://[2001:db8::1]/", "2001:db8::1"),
            ("https://partner.org/crl?token=hunter2", "https://partner.org/crl?…", "partner.org"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.host()), (shown, host), "{text}");
            assert_eq!(format!("{url:?}"), shown);
        }
        let url = Url::parse("https://vault:8200/base/?x=1").unwrap();
        assert_eq!(url.below("/v1/pki/sign/web").unwrap().to_string(), "https://vault:8200/base/v1/pki/sign/web");
        assert_eq!(url.target().to_string(), "/base/?x=1");
    }

    #[test]
    fn what_is_no_url_is_refused_by_name_and_not_repeated() {
        for (text, want) in [
            ("", BadUrl::Syntax),
            ("partner.org", BadUrl::Scheme),
            ("/bundle", BadUrl::Scheme),
            ("ftp://partner.org/", BadUrl::Scheme),
            ("file:///etc/passwd", BadUrl::Syntax),
            ("https://", BadUrl::Syntax),
            ("https://:443/", BadUrl::Host),
            ("https://me:hunter2@partner.org/", BadUrl::User),
            ("https://partner.org/#top", BadUrl::Fragment),
            ("https://partner.org:0/", BadUrl::Port),
            ("https://partner.org:65536/", BadUrl::Port),
            ("https://partner.org:/", BadUrl::Port),
            ("https://partner.org/a b", BadUrl::Syntax),
        ] {
            assert_eq!(Url::parse(text), Err(want), "{text}");
            assert!(!want.to_string().contains("hunter2"));
        }
        let with = |length: usize| Url::parse(&format!("https://a/{}", "x".repeat(length - 10)));
        assert!(with(LONGEST).is_ok());
        assert_eq!(with(LONGEST + 1), Err(BadUrl::Long));
    }
}
