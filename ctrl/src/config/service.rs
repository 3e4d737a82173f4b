//! The `Service` kind: a destination by name, with labels that egress rules select.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::decode::{Faults, Field};
use super::resource::Meta;
use super::{Place, resource};

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
    pub addresses: Vec<Address>,
    pub labels: BTreeMap<String, String>,
    pub virtual_addresses: Vec<VirtualAddress>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    pub target: Target,
    pub port: u16,
    pub place: Place,
    /// Whether calls to virtual addresses are given to it.
    pub ready: bool,
}

/// An address that nobody listens at: calls to it are given to the addresses that have one of its target ports.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualAddress {
    pub ip: IpAddr,
    pub port: u16,
    pub target_ports: Vec<u16>,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Ip(IpAddr),
    /// Lower case, without a trailing dot.
    Name(String),
}

impl Service {
    pub fn decode(meta: Meta, spec: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = spec.fields(faults)?;
        let addresses = fields
            .required("addresses", faults)
            .and_then(|list| list.list(faults))
            .map(|list| list.iter().filter_map(|entry| Address::decode(entry, faults)).collect());
        // Each field is asked for, whatever the others came to: the schema is what is asked for.
        let labels =
            fields.optional("labels").map_or(Some(BTreeMap::new()), |labels| resource::labels(&labels, faults));
        let virtual_addresses = fields.optional("virtualAddresses").map_or(Some(vec![]), |field| {
            let list = field.list(faults)?;
            Some(list.iter().filter_map(|entry| VirtualAddress::decode(entry, faults)).collect())
        });
        fields.finish(faults);
        let place = meta.place.clone();
        let (labels, virtual_addresses) = (labels?, virtual_addresses?);
        Some(Self { name: meta.full_name(), place, addresses: addresses?, labels, virtual_addresses })
    }
}

impl VirtualAddress {
    fn decode(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = entry.fields(faults)?;
        let ip = fields.required("address", faults).and_then(|field| field.ip(faults));
        let port = fields.required("port", faults).and_then(|field| field.integer(1..=65535, faults));
        let target_ports = match fields.optional("targetPorts") {
            Some(list) => list.list(faults)?.iter().map(|entry| entry.integer(1..=65535, faults)).collect(),
            None => port.map(|port| vec![port]),
        };
        let place = faults.place(fields.at);
        fields.finish(faults);
        Some(Self { ip: ip?.to_canonical(), port: port?, target_ports: target_ports?, place })
    }

    /// The Service's addresses that stand behind it.
    pub fn leads_to(&self, address: &Address) -> bool {
        self.target_ports.contains(&address.port)
    }
}

impl Address {
    fn decode(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = entry.fields(faults)?;
        let target = fields.required("address", faults).and_then(|field| {
            field.parsed(Target::parse, "an IP address or a DNS name, such as backend.example.com", faults)
        });
        let port = fields.required("port", faults).and_then(|field| field.integer(1..=65535, faults));
        let ready = match fields.optional("ready") {
            Some(field) => field.boolean(faults),
            None => Some(true),
        };
        let place = faults.place(fields.at);
        fields.finish(faults);
        Some(Self { target: target?, port: port?, place, ready: ready? })
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.parse() {
            Ok(address) => Ok(Self::Ip(address)),
            Err(_) => host_name(text).map(Self::Name),
        }
    }
}

/// RFC 1123 §2.1 with the underscore that DNS names in use have; lower case, without a dot at the end.
pub fn host_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fits = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() > 253 || !name.split('.').all(|label| fits(label) && label.chars().all(allowed)) {
        return Err("neither an IP address nor a DNS name");
    }
    // 198.18.1.300 is a mistyped address, not a name.
    match name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        true => Err("neither an IP address nor a DNS name"),
        false => Ok(name),
    }
}
