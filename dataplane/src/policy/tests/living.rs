//! Living connections under a newer snapshot: what stays allowed goes on, what does not ends.

use ::snapshot::{IdPattern, RefuseReason::PolicyChanged, Revoked, RuleId, SourceAddress, TlsMode, Unmatched};

use super::{FROM_FRONTEND, OUTSIDE, Way, peer, route};
use crate::policy::{Proof, Standing};
use crate::tls::tests::certs::Ca;
use crate::tls::tests::world::{API, API_AT, DATABASE, DB_AT, FRONTEND, World, at, exact};
use crate::tls::{Peer, SpiffeId};

/// Compiles the world, lets a call stand, changes the world, and asks again.
fn again(way: Way, to: &str, tls: bool, id: Option<&str>, change: impl Fn(&mut World)) -> Option<String> {
    let mut world = World::new();
    world.database().ports = vec![(80, TlsMode::Permissive), (443, TlsMode::Simple)];
    let before = world.compile();
    let first = route(&before, way, to);
    // As if it had been verified by what its trust domain has now.
    let domain = |id: &str| SpiffeId::parse(id).unwrap().trust_domain.to_owned();
    let peer = id.map(|id| Peer { root: before.roots(&domain(id)).unwrap().any(), ..peer(id) });
    let standing = Standing::new(&before, &first, tls, peer.as_ref());
    change(&mut world);
    let after = world.compile();
    match standing.decide_again(&after, Proof::NONE, way.0, way.1, at(way.2), at(to)) {
        Ok(_) => None,
        Err(lost) => {
            assert_eq!(lost.refusal.reason, PolicyChanged);
            Some(lost.refusal.detail.unwrap())
        }
    }
}

#[test]
fn a_living_connection_outlasts_what_leaves_it_allowed() {
    let reorder = |world: &mut World| {
        world.snapshot.workloads.reverse();
        world.snapshot.workloads[0].svid = None;
        world.snapshot.workloads[1].svid = None;
    };
    for (way, to, tls, id) in [
        (OUTSIDE, DB_AT, true, Some(FRONTEND)),
        (OUTSIDE, "198.18.1.3:80", false, None),
        (OUTSIDE, "198.18.1.3:80", true, Some(FRONTEND)),
        (OUTSIDE, "198.18.1.3:443", true, None),
        (FROM_FRONTEND, API_AT, true, Some(API)),
        (FROM_FRONTEND, DB_AT, false, None),
        (FROM_FRONTEND, "203.0.113.1:80", false, None),
    ] {
        assert_eq!(again(way, to, tls, id, |_| ()), None, "{to}: nothing changed");
        assert_eq!(again(way, to, tls, id, reorder), None, "{to}: SVIDs gone, indices other");
    }
}

#[test]
fn a_living_connection_ends_when_its_permission_does() {
    type Change = fn(&mut World);
    type Case = (&'static str, Way, &'static str, bool, Option<&'static str>, Change);
    let inbound: Change = |w| w.database().inbound = Some(vec![exact(API)]);
    let cases: [Case; 12] = [
        ("taken off the list", OUTSIDE, DB_AT, true, Some(FRONTEND), inbound),
        ("taken off, local", FROM_FRONTEND, DB_AT, false, None, inbound),
        ("taken off, outbound", FROM_FRONTEND, API_AT, true, Some(API), |w| w.frontend().outbound = Some(vec![])),
        ("plain, now MUTUAL", OUTSIDE, "198.18.1.3:80", false, None, |w| w.database().ports.clear()),
        ("anonymous, now MUTUAL", OUTSIDE, "198.18.1.3:443", true, None, |w| w.database().ports.clear()),
        ("MUTUAL, now DISABLE", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| w.database().mode = TlsMode::Disable),
        ("the entry is gone", FROM_FRONTEND, API_AT, true, Some(API), |w| drop(w.frontend().egress.remove(0))),
        ("unmatched, now refused", FROM_FRONTEND, "203.0.113.1:80", false, None, |w| {
            w.frontend().unmatched_egress = Unmatched::Refuse;
        }),
        ("unmatched, now a MUTUAL service", FROM_FRONTEND, "203.0.113.1:80", false, None, |w| {
            w.snapshot.services[0].endpoints[0].address = at("203.0.113.1:80");
        }),
        ("no bundle any more", OUTSIDE, DB_AT, true, Some("spiffe://partner.org/billing/x"), |w| {
            w.snapshot.bundles.pop();
        }),
        ("the far side would see another address", FROM_FRONTEND, API_AT, true, Some(API), |w| {
            w.frontend().egress[0].source = SourceAddress::Node;
        }),
        ("the address is another's", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| {
            let places = std::mem::take(&mut w.database().places);
            w.frontend().places.extend(places);
            w.frontend().inbound = Some(vec![exact(FRONTEND)]);
            w.frontend().mode = TlsMode::Mutual;
        }),
    ];
    for (name, way, to, tls, id, change) in cases {
        assert_eq!(again(way, to, tls, id, |_| ()), None, "{name}: stands before");
        assert!(again(way, to, tls, id, change).is_some(), "{name}");
    }
}

fn revoke(world: &mut World, ids: Vec<IdPattern>, serials: &[&str]) {
    world.snapshot.revoked = vec![Revoked {
        trust_domain: "example.com".into(),
        ids: ids.into_iter().map(|id| (id, RuleId(3))).collect(),
        serials: serials.iter().map(|serial| ((*serial).into(), RuleId(3))).collect(),
        crls: vec![],
    }];
}

#[test]
fn a_living_connection_ends_when_an_end_of_it_is_revoked() {
    type Change = fn(&mut World);
    let plain = "203.0.113.1:80";
    type Case = (&'static str, Way, &'static str, bool, Option<&'static str>, Change, bool);
    let cases: [Case; 11] = [
        ("the caller", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| revoke(w, vec![exact(FRONTEND)], &[]), true),
        ("the caller's serial", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| revoke(w, vec![], &["01"]), true),
        ("another serial", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| revoke(w, vec![], &["0101"]), false),
        ("another", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| revoke(w, vec![exact(API)], &[]), false),
        ("the server", FROM_FRONTEND, API_AT, true, Some(API), |w| revoke(w, vec![exact(API)], &[]), true),
        (
            "all under its path",
            FROM_FRONTEND,
            API_AT,
            true,
            Some(API),
            |w| {
                revoke(w, vec![IdPattern::Under("spiffe://example.com/other/".into())], &[]);
            },
            true,
        ),
        (
            "the own workload, called",
            OUTSIDE,
            DB_AT,
            true,
            Some(FRONTEND),
            |w| revoke(w, vec![exact(DATABASE)], &[]),
            true,
        ),
        (
            "the own workload, calling",
            FROM_FRONTEND,
            API_AT,
            true,
            Some(API),
            |w| revoke(w, vec![exact(FRONTEND)], &[]),
            true,
        ),
        ("the caller, local", FROM_FRONTEND, DB_AT, false, None, |w| revoke(w, vec![exact(FRONTEND)], &[]), true),
        ("the callee, local", FROM_FRONTEND, DB_AT, false, None, |w| revoke(w, vec![exact(DATABASE)], &[]), true),
        (
            "a call without any identity",
            FROM_FRONTEND,
            plain,
            false,
            None,
            |w| revoke(w, vec![exact(FRONTEND)], &[]),
            false,
        ),
    ];
    for (name, way, to, tls, id, change, ends) in cases {
        let detail = again(way, to, tls, id, change);
        let want = "PeerRevoked: database outbound in p.yaml:3 revokes it";
        assert_eq!(detail.as_deref(), ends.then_some(want), "{name}");
    }
}

#[test]
fn a_living_connection_outlasts_every_change_of_roots_that_leaves_its_own() {
    let outside = |change: fn(&mut World)| again(OUTSIDE, DB_AT, true, Some(FRONTEND), change);
    let added: fn(&mut World) = |w| w.snapshot.bundles[0].roots.push(Ca::new("example.com").bundle().roots[0].clone());
    let before: fn(&mut World) =
        |w| w.snapshot.bundles[0].roots.insert(0, Ca::new("example.com").bundle().roots[0].clone());
    let anew: fn(&mut World) = |w| w.snapshot.bundles[0].roots = vec![w.ca.signed_anew()];
    for (name, change) in [("another behind it", added), ("another before it", before), ("the same, signed anew", anew)]
    {
        assert_eq!(outside(change), None, "{name}");
    }
    let other: fn(&mut World) = |w| w.snapshot.bundles[0].roots = Ca::new("example.com").bundle().roots;
    let moved: fn(&mut World) = |w| {
        let roots = std::mem::take(&mut w.snapshot.bundles[0].roots);
        w.snapshot.bundles[1].roots.extend(roots);
    };
    for (name, change) in [("another root of that name", other), ("it is another domain's now", moved)] {
        let detail = outside(change).unwrap_or_else(|| panic!("{name}: it lives"));
        let want = format!(
            "PeerUntrusted: {FRONTEND} chains to root \"CN=example.com\", which trust domain example.com has no more"
        );
        assert_eq!(detail, want, "{name}");
    }
}
