//! The bundles that an agent tracks: the Gateway's own trust domain's, and those of others.
//!
//! Each is taken or refused by itself; one that is wrong leaves its last good in force. One that the agent
//! leaves out of the set is not trusted any more, but for the own one, without which nobody would be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::fault::{Fault, listed, shown};
use super::proto::Bundles;
use super::stream::Listener;
use crate::clock;
use crate::config::TrustDomain;
use crate::config::roots::Certificate;
use crate::source::{roots, svid};

/// What is known of the bundles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    pub own: Option<Roots>,
    pub federated: BTreeMap<TrustDomain, Roots>,
    /// Of those that were refused, and of the stream.
    pub faults: Vec<Fault>,
    pub warnings: Vec<String>,
    /// There was an answer, be it a failure.
    pub looked: bool,
}

/// DER.
pub type Roots = Vec<Vec<u8>>;

impl Trust {
    /// Without what was said of the stream that they came by.
    pub fn known(&self) -> Self {
        Self { own: self.own.clone(), federated: self.federated.clone(), ..Self::default() }
    }

    /// Why there is no bundle to verify an own SVID by.
    pub fn missing(&self, socket: &Path, own: &TrustDomain) -> Fault {
        let reason = format!("the agent has not sent the bundle of {own} yet");
        self.faults.first().cloned().unwrap_or(Fault::Waiting { socket: socket.to_owned(), reason })
    }

    /// What a message makes of it.
    fn with(&self, bundles: &Bundles, own: &TrustDomain, socket: &Path, now: u64) -> Self {
        let mut next = Self { own: self.own.clone(), looked: true, ..Self::default() };
        if let Err(fault) = next.read(bundles, self, own, socket, now) {
            // As a whole it makes no sense, so all stays as it was.
            return Self { faults: vec![fault], looked: true, ..self.clone() };
        }
        next
    }

    fn read(
        &mut self,
        bundles: &Bundles,
        before: &Self,
        own: &TrustDomain,
        socket: &Path,
        now: u64,
    ) -> Result<(), Fault> {
        let count = bundles.0.len();
        if count > MOST_BUNDLES {
            return Err(Fault::Many { socket: socket.to_owned(), what: "bundles", count, most: MOST_BUNDLES });
        }
        let mut named = BTreeMap::new();
        for (name, ders) in &bundles.0 {
            let fault = |reason: String| Fault::TrustDomain { socket: socket.to_owned(), found: shown(name), reason };
            let domain = domain_of(name).map_err(&fault)?;
            if named.insert(domain, ders).is_some() {
                return Err(fault("is there twice".into()));
            }
        }
        if !named.contains_key(own) {
            let found = listed(named.keys().map(TrustDomain::as_str));
            return Err(Fault::OtherTrustDomain { socket: socket.to_owned(), found, want: own.clone() });
        }
        for (domain, ders) in named {
            let good = check(ders, &domain, domain != *own, socket, now, &mut self.warnings);
            let good = match good {
                Ok(roots) => Some(roots),
                Err(fault) => {
                    self.faults.push(Fault::Bundle { trust_domain: domain.clone(), fault: Box::new(fault) });
                    if domain == *own { before.own.clone() } else { before.federated.get(&domain).cloned() }
                }
            };
            if domain == *own {
                self.own = good;
            } else if let Some(roots) = good {
                self.federated.insert(domain, roots);
            }
        }
        Ok(())
    }
}

/// Of a foreign trust domain, the roots are held to what a TrustBundle's are.
fn check(
    ders: &[u8],
    domain: &TrustDomain,
    foreign: bool,
    socket: &Path,
    now: u64,
    warnings: &mut Vec<String>,
) -> Result<Roots, svid::Fault> {
    let root = |nth: usize, reason: String| svid::Fault::Root { path: socket.to_owned(), nth, reason };
    let split = svid::split(ders, roots::MOST);
    let (found, count) = split.map_err(|whole| root(whole + 1, "is no certificate in DER".into()))?;
    if count == 0 {
        return Err(root(1, "is missing: the bundle is empty".into()));
    }
    if count > roots::MOST {
        return Err(svid::Fault::ManyRoots { path: socket.to_owned(), count, most: roots::MOST });
    }
    let valid = svid::check_roots(&found, domain.as_str(), socket, now, warnings)?;
    if foreign {
        for (nth, der) in (1..).zip(&valid) {
            Certificate::of(der.clone(), domain).map_err(|reason| root(nth, reason))?;
        }
    }
    Ok(valid)
}

/// By its name, or by its SPIFFE ID.
pub fn domain_of(name: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(name.strip_prefix("spiffe://").unwrap_or(name)).map_err(|error| error.to_string())
}

/// Keeps what is known of the bundles.
pub struct Keeper {
    pub own: TrustDomain,
    pub link: Arc<super::link::Link>,
    pub trust: watch::Sender<Trust>,
    pub news: Arc<Notify>,
}

impl<M: Into<Bundles>> Listener<M> for Keeper {
    fn hear(&mut self, said: Result<M, Fault>) {
        let socket = self.link.path();
        let next = match said {
            Ok(message) => self.trust.borrow().with(&message.into(), &self.own, socket, clock::now()),
            Err(fault) => Trust { faults: vec![fault], looked: true, ..self.trust.borrow().clone() },
        };
        let known = self.trust.borrow().faults.clone();
        for fault in next.faults.iter().filter(|fault| !known.contains(fault)) {
            match fault.is_wait() {
                true => info!(%fault, "the bundles of an agent are waited for"),
                false => warn!(%fault, "the bundles of an agent are not right; the last good stay in force"),
            }
        }
        let changed = self.trust.send_if_modified(|trust| {
            let changed = *trust != next;
            *trust = next;
            changed
        });
        if changed {
            self.news.notify_one();
        }
    }

    fn reconsider(&mut self) {}

    /// Bundles change when they change.
    fn patience(&self) -> std::time::Duration {
        ASK_EVERY
    }
}

const MOST_BUNDLES: usize = 100;
/// In case that nobody is there any more and the socket does not say so.
const ASK_EVERY: std::time::Duration = std::time::Duration::from_secs(300);
