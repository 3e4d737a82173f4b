//! Each way in which a snapshot can contradict itself, and that it is refused by its name.

use super::*;
use crate::{Bundle, Bypass, Crl, Living, Place, ProxyHeaders, RuleId, RuleSource, TlsMode, Unmatched, Version};

fn workload(name: &str) -> Workload {
    Workload {
        name: name.into(),
        spiffe_id: format!("spiffe://example.com/{name}"),
        places: vec![Place {
            interface: "in0".into(),
            prefix: Prefix::host("198.18.1.2".parse().unwrap()),
            mac: None,
            processes: vec![],
        }],
        svid: None,
        mode: TlsMode::Mutual,
        ports: vec![],
        inbound: None,
        inbound_rule: RuleId(0),
        outbound: None,
        outbound_rule: RuleId(0),
        egress: vec![],
        policies: vec![],
        unmatched_egress: Unmatched::Refuse,
        unmatched_rule: None,
        proxy: ProxyHeaders::default(),
        living: Living::default(),
        bypass: vec![],
        mode_rules: vec![],
        resumption: Default::default(),
    }
}

fn snapshot(workloads: Vec<Workload>) -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        version: Version(1),
        node: "a".into(),
        trust_domain: "example.com".into(),
        workloads,
        services: vec![],
        bundles: vec![],
        policies: vec![],
        revoked: vec![],
        rules: vec![RuleSource { name: "r".into(), place: "p:1".into() }],
        unmatched_egress: Unmatched::Pass,
        assembled_at: 0,
        living: Living::default(),
        audit: None,
    }
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    assert_eq!(check(&snapshot(vec![workload("a")])), Ok(()));
    assert!(matches!(check(&snapshot(vec![workload("a"), workload("b")])), Err(Error::Claimed { .. })));
    let foreign = Workload { spiffe_id: "spiffe://example.com.evil/a".into(), ..workload("a") };
    assert!(matches!(check(&snapshot(vec![foreign])), Err(Error::SpiffeId { .. })));
    for dangling in [
        Workload { inbound_rule: RuleId(1), ..workload("a") },
        Workload { unmatched_rule: Some(RuleId(1)), ..workload("a") },
        Workload { mode_rules: vec![(0, RuleId(1))], ..workload("a") },
        Workload {
            bypass: vec![Bypass { rule: RuleId(1), sources: vec![], ports: vec![], node: vec![] }],
            ..workload("a")
        },
    ] {
        assert!(matches!(check(&snapshot(vec![dangling])), Err(Error::Rule { index: 1, .. })));
    }
}

#[test]
fn a_place_is_shared_only_by_workloads_that_processes_tell_apart() {
    let uid = |uid| ProcessSelector { uid: Some(uid), ..ProcessSelector::of("p:1".into()) };
    let with = |name, processes| {
        let mut workload = workload(name);
        workload.places[0].processes = processes;
        workload
    };
    let of = |workloads| check(&snapshot(workloads));
    assert_eq!(of(vec![with("a", vec![uid(1)]), with("b", vec![uid(2)])]), Ok(()));
    for contradiction in [
        vec![with("a", vec![uid(1)]), with("b", vec![])],
        vec![with("a", vec![]), with("b", vec![uid(1)])],
        vec![with("a", vec![uid(1)]), with("b", vec![uid(2)]), with("c", vec![])],
    ] {
        assert!(matches!(of(contradiction), Err(Error::Claimed { .. })));
    }
    let anybody = ProcessSelector::of("p:1".into());
    assert_eq!(of(vec![with("a", vec![uid(1), anybody])]), Err(Error::AnyProcess("a".into())));
    let many = |count| vec![with("a", vec![uid(0); count]), with("b", vec![uid(1)])];
    assert_eq!(of(many(MOST_PROCESSES - 1)), Ok(()));
    assert!(matches!(of(many(MOST_PROCESSES)), Err(Error::Processes { .. })));
}

#[test]
fn a_policy_that_points_nowhere_admits_by_address_or_is_too_large_is_refused() {
    use crate::{Enforcement, IdPattern, PolicyRule, PortRange, RuleDirection};
    let peer = |n: usize| IdPattern::Exact(format!("spiffe://example.com/{n}"));
    let rule = |action, peers| PolicyRule {
        action,
        direction: RuleDirection::Inbound,
        enforcement: Enforcement::Enforce,
        peers,
        cidrs: vec![Prefix::host("198.18.1.2".parse().unwrap())],
        ports: vec![],
    };
    let of = |first, rules, policies: Vec<u32>| {
        let mut snapshot = snapshot(vec![Workload { policies, ..workload("a") }]);
        snapshot.policies = vec![Policy { name: "p".into(), first: RuleId(first), rules }];
        check(&snapshot)
    };
    assert_eq!(of(0, vec![rule(Action::Allow, vec![peer(1)])], vec![0]), Ok(()));
    assert_eq!(of(0, vec![rule(Action::Deny, vec![])], vec![0; MOST_POLICIES]), Ok(()));
    assert!(matches!(of(1, vec![rule(Action::Deny, vec![])], vec![]), Err(Error::Rule { index: 1, .. })));
    assert!(matches!(of(u32::MAX, vec![rule(Action::Deny, vec![])], vec![]), Err(Error::Rule { .. })));
    assert!(matches!(of(0, vec![rule(Action::Allow, vec![])], vec![]), Err(Error::AllowsAnybody(_))));
    assert!(matches!(of(0, vec![], vec![1]), Err(Error::Policy { index: 1, .. })));
    assert!(matches!(of(0, vec![], vec![0; MOST_POLICIES + 1]), Err(Error::Policies { .. })));
    let ports = |count: usize| (1..=count as u16).map(|port| PortRange::new(port, port).unwrap()).collect();
    let many = |peers: usize, count| {
        let rule = PolicyRule { ports: ports(count), ..rule(Action::Deny, (0..peers).map(peer).collect()) };
        of(0, vec![rule], vec![])
    };
    assert_eq!(many(100, MOST_ENTRIES / 100), Ok(()));
    assert!(matches!(many(101, MOST_ENTRIES / 100), Err(Error::Entries(_))));
}

#[test]
fn a_deny_list_that_would_let_somebody_in_is_refused() {
    let exact = |id: &str| (IdPattern::Exact(id.into()), RuleId(0));
    let list = |ids: Vec<(IdPattern, RuleId)>, serials: &[&str]| Revoked {
        trust_domain: "partner.org".into(),
        ids,
        serials: serials.iter().map(|text| ((*text).into(), RuleId(0))).collect(),
        crls: vec![],
    };
    let of = |lists: Vec<Revoked>| check(&Snapshot { revoked: lists, ..snapshot(vec![]) });
    let good = list(vec![exact("spiffe://partner.org/a")], &["beef", "00"]);
    assert_eq!(of(vec![good.clone()]), Ok(()));
    let all = (IdPattern::Under("spiffe://partner.org/".into()), RuleId(0));
    assert_eq!(of(vec![list(vec![all], &[])]), Ok(()));
    assert!(matches!(of(vec![good.clone(), good]), Err(Error::RevokedTwice(_))));
    for (ids, serials) in [
        (vec![exact("spiffe://partner.org.evil/a")], &[][..]),
        (vec![exact("spiffe://example.com/a")], &[]),
        (vec![], &["BEEF"]),
        (vec![], &["0beef"]),
        (vec![], &["be:ef"]),
    ] {
        assert!(matches!(of(vec![list(ids, serials)]), Err(Error::RevokedEntry { .. })), "{serials:?}");
    }
    let dangling = (IdPattern::Exact("spiffe://partner.org/a".into()), RuleId(1));
    assert!(matches!(of(vec![list(vec![dangling], &[])]), Err(Error::Rule { index: 1, .. })));
    let many = |count: usize| {
        let serials = (0..count).map(|n| (format!("{:06x}", n + 0x10_0000), RuleId(0))).collect();
        of(vec![Revoked { trust_domain: "partner.org".into(), serials, ..Revoked::default() }])
    };
    assert_eq!(many(MOST_REVOKED), Ok(()));
    assert_eq!(many(MOST_REVOKED + 1), Err(Error::RevokedMany { count: MOST_REVOKED + 1 }));
}

#[test]
fn a_crl_is_one_of_its_issuer_and_counts_with_the_deny_lists() {
    let crl = |issuer, serials: &[&str], rule| Crl {
        issuer: [issuer; 32],
        serials: serials.iter().map(|text| (*text).into()).collect(),
        rule: RuleId(rule),
        fails_after: None,
        is_stale: false,
    };
    let of = |crls| {
        let list = Revoked { trust_domain: "partner.org".into(), crls, ..Revoked::default() };
        check(&Snapshot { revoked: vec![list], ..snapshot(vec![]) })
    };
    assert_eq!(of(vec![crl(1, &["beef"], 0), crl(2, &["beef"], 0)]), Ok(()));
    assert!(matches!(of(vec![crl(1, &[], 0), crl(1, &[], 0)]), Err(Error::CrlTwice(_))));
    assert!(matches!(of(vec![crl(1, &["BEEF"], 0)]), Err(Error::RevokedEntry { .. })));
    assert!(matches!(of(vec![crl(1, &[], 1)]), Err(Error::Rule { index: 1, .. })));
    let most = vec!["beef"; MOST_REVOKED];
    assert_eq!(of(vec![crl(1, &most, 0)]), Ok(()));
    assert!(matches!(of(vec![crl(1, &most, 0), crl(2, &["01"], 0)]), Err(Error::RevokedMany { .. })));
}

#[test]
fn a_trust_domain_has_one_bundle_of_not_too_many_roots() {
    let bundle = |count| Bundle { trust_domain: "partner.org".into(), roots: vec![vec![1]; count] };
    let of = |bundles| check(&Snapshot { bundles, ..snapshot(vec![]) });
    assert_eq!(of(vec![bundle(MOST_ROOTS)]), Ok(()));
    assert!(matches!(of(vec![bundle(MOST_ROOTS + 1)]), Err(Error::Roots { .. })));
    assert!(matches!(of(vec![bundle(1), bundle(1)]), Err(Error::Bundle(_))));
}
