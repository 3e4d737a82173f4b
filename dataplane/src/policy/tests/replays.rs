//! What a recorded call comes to is what its route and verdict come to, by all that was seen of it.

use std::net::SocketAddr;

use ::snapshot::{Direction, Flow, IdPattern, Outcome, RefuseReason::*, Revoked, RuleId, TlsMode, Unmatched};

use super::{FROM_FRONTEND, OUTSIDE, Way, peer, route};
use crate::policy::{Verdict, decide, replay};
use crate::tls::tests::world::{API, API_AT, DATABASE, DB_AT, FRONTEND, World, at, exact};

fn flow(direction: Direction, (_, _, client): Way, to: &str, id: Option<&str>, tls: bool) -> Flow {
    let (client, server): (SocketAddr, SocketAddr) = (at(client), at(to));
    let (client, peer_id) = (client.ip(), id.map(Into::into));
    Flow { direction, workload: None, client, server, peer_id, tls, connections: 1, last_seen: 0 }
}

fn inbound(id: Option<&str>, tls: bool) -> Flow {
    flow(Direction::Inbound, OUTSIDE, DB_AT, id, tls)
}

fn egress(id: Option<&str>) -> Flow {
    flow(Direction::Egress, FROM_FRONTEND, API_AT, id, id.is_some())
}

fn word(world: &World, flow: &Flow) -> String {
    match replay(&world.compile(), flow) {
        Outcome::Allowed { .. } => "allowed".into(),
        Outcome::Open { .. } => "open".into(),
        Outcome::Refused { reason, .. } => reason.to_string(),
    }
}

type Edit = fn(&mut World);

#[test]
fn a_recorded_call_is_decided_by_what_was_seen_of_it() {
    let partner = Some("spiffe://partner.org/billing/x");
    let revoke: Edit = |world| {
        let rule = RuleId(2);
        let (ids, domain) = (vec![(exact(FRONTEND), rule)], "example.com".into());
        world.snapshot.revoked = vec![Revoked { trust_domain: domain, ids, serials: vec![], crls: vec![] }];
    };
    let cases: [(&str, Flow, Edit, &str); 18] = [
        ("listed", inbound(Some(FRONTEND), true), |_| (), "allowed"),
        ("its SVID is renewed just now", inbound(Some(FRONTEND), true), |w| w.database().svid = None, "allowed"),
        ("not listed", inbound(Some(API), true), |_| (), "NotAllowedInbound"),
        ("listed no more", inbound(Some(FRONTEND), true), |w| w.database().inbound = Some(vec![]), "NotAllowedInbound"),
        ("revoked", inbound(Some(FRONTEND), true), revoke, "PeerRevoked"),
        ("of a partner", inbound(partner, true), |_| (), "allowed"),
        (
            "of nobody's trust domain",
            inbound(partner, true),
            |w| drop(w.snapshot.bundles.pop()),
            "PeerTrustDomainUnknown",
        ),
        ("plain", inbound(None, false), |w| w.database().mode = TlsMode::Permissive, "allowed"),
        ("plain under MUTUAL", inbound(None, false), |_| (), "PlaintextRefused"),
        ("anonymous", inbound(None, true), |w| w.database().mode = TlsMode::Simple, "allowed"),
        ("anonymous under MUTUAL", inbound(None, true), |_| (), "open"),
        ("a server", egress(Some(API)), |_| (), "allowed"),
        ("another server", egress(Some(DATABASE)), |_| (), "NotAllowedOutbound"),
        ("a server by two lists", egress(Some(API)), |w| w.frontend().outbound = Some(vec![]), "NotAllowedOutbound"),
        ("a plain server that no entry selects", egress(None), |w| w.frontend().egress.clear(), "allowed"),
        ("a plain server under MUTUAL", egress(None), |_| (), "open"),
        (
            "a server that no entry selects",
            egress(Some(API)),
            |w| {
                w.frontend().egress.clear();
                w.frontend().unmatched_egress = Unmatched::Refuse;
            },
            "UnmatchedEgress",
        ),
        ("a caller that is nobody", egress(Some(API)), |w| w.frontend().places.clear(), "NoIdentity"),
    ];
    for (name, flow, edit, want) in cases {
        let mut world = World::new();
        edit(&mut world);
        assert_eq!(word(&world, &flow), want, "{name}");
    }
}

#[test]
fn within_the_node_both_ends_are_known_and_what_was_shown_is_not_asked() {
    let local = flow(Direction::Local, FROM_FRONTEND, DB_AT, Some(DATABASE), false);
    let mut world = World::new();
    assert_eq!(word(&world, &local), "allowed");
    world.database().inbound = Some(vec![IdPattern::Exact(API.into())]);
    assert_eq!(word(&world, &local), "NotAllowedInbound");
}

/// Its rule is named, and it is the one that the verdict names.
#[test]
fn an_outcome_names_the_rule_that_decides() {
    let world = World::new();
    let compiled = world.compile();
    for (id, flow) in [(FRONTEND, inbound(Some(FRONTEND), true)), (API, inbound(Some(API), true))] {
        let verdict = decide(&compiled, &route(&compiled, OUTSIDE, DB_AT), Some(&peer(id)));
        let source = compiled.rule(verdict.rule().unwrap());
        let want = Some(format!("{} ({})", source.name, source.place));
        match (replay(&compiled, &flow), verdict) {
            (Outcome::Allowed { rule }, Verdict::Allow(_)) => assert_eq!(rule, want),
            (Outcome::Refused { reason, rule, detail }, Verdict::Refuse(by, _)) => {
                assert_eq!((reason, rule), (by, want));
                assert_eq!(reason, NotAllowedInbound);
                assert!(detail.is_some(), "what came nearest");
            }
            other => panic!("{other:?}"),
        }
    }
}
