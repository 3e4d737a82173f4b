//! One look at a bundle endpoint, or at where a CRL is published: asked, read, held to what it has to be.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use snapshot::IdPattern;

use crate::clock;
use crate::config::crl::{self, RevocationList};
use crate::config::crls::CrlUrl;
use crate::config::endpoint::{Endpoint, Profile};
use crate::config::fetched::is_object;
use crate::config::roots::{self, SpiffeBundle};
use crate::config::{SpiffeId, TrustDomain};
use crate::rotate::utc;
use crate::trusted::Trusted;
use crate::web::spiffe::Verifier;
use crate::web::{Client, Headers, Limits, Reach, Schemes, Url, tls};

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    Bundle { domain: TrustDomain, endpoint: Box<Endpoint> },
    Crl(Box<CrlUrl>),
}

/// What came, and is in itself right.
#[derive(Debug)]
pub enum Came {
    Bundle(SpiffeBundle),
    Crl(Arc<RevocationList>),
}

impl Want {
    pub fn url(&self) -> &Url {
        match self {
            Self::Bundle { endpoint, .. } => &endpoint.url,
            Self::Crl(crl) => &crl.url,
        }
    }

    /// Of the configuration.
    pub fn path(&self) -> &str {
        match self {
            Self::Bundle { endpoint, .. } => &endpoint.path,
            Self::Crl(crl) => &crl.path,
        }
    }

    /// What its bundle begins with.
    pub fn origin(&self) -> Option<[u8; 32]> {
        match self {
            Self::Bundle { endpoint, .. } => Some(endpoint.origin()),
            Self::Crl(_) => None,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bundle { endpoint, .. } => endpoint.profile.name(),
            Self::Crl(_) => "crl",
        }
    }

    /// Who may write an object of the API may not have each node ask itself.
    fn reach(&self) -> Reach {
        let place = match self {
            Self::Bundle { endpoint, .. } => &endpoint.place,
            Self::Crl(crl) => &crl.place,
        };
        if is_object(place) { Reach::Away } else { Reach::Anywhere }
    }

    /// Who has to be there, if that is somebody of a trust domain.
    pub fn verified_by(&self) -> Option<&SpiffeId> {
        match self {
            Self::Bundle { endpoint, .. } => match &endpoint.profile {
                Profile::Web { .. } => None,
                Profile::Spiffe { id } => Some(id),
            },
            Self::Crl(_) => None,
        }
    }

    /// Err says it with the URL. `trusted` is of [`Want::verified_by`].
    pub async fn ask(&self, trusted: Trusted) -> Result<Came, String> {
        match self {
            Self::Bundle { domain, endpoint } => {
                let config =
                    of_endpoint(&endpoint.profile, trusted).map_err(|why| format!("{}: {why}", endpoint.url))?;
                let limits = Limits { whole: WHOLE, largest: roots::LARGEST };
                let bytes = get(self.reach(), config, Schemes::HttpsOnly, limits, &endpoint.url).await?;
                let read = read_bundle(&bytes, domain, clock::now());
                read.map(Came::Bundle).map_err(|why| format!("{}: its bundle {why}", endpoint.url))
            }
            Self::Crl(crl) => {
                let config = of_crl(&crl.url).map_err(|why| format!("{}: {why}", crl.url))?;
                let limits = Limits { whole: WHOLE, largest: crl::LARGEST };
                let bytes = get(self.reach(), config, Schemes::HttpToo, limits, &crl.url).await?;
                let read = crl::read(&bytes).map_err(|why| format!("{}: what is there {why}", crl.url))?;
                Ok(Came::Crl(Arc::new(read)))
            }
        }
    }
}

/// Over http nobody proves anything: a system without roots can ask there, too.
fn of_crl(url: &Url) -> Result<ClientConfig, String> {
    match url.is_plain() {
        true => Ok(tls::only(RootCertStore::empty()).with_no_client_auth()),
        false => of_system(),
    }
}

/// Read once: they are some 150 files or more. What is wrong with them may be mended meanwhile.
fn of_system() -> Result<ClientConfig, String> {
    static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(config) = SYSTEM.get() {
        return Ok(config.clone());
    }
    let config = tls::system().map_err(|why| why.to_string())?.with_no_client_auth();
    Ok(SYSTEM.get_or_init(|| config).clone())
}

fn of_endpoint(profile: &Profile, trusted: Trusted) -> Result<ClientConfig, String> {
    let builder = match profile {
        Profile::Web { roots: None } => return of_system(),
        Profile::Web { roots: Some(pem) } => tls::only(tls::roots(pem)?),
        Profile::Spiffe { id } if trusted.roots.is_empty() => {
            return Err(format!("no root of {} is valid now, so that nobody can be verified there", id.trust_domain()));
        }
        Profile::Spiffe { id } => {
            let id = IdPattern::Exact(id.as_str().to_owned());
            tls::verified(Arc::new(Verifier::new(id, trusted)))
        }
    };
    Ok(builder.with_no_client_auth())
}

async fn get(reach: Reach, tls: ClientConfig, schemes: Schemes, limits: Limits, url: &Url) -> Result<Vec<u8>, String> {
    let answer = Client::within(reach, tls, schemes, limits).get(url, &Headers::none()).await;
    let answer = answer.and_then(|answer| answer.success()).map_err(|why| why.to_string())?;
    Ok(answer.bytes().to_vec())
}

/// SPIFFE Federation §5.2: nothing but a SPIFFE bundle. One that nobody could be verified by is not taken: it
/// would cut everybody.
fn read_bundle(bytes: &[u8], domain: &TrustDomain, now: u64) -> Result<SpiffeBundle, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text")?;
    let bundle = SpiffeBundle::read(text, domain)?;
    let ends = bundle.certificates.iter().map(|certificate| certificate.not_after).max().unwrap_or(0);
    match ends < now {
        true => Err(format!("has no root that is valid: the last expired at {}", utc(ends))),
        false => Ok(bundle),
    }
}

/// From the look-up of the name to the last byte.
const WHOLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_of_the_system_are_read_once() {
        match (of_system(), of_system()) {
            (Ok(one), Ok(other)) => assert!(Arc::ptr_eq(&one.key_log, &other.key_log), "each is one of its own"),
            // A machine without roots has none the second time either.
            (one, other) => assert_eq!(one.err(), other.err()),
        }
    }
}
