//! SVIDs out of files that somebody else writes: cert-manager, csi-driver-spiffe, Vault agent,
//! spiffe-helper, or a person with OpenSSL.
//!
//! ```text
//!   directory ─ layout ─▶ paths ─ read ─▶ bytes ─ pem, key ─▶ certificates, PKCS#8 ─ check ─▶ Identity
//!       └────────────────── watch (one inotify for all) ── follow (one task a workload) ──▶ news
//! ```
//! Writers do not write three files at once, so what is read is looked at together before anything
//! of it is taken: the key is the leaf's, the leaf is the workload's SVID, the chain leads to the
//! bundle, all of it now. What is not right leaves the last good in force, and says what is wrong.

mod check;
mod follow;
mod layout;
mod pem;
pub(in crate::source) mod read;
pub(in crate::source) mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snapshot::Bundle;

use super::{Error, IssuedSvid, News, Renewal, Source, Wanted};
use crate::config::identity::Files as Config;
use crate::config::{SpiffeId, TrustDomain};
use crate::rotate::utc;

pub use super::svid::{Expected, Fault};
pub use check::Identity;
pub use layout::Paths;

use follow::Follower;
use watch::Watch;

/// Reads what is in the directory now and looks at it as a whole.
pub fn read(config: &Config, expected: &Expected, now: u64) -> Result<Identity, Fault> {
    let paths = Paths::find(config, &expected.workload)?;
    check::check(&paths, expected, now)
}

/// Whether the files of a layout are there, without looking into them.
pub fn look(config: &Config, directory: &Path) -> Result<(), Fault> {
    Paths::within(config, directory).map(drop)
}

/// The source.
pub struct Files {
    config: Config,
    trust_domain: TrustDomain,
    news: News,
    /// From the first one that is followed on: who only validates needs none.
    watch: Option<Arc<Watch>>,
    followers: BTreeMap<SpiffeId, Follower>,
}

impl Files {
    pub fn new(config: Config, trust_domain: TrustDomain, news: News) -> Self {
        Self { config, trust_domain, news, watch: None, followers: BTreeMap::new() }
    }
}

impl Source for Files {
    fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        let Some(follower) = self.followers.get(&wanted.id) else {
            return Err(Fault::NotRead { directory: self.config.directory_of(&wanted.workload) }.into());
        };
        let identity = follower.identity()?;
        identity.check_time(now)?;
        Ok(identity.issued.clone())
    }

    fn bundle(&self) -> Bundle {
        let good = self.followers.values().filter_map(Follower::last_good);
        let roots = good.flat_map(|identity| identity.roots.clone()).collect();
        Bundle { trust_domain: self.trust_domain.to_string(), roots }
    }

    fn warnings(&self, now: u64) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(reason) = self.watch.as_ref().and_then(|watch| watch.broken()) {
            let every = follow::LOOK_EVERY.as_secs();
            found.push(format!("files of identities are looked at every {every} s only: {reason}"));
        }
        for identity in self.followers.values().filter_map(Follower::last_good) {
            found.extend(identity.warnings.iter().cloned());
            found.extend(ageing(&identity, now));
        }
        found
    }

    fn renewal(&self) -> Renewal {
        Renewal::Given
    }

    fn follow(&mut self, wanted: &[&Wanted]) {
        let workloads: BTreeMap<_, _> = wanted.iter().map(|wanted| (&wanted.id, &wanted.workload)).collect();
        self.followers.retain(|id, follower| workloads.get(id).is_some_and(|now| **now == follower.workload()));
        for wanted in wanted {
            if self.followers.contains_key(&wanted.id) {
                continue;
            }
            let watch = self.watch.get_or_insert_with(|| Arc::new(Watch::new())).clone();
            let expected = Expected {
                id: wanted.id.clone(),
                workload: wanted.workload.clone(),
                trust_domain: self.trust_domain.clone(),
            };
            let follower = Follower::start(self.config.clone(), expected, watch, self.news.clone());
            self.followers.insert(wanted.id.clone(), follower);
        }
    }

    fn news(&self) -> Vec<SpiffeId> {
        let told = self.followers.iter().filter(|(_, follower)| follower.has_news());
        told.map(|(id, _)| id.clone()).collect()
    }

    fn hurry(&self) {
        self.followers.values().for_each(Follower::look_now);
    }

    fn settled(&self) -> bool {
        self.followers.values().all(Follower::has_looked)
    }
}

/// What half its life and no renewal means: first that it is time, then that it is late.
fn ageing(identity: &Identity, now: u64) -> Option<String> {
    let svid = &identity.issued.svid;
    let (life, left) = (svid.not_after.saturating_sub(svid.not_before), svid.not_after.saturating_sub(now));
    let of = format!("{}: the SVID of {}", identity.certificate.display(), identity.workload);
    let end = utc(svid.not_after);
    match left {
        0 => None,
        _ if left <= life / 10 => Some(format!(
            "{of} ends at {end} and has not been renewed: see why its issuer writes no new one, or new connections \
             are refused from then on (NoSvid)"
        )),
        _ if left <= life / 2 => Some(format!("{of} is past half its life and not renewed yet; it ends at {end}")),
        _ => None,
    }
}
