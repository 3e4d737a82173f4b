//! The `WorkloadIdentity` kind: who a workload is, how it is found, whom it may call and serve.

use std::collections::BTreeMap;
use std::net::IpAddr;

use snapshot::{IdPattern, Prefix, ProcessSelector, ProxyHeaders, Resumption, SourceAddress, TlsMode, Unmatched};

use super::bypass::{self, Bypass};
use super::decode::{Chosen, Faults, Field, allowed};
use super::kubernetes::PodSelector;
use super::resource::{Meta, labels};
use super::spiffe::{check_path, parse_pattern};
use super::{Lifetimes, Place, Service, SpiffeId, TrustDomain, kubernetes, process, proxy};

#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadIdentity {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
    /// `spec.workloadID`, a path: `myapp/app/frontend`.
    pub workload_id: String,
    pub selectors: Vec<Selector>,
    /// `spec.scope.daemonGroup.id`.
    pub daemon_group: Option<String>,
    pub mode: TlsMode,
    /// `spec.connection.tls.ports`.
    pub ports: BTreeMap<u16, TlsMode>,
    pub inbound: Option<AllowList>,
    pub outbound: Option<AllowList>,
    pub egress: Vec<Egress>,
    pub unmatched_egress: Option<Chosen<Unmatched>>,
    /// `spec.connection.proxyProtocol`.
    pub proxy: ProxyHeaders,
    /// `spec.connection`, beside `tls`.
    pub lifetimes: Lifetimes,
    /// `spec.connection.bypass`.
    pub bypass: Vec<Bypass>,
    /// Where the workload's mode is said, and its ports' are. None: nobody has said it.
    pub mode_place: Option<Place>,
    pub ports_place: Option<Place>,
    /// `spec.connection.resumption`.
    pub resumption: Resumption,
}

impl WorkloadIdentity {
    pub fn spiffe_id(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::of(trust_domain, &self.workload_id)
    }
}

/// One entry of `spec.selectors`: all its keys must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    pub place: Place,
    pub interface: Option<String>,
    pub ip: Option<IpAddr>,
    pub cidr: Option<Prefix>,
    /// The `process:*` keys, if there are any.
    pub process: Option<ProcessSelector>,
    /// The `k8s:*` keys, if there are any.
    pub pods: Option<PodSelector>,
    /// Other keys of `k8s:` that nothing here attests, with their values.
    pub unattested: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AllowList {
    pub place: Place,
    pub patterns: Vec<IdPattern>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Egress {
    pub place: Place,
    /// Label selectors of services: entries are ORed, the labels within one ANDed.
    pub selectors: Vec<BTreeMap<String, String>>,
    pub mode: Option<TlsMode>,
    pub allowed: Option<AllowList>,
    pub source: SourceAddress,
}

impl WorkloadIdentity {
    pub fn decode(meta: Meta, spec: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = spec.fields(faults)?;
        let workload_id = fields.required("workloadID", faults).and_then(|field| {
            let help = "a path such as myapp/app/frontend; the Gateway's trust domain is put before it";
            field.parsed(|text| check_path(text).map(|()| text.to_owned()), help, faults)
        });
        let selectors = fields.required("selectors", faults).and_then(|field| field.list(faults));
        let selectors: Option<Vec<_>> =
            selectors.map(|entries| entries.iter().filter_map(|entry| Selector::decode(entry, faults)).collect());
        let daemon_group = fields.optional("scope").and_then(|scope| decode_scope(&scope, faults));
        let connection = fields.optional("connection").map(|connection| decode_connection(&connection, true, faults));
        let Connection { mode, ports, proxy, lifetimes, bypass, mode_place, ports_place, resumption } =
            connection.unwrap_or_default();
        let (inbound, outbound) =
            fields.optional("allowedSPIFFEIDs").map_or((None, None), |lists| decode_lists(&lists, faults));
        let egress = fields.optional("egress").and_then(|field| field.list(faults)).unwrap_or_default();
        let egress = egress.iter().filter_map(|entry| Egress::decode(entry, faults)).collect();
        let unmatched_egress = Chosen::decode(fields.optional("unmatchedEgress"), UNMATCHED, faults);
        fields.finish(faults);
        Some(Self {
            name: meta.full_name(),
            place: meta.place,
            workload_id: workload_id?,
            selectors: selectors?,
            daemon_group,
            // Without a word about it the stricter meaning holds.
            mode: mode.unwrap_or(TlsMode::Mutual),
            ports,
            inbound,
            outbound,
            egress,
            unmatched_egress,
            proxy,
            lifetimes,
            bypass,
            mode_place,
            ports_place,
            resumption,
        })
    }
}

fn decode_scope(scope: &Field<'_>, faults: &mut Faults<'_>) -> Option<String> {
    let mut fields = scope.fields(faults)?;
    let group = fields.optional("daemonGroup").and_then(|group| group.fields(faults));
    fields.finish(faults);
    let mut group = group?;
    let id = group.required("id", faults).and_then(|id| id.text(faults)).map(str::to_owned);
    group.finish(faults);
    id
}

#[derive(Debug, Default)]
struct Connection {
    mode: Option<TlsMode>,
    ports: BTreeMap<u16, TlsMode>,
    proxy: ProxyHeaders,
    lifetimes: Lifetimes,
    bypass: Vec<Bypass>,
    mode_place: Option<Place>,
    ports_place: Option<Place>,
    resumption: Resumption,
}

/// `connection: { tls: { mode: MUTUAL, ports: { "8443": DISABLE } }, onChange: drain }`; of an egress entry
/// the mode alone.
fn decode_connection(connection: &Field<'_>, of_workload: bool, faults: &mut Faults<'_>) -> Connection {
    let mut decoded = Connection::default();
    let Some(mut fields) = connection.fields(faults) else { return decoded };
    if of_workload {
        decoded.lifetimes = Lifetimes::decode_in(&mut fields, faults);
        decoded.proxy = fields.optional("proxyProtocol").map(|field| proxy::decode(&field, faults)).unwrap_or_default();
    }
    if of_workload && let Some(field) = fields.optional("resumption") {
        decoded.resumption = field.choice(RESUMPTIONS, faults).unwrap_or_default();
    }
    if of_workload && let Some(field) = fields.optional("bypass") {
        decoded.bypass = bypass::decode(&field, faults);
    }
    let tls = fields.optional("tls").and_then(|tls| tls.fields(faults));
    fields.finish(faults);
    let Some(mut tls) = tls else { return decoded };
    if let Some(field) = tls.optional("mode") {
        decoded.mode_place = Some(faults.place(field.at()));
        decoded.mode = field.choice(MODES, faults);
    }
    if of_workload && let Some(field) = tls.optional("ports") {
        decoded.ports_place = Some(faults.place(field.at()));
        decoded.ports = by_port(&field, MODES, faults);
    }
    tls.finish(faults);
    decoded
}

/// `{ "8443": DISABLE }`: a word for each port.
pub fn by_port<T: Copy>(field: &Field<'_>, words: &[(&'static str, T)], faults: &mut Faults<'_>) -> BTreeMap<u16, T> {
    let mut ports = BTreeMap::new();
    for (key, field) in field.fields(faults).into_iter().flat_map(|ports| ports.all()) {
        let word = field.choice(words, faults);
        match (key.name.parse::<u16>(), word) {
            (Ok(0) | Err(_), _) => {
                faults.error(key.at, &field.path, format!("{:?} is not a port", key.name), "use 1 to 65535");
            }
            (Ok(port), Some(word)) => drop(ports.insert(port, word)),
            (Ok(_), None) => {}
        }
    }
    ports
}

fn decode_lists(lists: &Field<'_>, faults: &mut Faults<'_>) -> (Option<AllowList>, Option<AllowList>) {
    let Some(mut fields) = lists.fields(faults) else { return (None, None) };
    let inbound = fields.optional("inbound").and_then(|list| AllowList::decode(&list, faults));
    let outbound = fields.optional("outbound").and_then(|list| AllowList::decode(&list, faults));
    fields.finish(faults);
    (inbound, outbound)
}

impl AllowList {
    fn decode(list: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let help =
            "an ID such as spiffe://example.com/myapp/app/frontend, or all under a path: spiffe://example.com/myapp/*";
        let entries = list.list(faults)?;
        let patterns = entries.iter().filter_map(|entry| entry.parsed(parse_pattern, help, faults)).collect();
        Some(Self { place: faults.place(list.at()), patterns })
    }
}

impl Egress {
    /// Whether one of the selectors' entries has all its labels on the service.
    pub fn selects(&self, service: &Service) -> bool {
        self.selectors.iter().any(|entry| selects(entry, service))
    }

    fn decode(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = entry.fields(faults)?;
        let selectors = fields.required("selectors", faults).and_then(|field| field.list(faults));
        let mut by_label = Vec::new();
        for selector in selectors.iter().flatten() {
            match labels(selector, faults) {
                Some(empty) if empty.is_empty() => {
                    faults.error(selector.at(), &selector.path, "selects nothing", "give at least one label");
                }
                Some(labels) => by_label.push(labels),
                None => {}
            }
        }
        let mode = fields.optional("connection").and_then(|field| decode_connection(&field, false, faults).mode);
        let allowed = fields.optional("allowedSPIFFEIDs").and_then(|list| AllowList::decode(&list, faults));
        let source = fields.optional("source").and_then(|field| field.choice(SOURCES, faults)).unwrap_or_default();
        let place = faults.place(fields.at);
        fields.finish(faults);
        selectors?;
        Some(Self { place, selectors: by_label, mode, allowed, source })
    }
}

/// Whether a service has all these labels.
pub fn selects(entry: &BTreeMap<String, String>, service: &Service) -> bool {
    entry.iter().all(|(key, value)| service.labels.get(key) == Some(value))
}

impl Selector {
    fn decode(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let fields = entry.fields(faults)?;
        let place = faults.place(fields.at);
        let nothing = || ProcessSelector::of(place.to_string());
        let mut selector = Self {
            interface: None,
            ip: None,
            cidr: None,
            process: None,
            pods: None,
            unattested: Vec::new(),
            place: place.clone(),
        };
        let mut keys = 0;
        for (key, field) in fields.all() {
            keys += 1;
            field.number_or_text(faults);
            match key.name.as_str() {
                "net:interface" => selector.interface = field.text(faults).map(str::to_owned),
                "net:ip" => selector.ip = field.ip(faults),
                "net:cidr" => selector.cidr = field.cidr(faults),
                other if other.starts_with("process:") => {
                    process::decode(selector.process.get_or_insert_with(nothing), key, &field, faults);
                }
                other if other.starts_with("k8s:") => {
                    if kubernetes::decode_key(&mut selector.pods, key, &field, faults) {
                        continue;
                    }
                    let value = field.text(faults).unwrap_or_default().to_owned();
                    selector.unattested.push((other.to_owned(), value));
                }
                other => {
                    let help = allowed(other, "selector keys", SELECTOR_KEYS.iter().copied());
                    faults.error(key.at, &field.path, "there is no such selector key", help);
                }
            }
        }
        if keys == 0 {
            faults.error(entry.at(), &entry.path, "an empty selector", "give at least one key, such as net:ip");
        }
        if let Some((key, _)) = selector.unattested.first() {
            let message = format!("{key} is not attested here, so that the entry matches nothing");
            let help = format!("what is attested of pods: {}", kubernetes::KEYS);
            faults.warning(entry.at(), &entry.path, message, help);
        }
        // A pod's own processes it may well tell apart by what they call themselves.
        if let Some(asked) =
            selector.process.as_ref().filter(|_| selector.pods.is_none() && selector.unattested.is_empty())
        {
            process::lint(asked, entry, faults);
        }
        Some(selector)
    }
}

pub const MODES: &[(&str, TlsMode)] = &[
    (TlsMode::Mutual.name(), TlsMode::Mutual),
    (TlsMode::Permissive.name(), TlsMode::Permissive),
    (TlsMode::Simple.name(), TlsMode::Simple),
    (TlsMode::Disable.name(), TlsMode::Disable),
];
pub const UNMATCHED: &[(&str, Unmatched)] = &[("pass", Unmatched::Pass), ("refuse", Unmatched::Refuse)];
const SOURCES: &[(&str, SourceAddress)] =
    &[(SourceAddress::Preserve.name(), SourceAddress::Preserve), (SourceAddress::Node.name(), SourceAddress::Node)];
const RESUMPTIONS: &[(&str, Resumption)] =
    &[(Resumption::None.name(), Resumption::None), (Resumption::Tickets.name(), Resumption::Tickets)];
const SELECTOR_KEYS: &[&str] = &["net:interface", "net:ip", "net:cidr", "k8s:*", "process:*"];
