//! From selectors to places: which interface and which addresses a workload's packets come from.
//!
//! The kernel's routes decide: an address is behind the inside port that its route leads to. An
//! address whose route leads elsewhere belongs to a workload of another node, and is no fault: the
//! same files may lie on all nodes. What nobody routes here is attested nowhere.

pub mod held;
pub mod pods;
pub mod process;
pub mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use snapshot::{Network, Place, Prefix, ProcessSelector, Side};

use crate::config::kubernetes::PodSelector;
use crate::config::{Diagnostic, Gateway, Selector, WorkloadIdentity, lint_claims};
use routes::Routes;

/// Where one workload is, and how that is known.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Attestation {
    /// Sorted, each once.
    pub places: Vec<Place>,
    /// One sentence per selector entry, in order.
    pub evidence: Vec<String>,
    /// Of the places, those that are addresses of pods.
    #[serde(skip)]
    pub of_pods: BTreeSet<Prefix>,
}

/// Finds the places of one workload.
pub fn attest(
    identity: &WorkloadIdentity,
    gateway: &Gateway,
    network: &Network,
) -> Result<Attestation, Vec<Diagnostic>> {
    let routes = Routes::new(gateway, network);
    let (mut found, mut evidence, mut faults) = (BTreeMap::<_, Claim>::new(), Vec::new(), Vec::new());
    let mut of_pods = BTreeSet::new();
    for (nth, selector) in identity.selectors.iter().enumerate() {
        match entry(selector, gateway, &routes) {
            Ok((places, sentence)) => {
                of_pods.extend(places.iter().filter(|_| selector.pods.is_some()).map(|(_, prefix)| *prefix));
                places.into_iter().for_each(|place| found.entry(place).or_default().add(selector));
                evidence.push(match &selector.process {
                    Some(process) => format!("{sentence}; of it, processes with {process}, asked at each call"),
                    None => sentence,
                });
            }
            Err(reason) => {
                let path = format!("spec.selectors[{nth}]");
                faults.push(Diagnostic::error(&selector.place, path, format!("{}: {reason}", identity.name)));
            }
        }
    }
    // Each pod has a port of its own.
    let placed = found.keys().filter(|(_, prefix)| !of_pods.contains(prefix));
    let ports: BTreeSet<_> = placed.map(|(interface, _)| interface.as_str()).collect();
    if ports.len() > 1 {
        let ports = ports.into_iter().collect::<Vec<_>>().join(" and ");
        let message = format!("{} is attested on {ports}; a workload is behind one inside port", identity.name);
        let help = "give each port's workload a WorkloadIdentity of its own";
        faults.push(Diagnostic::error(&identity.place, "spec.selectors", message).help(help));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let place = |((interface, prefix), claim): ((String, Prefix), Claim)| {
        let mac = routes.mac(&interface, prefix);
        Place { interface, prefix, mac, processes: claim.processes() }
    };
    Ok(Attestation { places: found.into_iter().map(place).collect(), evidence, of_pods })
}

/// What selectors say of one place: an entry without process keys is enough.
#[derive(Debug, Default)]
struct Claim {
    whoever: bool,
    processes: Vec<ProcessSelector>,
}

impl Claim {
    fn add(&mut self, selector: &Selector) {
        match &selector.process {
            Some(process) => self.processes.push(process.clone()),
            None => self.whoever = true,
        }
    }

    fn processes(self) -> Vec<ProcessSelector> {
        if self.whoever { Vec::new() } else { self.processes }
    }
}

type Found = Vec<(String, Prefix)>;

/// What one selector entry yields, and the sentence that says why.
fn entry(selector: &Selector, gateway: &Gateway, routes: &Routes<'_>) -> Result<(Found, String), String> {
    if let Some(interface) = &selector.interface {
        check_port(interface, gateway)?;
    }
    if let Some((key, value)) = selector.unattested.first() {
        return Ok((Vec::new(), format!("{key}: {value} is not attested here, so the entry matches nothing")));
    }
    if let Some(pods) = &selector.pods {
        return Ok(over_pods(pods, selector, routes));
    }
    let range = match (selector.ip, selector.cidr) {
        (Some(ip), Some(cidr)) if !cidr.contains(ip) => {
            return Ok((Vec::new(), format!("net:ip {ip} is not in net:cidr {cidr}, so the entry matches nothing")));
        }
        (Some(ip), Some(_) | None) => Some(Prefix::host(ip)),
        (None, cidr) => cidr,
    };
    Ok(match (&selector.interface, range) {
        (Some(interface), _) if !routes.is_port(interface) => {
            (Vec::new(), format!("{interface} is no port of this node, so the entry matches nothing"))
        }
        (Some(interface), Some(prefix)) => {
            (vec![(interface.clone(), prefix)], format!("{prefix} behind {interface}, as the selector says"))
        }
        (Some(interface), None) => over_interface(interface, routes),
        (None, Some(prefix)) => over_routes(prefix, routes),
        (None, None) if selector.process.is_some() => over_only_port(gateway, routes)?,
        (None, None) => (Vec::new(), "no key that is attested here".into()),
    })
}

/// The addresses of the pods that are meant, as far as the entry's other keys have them too.
fn over_pods(pods: &PodSelector, selector: &Selector, routes: &Routes<'_>) -> (Found, String) {
    let (mut found, mut sentences) = (Vec::new(), Vec::new());
    for pod in &pods.pods {
        let told = match &pod.addresses {
            Err(why) => vec![why.clone()],
            Ok(addresses) => addresses.iter().map(|address| over_pod(*address, selector, routes, &mut found)).collect(),
        };
        sentences.push(format!("{}: {}", pod.evidence, told.join(", ")));
    }
    match sentences[..] {
        [] => (found, format!("no pod of this node has {pods}")),
        [..] => (found, sentences.join("; ")),
    }
}

fn over_pod(address: IpAddr, selector: &Selector, routes: &Routes<'_>, found: &mut Found) -> String {
    let prefix = Prefix::host(address);
    if let Some(ip) = selector.ip.filter(|ip| *ip != address) {
        return format!("{prefix} is not net:ip {ip}");
    }
    if let Some(cidr) = selector.cidr.filter(|cidr| !cidr.contains(address)) {
        return format!("{prefix} is not in net:cidr {cidr}");
    }
    let (places, sentence) = over_routes(prefix, routes);
    match (&selector.interface, places.first()) {
        (Some(asked), Some((interface, _))) if asked != interface => {
            return format!("{sentence}, not {asked}");
        }
        (Some(_) | None, _) => found.extend(places),
    }
    sentence
}

/// A workload is never behind the wire.
fn check_port(interface: &str, gateway: &Gateway) -> Result<(), String> {
    match gateway.ports.iter().find(|port| port.interface == interface) {
        Some(port) if port.side == Side::Outside => {
            Err(format!("{interface} is an outside port; workloads are behind inside ports only"))
        }
        Some(_) | None => Ok(()),
    }
}

fn over_interface(interface: &str, routes: &Routes<'_>) -> (Found, String) {
    let prefixes = routes.over(interface);
    let found = prefixes.iter().map(|prefix| (interface.to_owned(), *prefix)).collect();
    match prefixes.as_slice() {
        [] => (found, format!("no route leads over {interface} yet")),
        some => {
            let list = some.iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ");
            (found, format!("{list} behind {interface}, by the kernel's routes"))
        }
    }
}

/// Processes that no `net:*` key places are behind the one port that there is.
fn over_only_port(gateway: &Gateway, routes: &Routes<'_>) -> Result<(Found, String), String> {
    let inside: Vec<_> = gateway.inside().map(|port| port.interface.as_str()).collect();
    match inside[..] {
        [only] => Ok(over_interface(only, routes)),
        [..] => {
            Err(format!("the entry names no port for its processes: add net:interface, one of {}", inside.join(", ")))
        }
    }
}

fn over_routes(prefix: Prefix, routes: &Routes<'_>) -> (Found, String) {
    match routes.towards(prefix) {
        None => (Vec::new(), format!("no route to {prefix} leads over a port of this node")),
        Some((Side::Outside, interface, route)) => {
            (Vec::new(), format!("{prefix} is on another node: its route {route} leads over {interface}"))
        }
        Some((Side::Inside, interface, route)) => (
            vec![(interface.to_owned(), prefix)],
            format!("{prefix} behind {interface}, by the kernel's route {route}"),
        ),
    }
}

/// Two workloads that claim the same addresses, and that no processes tell apart.
pub fn claimed_twice(workloads: &[(&WorkloadIdentity, &Attestation)]) -> Vec<Diagnostic> {
    let mut first = std::collections::HashMap::new();
    let mut faults = Vec::new();
    for (identity, attestation) in workloads {
        for place in &attestation.places {
            let Some((earlier, theirs)) = first.insert(place.prefix, (*identity, place)) else { continue };
            let apart = !place.processes.is_empty() && !theirs.processes.is_empty();
            if !(apart && place.interface == theirs.interface) {
                faults.push(lint_claims::fault(place.prefix, Some(&place.interface), earlier, identity));
            }
        }
    }
    faults
}
