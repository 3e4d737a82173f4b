//! The `Service` kind: a destination by name, with labels that egress rules select.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::decode::{Faults, Field};
use super::resource::{Meta, resource_name};
use super::{Place, resource};

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
    pub addresses: Vec<Address>,
    pub labels: BTreeMap<String, String>,
    pub virtual_addresses: Vec<VirtualAddress>,
    /// Where it is said, [`crate::services::cluster::fill`] writes into addresses and virtual addresses what
    /// that is now; the configuration has none.
    pub kubernetes: Option<InCluster>,
    /// A cluster's object says so, which whoever may write to some namespace has written.
    pub is_object: bool,
    /// Of addresses and virtual addresses, those that the cluster's has no more: they stay for a while, unless they
    /// are somebody else's; see [`crate::services::leaving`].
    pub left: BTreeSet<SocketAddr>,
}

/// A Service of the Kubernetes API.
#[derive(Debug, Clone, PartialEq)]
pub struct InCluster {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
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
    /// Of a Service in a cluster: those that take its calls, in order, whatever their ports. None: by its target
    /// ports.
    pub endpoints: Option<Vec<SocketAddr>>,
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
        // Each field is asked for, whatever the others came to: the schema is what is asked for.
        let kubernetes = fields.optional("kubernetes");
        let addresses = match kubernetes {
            Some(_) => fields.optional("addresses"),
            None => fields.required("addresses", faults),
        };
        fields.one_of(&["addresses", "kubernetes"], faults);
        let virtual_addresses = fields.optional("virtualAddresses");
        let labels =
            fields.optional("labels").map_or(Some(BTreeMap::new()), |labels| resource::labels(&labels, faults));
        if let Some(field) = kubernetes.as_ref().filter(|field| !field.is_any())
            && (addresses.is_some() || virtual_addresses.is_some())
        {
            let help = "leave addresses and virtualAddresses out, or give them to a Service of their own";
            faults.error(field.at(), &field.path, "what this leads to is the cluster's to say", help);
        }
        let missing = kubernetes.is_some().then(Vec::new);
        let addresses = addresses.map_or(missing, |list| each(&list, Address::decode, faults));
        let virtual_addresses =
            virtual_addresses.map_or(Some(vec![]), |list| each(&list, VirtualAddress::decode, faults));
        let kubernetes = kubernetes.map(|field| InCluster::decode(&field, &meta, faults));
        fields.finish(faults);
        Some(Self {
            name: meta.full_name(),
            place: meta.place,
            addresses: addresses?,
            labels: labels?,
            virtual_addresses: virtual_addresses?,
            kubernetes: kubernetes.map_or(Some(None), |decoded| decoded.map(Some))?,
            is_object: false,
            left: BTreeSet::new(),
        })
    }
}

fn each<T>(
    list: &Field<'_>,
    decode: fn(&Field<'_>, &mut Faults<'_>) -> Option<T>,
    faults: &mut Faults<'_>,
) -> Option<Vec<T>> {
    Some(list.list(faults)?.iter().filter_map(|entry| decode(entry, faults)).collect())
}

impl InCluster {
    fn decode(field: &Field<'_>, meta: &Meta, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = field.fields(faults)?;
        let help = "as `kubectl get services -A` shows it";
        let name = fields.required("name", faults).and_then(|field| field.parsed(resource_name, help, faults));
        let namespace = match fields.optional("namespace") {
            Some(field) => field.parsed(resource_name, help, faults),
            None => Some(meta.namespace.clone()),
        };
        let place = faults.place(fields.at);
        fields.finish(faults);
        Some(Self { name: format!("{}/{}", namespace?, name?), place })
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
        Some(Self { ip: ip?.to_canonical(), port: port?, target_ports: target_ports?, endpoints: None, place })
    }

    /// The Service's addresses that stand behind it.
    pub fn leads_to(&self, address: &Address) -> bool {
        match (&self.endpoints, &address.target) {
            (None, _) => self.target_ports.contains(&address.port),
            (Some(those), Target::Ip(ip)) => those.binary_search(&SocketAddr::new(*ip, address.port)).is_ok(),
            (Some(_), Target::Name(_)) => false,
        }
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
