//! A snapshot made ready to decide with: tables instead of lists, keys instead of key ids.
//!
//! It is immutable and shared by all workers; a newer snapshot is a new `Compiled`. What did not
//! change between the two (imported keys, parsed roots: the expensive parts) is taken over by
//! content, so that a renewal of one SVID costs one key import, whatever the size of the snapshot.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::snapshot::{
    Bundle, EgressRule, KeyId, Living, Place, Prefix, ProxyHeaders, Resumption, RuleId, RuleSource, Snapshot,
    SourceAddress, Svid, TlsMode, Unmatched, Version, channel::PrivateKey,
};

use super::addresses::Map;
use super::shared::{Places, Whose};
use super::virtuals::Virtuals;
use crate::policy::{AllowList, Bypasses, Revoked, Rules};
use crate::tls::{Credentials, CryptoProvider, Roots};

/// Private keys by id, as they came over ctrl's socket. A key is wiped when it is dropped.
pub type Keys = Map<KeyId, PrivateKey>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("workload {0}: the key of its SVID has not come; keys are sent before the snapshot that needs them")]
    KeyUnknown(String),
    #[error("trust domain {domain}: root {index} is no certificate that could be trusted: {why}")]
    Root { domain: String, index: usize, why: String },
    #[error("{address} leads to {first} and to {second}: a destination address belongs to one workload of a node")]
    Destination { address: String, first: String, second: String },
}

/// One endpoint of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointId {
    pub service: u32,
    pub endpoint: u32,
}

/// A workload of this node, ready for handshakes.
#[derive(Debug)]
pub struct Workload {
    pub name: Arc<str>,
    pub spiffe_id: Arc<str>,
    pub places: Vec<Place>,
    /// None while no identity could be had.
    pub credentials: Option<Arc<Credentials>>,
    pub mode: TlsMode,
    /// Sorted by port.
    pub ports: Vec<(u16, TlsMode)>,
    pub inbound: Option<AllowList>,
    pub inbound_rule: RuleId,
    pub outbound: Option<AllowList>,
    pub outbound_rule: RuleId,
    pub egress: Vec<Egress>,
    /// The first egress rule that names the service.
    by_service: Map<u32, usize>,
    /// Those that name it, in the order in which they are asked.
    pub policies: Vec<Arc<Rules>>,
    pub unmatched_egress: Unmatched,
    pub unmatched_rule: Option<RuleId>,
    /// What its service is sent before each connection's first byte.
    pub proxy: ProxyHeaders,
    pub living: Living,
    /// Who may call its MUTUAL ports in plain TCP.
    pub bypass: Bypasses,
    mode_rules: Vec<(u16, RuleId)>,
    pub resumption: Resumption,
}

#[derive(Debug)]
pub struct Egress {
    pub id: RuleId,
    pub services: Vec<u32>,
    /// The entry's own mode, or else the workload's.
    pub mode: TlsMode,
    pub allowed: Option<AllowList>,
    pub source: SourceAddress,
}

#[derive(Debug)]
pub struct Compiled {
    pub version: Version,
    pub trust_domain: Arc<str>,
    pub workloads: Vec<Workload>,
    pub services: Vec<::snapshot::Service>,
    pub rules: Vec<RuleSource>,
    /// By their first rule.
    pub policies: Vec<Arc<Rules>>,
    pub unmatched_egress: Unmatched,
    /// Asked before any list. Apart from the roots, which outlast a change of it.
    pub revoked: Revoked,
    /// Whose addresses are, where packets come from and where they go.
    pub(crate) places: Places,
    endpoints: Map<SocketAddr, Vec<EndpointId>>,
    /// By trust domain. A peer is verified against its own domain's roots only, so there is no pool.
    roots: Map<Arc<str>, Arc<Roots>>,
    by_name: Map<Arc<str>, usize>,
    pub(crate) provider: Arc<CryptoProvider>,
    /// SVIDs that cannot be used or did not come, and why: each costs its own workload, and nobody else.
    pub unusable: Vec<String>,
    /// Of connections that are no workload's of this node.
    pub living: Living,
    pub virtuals: Virtuals,
}

impl Compiled {
    /// `snapshot` has passed [`snapshot::check`](::snapshot::check::check). Whatever is wrong beyond
    /// that refuses it whole.
    pub fn compile(
        snapshot: &Snapshot,
        keys: &Keys,
        provider: &Arc<CryptoProvider>,
        previous: Option<&Self>,
    ) -> Result<Self, Error> {
        let policies = policies(snapshot, previous);
        let (mut workloads, mut unusable) = (Vec::with_capacity(snapshot.workloads.len()), Vec::new());
        for workload in &snapshot.workloads {
            let before = previous.and_then(|p| p.workload(&workload.name));
            let credentials = match &workload.svid {
                Some(svid) => credentials(workload, svid, keys, before, &mut unusable)?,
                None => kept(workload, before, snapshot.assembled_at, &mut unusable),
            };
            workloads.push(compile_workload(workload, credentials, &policies, before));
        }
        let mut roots = Map::default();
        for bundle in &snapshot.bundles {
            let compiled = compile_roots(bundle, previous)?;
            roots.insert(compiled.trust_domain().clone(), compiled);
        }
        Ok(Self {
            version: snapshot.version,
            trust_domain: snapshot.trust_domain.as_str().into(),
            places: Places::new(&workloads)?,
            endpoints: endpoints(&snapshot.services),
            by_name: workloads.iter().enumerate().map(|(index, w)| (w.name.clone(), index)).collect(),
            workloads,
            services: snapshot.services.clone(),
            rules: snapshot.rules.clone(),
            policies: in_order(policies),
            unmatched_egress: snapshot.unmatched_egress,
            revoked: Revoked::new(&snapshot.revoked),
            roots,
            provider: provider.clone(),
            unusable,
            living: snapshot.living,
            virtuals: Virtuals::new(&snapshot.services),
        })
    }

    /// By `namespace/name`.
    pub fn workload(&self, name: &str) -> Option<&Workload> {
        self.by_name.get(name).map(|&index| &self.workloads[index])
    }

    /// The workload that sends from `address` behind `interface`, whichever process does.
    pub fn source(&self, interface: &str, address: IpAddr) -> Option<usize> {
        self.places.source(interface, address).one()
    }

    /// Whether `address` is that of a workload of this node.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        !matches!(self.places.destination(address), Whose::Nobody)
    }

    /// The workloads of this node that may listen there: several, if processes tell them apart.
    pub fn destinations(&self, address: IpAddr) -> impl Iterator<Item = usize> {
        let whose = self.places.destination(address);
        let several = if let Whose::Shared(_, shared) = whose { &shared.members[..] } else { &[] };
        whose.one().into_iter().chain(several.iter().copied())
    }

    /// All endpoints at exactly this address and port.
    pub fn endpoints(&self, address: SocketAddr) -> &[EndpointId] {
        self.endpoints.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The first egress rule of `workload` that selects `address`, and which endpoint that is.
    pub fn egress(&self, workload: usize, address: SocketAddr) -> Option<(usize, EndpointId)> {
        let by_service = &self.workloads[workload].by_service;
        let matches = self.endpoints(address).iter().filter_map(|id| Some((*by_service.get(&id.service)?, *id)));
        matches.min_by_key(|(rule, id)| (*rule, id.service, id.endpoint))
    }

    /// The name that resolved to the endpoint, for SNI.
    pub fn host(&self, id: EndpointId) -> Option<&str> {
        self.services[id.service as usize].endpoints[id.endpoint as usize].host.as_deref()
    }

    pub fn service_name(&self, id: EndpointId) -> &str {
        &self.services[id.service as usize].name
    }

    pub fn roots(&self, trust_domain: &str) -> Option<&Arc<Roots>> {
        self.roots.get(trust_domain)
    }

    pub fn rule(&self, id: RuleId) -> &RuleSource {
        &self.rules[id.0 as usize]
    }
}

impl Workload {
    /// The mode of one of its ports for callers.
    pub fn mode_of(&self, port: u16) -> TlsMode {
        match self.ports.binary_search_by_key(&port, |(port, _)| *port) {
            Ok(index) => self.ports[index].1,
            Err(_) => self.mode,
        }
    }

    /// What says that one of its ports serves callers who show no identity. Under MUTUAL nothing does.
    pub fn mode_rule(&self, port: u16) -> Option<RuleId> {
        let of = |port: u16| self.mode_rules.iter().find(|(number, _)| *number == port).map(|(_, rule)| *rule);
        let own = self.ports.binary_search_by_key(&port, |(port, _)| *port).is_ok();
        if own { of(port) } else { of(0) }
    }

    /// Its SVID, if it has one that is valid at `now`.
    pub fn valid_credentials(&self, now: u64) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref().filter(|c| c.valid_at(now))
    }
}

/// Of an SVID that cannot be used, the one before it stands until it ends.
fn credentials(
    workload: &::snapshot::Workload,
    svid: &Svid,
    keys: &Keys,
    before: Option<&Workload>,
    unusable: &mut Vec<String>,
) -> Result<Option<Arc<Credentials>>, Error> {
    let before = before.and_then(|w| w.credentials.as_ref()).filter(|c| c.is_for(&workload.spiffe_id));
    if let Some(same) = before.filter(|credentials| credentials.is_of(svid)) {
        return Ok(Some(same.clone()));
    }
    let key = keys.get(&svid.key).ok_or_else(|| Error::KeyUnknown(workload.name.clone()))?;
    match Credentials::import(svid, key, &workload.spiffe_id) {
        Ok(credentials) => Ok(Some(Arc::new(credentials))),
        Err(why) => {
            unusable.push(format!("workload {}: its SVID cannot be used: {why}", workload.name));
            Ok(before.cloned())
        }
    }
}

/// A control process that has none to give, since it has just begun and its sources have yet to answer,
/// takes none away. It has no key for it either: those are in no file.
fn kept(
    workload: &::snapshot::Workload,
    before: Option<&Workload>,
    now: u64,
    unusable: &mut Vec<String>,
) -> Option<Arc<Credentials>> {
    let before = before?.credentials.as_ref().filter(|c| c.is_for(&workload.spiffe_id) && c.not_after() > now)?;
    unusable.push(format!(
        "workload {}: sluice-ctrl has no SVID for it; the one before serves until it ends",
        workload.name
    ));
    Some(before.clone())
}

fn compile_workload(
    workload: &::snapshot::Workload,
    credentials: Option<Arc<Credentials>>,
    policies: &[Arc<Rules>],
    before: Option<&Workload>,
) -> Workload {
    let mut by_service = Map::default();
    for (index, rule) in workload.egress.iter().enumerate() {
        for &service in &rule.services {
            by_service.entry(service).or_insert(index);
        }
    }
    let mut ports = workload.ports.clone();
    ports.sort_by_key(|(port, _)| *port);
    Workload {
        name: workload.name.as_str().into(),
        spiffe_id: workload.spiffe_id.as_str().into(),
        places: workload.places.iter().map(narrowed).collect(),
        credentials,
        mode: workload.mode,
        ports,
        inbound: workload.inbound.as_deref().map(AllowList::new),
        inbound_rule: workload.inbound_rule,
        outbound: workload.outbound.as_deref().map(AllowList::new),
        outbound_rule: workload.outbound_rule,
        egress: workload.egress.iter().map(|rule| compile_egress(rule, workload.mode)).collect(),
        by_service,
        policies: workload.policies.iter().map(|&index| policies[index as usize].clone()).collect(),
        unmatched_egress: workload.unmatched_egress,
        unmatched_rule: workload.unmatched_rule,
        proxy: workload.proxy.clone(),
        living: workload.living,
        bypass: Bypasses::compile(&workload.bypass, before.map(|before| &before.bypass)),
        mode_rules: workload.mode_rules.clone(),
        resumption: workload.resumption,
    }
}

/// With a prefix that is one, whatever came: tables and steering rely on it.
fn narrowed(place: &Place) -> Place {
    Place { prefix: Prefix::new(place.prefix.address, place.prefix.length), ..place.clone() }
}

/// In the order of the snapshot, as its workloads refer to them.
fn policies(snapshot: &Snapshot, previous: Option<&Compiled>) -> Vec<Arc<Rules>> {
    let mut before: Map<&str, &Arc<Rules>> = Map::default();
    if let Some(previous) = previous {
        before.extend(previous.policies.iter().map(|rules| (rules.name(), rules)));
    }
    let compile = |policy: &::snapshot::Policy| {
        Arc::new(Rules::compile(policy, before.get(policy.name.as_str()).map(|rules| &***rules)))
    };
    snapshot.policies.iter().map(compile).collect()
}

fn in_order(mut policies: Vec<Arc<Rules>>) -> Vec<Arc<Rules>> {
    policies.sort_by_key(|rules| rules.first());
    policies
}

fn compile_egress(rule: &EgressRule, mode: TlsMode) -> Egress {
    Egress {
        id: rule.id,
        services: rule.services.clone(),
        mode: rule.mode.unwrap_or(mode),
        allowed: rule.allowed.as_deref().map(AllowList::new),
        source: rule.source,
    }
}

fn compile_roots(bundle: &Bundle, previous: Option<&Compiled>) -> Result<Arc<Roots>, Error> {
    if let Some(same) = previous.and_then(|p| p.roots(&bundle.trust_domain)).filter(|r| r.is_of(bundle)) {
        return Ok(same.clone());
    }
    match Roots::parse(bundle) {
        Ok(roots) => Ok(Arc::new(roots)),
        Err((index, why)) => Err(Error::Root { domain: bundle.trust_domain.clone(), index, why }),
    }
}

fn endpoints(services: &[::snapshot::Service]) -> Map<SocketAddr, Vec<EndpointId>> {
    let mut table: Map<SocketAddr, Vec<EndpointId>> = Map::default();
    for (service, s) in (0..).zip(services) {
        for (endpoint, e) in (0..).zip(&s.endpoints) {
            let address = SocketAddr::new(e.address.ip().to_canonical(), e.address.port());
            table.entry(address).or_default().push(EndpointId { service, endpoint });
        }
    }
    table
}
