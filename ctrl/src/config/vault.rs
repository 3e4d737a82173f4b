//! `vault:` of an identity source: the PKI of an OpenBao or a Vault, and how sluice-ctrl logs in there.
//!
//! Names are those of cert-manager's VaultIssuer, where it has the same thing.
//!
//! ```text
//!   server: https://bao.example.com:8200
//!   path: pki/sign/node                          the mount and the role that CSRs go to
//!   auth:
//!     appRole: { roleId: …, secretIdFile: /etc/sluice/secret-id }
//! ```

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::decode::{Faults, Field, Fields};
use super::identity::{DEFAULT_TTL, LONGEST_TTL, SHORTEST_TTL};
use crate::web::{BadUrl, Url};

/// Where CSRs are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    pub server: Url,
    /// Roots that the server is verified by, in PEM; None: the system's.
    pub ca_bundle: Option<PathBuf>,
    pub namespace: Option<String>,
    /// `pki` of `pki/sign/node`.
    pub mount: String,
    /// `node` of it.
    pub role: String,
    pub ttl: Duration,
    /// Whether the host names of a workload's Services become DNS SANs.
    pub dns_names: bool,
    /// How often the mount's issuers are read.
    pub refresh: Duration,
    pub auth: Auth,
}

/// How sluice-ctrl shows who it is. Mounts are without `auth/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// A token that somebody else keeps there, such as an agent.
    Token {
        file: PathBuf,
    },
    AppRole {
        mount: String,
        role_id: String,
        secret_id_file: PathBuf,
    },
    Kubernetes {
        mount: String,
        role: String,
        token_file: PathBuf,
    },
}

impl Vault {
    /// As `path` gives it.
    pub fn path(&self) -> String {
        format!("{}/sign/{}", self.mount, self.role)
    }
}

impl Auth {
    /// The field that names what it lives on, below `vault`.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Token { .. } => "auth.tokenFile",
            Self::AppRole { .. } => "auth.appRole.secretIdFile",
            Self::Kubernetes { .. } => "auth.kubernetes.tokenFile",
        }
    }

    /// The file that this is read from.
    pub fn file(&self) -> &PathBuf {
        match self {
            Self::Token { file: path }
            | Self::AppRole { secret_id_file: path, .. }
            | Self::Kubernetes { token_file: path, .. } => path,
        }
    }
}

pub fn decode(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Vault> {
    let mut fields = map.fields(faults)?;
    let server = fields.required("server", faults).and_then(|field| decode_server(&field, faults));
    let bundle = fields.optional("caBundle");
    let ca_bundle = bundle.as_ref().map(|field| decode_bundle(field, server.as_ref(), faults));
    let namespace = optional(&mut fields, "namespace", NAMESPACE_HELP, faults);
    let path = fields.required("path", faults).and_then(|field| field.parsed(sign_path, PATH_HELP, faults));
    let mut period = |name, allowed, usual| match fields.optional(name) {
        Some(field) => Field::duration(&field, allowed, faults),
        None => Some(usual),
    };
    let ttl = period("ttl", SHORTEST_TTL..=LONGEST_TTL, DEFAULT_TTL);
    let refresh = period("refresh", SHORTEST_REFRESH..=LONGEST_REFRESH, DEFAULT_REFRESH);
    let dns_names = match fields.optional("dnsNames") {
        Some(field) => field.boolean(faults),
        None => Some(false),
    };
    let auth = fields.required("auth", faults).and_then(|field| decode_auth(&field, faults));
    fields.finish(faults);
    let (mount, role) = path?;
    Some(Vault {
        server: server?,
        ca_bundle: ca_bundle.map_or(Some(None), |given| given.map(Some))?,
        namespace: namespace?,
        mount,
        role,
        ttl: ttl?,
        dns_names: dns_names?,
        refresh: refresh?,
        auth: auth?,
    })
}

/// Some(None): it is not there.
fn optional(
    fields: &mut Fields<'_>,
    name: &'static str,
    help: &str,
    faults: &mut Faults<'_>,
) -> Option<Option<String>> {
    match fields.optional(name) {
        Some(field) => field.parsed(segments, help, faults).map(Some),
        None => Some(None),
    }
}

fn decode_server(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<Url> {
    let text = field.text(faults)?;
    let url = match Url::parse(text) {
        Ok(url) if text.contains('?') => return wrong(field, &url, "has a query", faults),
        Ok(url) => url,
        // What stands before the host may be a password.
        Err(why @ BadUrl::User) => {
            faults.error(field.at(), &field.path, format!("the URL {why}"), "see `auth`");
            return None;
        }
        Err(why) => {
            faults.refuse(field, why, SERVER_HELP);
            return None;
        }
    };
    if url.is_plain() && !is_loopback(url.host()) {
        return wrong(field, &url, "sends tokens in clear over the network", faults);
    }
    Some(url)
}

fn wrong<T>(field: &Field<'_>, url: &Url, why: &str, faults: &mut Faults<'_>) -> Option<T> {
    faults.error(field.at(), &field.path, format!("{url}: {why}"), SERVER_HELP);
    None
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn decode_bundle(field: &Field<'_>, server: Option<&Url>, faults: &mut Faults<'_>) -> Option<PathBuf> {
    let path = field.parsed(bundle_path, "the path of a PEM file, such as bao-ca.pem", faults)?;
    if server.is_some_and(Url::is_plain) {
        let message = "nothing is verified by it: the server is asked by http://";
        faults.warning(field.at(), &field.path, message, "use https://, or leave it out");
    }
    Some(faults.beside(&path))
}

/// cert-manager has the certificates themselves there, in base64.
fn bundle_path(text: &str) -> Result<String, &'static str> {
    match text {
        _ if text.contains("-----BEGIN") || text.starts_with("LS0tLS1CRUdJTi") => {
            Err("is the certificates themselves; put them into a file beside this one")
        }
        _ => Ok(text.to_owned()),
    }
}

fn decode_auth(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Auth> {
    let mut fields = map.fields(faults)?;
    let token = fields.optional("tokenFile");
    let [app_role, kubernetes] = ["appRole", "kubernetes"].map(|name| fields.optional(name));
    let given = [&token, &app_role, &kubernetes].into_iter().flatten().count();
    if given != 1 {
        let message = if given == 0 { "names no way to log in" } else { "names several ways to log in" };
        faults.error(fields.at, &map.path, message, "give one of tokenFile, appRole and kubernetes");
    }
    fields.finish(faults);
    let token = token.and_then(|field| field.text(faults)).map(|path| Auth::Token { file: faults.beside(path) });
    let app_role = app_role.and_then(|field| decode_app_role(&field, faults));
    let kubernetes = kubernetes.and_then(|field| decode_kubernetes(&field, faults));
    token.or(app_role).or(kubernetes).filter(|_| given == 1)
}

fn decode_app_role(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Auth> {
    let mut fields = map.fields(faults)?;
    let mount = decode_mount(fields.optional("path"), "approle", faults);
    let role_id = fields.required("roleId", faults).and_then(|field| field.text(faults));
    let file = fields.required("secretIdFile", faults).and_then(|field| field.text(faults));
    fields.finish(faults);
    Some(Auth::AppRole { mount: mount?, role_id: role_id?.to_owned(), secret_id_file: faults.beside(file?) })
}

fn decode_kubernetes(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Auth> {
    let mut fields = map.fields(faults)?;
    let mount = decode_mount(fields.optional("mountPath"), "kubernetes", faults);
    let role = fields.required("role", faults).and_then(|field| field.text(faults));
    let file = match fields.optional("tokenFile") {
        Some(field) => field.text(faults),
        None => Some(SERVICE_ACCOUNT_TOKEN),
    };
    fields.finish(faults);
    Some(Auth::Kubernetes { mount: mount?, role: role?.to_owned(), token_file: faults.beside(file?) })
}

/// `approle`, `auth/approle` or, as cert-manager has it, `/v1/auth/kubernetes`.
fn decode_mount(field: Option<Field<'_>>, usual: &str, faults: &mut Faults<'_>) -> Option<String> {
    let Some(field) = field else { return Some(usual.to_owned()) };
    let help = format!("where the auth method is enabled, such as {usual}");
    let parse = |text: &str| {
        let path = segments(text)?;
        let path = path.strip_prefix("v1/").unwrap_or(&path);
        Ok::<_, String>(path.strip_prefix("auth/").unwrap_or(path).to_owned())
    };
    field.parsed(parse, &help, faults)
}

/// The mount and the role.
fn sign_path(text: &str) -> Result<(String, String), String> {
    let path = segments(text)?;
    let parts: Vec<_> = path.strip_prefix("v1/").unwrap_or(&path).split('/').collect();
    match parts.as_slice() {
        [mount @ .., "sign", role] if !mount.is_empty() => Ok((mount.join("/"), (*role).to_owned())),
        [.., "issue", _] => Err("lets the server make the private key; want sign, where it stays here".into()),
        [.., "sign-verbatim"] | [.., "sign-verbatim", _] => {
            Err("signs whatever is asked for; want sign, and a role that says what may be".into())
        }
        _ => Err("does not end in sign/ROLE".into()),
    }
}

/// A path of mounts, without slashes around it.
fn segments(text: &str) -> Result<String, String> {
    let path = text.trim_matches('/');
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    for segment in path.split('/') {
        if let Some(other) = segment.chars().find(|c| !allowed(*c)) {
            return Err(format!("{other:?} is no letter, digit, '.', '-' or '_'"));
        }
        if matches!(segment, "" | "." | "..") {
            return Err(format!("{segment:?} is no part of a path"));
        }
    }
    Ok(path.to_owned())
}

const SERVER_HELP: &str = "such as https://bao.example.com:8200; http:// on loopback only";
const PATH_HELP: &str = "MOUNT/sign/ROLE of a PKI secrets engine, such as pki/sign/node";
const NAMESPACE_HELP: &str = "as X-Vault-Namespace has it, such as team-a or team-a/prod";
/// Where the kubelet puts it.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const DEFAULT_REFRESH: Duration = Duration::from_secs(60);
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
const LONGEST_REFRESH: Duration = Duration::from_secs(86_400);
