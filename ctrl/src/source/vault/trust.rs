//! The roots of a PKI mount: of all its issuers together, so that a new one and an old one overlap.
//!
//! Read again every `refresh`, and at once when something was signed that leads to none of them. What
//! cannot be read leaves the last good in force; a root whose issuer is gone from the mount goes with it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::api::{Api, Issuer};
use super::fault::{Fault, Problem};
use super::sign::certificates;
use crate::clock;
use crate::config::TrustDomain;
use crate::source::spire::back_off;
use crate::source::{News, roots, svid};

/// What is known of the roots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// DER. None: never read.
    pub roots: Option<Arc<Vec<Vec<u8>>>>,
    /// Why they could not be read when that was tried last.
    pub fault: Option<Fault>,
    pub warnings: Vec<String>,
    /// There was an answer, be it a failure.
    pub looked: bool,
}

/// Roots in DER, and warnings.
type Read = (Vec<Vec<u8>>, Vec<String>);

/// Keeps them.
pub struct Keeper {
    pub api: Arc<Api>,
    pub trust_domain: TrustDomain,
    pub trust: watch::Sender<Trust>,
    /// Rung to have them read at once.
    pub hurry: Arc<Notify>,
    pub news: News,
}

impl Keeper {
    /// Never ends by itself.
    pub async fn run(self) {
        let mut failures = 0;
        loop {
            let read = self.read().await;
            let refresh = self.api.config.refresh;
            let pause = match &read {
                Ok(_) => refresh,
                Err(_) => back_off(failures, refresh.min(LONGEST_BACK_OFF)),
            };
            failures = if read.is_ok() { 0 } else { failures.saturating_add(1) };
            self.take(read);
            let again = Instant::now() + pause;
            // Who is in a hurry without end is heard now and then.
            sleep_until(again.min(Instant::now() + PACE)).await;
            tokio::select! {
                () = sleep_until(again) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    async fn read(&self) -> Result<Read, Fault> {
        let read = timeout(WHOLE, read(&self.api, &self.trust_domain, clock::now()));
        read.await.unwrap_or_else(|_late| {
            let url = self.api.url(&format!("{}/issuers", self.api.config.mount));
            let reason = format!("and what leads on from it takes more than {} s", WHOLE.as_secs());
            Err(self.api.fault(Problem::Answer { url, reason }))
        })
    }

    fn take(&self, read: Result<Read, Fault>) {
        let before = self.trust.borrow().clone();
        let next = match read {
            Ok((roots, warnings)) => Trust { roots: Some(Arc::new(roots)), fault: None, warnings, looked: true },
            Err(fault) => Trust { fault: Some(fault), looked: true, ..before.clone() },
        };
        match (&next.fault, &next.roots) {
            (Some(fault), _) if before.fault.as_ref() != Some(fault) => {
                warn!(%fault, "the roots of a PKI cannot be read; the last good stay in force");
            }
            (None, Some(roots)) if before.roots.as_ref() != Some(roots) => {
                info!(server = %self.api.config.server, roots = roots.len(), "the roots of a PKI are taken");
            }
            (Some(_), _) | (None, _) => {}
        }
        if self.trust.send_if_modified(|trust| std::mem::replace(trust, next.clone()) != next) {
            self.news.notify_one();
        }
    }
}

/// Those that are valid now, and what is to be said about the others.
pub async fn read(api: &Api, trust_domain: &TrustDomain, now: u64) -> Result<Read, Fault> {
    let names = api.issuers().await?;
    let url = || api.url(&format!("{}/issuers", api.config.mount));
    let problem = |problem| api.fault(problem);
    if names.len() > roots::MOST {
        let (count, most) = (names.len(), roots::MOST);
        return Err(problem(Problem::ManyIssuers { url: url(), count, most }));
    }
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for name in &names {
        let issuer = api.issuer(name).await?;
        let of = roots_of(&issuer).map_err(|reason| problem(Problem::Answer { url: url(), reason }))?;
        found.extend(of.into_iter().filter(|root| seen.insert(root.clone())));
    }
    if found.is_empty() {
        let mount = api.config.mount.clone();
        return Err(problem(Problem::NoRoot { url: url(), issuers: names.len(), mount }));
    }
    let place = url().to_string();
    let mut warnings = Vec::new();
    let valid = svid::check_roots(&found, trust_domain.as_str(), Path::new(&place), now, &mut warnings);
    Ok((valid.map_err(|fault| problem(Problem::Svid(fault)))?, warnings))
}

/// Those that are signed by themselves, of an issuer and of what leads up from it.
fn roots_of(issuer: &Issuer) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    for pem in [&issuer.certificate].into_iter().chain(issuer.ca_chain.iter().flatten()) {
        all.extend(certificates(pem).map_err(|why| format!("has an issuer that {why}"))?);
        // Each is verified, which takes time.
        if all.len() > MOST_OF_ONE {
            return Err(format!("has an issuer with more than {MOST_OF_ONE} certificates in its `ca_chain`"));
        }
    }
    all.retain(|der| svid::self_signed(der));
    Ok(all)
}

const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// A chain, and cross-signed ones beside it.
const MOST_OF_ONE: usize = 32;
/// Of all issuers together, each of which has its own time.
const WHOLE: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_millis(500);
