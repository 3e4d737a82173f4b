//! What can be wrong with a vault and what it answers: who was asked for what, what came, and which field
//! or which command would mend it.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;

use crate::config::vault::{Auth, Vault as Config};
use crate::rotate::utc;
use crate::source::svid;
use crate::web;

/// With the name of the source, since several may ask one server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("identity source {source_name}: {problem}")]
pub struct Fault {
    pub source_name: Arc<str>,
    pub problem: Box<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing is wrong: there was no time for an answer yet.
    #[error("{0} has not answered yet")]
    Pending(web::Url),
    #[error("{0}")]
    Web(web::Error),
    #[error("{error} (`caBundle`: {})", trusted.as_ref().map_or("not given, so the system's roots decide".into(), |path| path.display().to_string()))]
    Untrusted { error: web::Error, trusted: Option<PathBuf> },
    #[error("`caBundle`: {}: {reason}", path.display())]
    Bundle { path: PathBuf, reason: String },
    #[error("`caBundle` is not given, and {0}")]
    System(String),
    #[error("`{field}`: {}: {reason}", path.display())]
    Credential { field: &'static str, path: PathBuf, reason: String },
    #[error("{url}: {status}, {said}; {remedy}")]
    Refused { url: web::Url, asked: Asked, status: u16, said: String, remedy: String },
    #[error("{url}: the answer {reason}")]
    Answer { url: web::Url, reason: String },
    #[error(
        "{url}: {issuers} issuers, and none leads to a root (a self-signed CA certificate); put it beside them: \
         bao write {mount}/issuers/import/cert pem_bundle=@root.pem"
    )]
    NoRoot { url: web::Url, issuers: usize, mount: String },
    #[error("{url}: {count} issuers; at most {most} are read")]
    ManyIssuers { url: web::Url, count: usize, most: usize },
    #[error("{0}")]
    Svid(svid::Fault),
    #[error("`{field}`: {}: the token ends at {}, and there is no other yet: see whoever writes it", path.display(), utc(*at))]
    TokenEnds { field: &'static str, path: PathBuf, at: u64 },
    #[error(
        "{url}: notAfter of the leaf: {}; want at most `ttl` ({ttl} s) and a minute from now: see `not_after` of the \
         role (bao read {role}), and both clocks", utc(*at)
    )]
    LongLife { url: web::Url, at: u64, ttl: u64, role: String },
    #[error("no key, or no CSR, can be made: {0}")]
    Crypto(String),
    #[error("{0}")]
    Header(web::BadHeader),
    #[error("{0} broke off, which is a fault of sluice-ctrl (its log says where); it is begun anew")]
    BrokeOff(&'static str),
}

/// What a server was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    LogIn,
    LookUp,
    Renew,
    Sign,
    Roots,
}

impl Fault {
    /// No failure, and nothing to be done about.
    pub fn is_wait(&self) -> bool {
        matches!(*self.problem, Problem::Pending(_))
    }

    /// Of the server or the source as a whole: whoever else asks now would hear the same.
    pub fn is_common(&self) -> bool {
        match &*self.problem {
            Problem::Svid(_)
            | Problem::Answer { .. }
            | Problem::LongLife { .. }
            | Problem::Crypto(_)
            | Problem::BrokeOff(_) => false,
            // A role may take one name and not another; nothing else depends on who asks.
            Problem::Refused { asked, status, .. } => *asked != Asked::Sign || *status != 400,
            Problem::Pending(_)
            | Problem::Web(_)
            | Problem::Untrusted { .. }
            | Problem::Bundle { .. }
            | Problem::System(_)
            | Problem::Header(_)
            | Problem::Credential { .. }
            | Problem::TokenEnds { .. }
            | Problem::NoRoot { .. }
            | Problem::ManyIssuers { .. } => true,
        }
    }

    /// The token is over, or may not do this: a server does not say which.
    pub fn is_denied(&self) -> bool {
        matches!(*self.problem, Problem::Refused { status: 401 | 403, .. })
    }

    /// Logging in again with the same will be refused too.
    pub fn is_refused_log_in(&self) -> bool {
        self.is_refusal() && matches!(*self.problem, Problem::Refused { asked: Asked::LogIn, .. })
    }

    /// How a list without entries is answered.
    pub fn is_empty_list(&self) -> bool {
        matches!(&*self.problem, Problem::Refused { status: 404, said, .. } if said == NO_REASON)
    }

    /// The server has decided: asking again does not help by itself.
    pub fn is_refusal(&self) -> bool {
        matches!(*self.problem, Problem::Refused { status: 400..=404, .. })
    }
}

impl Problem {
    pub fn of_web(error: web::Error, config: &Config) -> Self {
        match error {
            web::Error::Certificate { .. } => Self::Untrusted { error, trusted: config.ca_bundle.clone() },
            error => Self::Web(error),
        }
    }

    pub fn refused(url: web::Url, asked: Asked, status: StatusCode, said: &str, config: &Config) -> Self {
        let remedy = remedy(asked, status.as_u16(), said, config);
        Self::Refused { url, asked, status: status.as_u16(), said: said.to_owned(), remedy }
    }
}

/// What its field or its administrator can do about it.
fn remedy(asked: Asked, status: u16, said: &str, config: &Config) -> String {
    let path = config.path();
    let place = || format!("`namespace` ({})", config.namespace.as_deref().unwrap_or("none"));
    match (asked, status) {
        (_, 503) if said.contains("sealed") => "unseal it (bao operator unseal)".into(),
        (_, 429) => "it has a limit on requests, or is a standby: `server` has to lead to the active one".into(),
        (_, 472 | 473) => "it is a standby that passes nothing on: `server` has to lead to the active one".into(),
        (_, 412) => "it is behind what was written last, and is asked again".into(),
        (_, 500..) => "see the server's own log".into(),
        (Asked::Sign, 400) => format!(
            "the role of `path` ({path}) has to take it: allowed_uri_sans, {}require_cn=false, key_type=ec or any \
             (bao read {}/roles/{})",
            if config.dns_names { "allowed_domains (by `dnsNames`), " } else { "" },
            config.mount,
            config.role
        ),
        (Asked::Sign, 403) => format!(
            "the token by `{}` is over, or its policy lacks: path \"{path}\" {{ capabilities = [\"update\"] }}",
            config.auth.field()
        ),
        (Asked::Sign, 404) => format!("see `path` ({path}) and {}", place()),
        (Asked::Roots, 403 | 404) => format!(
            "want a PKI secrets engine at {}/, whose issuers anybody may read: see `path` ({path}) and {}",
            config.mount,
            place()
        ),
        (Asked::LogIn, 400..=404) => of_log_in(&config.auth, &place()),
        (Asked::LookUp | Asked::Renew, 403) => format!("the token by `{}` is over or unknown", config.auth.field()),
        (Asked::Sign | Asked::LogIn | Asked::LookUp | Asked::Renew | Asked::Roots, _) => {
            "see the server's own log".into()
        }
    }
}

fn of_log_in(auth: &Auth, place: &str) -> String {
    match auth {
        Auth::Token { .. } => format!("see `auth.tokenFile` and {place}"),
        Auth::AppRole { mount, .. } => format!(
            "see `auth.appRole`: its roleId, the secret ID in secretIdFile, which may be over or used up, and its \
             path ({mount}); and {place}"
        ),
        Auth::Kubernetes { mount, role, .. } => format!(
            "see `auth.kubernetes`: its role ({role}), which is bound to service accounts and their namespaces, and \
             its mountPath ({mount}); and {place}"
        ),
    }
}

/// How a server says what is wrong. Its words in one line, without what a terminal would obey.
pub fn said(answer: &web::Answer) -> String {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<String>,
    }
    match answer.json::<Errors>() {
        Ok(Errors { errors }) if !errors.is_empty() => one_line(&errors.join("; ")),
        Ok(_) | Err(_) => NO_REASON.into(),
    }
}

/// Words of somebody else, so much of them as a line holds.
pub fn one_line(text: &str) -> String {
    let shown: String = text.chars().take(LONGEST * 2).collect();
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let harmless = |c: char| match c {
        '"' | '\'' => vec![c],
        other => other.escape_debug().collect(),
    };
    words.chars().take(LONGEST).flat_map(harmless).collect()
}

const NO_REASON: &str = "without a reason";
const LONGEST: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_server_are_one_line_that_a_terminal_does_not_obey() {
        for (name, text, want) in [
            (
                "as Vault has it",
                "1 error occurred:\n\t* permission denied\n\n",
                "1 error occurred: * permission denied",
            ),
            ("quotes", "unless \"require_cn\" isn't", "unless \"require_cn\" isn't"),
            ("a colour", "\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("right to left", "a\u{202e}b", "a\\u{202e}b"),
        ] {
            assert_eq!(one_line(text), want, "{name}");
        }
        assert_eq!(one_line(&"x".repeat(10_000)).len(), LONGEST);
    }
}
