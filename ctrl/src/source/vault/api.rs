//! The few paths of a vault that are asked, and what of their answers is read.
//!
//! ```text
//!   auth/MOUNT/login, auth/token/{lookup-self,renew-self}     session
//!   PKI/sign/ROLE                                             signer, with the session's token
//!   PKI/issuers, PKI/issuer/ID/json                           trust, without one: anybody may read these
//! ```
//! An answer is taken up to a size and within a time, and nothing of it is believed but what is checked
//! where it is used.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::header::HeaderName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::fault::{Asked, Fault, Problem, said};
use super::secret::{Mode, Secret, bare, read_file};
use crate::config::vault::{Auth, Vault as Config};
use crate::source::files::read::read;
use crate::web::{Answer, BadHeader, Client, Error, Headers, Limits, Schemes, Url, tls};

/// A server and how it is asked.
pub struct Api {
    pub config: Config,
    source_name: Arc<str>,
    /// By the system's roots, as they were when it was made. None: to be made. One by `caBundle` is made for each
    /// exchange, so that a CA which is not in the file any more is not believed any more.
    by_system: Mutex<Option<Client>>,
}

/// What logging in comes to.
#[derive(Debug, Deserialize)]
pub struct Lease {
    pub client_token: Secret,
    /// Seconds; 0 is for ever.
    #[serde(default)]
    pub lease_duration: u64,
    #[serde(default)]
    pub renewable: bool,
}

/// And renewing: the token is the same.
#[derive(Debug, Deserialize)]
pub struct Renewed {
    #[serde(default)]
    pub lease_duration: u64,
    #[serde(default)]
    pub renewable: bool,
}

pub enum LoggedIn {
    Leased(Lease),
    /// A token that somebody else got.
    Given(Secret),
}

/// What a token is said to be.
#[derive(Debug, Deserialize)]
pub struct Looked {
    #[serde(default)]
    pub ttl: u64,
    #[serde(default)]
    pub renewable: bool,
}

/// A CSR and what is to stand in its certificate. Some roles go by the one, some by the other.
#[derive(Debug, Serialize)]
pub struct Csr<'a> {
    pub csr: &'a str,
    pub uri_sans: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub alt_names: &'a str,
    pub ttl: String,
    pub exclude_cn_from_sans: bool,
}

/// In PEM.
#[derive(Debug, Deserialize)]
pub struct Signed {
    pub certificate: String,
    #[serde(default)]
    pub issuing_ca: Option<String>,
    #[serde(default)]
    pub ca_chain: Option<Vec<String>>,
}

/// In PEM.
#[derive(Debug, Deserialize)]
pub struct Issuer {
    pub certificate: String,
    #[serde(default)]
    pub ca_chain: Option<Vec<String>>,
}

/// What a request brings along.
#[derive(Serialize)]
#[serde(untagged)]
enum LogIn<'a> {
    AppRole { role_id: &'a str, secret_id: &'a Secret },
    Kubernetes { role: &'a str, jwt: &'a Secret },
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Leased<T> {
    auth: T,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

impl Api {
    pub fn new(config: Config, source_name: &str) -> Self {
        Self { config, source_name: source_name.into(), by_system: Mutex::new(None) }
    }

    /// By the file of `auth`, as it is now.
    pub async fn log_in(&self) -> Result<LoggedIn, Fault> {
        let secret = self.credential().await?;
        let (mount, body) = match &self.config.auth {
            Auth::Token { .. } => return Ok(LoggedIn::Given(secret)),
            Auth::AppRole { mount, role_id, .. } => (mount, LogIn::AppRole { role_id, secret_id: &secret }),
            Auth::Kubernetes { mount, role, .. } => (mount, LogIn::Kubernetes { role, jwt: &secret }),
        };
        let leased: Leased<Lease> = self.ask(Asked::LogIn, &format!("auth/{mount}/login"), None, Some(&body)).await?;
        Ok(LoggedIn::Leased(leased.auth))
    }

    /// On a thread that may wait: a file system that hangs, hangs alone.
    pub async fn credential(&self) -> Result<Secret, Fault> {
        let auth = &self.config.auth;
        let mode = match auth {
            Auth::Token { .. } | Auth::AppRole { .. } => Mode::Private,
            Auth::Kubernetes { .. } => Mode::Any,
        };
        let (field, path) = (auth.field(), auth.file().clone());
        let file = path.clone();
        let read = spawn_blocking(move || read_file(&file, mode)).await;
        let read = read.unwrap_or_else(|_| Err("was not read: sluice-ctrl ends".into()));
        read.map_err(|reason| self.fault(Problem::Credential { field, path, reason }))
    }

    pub async fn look_up(&self, token: &Secret) -> Result<Looked, Fault> {
        let data: Data<Looked> =
            self.ask(Asked::LookUp, "auth/token/lookup-self", Some(token), None::<&Nothing>).await?;
        Ok(data.data)
    }

    pub async fn renew(&self, token: &Secret) -> Result<Renewed, Fault> {
        let leased: Leased<Renewed> =
            self.ask(Asked::Renew, "auth/token/renew-self", Some(token), Some(&Nothing {})).await?;
        Ok(leased.auth)
    }

    pub async fn sign(&self, token: &Secret, csr: &Csr<'_>) -> Result<Signed, Fault> {
        let data: Data<Signed> = self.ask(Asked::Sign, &self.config.path(), Some(token), Some(csr)).await?;
        Ok(data.data)
    }

    /// The names of the mount's issuers.
    pub async fn issuers(&self) -> Result<Vec<String>, Fault> {
        let path = format!("{}/issuers?list=true", self.config.mount);
        match self.ask::<Data<Keys>>(Asked::Roots, &path, None, None::<&Nothing>).await {
            Ok(data) => Ok(data.data.keys),
            Err(fault) if fault.is_empty_list() => Ok(Vec::new()),
            Err(fault) => Err(fault),
        }
    }

    pub async fn issuer(&self, name: &str) -> Result<Issuer, Fault> {
        let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(harmless) {
            let reason = "has an issuer whose name is none of letters, digits, '-', '_' and '.'".into();
            return Err(self.fault(Problem::Answer { url: self.url(&self.config.mount), reason }));
        }
        let path = format!("{}/issuer/{name}/json", self.config.mount);
        let data: Data<Issuer> = self.ask(Asked::Roots, &path, None, None::<&Nothing>).await?;
        Ok(data.data)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        asked: Asked,
        path: &str,
        token: Option<&Secret>,
        body: Option<&impl Serialize>,
    ) -> Result<T, Fault> {
        let url = self.url(path);
        let client = self.client().await?;
        let headers = self.headers(token).map_err(|bad| self.fault(Problem::Header(bad)))?;
        let answered = match body {
            Some(body) => client.post(&url, &headers, body).await,
            None => client.get(&url, &headers).await,
        };
        let answer = answered.map_err(|error| self.failed(error))?;
        self.read(asked, url, &answer)
    }

    fn read<T: DeserializeOwned>(&self, asked: Asked, url: Url, answer: &Answer) -> Result<T, Fault> {
        if !answer.status.is_success() {
            return Err(self.fault(Problem::refused(url, asked, answer.status, &said(answer), &self.config)));
        }
        answer.json().map_err(|_| {
            let reason = "is not as an OpenBao or a Vault has it: `server` has to lead to one".into();
            self.fault(Problem::Answer { url, reason })
        })
    }

    fn headers(&self, token: Option<&Secret>) -> Result<Headers, BadHeader> {
        let name = HeaderName::from_static;
        let mut headers = Headers::none().with(name("x-vault-request"), "true")?;
        if let Some(namespace) = &self.config.namespace {
            headers = headers.with(name("x-vault-namespace"), namespace)?;
        }
        if let Some(token) = token {
            headers = headers.secret(name("x-vault-token"), token.shown_to_server())?;
        }
        Ok(headers)
    }

    /// Of a path that was checked where it was read.
    pub fn url(&self, path: &str) -> Url {
        self.config.server.below(&format!("v1/{path}")).expect("a path of plain segments")
    }

    async fn client(&self) -> Result<Client, Fault> {
        let kept = self.by_system.lock().expect("no holder panics").clone();
        if let Some(client) = kept {
            return Ok(client);
        }
        let config = self.config.clone();
        // On a thread that may wait for files.
        let made = spawn_blocking(move || connector(&config)).await;
        let made = made.unwrap_or_else(|_| Err(Box::new(Problem::BrokeOff("reading who is trusted"))));
        let client = made.map_err(|problem| self.fault(*problem))?;
        if self.config.ca_bundle.is_none() {
            *self.by_system.lock().expect("no holder panics") = Some(client.clone());
        }
        Ok(client)
    }

    fn failed(&self, error: Error) -> Fault {
        if let Error::Certificate { .. } = error {
            // They may be others by now.
            *self.by_system.lock().expect("no holder panics") = None;
        }
        self.fault(Problem::of_web(error, &self.config))
    }

    pub fn fault(&self, problem: Problem) -> Fault {
        Fault { source_name: self.source_name.clone(), problem: Box::new(problem) }
    }
}

fn connector(config: &Config) -> Result<Client, Box<Problem>> {
    let tls = match &config.ca_bundle {
        Some(path) => {
            let bundle = |reason| Box::new(Problem::Bundle { path: path.clone(), reason });
            let content = read(path).map_err(|fault| bundle(bare(fault, path)))?;
            tls::only(tls::roots(&content.bytes).map_err(bundle)?)
        }
        // Nobody proves who he is, so nobody's roots are needed.
        None if config.server.is_plain() => tls::only(rustls::RootCertStore::empty()),
        None => tls::system().map_err(|why| Box::new(Problem::System(why.to_string())))?,
    };
    let schemes = if config.server.is_plain() { Schemes::HttpToo } else { Schemes::HttpsOnly };
    Ok(Client::new(tls.with_no_client_auth(), schemes, LIMITS))
}

/// A hundred issuers with their chains take a tenth of it.
const LIMITS: Limits = Limits { whole: Duration::from_secs(10), largest: 1 << 20 };
const LONGEST_NAME: usize = 128;
