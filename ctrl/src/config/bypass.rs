//! `connection.bypass` of a WorkloadIdentity: probes that come plain to its MUTUAL ports, each by exact
//! source and exact port.

use std::net::IpAddr;

use snapshot::TlsMode;
use snapshot::bypass::{MOST_ENTRIES, MOST_PAIRS, is_host};

use super::decode::{Faults, Field};
use super::tree::Value;
use super::{Diagnostic, Place, Resources, WorkloadIdentity};

const PATH: &str = "spec.connection.bypass";
const HOSTS: &str = "name each host, such as 198.18.9.9: it is let in by its address alone, so no address may be \
                     anybody's";

/// `{ sources: [198.18.9.9], ports: [8080] }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bypass {
    pub place: Place,
    pub sources: Vec<IpAddr>,
    pub ports: Vec<u16>,
}

pub fn decode(list: &Field<'_>, faults: &mut Faults<'_>) -> Vec<Bypass> {
    let entries = list.list(faults).unwrap_or_default();
    let decoded: Vec<_> = entries.iter().filter_map(|entry| Bypass::decode(entry, faults)).collect();
    let pairs: usize = decoded.iter().map(|entry| entry.sources.len() * entry.ports.len()).sum();
    if entries.len() > MOST_ENTRIES || pairs > MOST_PAIRS {
        let message = format!("{pairs} pairs of a source and a port, entries: {}", entries.len());
        let help = format!("at most {MOST_ENTRIES} and {MOST_PAIRS}: who is so many is better given an identity");
        faults.error(list.at(), &list.path, message, help);
    }
    decoded
}

impl Bypass {
    fn decode(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = entry.fields(faults)?;
        let place = faults.place(fields.at);
        let sources = fields.required("sources", faults).and_then(|field| some_of(&field, host, faults));
        let ports = fields.required("ports", faults).and_then(|field| some_of(&field, port, faults));
        fields.finish(faults);
        Some(Self { place, sources: sources?, ports: ports? })
    }
}

/// Each once; an empty list lets in nobody, which nobody means.
fn some_of<T: Ord>(
    field: &Field<'_>,
    of: impl Fn(&Field<'_>, &mut Faults<'_>) -> Option<T>,
    faults: &mut Faults<'_>,
) -> Option<Vec<T>> {
    let items = field.list(faults)?;
    if items.is_empty() {
        faults.error(field.at(), &field.path, "is empty: the entry lets in nobody", "list at least one, or remove it");
    }
    let mut all: Vec<T> = items.iter().filter_map(|item| of(item, faults)).collect();
    all.sort_unstable();
    all.dedup();
    Some(all)
}

fn host(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<IpAddr> {
    let parse = |text: &str| {
        let address = match text.split_once('/') {
            Some((address, length)) => {
                let address: IpAddr = address.parse().map_err(|_| "not an IP address".to_owned())?;
                let whole = if address.is_ipv4() { "32" } else { "128" };
                if length != whole {
                    return Err(format!("/{length} is wider than one host"));
                }
                address
            }
            None => text.parse().map_err(|_| "not an IP address".to_owned())?,
        };
        let address = address.to_canonical();
        if is_host(address) { Ok(address) } else { Err("is no single host's address".to_owned()) }
    };
    field.parsed(parse, HOSTS, faults)
}

fn port(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<u16> {
    if let Value::Text(_) = field.node.value {
        faults.refuse(field, "is not one port", "list each port by its number: what is not named stays closed");
        return None;
    }
    field.integer(1..=65_535, faults)
}

/// What such entries mean beside the modes, and for whom they are none.
pub fn lint(identity: &WorkloadIdentity, resources: &Resources, found: &mut Vec<Diagnostic>) {
    for (nth, entry) in identity.bypass.iter().enumerate() {
        let path = format!("{PATH}[{nth}]");
        modes(identity, entry, &path, found);
        for source in &entry.sources {
            if let Some(other) = resources.identities.iter().find(|other| is_of(other, *source)) {
                let message = format!("{source} is workload {}: a workload is let in by who it is", other.name);
                let help = "put its SPIFFE ID into allowedSPIFFEIDs.inbound";
                found.push(Diagnostic::error(&entry.place, format!("{path}.sources"), message).help(help));
            }
        }
        let again = |earlier: &&Bypass| {
            earlier.sources.iter().any(|source| entry.sources.contains(source))
                && earlier.ports.iter().any(|port| entry.ports.contains(port))
        };
        if let Some(earlier) = identity.bypass[..nth].iter().find(again) {
            let message = format!("an earlier entry ({}) has some of this: there it is counted", earlier.place);
            found.push(Diagnostic::warning(&entry.place, path, message));
        }
    }
}

fn modes(identity: &WorkloadIdentity, entry: &Bypass, path: &str, found: &mut Vec<Diagnostic>) {
    for port in &entry.ports {
        let mode = *identity.ports.get(port).unwrap_or(&identity.mode);
        let is = format!("{} is {} on port {port}", identity.name, mode.name());
        let fault = match mode {
            TlsMode::Mutual => continue,
            TlsMode::Permissive => Diagnostic::warning(
                &entry.place,
                path,
                format!("{is}: everybody may call it plain, so nobody needs this"),
            )
            .help("it counts once the port is MUTUAL"),
            TlsMode::Simple => Diagnostic::error(
                &entry.place,
                path,
                format!("{is}: nobody may call it plain, and this says otherwise"),
            )
            .help("use MUTUAL, or have the probe speak TLS, which SIMPLE asks no certificate for"),
            TlsMode::Disable => {
                Diagnostic::error(&entry.place, path, format!("{is}: it is not touched, so there is nothing to bypass"))
                    .help("remove the entry, or use MUTUAL")
            }
        };
        found.push(fault);
    }
}

fn is_of(identity: &WorkloadIdentity, source: IpAddr) -> bool {
    identity.selectors.iter().any(|selector| selector.ip.is_some_and(|ip| ip.to_canonical() == source))
}
