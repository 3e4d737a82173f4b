//! Everything put together: one snapshot, deterministic, checked before it leaves.
//!
//! ```text
//!   Loaded ─┐
//!   Network ├─ attest ─▶ places ─┐
//!   Resolved ── endpoints ───────┼─▶ Snapshot ─ snapshot::check ─▶ published
//!   Identities ── SVIDs, bundle ─┘
//! ```
//! The same inputs give the same bytes: lists are sorted, times and the version come in.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use snapshot::channel::PrivateKey;
use snapshot::{
    Boot, Bundle, Bypass, Cores, Crl, EgressRule, KeyId, Network, Policy, Prefix, Revoked, RuleId, RuleSource, SCHEMA,
    Snapshot, TlsMode, Unmatched, Version, Workload,
};

use crate::attest::{Attestation, attest, claimed_twice, pods};
use crate::config::crls::OnStale;
use crate::config::{
    AllowList, Chosen, Diagnostic, Egress, Gateway, Lifetimes, Loaded, Naming, Place, SpiffeId, Target, TrustBundle,
    WorkloadIdentity, bypass, crls, trust,
};
use crate::resolve::Resolved;
use crate::rotate::{Identities, Wanted};
use crate::services;

/// A snapshot, the keys it refers to, and warnings.
pub type Assembled = (Snapshot, Vec<(KeyId, PrivateKey)>, Vec<Diagnostic>);

/// The identities that workloads of this node need now: those that are attested somewhere on it.
pub fn wanted(loaded: &Loaded, network: &Network, resolved: &Resolved) -> Vec<Wanted> {
    let mut wanted: BTreeMap<SpiffeId, Wanted> = BTreeMap::new();
    for identity in &loaded.identities {
        let here = attest(identity, &loaded.gateway, network).unwrap_or_default();
        if here.places.is_empty() {
            continue;
        }
        let id = identity.spiffe_id(&loaded.gateway.trust_domain);
        let names = served_names(loaded, &here, resolved);
        // Replicas share an identity, and so its names.
        let workload = identity.name.clone();
        let first = || Wanted { id: id.clone(), dns_names: Vec::new(), workload, pods: Vec::new() };
        let entry = wanted.entry(id.clone()).or_insert_with(first);
        entry.dns_names.extend(names);
        let pods = identity.selectors.iter().filter_map(|selector| selector.pods.as_ref()).flat_map(|of| &of.pods);
        entry.pods.extend(pods.filter(|pod| pod.addresses.is_ok()).map(|pod| pod.pod.clone()));
    }
    for entry in wanted.values_mut() {
        entry.dns_names.sort_unstable();
        entry.dns_names.dedup();
        entry.pods.sort_unstable();
        entry.pods.dedup();
    }
    wanted.into_values().collect()
}

/// Names of services whose addresses are this workload's.
fn served_names(loaded: &Loaded, here: &Attestation, resolved: &Resolved) -> Vec<String> {
    let ours = |address| here.places.iter().any(|place| place.prefix.contains(address));
    let targets = loaded.services.iter().flat_map(|service| &service.addresses).map(|address| &address.target);
    targets
        .filter_map(|target| match target {
            Target::Name(name) => resolved.addresses(name).any(ours).then(|| name.clone()),
            Target::Ip(_) => None,
        })
        .collect()
}

/// Assembles the snapshot; Err says what contradicts itself, and the one in force stays.
pub fn assemble(
    loaded: &Loaded,
    network: &Network,
    resolved: &Resolved,
    identities: &Identities,
    version: Version,
    now: u64,
) -> Result<Assembled, Vec<Diagnostic>> {
    let (attested, disputed) = attest_all(loaded, network)?;
    let mut rules = Rules::default();
    let naming = Naming::new(&loaded.policies);
    let mut workloads: Vec<Workload> = attested
        .iter()
        .map(|(identity, attestation)| workload(identity, attestation, loaded, identities, (&naming, &mut rules)))
        .collect();
    let own: HashSet<IpAddr> = network.links.iter().flat_map(|link| &link.addresses).map(|own| own.address).collect();
    for entry in workloads.iter_mut().flat_map(|workload| &mut workload.bypass) {
        entry.node = entry.sources.iter().copied().filter(|source| own.contains(source)).collect();
    }
    let policies = policies(loaded, &mut rules);
    let places = workloads.iter().flat_map(|workload| &workload.places);
    let hosts = places.filter(|place| place.prefix == Prefix::host(place.prefix.address));
    let owned = hosts.map(|place| place.prefix.address.to_canonical()).collect();
    let (services, of_services) = services::assemble(loaded, resolved, &owned);
    let revoked = loaded.bundles.iter().filter_map(|bundle| revoked(bundle, &mut rules, now)).collect();
    let snapshot = Snapshot {
        schema: SCHEMA,
        version,
        node: loaded.gateway.name.clone(),
        trust_domain: loaded.gateway.trust_domain.to_string(),
        services,
        bundles: bundles(loaded, identities, now),
        policies,
        revoked,
        rules: rules.0,
        unmatched_egress: loaded.gateway.unmatched_egress.as_ref().map_or(Unmatched::Pass, |said| said.value),
        assembled_at: now,
        living: Lifetimes::default().on(loaded.gateway.lifetimes, &loaded.gateway.timeouts),
        audit: loaded.gateway.audit.clone(),
        workloads,
    };
    snapshot::check::check(&snapshot)
        .map_err(|error| vec![Diagnostic::error(&loaded.gateway.place, "", error.to_string())])?;
    let keys = keys(&attested, loaded, identities);
    let mut warnings = warnings(&attested, &snapshot, resolved, loaded);
    warnings.extend(disputed);
    warnings.extend(of_services);
    warnings.extend(trust::expiry(&loaded.bundles, now));
    warnings.extend(services::full(loaded, &snapshot.services));
    Ok((snapshot, keys, warnings))
}

/// What a dataplane is started with.
pub fn boot(gateway: &Gateway) -> Boot {
    Boot {
        node: gateway.name.clone(),
        ports: gateway.ports.clone(),
        cores: Cores(gateway.cores.clone()),
        waiting: gateway.waiting,
        on_absent: gateway.on_absent,
        groups: gateway.groups.clone(),
        limits: gateway.limits.clone(),
        timeouts: gateway.timeouts.clone(),
        pin_directory: gateway.pin_directory.clone(),
    }
}

type Attested<'l> = Vec<(&'l WorkloadIdentity, Attestation)>;

/// All workloads with their places and whose pods are disputed, or all faults of all of them.
fn attest_all<'l>(loaded: &'l Loaded, network: &Network) -> Result<(Attested<'l>, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (mut attested, mut faults) = (Vec::new(), Vec::new());
    for identity in &loaded.identities {
        match attest(identity, &loaded.gateway, network) {
            Ok(attestation) => attested.push((identity, attestation)),
            Err(more) => faults.extend(more),
        }
    }
    let disputed = pods::withdraw(&mut attested);
    let claims: Vec<_> = attested.iter().map(|(identity, attestation)| (*identity, attestation)).collect();
    faults.extend(claimed_twice(&claims));
    if faults.is_empty() { Ok((attested, disputed)) } else { Err(faults) }
}

fn workload(
    identity: &WorkloadIdentity,
    attestation: &Attestation,
    loaded: &Loaded,
    identities: &Identities,
    (naming, rules): (&Naming<'_>, &mut Rules),
) -> Workload {
    let id = identity.spiffe_id(&loaded.gateway.trust_domain);
    let egress = identity.egress.iter().enumerate();
    let inbound_rule = rules.list(identity, "inbound", identity.inbound.as_ref());
    let outbound_rule = rules.list(identity, "outbound", identity.outbound.as_ref());
    let (unmatched_egress, unmatched_rule) = unmatched_egress(identity, &loaded.gateway, outbound_rule, rules);
    Workload {
        name: identity.name.clone(),
        places: attestation.places.clone(),
        svid: identities.svid(&id).map(|(svid, _)| svid.clone()),
        mode: identity.mode,
        ports: identity.ports.iter().map(|(port, mode)| (*port, *mode)).collect(),
        inbound: patterns(identity.inbound.as_ref()),
        inbound_rule,
        outbound: patterns(identity.outbound.as_ref()),
        outbound_rule,
        egress: egress.map(|(nth, entry)| egress_rule(identity, nth, entry, loaded, rules)).collect(),
        policies: naming.of(identity, Some(&id)),
        unmatched_egress,
        unmatched_rule,
        proxy: identity.proxy.clone(),
        bypass: bypasses(identity, rules),
        mode_rules: mode_rules(identity, rules),
        resumption: identity.resumption,
        living: identity.lifetimes.on(loaded.gateway.lifetimes, &loaded.gateway.timeouts),
        spiffe_id: id.as_str().to_owned(),
    }
}

fn bypasses(identity: &WorkloadIdentity, rules: &mut Rules) -> Vec<Bypass> {
    let of = |(nth, entry): (usize, &bypass::Bypass)| Bypass {
        rule: rules.add(format!("{} spec.connection.bypass[{nth}]", identity.name), &entry.place),
        sources: entry.sources.clone(),
        ports: entry.ports.clone(),
        node: Vec::new(),
    };
    identity.bypass.iter().enumerate().map(of).collect()
}

/// Of the modes that let in who shows no identity: the list is not what does.
fn mode_rules(identity: &WorkloadIdentity, rules: &mut Rules) -> Vec<(u16, RuleId)> {
    let mut add = |name: &str, place: &Option<Place>, mode: TlsMode| {
        let name = format!("{} spec.connection.tls.{name} ({})", identity.name, mode.name());
        rules.add(name, place.as_ref().unwrap_or(&identity.place))
    };
    let whole = (identity.mode != TlsMode::Mutual).then(|| (0, add("mode", &identity.mode_place, identity.mode)));
    let ports = identity.ports.iter().filter(|(_, mode)| **mode != TlsMode::Mutual);
    let ports = ports.map(|(port, mode)| (*port, add(&format!("ports.{port}"), &identity.ports_place, *mode)));
    whole.into_iter().chain(ports.collect::<Vec<_>>()).collect()
}

/// All of them, in the order of their names, so that an index means the same in every assembly.
fn policies(loaded: &Loaded, rules: &mut Rules) -> Vec<Policy> {
    let policy = |policy: &crate::config::Policy| {
        let first = RuleId(rules.0.len() as u32);
        for (nth, rule) in policy.rules.iter().enumerate() {
            rules.add(format!("{} spec.rules[{nth}]", policy.name), &rule.place);
        }
        Policy { name: policy.name.clone(), first, rules: policy.rules.iter().map(|rule| rule.rule.clone()).collect() }
    };
    loaded.policies.iter().map(policy).collect()
}

fn egress_rule(
    identity: &WorkloadIdentity,
    nth: usize,
    entry: &Egress,
    loaded: &Loaded,
    rules: &mut Rules,
) -> EgressRule {
    let selected = loaded.services.iter().enumerate().filter(|(_, service)| entry.selects(service));
    EgressRule {
        id: rules.add(format!("{} spec.egress[{nth}]", identity.name), &entry.place),
        services: selected.map(|(index, _)| index as u32).collect(),
        mode: entry.mode,
        allowed: patterns(entry.allowed.as_ref()),
        source: entry.source,
    }
}

/// The workload's word, then the list's: who says whom a workload may call means nobody else, since
/// a plain peer has no SPIFFE ID that could be in the list. Then the Gateway's word. With the rule
/// that it comes from.
fn unmatched_egress(
    identity: &WorkloadIdentity,
    gateway: &Gateway,
    outbound: RuleId,
    rules: &mut Rules,
) -> (Unmatched, Option<RuleId>) {
    let mut said = |holder: &str, said: &Chosen<Unmatched>| {
        (said.value, Some(rules.add(format!("{holder} spec.unmatchedEgress"), &said.place)))
    };
    match (&identity.unmatched_egress, &identity.outbound, &gateway.unmatched_egress) {
        (Some(own), _, _) => said(&identity.name, own),
        (None, Some(_), _) => (Unmatched::Refuse, Some(outbound)),
        (None, None, Some(of_node)) => said(&format!("Gateway {}", gateway.name), of_node),
        (None, None, None) => (Unmatched::Pass, None),
    }
}

fn patterns(list: Option<&AllowList>) -> Option<Vec<snapshot::IdPattern>> {
    list.map(|list| list.patterns.clone())
}

/// The own trust domain's roots are those of the identity sources and those of its TrustBundle. Any other has
/// its TrustBundle's alone; where that gives none, those that an identity source brings. Each once and in the order of its bytes: a root that moved to another file
/// changes nothing.
fn bundles(loaded: &Loaded, identities: &Identities, now: u64) -> Vec<Bundle> {
    let mut bundles = vec![identities.bundle(now)];
    for bundle in &loaded.bundles {
        let roots = bundle.valid_roots(now).map(|root| root.certificate.der.clone());
        match bundle.trust_domain == loaded.gateway.trust_domain {
            true => bundles[0].roots.extend(roots),
            false => bundles.push(Bundle { trust_domain: bundle.trust_domain.to_string(), roots: roots.collect() }),
        }
    }
    for brought in identities.federated(now) {
        if !loaded.bundles.iter().any(|bundle| bundle.decides(&brought.trust_domain)) {
            bundles.retain(|bundle| bundle.trust_domain != brought.trust_domain);
            bundles.push(brought);
        }
    }
    for bundle in &mut bundles {
        bundle.roots.sort_unstable();
        bundle.roots.dedup();
    }
    bundles
}

fn revoked(bundle: &TrustBundle, rules: &mut Rules, now: u64) -> Option<Revoked> {
    let mut rule = |list: &str, nth: usize, place: &Place| {
        rules.add(format!("TrustBundle {} spec.revoked.{list}[{nth}]", bundle.name), place)
    };
    let ids = bundle.revoked_ids.iter().enumerate();
    let ids: Vec<_> = ids.map(|(nth, id)| (id.what.clone(), rule("spiffeIDs", nth, &id.place))).collect();
    let serials = bundle.revoked_serials.iter().enumerate();
    let serials: Vec<_> = serials.map(|(nth, s)| (s.what.clone(), rule("serials", nth, &s.place))).collect();
    let mut crls: Vec<_> = bundle.crls.iter().map(|crl| of_crl(bundle, crl, rules, now)).collect();
    let awaited = bundle.awaited().filter(|crl| crl.on_stale == OnStale::Fail);
    crls.extend(awaited.map(|crl| awaited_crl(bundle, crl, rules)));
    let any = !ids.is_empty() || !serials.is_empty() || !crls.is_empty();
    any.then(|| Revoked { trust_domain: bundle.trust_domain.to_string(), ids, serials, crls })
}

fn of_crl(bundle: &TrustBundle, crl: &crls::Crl, rules: &mut Rules, now: u64) -> Crl {
    let fails = crl.on_stale == OnStale::Fail;
    Crl {
        issuer: crl.list.issuer_id,
        serials: crl.list.serials.clone(),
        rule: rules.add(format!("TrustBundle {} {} ({})", bundle.name, crl.path, crl.from), &crl.place),
        fails_after: fails.then_some(crl.list.next),
        is_stale: fails && crl.list.is_stale(now),
    }
}

/// One that was never seen is as good as one that is stale since ever. Nobody is its issuer yet.
fn awaited_crl(bundle: &TrustBundle, crl: &crls::CrlUrl, rules: &mut Rules) -> Crl {
    let rule = rules.add(format!("TrustBundle {} {} ({})", bundle.name, crl.path, crl.url), &crl.place);
    let nobody = digest(&SHA256, crl.path.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes");
    Crl { issuer: nobody, serials: vec![], rule, fails_after: Some(0), is_stale: true }
}

/// Each key once, in the order of the workloads.
fn keys(attested: &Attested<'_>, loaded: &Loaded, identities: &Identities) -> Vec<(KeyId, PrivateKey)> {
    let (mut keys, mut seen) = (Vec::new(), HashSet::new());
    for (identity, _) in attested {
        if let Some((svid, key)) = identities.svid(&identity.spiffe_id(&loaded.gateway.trust_domain))
            && seen.insert(svid.key)
        {
            keys.push((svid.key, key.clone()));
        }
    }
    keys
}

/// What is right and will still surprise somebody.
fn warnings(attested: &Attested<'_>, snapshot: &Snapshot, resolved: &Resolved, loaded: &Loaded) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for ((identity, attestation), workload) in attested.iter().zip(&snapshot.workloads) {
        if !attestation.places.is_empty() && workload.svid.is_none() {
            let message = format!("{} has no SVID: what needs one is refused (NoSvid)", identity.name);
            found.push(Diagnostic::warning(&identity.place, "", message));
        }
    }
    for failure in resolved.failures() {
        let message =
            format!("{} does not resolve: {}; {} older addresses stay", failure.name, failure.reason, failure.kept);
        let target = Target::Name(failure.name);
        let addresses = loaded.services.iter().flat_map(|service| &service.addresses);
        let place = addresses.filter(|address| address.target == target).map(|address| &address.place).next();
        found.push(Diagnostic::warning(place.unwrap_or(&loaded.gateway.place), "spec.addresses", message));
    }
    found
}

/// The rules of a snapshot, while they are numbered.
#[derive(Default)]
struct Rules(Vec<RuleSource>);

impl Rules {
    fn add(&mut self, name: String, place: &Place) -> RuleId {
        self.0.push(RuleSource { name, place: place.to_string() });
        RuleId(self.0.len() as u32 - 1)
    }

    /// The rule of an allow list; where there is none, the resource itself is what decides.
    fn list(&mut self, identity: &WorkloadIdentity, direction: &str, list: Option<&AllowList>) -> RuleId {
        let name = format!("{} spec.allowedSPIFFEIDs.{direction}", identity.name);
        match list {
            Some(list) => self.add(name, &list.place),
            None => self.add(format!("{name} (none)"), &identity.place),
        }
    }
}
