//! The two ends of a call, as people name them: names of workloads, hosts and Services are looked up at the gateway.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::Failure;
use crate::client::Client;
use crate::config::suggest::nearest;
use crate::describe::{Kind, find};
use crate::services::Row;
use crate::view::{Identity, Resources};

/// What is called, before it is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    Address(SocketAddr),
    /// A host's, or a Service's.
    Name(String, u16),
}

impl To {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let named = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
        match named {
            Some((name, port)) if !name.is_empty() && !name.contains([':', '[']) && port > 0 => {
                Ok(Self::Name(name.trim_end_matches('.').to_ascii_lowercase(), port))
            }
            _ => Err("use ADDRESS:PORT, [ADDRESS]:PORT for IPv6, or NAME:PORT".into()),
        }
    }

    /// All that it leads to, at least one, in the order of addresses.
    pub async fn addresses(&self, client: &Client) -> Result<Vec<SocketAddr>, Failure> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Name(name, port) => {
                let resources: Resources = client.get("/v1/config").await?;
                let services: Vec<Row> = client.get("/v1/services").await?;
                named(name, *port, &resources, &services).map_err(|why| Failure::Usage(format!("--to {name}: {why}")))
            }
        }
    }
}

/// A SPIFFE ID or an address as it is; of a workload's name, its SPIFFE ID.
pub async fn from(client: &Client, text: &str) -> Result<String, Failure> {
    if text.starts_with("spiffe://") || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let identities: Vec<Identity> = client.get("/v1/identities").await?;
    let name = find(Kind::Workload, text, identities.iter().map(|identity| identity.workload.as_str()));
    let name = name.map_err(|unknown| {
        let help = "use a SPIFFE ID (spiffe://...), an address, or a workload's namespace/name";
        Failure::Usage(format!("--from {text}: {help}: {unknown}"))
    })?;
    let of_it = identities.iter().find(|identity| identity.workload == name);
    Ok(of_it.expect("it was found there").spiffe_id.clone())
}

/// A host's addresses, or those of a Service that have the port.
fn named(name: &str, port: u16, resources: &Resources, services: &[Row]) -> Result<Vec<SocketAddr>, String> {
    let hosts = resources.gateways.iter().flat_map(|gateway| &gateway.hosts);
    let fixed = hosts.filter(|(host, _)| *host == name).flat_map(|(_, addresses)| addresses.iter().copied());
    let endpoints = services.iter().flat_map(|service| &service.endpoints);
    let resolved = endpoints.filter(|endpoint| endpoint.host.as_deref() == Some(name)).map(|e| e.address.ip());
    let found: BTreeSet<IpAddr> = fixed.chain(resolved).collect();
    if !found.is_empty() {
        return Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect());
    }
    let known: BTreeSet<&str> = known_hosts(resources).collect();
    if known.contains(name) {
        return Err("it does not resolve: see `sluice status`, or use ADDRESS:PORT".into());
    }
    match find(Kind::Service, name, services.iter().map(|service| service.name.as_str())) {
        Ok(service) => {
            let service = services.iter().find(|row| row.name == service).expect("it was found there");
            of_service(service, port)
        }
        Err(unknown) => match nearest(name, known.iter().copied()) {
            Some(near) => Err(format!("no Service and no `hosts` has this name: did you mean {near}?")),
            None => Err(format!("no `hosts` and no address of a Service has this name, and {unknown}")),
        },
    }
}

fn known_hosts(resources: &Resources) -> impl Iterator<Item = &str> {
    let of_gateway = resources.gateways.iter().flat_map(|gateway| gateway.hosts.keys().map(String::as_str));
    let addresses = resources.services.iter().flat_map(|service| &service.addresses);
    let names = addresses.filter(|address| address.parse::<SocketAddr>().is_err());
    of_gateway.chain(names.filter_map(|address| Some(address.rsplit_once(':')?.0)))
}

/// Its virtual addresses if it has them, for that is where callers go.
fn of_service(service: &Row, port: u16) -> Result<Vec<SocketAddr>, String> {
    let virtuals: BTreeSet<SocketAddr> = service.virtual_addresses.iter().map(|one| one.address).collect();
    let endpoints: BTreeSet<SocketAddr> = service.endpoints.iter().map(|one| one.address).collect();
    let with_port = |all: &BTreeSet<SocketAddr>| all.iter().filter(|at| at.port() == port).copied().collect::<Vec<_>>();
    let found = [with_port(&virtuals), with_port(&endpoints)].into_iter().find(|found| !found.is_empty());
    found.ok_or_else(|| {
        let ports: BTreeSet<u16> = virtuals.iter().chain(&endpoints).map(SocketAddr::port).collect();
        match ports.is_empty() {
            true => format!("Service {} leads nowhere now: see `sluice services`", service.name),
            false => {
                let ports: Vec<_> = ports.iter().take(MOST_PORTS).map(u16::to_string).collect();
                format!("Service {} has no address with port {port}: use one of {}", service.name, ports.join(", "))
            }
        }
    })
}

/// Most ports that an error lists.
const MOST_PORTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_is_an_address_or_a_name_with_a_port() {
        let name = |name: &str, port| Ok(To::Name(name.to_owned(), port));
        for (text, want) in [
            ("198.18.2.2:3000", Ok(To::Address("198.18.2.2:3000".parse().unwrap()))),
            ("[2001:db8::1]:80", Ok(To::Address("[2001:db8::1]:80".parse().unwrap()))),
            ("API.example.com.:80", name("api.example.com", 80)),
            ("shop/api:80", name("shop/api", 80)),
        ] {
            assert_eq!(To::parse(text), want, "{text}");
        }
        for text in ["198.18.2.2", "2001:db8::1:80", "api", "api:", ":80", "api:0", "api:65536", "[api]:80", ""] {
            let why = To::parse(text).unwrap_err();
            assert_eq!(why, "use ADDRESS:PORT, [ADDRESS]:PORT for IPv6, or NAME:PORT", "{text}");
        }
    }
}
