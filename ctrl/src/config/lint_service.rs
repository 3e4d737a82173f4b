//! Virtual addresses beside what else there is: those that are somebody's own, and those that lead nowhere.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use snapshot::{Prefix, RuleDirection};

use super::{Diagnostic, InCluster, Place, Resources, Service, Target, VirtualAddress, WorkloadIdentity};

pub fn lint(resources: &Resources, found: &mut Vec<Diagnostic>) {
    in_clusters(resources, found);
    let all: Vec<_> = resources
        .services
        .iter()
        .flat_map(|service| service.virtual_addresses.iter().map(move |address| (service, address)))
        .collect();
    if all.is_empty() {
        return;
    }
    let owned = owned(resources);
    let mut first: HashMap<SocketAddr, (&Place, &Service)> = HashMap::new();
    for &(service, of) in &all {
        let address = SocketAddr::new(of.ip, of.port);
        let mut error = |message: String, help: &str| {
            found.push(Diagnostic::error(&of.place, "spec.virtualAddresses", message).help(help.to_owned()));
        };
        // Of objects that give one address, neither is more right: `services::disputed` has it lead nowhere.
        if let Some((earlier, other)) = first.insert(address, (&of.place, service))
            && !(service.is_object && other.is_object)
        {
            error(format!("{address} is given twice, first in {earlier}"), "a virtual address is one Service's");
        }
        if let Some(holder) = owned.by_ip.get(&of.ip).or_else(|| owned.by_address.get(&address)) {
            error(
                format!("{address} is an address of {holder}"),
                "nobody listens at a virtual address: take a free one",
            );
        }
        if !leads_somewhere(service, of) {
            let ports: Vec<_> = of.target_ports.iter().map(u16::to_string).collect();
            let message = format!(
                "{address} leads nowhere: {} has no address of its family with port {}",
                service.name,
                ports.join(" or ")
            );
            found.push(Diagnostic::warning(&of.place, "spec.virtualAddresses", message));
        }
    }
    named_by_rules(resources, &all, found);
}

/// Services of a cluster that two name, or that nobody looks for.
fn in_clusters(resources: &Resources, found: &mut Vec<Diagnostic>) {
    const PATH: &str = "spec.kubernetes";
    let mut first: HashMap<&str, &Service> = HashMap::new();
    for service in &resources.services {
        let Some(InCluster { name, place }) = &service.kubernetes else { continue };
        if let Some(earlier) = first.insert(name, service) {
            let message = format!("{name} is named twice, first by {} in {}", earlier.name, earlier.place);
            let help = "a Service of a cluster is one Service here: give that one all the labels";
            found.push(Diagnostic::error(place, PATH, message).help(help));
        }
        let Some(gateway) = &resources.gateway else { continue };
        let namespace = name.split('/').next().unwrap_or_default();
        let (message, help) = match &gateway.kubernetes {
            None => (
                format!("the Gateway has no `kubernetes`, so that {name} is not known and this leads nowhere"),
                "add `kubernetes: {}` to the Gateway's spec",
            ),
            Some(asked) if !asked.namespaces.is_empty() && !asked.namespaces.iter().any(|one| one == namespace) => (
                format!("the Gateway's kubernetes.namespaces lack {namespace}, so that this leads nowhere"),
                "add it there",
            ),
            Some(_) => continue,
        };
        found.push(Diagnostic::warning(place, PATH, message).help(help));
    }
}

/// Whose addresses are, as far as that is somebody's word: an object that names a virtual address as its
/// endpoint does not make it one.
struct Owned {
    by_ip: HashMap<IpAddr, String>,
    by_address: HashMap<SocketAddr, String>,
}

fn owned(resources: &Resources) -> Owned {
    let selectors = resources.identities.iter().flat_map(|i| i.selectors.iter().map(move |s| (s.ip, i)));
    // With its place: where it is an object that makes the fault, that one stands aside, and no other.
    let workload = |of: &WorkloadIdentity| format!("workload {} ({})", of.name, of.place);
    let files = resources.services.iter().filter(|service| !service.is_object);
    let services = files.flat_map(|s| s.addresses.iter().map(move |a| (a, &s.name)));
    Owned {
        by_ip: selectors.filter_map(|(ip, of)| Some((ip?.to_canonical(), workload(of)))).collect(),
        by_address: services
            .filter_map(|(address, name)| match &address.target {
                Target::Ip(ip) => Some((SocketAddr::new(ip.to_canonical(), address.port), format!("service {name}"))),
                Target::Name(_) => None,
            })
            .collect(),
    }
}

/// What a name will lead to is not known here.
fn leads_somewhere(service: &Service, of: &VirtualAddress) -> bool {
    let fits = |target: &Target| match target {
        Target::Ip(ip) => ip.to_canonical().is_ipv4() == of.ip.is_ipv4(),
        Target::Name(_) => true,
    };
    service.addresses.iter().any(|address| of.leads_to(address) && fits(&address.target))
}

/// Rules are asked about the endpoint that a call is given to, never about what was called.
fn named_by_rules(resources: &Resources, all: &[(&Service, &VirtualAddress)], found: &mut Vec<Diagnostic>) {
    let hosts: HashMap<Prefix, &str> =
        all.iter().map(|(service, of)| (Prefix::host(of.ip), service.name.as_str())).collect();
    for policy in &resources.policies {
        for (nth, rule) in policy.rules.iter().enumerate() {
            let outbound = rule.rule.direction == RuleDirection::Outbound;
            let named = rule.rule.cidrs.iter().find_map(|cidr| Some((cidr, hosts.get(cidr)?)));
            if let Some((cidr, service)) = named.filter(|_| outbound) {
                let message = format!(
                    "{cidr} is a virtual address of {service}, which no call is decided by: it is by its endpoint's address"
                );
                let help = "name the addresses of the endpoints";
                found.push(Diagnostic::warning(&rule.place, format!("spec.rules[{nth}].cidrs"), message).help(help));
            }
        }
    }
}
