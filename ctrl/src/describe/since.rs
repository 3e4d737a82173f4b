//! Since which snapshot each Service, Policy and trust domain is as it is.

use std::collections::HashMap;

use snapshot::{Revoked, Snapshot, Version};

/// Told of each snapshot that is made.
#[derive(Debug, Default)]
pub struct Since {
    services: HashMap<String, Stood>,
    policies: HashMap<String, Stood>,
    bundles: HashMap<String, Stood>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stood {
    pub since: Version,
    /// There was nothing to compare it with: it may have been so before.
    pub or_before: bool,
}

impl Since {
    pub fn service(&self, name: &str) -> Option<Stood> {
        self.services.get(name).copied()
    }

    pub fn policy(&self, name: &str) -> Option<Stood> {
        self.policies.get(name).copied()
    }

    pub fn bundle(&self, trust_domain: &str) -> Option<Stood> {
        self.bundles.get(trust_domain).copied()
    }

    /// `before`: the snapshot before, if that is known.
    pub fn note(&mut self, before: Option<&Snapshot>, now: &Snapshot) {
        let new = Stood { since: now.version, or_before: before.is_none() };
        let same = before.map(|before| Same { before, now, named: (named(before), named(now)) });
        let note = |stood: &mut HashMap<String, Stood>, names: Vec<&str>, is_same: fn(&Same<'_>, &str) -> bool| {
            let stands = |name: &str| {
                let before = stood.get(name).filter(|_| same.as_ref().is_some_and(|same| is_same(same, name)));
                (name.to_owned(), before.copied().unwrap_or(new))
            };
            *stood = names.into_iter().map(stands).collect();
        };
        note(&mut self.services, now.services.iter().map(|one| one.name.as_str()).collect(), |same, name| {
            same.service(name)
        });
        note(&mut self.policies, now.policies.iter().map(|one| one.name.as_str()).collect(), |same, name| {
            same.policy(name)
        });
        note(&mut self.bundles, now.bundles.iter().map(|one| one.trust_domain.as_str()).collect(), |same, name| {
            same.bundle(name)
        });
    }
}

/// Whether something is the same in two snapshots, whatever its rules are numbered.
struct Same<'s> {
    before: &'s Snapshot,
    now: &'s Snapshot,
    named: (Named<'s>, Named<'s>),
}

/// The workloads that each policy names.
type Named<'s> = HashMap<u32, Vec<&'s str>>;

fn named(of: &Snapshot) -> Named<'_> {
    let mut named = Named::new();
    for workload in &of.workloads {
        workload.policies.iter().for_each(|&policy| named.entry(policy).or_default().push(&workload.name));
    }
    named
}

impl Same<'_> {
    fn service(&self, name: &str) -> bool {
        // In the order of their names, as policies are.
        let of = |snapshot: &Snapshot| snapshot.services.binary_search_by(|one| one.name.as_str().cmp(name)).ok();
        of(self.before).map(|at| &self.before.services[at]) == of(self.now).map(|at| &self.now.services[at])
    }

    fn policy(&self, name: &str) -> bool {
        let of = |snapshot: &Snapshot| snapshot.policies.binary_search_by(|one| one.name.as_str().cmp(name)).ok();
        let (Some(was), Some(is)) = (of(self.before), of(self.now)) else { return false };
        let whom = self.named.0.get(&(was as u32)) == self.named.1.get(&(is as u32));
        whom && self.before.policies[was].rules == self.now.policies[is].rules
    }

    fn bundle(&self, domain: &str) -> bool {
        fn roots<'s>(of: &'s Snapshot, domain: &str) -> Option<&'s [Vec<u8>]> {
            of.bundles.iter().find(|one| one.trust_domain == domain).map(|one| one.roots.as_slice())
        }
        fn revoked<'s>(of: &'s Snapshot, domain: &str) -> Option<&'s Revoked> {
            of.revoked.iter().find(|one| one.trust_domain == domain)
        }
        let revoked = match (revoked(self.before, domain), revoked(self.now, domain)) {
            (Some(was), Some(is)) => revokes_alike(was, is),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        revoked && roots(self.before, domain) == roots(self.now, domain)
    }
}

fn revokes_alike(was: &Revoked, is: &Revoked) -> bool {
    let crl = |crl: &snapshot::Crl| (crl.issuer, crl.fails_after, crl.is_stale);
    was.ids.iter().map(|(id, _)| id).eq(is.ids.iter().map(|(id, _)| id))
        && was.serials.iter().map(|(serial, _)| serial).eq(is.serials.iter().map(|(serial, _)| serial))
        && was.crls.iter().map(crl).eq(is.crls.iter().map(crl))
        && was.crls.iter().map(|crl| &crl.serials).eq(is.crls.iter().map(|crl| &crl.serials))
}
