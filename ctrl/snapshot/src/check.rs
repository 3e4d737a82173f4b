//! Whether a snapshot that decoded also makes sense: every index points at something, every ID is
//! one, nothing is claimed twice. Both sides run it: ctrl before it sends, the dataplane before it
//! compiles.

use std::collections::{HashMap, HashSet};

use crate::{Prefix, SCHEMA, Snapshot, Workload};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("schema {0}, not {SCHEMA}")]
    Schema(u32),
    #[error("{holder}: service {index} does not exist, there are {count}")]
    Service { holder: String, index: u32, count: usize },
    #[error("{holder}: rule {index} does not exist, there are {count}")]
    Rule { holder: String, index: u32, count: usize },
    #[error("workload {name}: {id:?} is not a SPIFFE ID of trust domain {domain}")]
    SpiffeId { name: String, id: String, domain: String },
    #[error("{prefix} on {interface} is claimed by {first} and by {second}: narrow the selectors of one")]
    Claimed { prefix: Prefix, interface: String, first: String, second: String },
    #[error("workload {0}: its SVID has no certificate, or ends before it begins")]
    Svid(String),
    #[error("trust domain {0} has two bundles")]
    Bundle(String),
}

pub fn check(snapshot: &Snapshot) -> Result<(), Error> {
    if snapshot.schema != SCHEMA {
        return Err(Error::Schema(snapshot.schema));
    }
    let mut claims = HashMap::new();
    for workload in &snapshot.workloads {
        check_workload(snapshot, workload)?;
        for place in &workload.places {
            if let Some(first) = claims.insert((&place.interface, place.prefix), &workload.name) {
                return Err(Error::Claimed {
                    prefix: place.prefix,
                    interface: place.interface.clone(),
                    first: first.clone(),
                    second: workload.name.clone(),
                });
            }
        }
    }
    let mut domains = HashSet::new();
    match snapshot.bundles.iter().find(|b| !domains.insert(&b.trust_domain)) {
        Some(twice) => Err(Error::Bundle(twice.trust_domain.clone())),
        None => Ok(()),
    }
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
        .chain(workload.egress.iter().map(|e| e.id));
    for rule in rules {
        if rule.0 as usize >= snapshot.rules.len() {
            return Err(Error::Rule { holder: workload.name.clone(), index: rule.0, count: snapshot.rules.len() });
        }
    }
    for &index in workload.egress.iter().flat_map(|e| &e.services) {
        if index as usize >= snapshot.services.len() {
            return Err(Error::Service { holder: workload.name.clone(), index, count: snapshot.services.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Place, RuleId, RuleSource, TlsMode, Unmatched, Version};

    fn workload(name: &str) -> Workload {
        Workload {
            name: name.into(),
            spiffe_id: format!("spiffe://example.com/{name}"),
            places: vec![Place {
                interface: "in0".into(),
                prefix: Prefix::host("198.18.1.2".parse().unwrap()),
                mac: None,
            }],
            svid: None,
            mode: TlsMode::Mutual,
            ports: vec![],
            inbound: None,
            inbound_rule: RuleId(0),
            outbound: None,
            outbound_rule: RuleId(0),
            egress: vec![],
            unmatched_egress: Unmatched::Refuse,
            unmatched_rule: None,
        }
    }

    fn snapshot(workloads: Vec<Workload>) -> Snapshot {
        Snapshot {
            schema: SCHEMA,
            version: Version(1),
            node: "a".into(),
            trust_domain: "example.com".into(),
            workloads,
            services: vec![],
            bundles: vec![],
            rules: vec![RuleSource { name: "r".into(), place: "p:1".into() }],
            unmatched_egress: Unmatched::Pass,
            assembled_at: 0,
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        assert_eq!(check(&snapshot(vec![workload("a")])), Ok(()));
        assert!(matches!(check(&snapshot(vec![workload("a"), workload("b")])), Err(Error::Claimed { .. })));
        let foreign = Workload { spiffe_id: "spiffe://example.com.evil/a".into(), ..workload("a") };
        assert!(matches!(check(&snapshot(vec![foreign])), Err(Error::SpiffeId { .. })));
        for dangling in [
            Workload { inbound_rule: RuleId(1), ..workload("a") },
            Workload { unmatched_rule: Some(RuleId(1)), ..workload("a") },
        ] {
            assert!(matches!(check(&snapshot(vec![dangling])), Err(Error::Rule { index: 1, .. })));
        }
    }
}
