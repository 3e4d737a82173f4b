//! Living connections under a newer snapshot: what stays allowed goes on, what does not ends.

use ::snapshot::{RefuseReason::PolicyChanged, SourceAddress, TlsMode, Unmatched};

use super::{FROM_FRONTEND, OUTSIDE, Way, peer, route};
use crate::policy::Standing;
use crate::tls::tests::world::{API, API_AT, DB_AT, FRONTEND, World, at, exact};

/// Compiles the world, lets a call stand, changes the world, and asks again.
fn again(way: Way, to: &str, tls: bool, id: Option<&str>, change: impl Fn(&mut World)) -> Option<String> {
    let mut world = World::new();
    world.database().ports = vec![(80, TlsMode::Permissive), (443, TlsMode::Simple)];
    let before = world.compile();
    let first = route(&before, way, to);
    let standing = Standing::new(&before, &first, tls, id.map(peer).as_ref());
    change(&mut world);
    let after = world.compile();
    match standing.decide_again(&after, way.0, way.1, at(way.2), at(to)) {
        Ok(_) => None,
        Err(refusal) => {
            assert_eq!(refusal.reason, PolicyChanged);
            Some(refusal.detail.unwrap())
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
