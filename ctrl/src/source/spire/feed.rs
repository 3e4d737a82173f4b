//! SVIDs of one stream: of a workload, or of all that this process is entitled to. What came last is judged
//! anew when the bundles change, since an SVID is right only under the roots that are trusted now.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use snapshot::Svid;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::fault::{Fault, listed};
use super::proto::{Chain, Given, Svids};
use super::stream::Listener;
use super::trust::Trust;
use crate::clock;
use crate::config::{SpiffeId, TrustDomain};
use crate::rotate::utc;
use crate::source::IssuedSvid;
use crate::source::found::{Found, Taken};
use crate::source::svid::{self, Expected, Origin, key};

/// An SVID that was right when it came, and still is under the bundle as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub issued: IssuedSvid,
    /// What is taken and still not as it should be.
    pub warnings: Vec<String>,
}

/// What a feed knows, for those who ask from outside its task.
#[derive(Default)]
pub struct Known {
    /// Whose SVIDs are wanted of it.
    pub expected: BTreeMap<SpiffeId, Expected>,
    pub found: BTreeMap<SpiffeId, Found<Held, Fault>>,
    /// Of the last message that came.
    pub federates_with: Vec<TrustDomain>,
}

pub type Shared = Arc<Mutex<Known>>;

pub fn lock(shared: &Shared) -> MutexGuard<'_, Known> {
    shared.lock().expect("no holder panics")
}

/// Whose SVIDs a stream tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// This process: whatever else it is entitled to comes along.
    Ourselves,
    /// One workload, by its selectors.
    Workload,
    /// One workload, by a reference.
    Referenced,
}

pub struct Feed {
    pub of: Of,
    pub link: Arc<super::link::Link>,
    pub trust: watch::Receiver<Trust>,
    pub trust_domain: TrustDomain,
    pub known: Shared,
    pub news: Arc<Notify>,
    /// Rung with `news`, for who makes use of an SVID here.
    pub changed: watch::Sender<()>,
    /// What the agent said last, and what went wrong since.
    pub last: Option<Svids>,
    pub fault: Option<Fault>,
}

impl<M: Into<Svids>> Listener<M> for Feed {
    fn hear(&mut self, said: Result<M, Fault>) {
        match said {
            Ok(message) => {
                let svids = message.into();
                self.federate(&svids.federates_with);
                (self.last, self.fault) = (Some(svids), None);
            }
            Err(fault) => self.fault = Some(fault),
        }
        self.judge();
    }

    fn reconsider(&mut self) {
        self.judge();
    }

    /// An agent renews at half of an SVID's life.
    fn patience(&self) -> Duration {
        let known = lock(&self.known);
        let held = known.found.values().filter_map(|found| found.last_good());
        let now = clock::now();
        held.map(|held| overdue_in(&held.issued.svid, now)).min().unwrap_or(LONGEST)
    }
}

impl Feed {
    fn judge(&self) {
        let now = clock::now();
        let trust = self.trust.borrow();
        // Until the bundles have had their chance, there is nothing to be said.
        if (!trust.looked && self.fault.is_none()) || (self.last.is_none() && self.fault.is_none()) {
            return;
        }
        let mut known = lock(&self.known);
        let Known { expected, found, .. } = &mut *known;
        found.retain(|id, _| expected.contains_key(id));
        let mut news = false;
        for (id, expected) in expected.iter() {
            let seen = match &self.fault {
                Some(fault) => Err(fault.clone()),
                None => self.check(expected, &trust, now),
            };
            let found = found.entry(id.clone()).or_default();
            if found.take(seen) == Taken::Changed {
                news = true;
                self.tell(&expected.workload, found);
            }
        }
        if news {
            self.news.notify_one();
            self.changed.send_replace(());
        }
    }

    fn tell(&self, workload: &str, found: &Found<Held, Fault>) {
        match found.now() {
            Some(Ok(held)) => {
                let (serial, until) = (&held.issued.svid.serial, utc(held.issued.svid.not_after));
                info!(workload, serial, until, "an SVID of the agent is taken");
            }
            Some(Err(fault)) if fault.is_wait() => info!(workload, %fault, "an SVID is waited for"),
            Some(Err(fault)) => warn!(workload, %fault, "no SVID of the agent; the last good stays in force"),
            None => {}
        }
    }

    fn check(&self, expected: &Expected, trust: &Trust, now: u64) -> Result<Held, Fault> {
        let socket = self.link.path();
        let given = self.given(expected)?;
        let Some(roots) = &trust.own else { return Err(trust.missing(socket, &self.trust_domain)) };
        let split;
        let chain = match &given.chain {
            Chain::Apart(chain) => chain,
            Chain::Joined(ders) => {
                split = split_chain(ders, socket)?;
                &split
            }
        };
        if chain.is_empty() {
            let reason = "is missing: the chain is empty".into();
            return Err(svid::Fault::Certificate { path: socket.to_owned(), nth: 1, reason }.into());
        }
        let imported = || {
            let imported = key::import(key::Form::Pkcs8, &given.key);
            imported.ok_or(svid::Fault::KeyKind { path: socket.to_owned(), wanted: key::KINDS })
        };
        let origin = Origin { certificate: socket, key: socket, bundle: socket };
        let issued = svid::check_leaf(chain, imported, &origin, expected, now)?;
        let mut warnings = Vec::new();
        svid::check_chain(chain, roots, &origin, now, &mut warnings)?;
        Ok(Held { issued, warnings })
    }

    /// The one that is for the workload. Its ID is the agent's word; the certificate has the last.
    fn given(&self, expected: &Expected) -> Result<&Given, Fault> {
        let all = self.last.as_ref().map_or(&[][..], |svids| &svids.given);
        let socket = self.link.path().to_owned();
        if all.len() > MOST_SVIDS {
            return Err(Fault::Many { socket, what: "SVIDs", count: all.len(), most: MOST_SVIDS });
        }
        if let Some(given) = all.iter().find(|given| given.id == expected.id.as_str()) {
            return Ok(given);
        }
        let Expected { id: want, workload, .. } = expected;
        let found = listed(all.iter().map(|given| given.id.as_str()));
        match self.of {
            Of::Workload | Of::Referenced if !all.is_empty() => {
                let asked_by = if self.of == Of::Workload { "these selectors" } else { "this reference" };
                Err(Fault::OtherIds { socket, found, asked_by, want: want.clone(), workload: workload.clone() })
            }
            Of::Workload => {
                let reason = format!("no entry with the selectors of {workload} has reached the agent yet");
                Err(Fault::Waiting { socket, reason })
            }
            Of::Referenced => {
                let reason = format!("it has no SVID for what {workload} is asked about by");
                Err(Fault::Waiting { socket, reason })
            }
            Of::Ourselves => {
                let reason = format!("no entry of {want} for sluice-ctrl has reached the agent yet; it gives {found}");
                Err(Fault::Waiting { socket, reason })
            }
        }
    }

    fn federate(&self, names: &[String]) {
        // What is no trust domain has no bundle either.
        let mut with: Vec<_> = names.iter().filter_map(|name| super::trust::domain_of(name).ok()).collect();
        with.sort_unstable();
        with.dedup();
        let mut known = lock(&self.known);
        if known.federates_with != with {
            known.federates_with = with;
            self.news.notify_one();
        }
    }
}

fn split_chain(ders: &[u8], socket: &Path) -> Result<Vec<Vec<u8>>, svid::Fault> {
    let path = socket.to_owned();
    match svid::split(ders, svid::LONGEST_CHAIN) {
        Err(whole) => Err(svid::Fault::Certificate { path, nth: whole + 1, reason: "is no certificate in DER".into() }),
        Ok((_, certificates)) if certificates > svid::LONGEST_CHAIN => {
            Err(svid::Fault::LongChain { path, certificates, most: svid::LONGEST_CHAIN })
        }
        Ok((chain, _)) => Ok(chain),
    }
}

/// When there should have been another one, and from then on every tenth of its life.
fn overdue_in(svid: &Svid, now: u64) -> Duration {
    let (life, left) = (svid.not_after.saturating_sub(svid.not_before), svid.not_after.saturating_sub(now));
    let seconds = match left.saturating_sub(life * 2 / 5) {
        0 => (life / 10).max(1),
        sooner => sooner,
    };
    Duration::from_secs(seconds).min(LONGEST)
}

const MOST_SVIDS: usize = 100;
/// Looked at now and then in any case.
const LONGEST: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_svid_that_is_not_renewed_is_asked_for_after_three_fifths_of_its_life_and_each_tenth_from_then_on() {
        let svid = Svid {
            chain: vec![],
            key: snapshot::KeyId([0; 32]),
            serial: String::new(),
            not_before: 1_000,
            not_after: 2_000,
        };
        for (now, seconds) in [(1_000, 600), (1_500, 100), (1_599, 1), (1_600, 100), (1_999, 100), (3_000, 100)] {
            assert_eq!(overdue_in(&svid, now).as_secs(), seconds, "at {now}");
        }
        let short = Svid { not_after: 1_005, ..svid };
        assert_eq!(overdue_in(&short, 1_004), Duration::from_secs(1));
    }
}
