//! Whether a snapshot that decoded also makes sense: every index points at something, every ID is
//! one, nothing is claimed twice. Both sides run it: ctrl before it sends, the dataplane before it
//! compiles.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::balance::{self, MOST_ENDPOINTS, MOST_ENDPOINTS_OF_ALL};
use crate::{
    Action, IdPattern, Policy, Prefix, ProcessSelector, Revoked, SCHEMA, Snapshot, Workload, bypass, normal_serial,
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("schema {0}, not {SCHEMA}")]
    Schema(u32),
    #[error("{holder}: service {index} does not exist, there are {count}")]
    Service { holder: String, index: u32, count: usize },
    #[error("{holder}: rule {index} does not exist, there are {count}")]
    Rule { holder: String, index: u32, count: usize },
    #[error("{holder}: policy {index} does not exist, there are {count}")]
    Policy { holder: String, index: u32, count: usize },
    #[error("{holder}: more than {MOST_POLICIES} policies name it")]
    Policies { holder: String },
    #[error("{0}: an allow without peers: an address is no identity, and admits nobody")]
    AllowsAnybody(String),
    #[error("{0}: with it the rules of all policies take more than {MOST_ENTRIES} entries")]
    Entries(String),
    #[error("workload {name}: {id:?} is not a SPIFFE ID of trust domain {domain}")]
    SpiffeId { name: String, id: String, domain: String },
    #[error("{prefix} on {interface} is claimed by {first} and by {second}: narrow the selectors of one")]
    Claimed { prefix: Prefix, interface: String, first: String, second: String },
    #[error("workload {0}: a process selector that asks for nothing would match every process")]
    AnyProcess(String),
    #[error("{prefix} on {interface}: more than {MOST_PROCESSES} process selectors tell its workloads apart")]
    Processes { prefix: Prefix, interface: String },
    #[error("workload {0}: its SVID has no certificate, or ends before it begins")]
    Svid(String),
    #[error("trust domain {0} has two bundles")]
    Bundle(String),
    #[error("trust domain {domain} has {count} roots, at most {MOST_ROOTS} are taken")]
    Roots { domain: String, count: usize },
    #[error("trust domain {0} has two deny lists")]
    RevokedTwice(String),
    #[error("{count} IDs and serials are revoked, at most {MOST_REVOKED} are taken")]
    RevokedMany { count: usize },
    #[error("the deny list of trust domain {domain} has {entry:?}, which is none of its IDs or no serial")]
    RevokedEntry { domain: String, entry: String },
    #[error("trust domain {0} has two CRLs of one issuer")]
    CrlTwice(String),
    #[error("service {name}: the virtual address {address} is there twice")]
    VirtualTwice { name: String, address: SocketAddr },
    #[error(
        "service {name}: with the {count} endpoints of {address} there are too many: at most {MOST_ENDPOINTS} a virtual address, and {MOST_ENDPOINTS_OF_ALL} in all"
    )]
    VirtualMany { name: String, address: SocketAddr, count: usize },
    #[error(
        "service {name}: the virtual address {address} leads to an endpoint that is not there, or of the other family"
    )]
    VirtualEndpoint { name: String, address: SocketAddr },
    #[error(
        "the virtual address {address} is an endpoint's or a workload's own: nobody may listen at a virtual address"
    )]
    VirtualReal { address: SocketAddr },
    #[error("workload {name}: connection.bypass: {why}")]
    Bypass { name: String, why: String },
}

/// Policies of one workload: each is asked about each of its calls.
pub const MOST_POLICIES: usize = 64;

/// Of all rules of a snapshot, [each](crate::PolicyRule::entries): some 100 MB of tables.
pub const MOST_ENTRIES: usize = 2_000_000;

/// Roots of one trust domain. Where many have one name, a handshake tries those whose key id fits first,
/// and no more than its bounds allow.
pub const MOST_ROOTS: usize = 1024;

/// Process selectors of one place, of all its workloads: each is compared with each process that holds a
/// caller's socket.
pub const MOST_PROCESSES: usize = 256;

/// Entries of all deny lists: some 30 MB of tables.
pub const MOST_REVOKED: usize = 100_000;

pub fn check(snapshot: &Snapshot) -> Result<(), Error> {
    if snapshot.schema != SCHEMA {
        return Err(Error::Schema(snapshot.schema));
    }
    let mut entries = 0;
    for policy in &snapshot.policies {
        check_policy(snapshot, policy, &mut entries)?;
    }
    for workload in &snapshot.workloads {
        check_workload(snapshot, workload)?;
    }
    check_places(snapshot)?;
    balance::check(snapshot)?;
    let mut domains = HashSet::new();
    for bundle in &snapshot.bundles {
        if !domains.insert(&bundle.trust_domain) {
            return Err(Error::Bundle(bundle.trust_domain.clone()));
        }
        if bundle.roots.len() > MOST_ROOTS {
            return Err(Error::Roots { domain: bundle.trust_domain.clone(), count: bundle.roots.len() });
        }
    }
    check_revoked(snapshot)
}

/// A place is one workload's, or that of several which processes tell apart.
fn check_places(snapshot: &Snapshot) -> Result<(), Error> {
    let mut claims: HashMap<_, (&str, usize)> = HashMap::new();
    for workload in &snapshot.workloads {
        for place in &workload.places {
            if place.processes.iter().any(ProcessSelector::is_empty) {
                return Err(Error::AnyProcess(workload.name.clone()));
            }
            let (prefix, interface, count) = (place.prefix, &place.interface, place.processes.len());
            let (first, before) = match claims.get(&(interface, prefix)) {
                Some(&(first, before)) if before == 0 || count == 0 => {
                    let (first, second) = (first.to_owned(), workload.name.clone());
                    return Err(Error::Claimed { prefix, interface: interface.clone(), first, second });
                }
                Some(&earlier) => earlier,
                None => (workload.name.as_str(), 0),
            };
            if before + count > MOST_PROCESSES {
                return Err(Error::Processes { prefix, interface: interface.clone() });
            }
            claims.insert((interface, prefix), (first, before + count));
        }
    }
    Ok(())
}

fn check_revoked(snapshot: &Snapshot) -> Result<(), Error> {
    let count = snapshot.revoked.iter().map(Revoked::entries).sum();
    if count > MOST_REVOKED {
        return Err(Error::RevokedMany { count });
    }
    let mut domains = HashSet::new();
    for list in &snapshot.revoked {
        if !domains.insert(&list.trust_domain) {
            return Err(Error::RevokedTwice(list.trust_domain.clone()));
        }
        if let Some(entry) = misplaced(list) {
            return Err(Error::RevokedEntry { domain: list.trust_domain.clone(), entry });
        }
        let mut issuers = HashSet::new();
        if !list.crls.iter().all(|crl| issuers.insert(crl.issuer)) {
            return Err(Error::CrlTwice(list.trust_domain.clone()));
        }
        if let Some(rule) = list.rules().find(|rule| rule.0 as usize >= snapshot.rules.len()) {
            let holder = format!("the deny list of trust domain {}", list.trust_domain);
            return Err(Error::Rule { holder, index: rule.0, count: snapshot.rules.len() });
        }
    }
    Ok(())
}

/// An entry that would never match, as it stands: what somebody meant to refuse would be let in.
fn misplaced(list: &Revoked) -> Option<String> {
    let own = format!("spiffe://{}/", list.trust_domain);
    let foreign = list.ids.iter().map(|(pattern, _)| pattern).find(|pattern| {
        let (IdPattern::Exact(text) | IdPattern::Under(text)) = pattern;
        !text.starts_with(&own)
    });
    let of_crls = list.crls.iter().flat_map(|crl| &crl.serials);
    let mut serials = list.serials.iter().map(|(text, _)| text).chain(of_crls);
    foreign
        .map(ToString::to_string)
        .or_else(|| serials.find(|text| normal_serial(text).as_ref() != Some(text)).cloned())
}

fn check_workload(snapshot: &Snapshot, workload: &Workload) -> Result<(), Error> {
    let path =
        workload.spiffe_id.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(snapshot.trust_domain.as_str()));
    if !path.is_some_and(|path| path.len() > 1 && path.starts_with('/')) {
        return Err(Error::SpiffeId {
            name: workload.name.clone(),
            id: workload.spiffe_id.clone(),
            domain: snapshot.trust_domain.clone(),
        });
    }
    if workload.svid.as_ref().is_some_and(|svid| svid.chain.is_empty() || svid.not_after <= svid.not_before) {
        return Err(Error::Svid(workload.name.clone()));
    }
    let rules = [workload.inbound_rule, workload.outbound_rule]
        .into_iter()
        .chain(workload.unmatched_rule)
        .chain(workload.bypass.iter().map(|bypass| bypass.rule))
        .chain(workload.mode_rules.iter().map(|(_, rule)| *rule))
        .chain(workload.egress.iter().map(|e| e.id));
    for rule in rules {
        if rule.0 as usize >= snapshot.rules.len() {
            return Err(Error::Rule { holder: workload.name.clone(), index: rule.0, count: snapshot.rules.len() });
        }
    }
    if let Some(why) = bypass::fault(&workload.bypass) {
        return Err(Error::Bypass { name: workload.name.clone(), why });
    }
    if workload.policies.len() > MOST_POLICIES {
        return Err(Error::Policies { holder: workload.name.clone() });
    }
    if let Some(&index) = workload.policies.iter().find(|&&index| index as usize >= snapshot.policies.len()) {
        return Err(Error::Policy { holder: workload.name.clone(), index, count: snapshot.policies.len() });
    }
    for &index in workload.egress.iter().flat_map(|e| &e.services) {
        if index as usize >= snapshot.services.len() {
            return Err(Error::Service { holder: workload.name.clone(), index, count: snapshot.services.len() });
        }
    }
    Ok(())
}

fn check_policy(snapshot: &Snapshot, policy: &Policy, entries: &mut usize) -> Result<(), Error> {
    let end = (policy.first.0 as usize).saturating_add(policy.rules.len());
    if end > snapshot.rules.len() {
        let index = u32::try_from(end - 1).unwrap_or(u32::MAX);
        return Err(Error::Rule { holder: policy.name.clone(), index, count: snapshot.rules.len() });
    }
    for (nth, rule) in policy.rules.iter().enumerate() {
        let holder = || format!("{} spec.rules[{nth}]", policy.name);
        if rule.action == Action::Allow && rule.peers.is_empty() {
            return Err(Error::AllowsAnybody(holder()));
        }
        *entries = entries.saturating_add(rule.entries());
        if *entries > MOST_ENTRIES {
            return Err(Error::Entries(holder()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
