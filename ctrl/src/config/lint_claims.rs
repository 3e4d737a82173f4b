//! Addresses that two workloads claim literally. What the kernel's routes make of the other selectors is known only
//! on the node, where [`crate::attest::claimed_twice`] looks at the same.

use std::collections::{BTreeMap, HashMap};

use snapshot::{Prefix, Side};

use super::{Diagnostic, Gateway, Resources, Selector, WorkloadIdentity};

/// Behind which port an address is meant to be. Only what is the same for sure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Behind<'r> {
    /// The one that the kernel's route leads to.
    Route,
    /// An inside port of this node. Whatever comes from the wire does not tell one port's from another's.
    AnyPort,
    /// A port that no Gateway here says whose it is.
    Named(&'r str),
}

/// What one workload says of a place.
struct Claim<'r> {
    interface: Option<&'r str>,
    /// Some entry asks for no process.
    whoever: bool,
}

pub fn lint(resources: &Resources, found: &mut Vec<Diagnostic>) {
    let mut first: HashMap<_, (&WorkloadIdentity, Claim<'_>)> = HashMap::new();
    for identity in &resources.identities {
        for ((prefix, behind), claim) in claims(identity, resources.gateway.as_ref()) {
            let (whoever, interface) = (claim.whoever, claim.interface);
            let Some((earlier, theirs)) = first.insert((prefix, behind), (identity, claim)) else { continue };
            let apart = !whoever && !theirs.whoever && interface == theirs.interface;
            // A resource that is given twice is a fault of its own.
            if !apart && earlier.name != identity.name {
                found.push(fault(prefix, interface, earlier, identity));
            }
        }
    }
}

fn claims<'r>(identity: &'r WorkloadIdentity, gateway: Option<&Gateway>) -> BTreeMap<(Prefix, Behind<'r>), Claim<'r>> {
    let mut claims = BTreeMap::new();
    for selector in &identity.selectors {
        let Some(prefix) = literal(selector) else { continue };
        let interface = selector.interface.as_deref();
        let behind = match (interface, gateway) {
            (None, _) => Behind::Route,
            (Some(name), None) => Behind::Named(name),
            (Some(name), Some(gateway)) if is_inside(gateway, name) => Behind::AnyPort,
            // Of another node, or a fault of its own.
            (Some(_), Some(_)) => continue,
        };
        let claim = claims.entry((prefix, behind)).or_insert(Claim { interface, whoever: false });
        claim.whoever |= selector.process.is_none();
    }
    claims
}

fn is_inside(gateway: &Gateway, interface: &str) -> bool {
    gateway.ports.iter().any(|port| port.side == Side::Inside && port.interface == interface)
}

/// The addresses of an entry that names them itself.
fn literal(selector: &Selector) -> Option<Prefix> {
    if !selector.unattested.is_empty() || selector.pods.is_some() {
        return None;
    }
    match (selector.ip, selector.cidr) {
        (Some(ip), Some(cidr)) if !cidr.contains(ip) => None,
        (Some(ip), Some(_) | None) => Some(Prefix::host(ip)),
        (None, cidr) => cidr,
    }
}

/// That both of them claim it.
pub fn fault(
    prefix: Prefix,
    interface: Option<&str>,
    earlier: &WorkloadIdentity,
    identity: &WorkloadIdentity,
) -> Diagnostic {
    let on = interface.map_or(String::new(), |name| format!(" on {name}"));
    let message = format!(
        "{prefix}{on} is claimed by {} ({}) and by {} ({})",
        earlier.name, earlier.place, identity.name, identity.place
    );
    let help = "narrow the selectors of one of them, or give each of them process:* keys";
    Diagnostic::error(&identity.place, "spec.selectors", message).help(help)
}
