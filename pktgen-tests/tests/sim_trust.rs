//! Revocation while calls live, by ID, serial and CRL. What no longer holds is cut within one walk over the
//! table, and nothing else notices.

mod trust_calls;

use dataplane::planted::{Bug, plant};
use pktgen_tests::sim::pki::{Authority, Identity, TRUST_DOMAIN};
use pktgen_tests::sim::topology::{PORT, TLS_PORT, id};
use pktgen_tests::sim::trust::{revoke_by_crl, revoke_id, revoke_serial, trust};
use pktgen_tests::sim::{Broken, CallId, Expect, Setup, Side, World, clock::EPOCH};
use snapshot::{CloseReason, Crl, IdPattern, RefuseReason, RuleId};
use trust_calls::{A, B, SECOND, change, finish, issue, plain, quick, report, shows, slow};

/// What is taken away from living calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Id,
    TwoIds,
    Serial,
    Crl,
    Root,
}

/// As ctrl makes it of a file.
fn crl(authority: &Authority, revoked: &[&Identity], fails_after: Option<u64>) -> Crl {
    let list = ctrl::config::crl::read(&authority.crl(revoked)).expect("it is right");
    Crl { issuer: list.issuer_id, serials: list.serials, rule: RuleId(0), fails_after, is_stale: false }
}

/// Calls of every kind in a table of many turns' walk, some of which lose their permission: those that
/// were cut, and the others.
fn take_back(way: Way) -> Result<(World, Vec<CallId>, Vec<CallId>), Broken> {
    let mut setup = Setup::new(31);
    setup.limits.sessions = 1_024;
    let mut world = World::new(&setup);
    let mut second = Authority::new(world.chance.fork(), TRUST_DOMAIN);
    let bundles = [world.authority.bundle(), second.bundle()];
    world.push(B, &[], |snapshot| trust(snapshot, &bundles));
    let own = [issue(&mut world.authority, &id("peer")), issue(&mut world.authority, &id("peer"))];
    let of_second = issue(&mut second, &id("peer"));
    let mut cut = Vec::new();
    let mut others = Vec::new();
    for _ in 0..24 {
        let batch = plain(&mut world, "batch", ("backend", PORT), slow());
        let peers = [&own[0], &own[1], &of_second].map(|shown| shows(&mut world, shown, slow()));
        let frontend = plain(&mut world, "frontend", ("backend", PORT), slow());
        for (call, matches) in [
            (batch, matches!(way, Way::Id | Way::TwoIds)),
            (peers[0], matches!(way, Way::Serial | Way::Crl)),
            (peers[1], false),
            (peers[2], way == Way::Root),
            (frontend, way == Way::TwoIds),
        ] {
            if matches { cut.push(call) } else { others.push(call) }
        }
    }
    world.run(2 * SECOND, |_| false)?;
    let serial = own[0].svid.serial.clone();
    let of_own = crl(&world.authority, &[&own[0]], None);
    // Another issuer's, which means others by the same serials.
    let of_other = Crl { issuer: [7; 32], ..crl(&world.authority, &[&own[1], &of_second], None) };
    change(&mut world, B, &cut, |snapshot| match way {
        Way::Id => revoke_id(snapshot, IdPattern::Exact(id("batch"))),
        Way::TwoIds => {
            revoke_id(snapshot, IdPattern::Exact(id("frontend")));
            revoke_id(snapshot, IdPattern::Exact(id("batch")));
        }
        Way::Serial => revoke_serial(snapshot, &serial),
        Way::Crl => [of_other, of_own].into_iter().for_each(|crl| revoke_by_crl(snapshot, TRUST_DOMAIN, crl)),
        Way::Root => trust(snapshot, &bundles[..1]),
    })?;
    finish(&mut world)?;
    Ok((world, cut, others))
}

#[test]
fn a_revoked_id_serial_or_root_cuts_the_living_calls_that_match_and_no_other() {
    for (way, reason) in [
        (Way::Id, "PeerRevoked: TrustBundle default/test spec.revoked.spiffeIDs in trust.yaml:"),
        (Way::TwoIds, "PeerRevoked: TrustBundle default/test spec.revoked.spiffeIDs in trust.yaml:"),
        (Way::Serial, "PeerRevoked: TrustBundle default/test spec.revoked.serials in trust.yaml:"),
        (Way::Crl, "PeerRevoked: TrustBundle default/test spec.revoked.crls in trust.yaml:"),
        (Way::Root, "PeerUntrusted: spiffe://example.com/peer chains to root \"CN=example.com root\""),
    ] {
        let (world, cut, others) = take_back(way).unwrap_or_else(|broken| panic!("{way:?}: {broken}"));
        assert!(cut.len() >= 24 && others.len() >= 72, "{way:?}");
        for id in &cut {
            let said = report(&world, B, *id);
            assert_eq!(said.closed, Some(CloseReason::PolicyChanged), "{way:?}: {said:#?}");
            let detail = said.detail.as_deref().unwrap_or_default();
            assert!(detail.starts_with(reason), "{way:?}: {detail}");
            assert_eq!(said.version, world.gateways[B].snapshot().version);
        }
        for id in &others {
            assert_eq!(report(&world, B, *id).closed, Some(CloseReason::Finished), "{way:?}");
        }
    }
}

#[test]
fn each_planted_bug_of_trust_is_caught() {
    for (bug, way, caught) in [
        (Bug::RevokedServed, Way::Id, "payload without an Allow in force"),
        (Bug::RevokedServed, Way::Serial, "payload without an Allow in force"),
        (Bug::RevokedServed, Way::Crl, "payload without an Allow in force"),
        (Bug::IssuerIgnored, Way::Crl, "bytes are missing"),
        (Bug::DroppedRootTrusted, Way::Root, "payload without an Allow in force"),
    ] {
        assert!(Bug::OF_TRUST.contains(&bug));
        plant(Some(bug));
        let run = take_back(way);
        plant(None);
        let broken = run.map(drop).expect_err("it was not caught");
        assert!(broken.what.contains(caught), "{bug:?}: {broken}");
    }
}

const BILLING: &str = "spiffe://partner.org/billing";

/// A living call of a partner and one of ours, while a CRL of the partner's is stale, or will be: what is
/// there of both in the end.
fn stale(fails_after: u64, is_stale: bool) -> Result<(World, [CallId; 3]), Broken> {
    let mut world = World::new(&Setup::new(38));
    let mut partner = Authority::new(world.chance.fork(), "partner.org");
    let bundle = partner.bundle();
    world.push(B, &[], |snapshot| {
        snapshot.bundles.push(bundle);
        let list = snapshot.workloads[0].inbound.as_mut().expect("backend has a list");
        list.push(IdPattern::Exact(BILLING.into()));
    });
    let (theirs, ours) = (issue(&mut partner, BILLING), issue(&mut world.authority, &id("peer")));
    let [living, own] = [&theirs, &ours].map(|shown| shows(&mut world, shown, slow()));
    world.run(2 * SECOND, |_| false)?;
    let crl = Crl { is_stale, ..crl(&partner, &[], Some(fails_after)) };
    let cut: &[CallId] = if is_stale { &[living] } else { &[] };
    change(&mut world, B, cut, |snapshot| revoke_by_crl(snapshot, "partner.org", crl))?;
    let new = shows(&mut world, &theirs, quick());
    if is_stale || world.clock.unix() > fails_after {
        world.calls[new.0].expect = Expect::Refused;
        world.oracle.forbid(new);
    }
    finish(&mut world)?;
    Ok((world, [living, own, new]))
}

#[test]
fn a_stale_crl_that_fails_refuses_its_trust_domain_and_cuts_what_lives_once_a_snapshot_says_so() {
    for (name, after, is_stale, want) in [
        ("fresh", 3_600, false, (CloseReason::Finished, None)),
        // Ctrl has not said so: living calls wait for its word, new ones are held to the clock.
        ("stale since", 0, false, (CloseReason::Finished, Some(RefuseReason::CrlStale))),
        ("stale", 0, true, (CloseReason::PolicyChanged, Some(RefuseReason::CrlStale))),
    ] {
        let (world, [living, own, new]) = stale(EPOCH + after, is_stale).unwrap_or_else(|b| panic!("{name}: {b}"));
        let (living, own, new) = (report(&world, B, living), report(&world, B, own), report(&world, B, new));
        assert_eq!((living.closed, new.refused), (Some(want.0), want.1), "{name}: {living:#?} {new:#?}");
        assert_eq!(own.closed, Some(CloseReason::Finished), "{name}: ours is of another trust domain");
        if is_stale {
            let detail = living.detail.as_deref().unwrap_or_default();
            let why = "CrlStale: TrustBundle default/test spec.revoked.crls in trust.yaml:";
            assert!(detail.starts_with(why) && detail.ends_with("says onStale: fail"), "{detail}");
        }
    }
    for is_stale in [false, true] {
        plant(Some(Bug::StaleServed));
        let run = stale(EPOCH, is_stale);
        plant(None);
        let broken = run.map(drop).expect_err("it was not caught");
        assert!(broken.what.contains("payload without an Allow in force"), "{broken}");
    }
}

#[test]
fn a_caller_whose_chain_is_known_is_refused_once_it_is_revoked() {
    let mut world = World::new(&Setup::new(32));
    let (one, other) = (issue(&mut world.authority, &id("peer")), issue(&mut world.authority, &id("peer")));
    for shown in [&one, &other, &one, &other] {
        shows(&mut world, shown, quick());
        finish(&mut world).expect("it is allowed");
    }
    world.push(B, &[], |snapshot| revoke_serial(snapshot, &one.svid.serial));
    let refused = shows(&mut world, &one, quick());
    world.calls[refused.0].expect = Expect::Refused;
    world.oracle.forbid(refused);
    let allowed = shows(&mut world, &other, quick());
    finish(&mut world).expect("one is refused, the other is not");
    let said = report(&world, B, refused);
    assert_eq!(said.refused, Some(RefuseReason::PeerRevoked));
    assert!(said.rule.as_deref().is_some_and(|rule| rule.starts_with("TrustBundle default/test")), "{said:#?}");
    let heard = world.end(refused, Side::Client).and_then(|end| end.progress.tls.clone());
    assert_eq!(heard.as_deref(), Some("CertificateRevoked"));
    assert_eq!(report(&world, B, allowed).closed, Some(CloseReason::Finished));
}

#[test]
fn a_server_that_is_revoked_is_not_called_and_what_lives_to_it_is_cut() {
    let mut world = World::new(&Setup::new(33));
    let lives = plain(&mut world, "frontend", ("backend", PORT), slow());
    let direct = plain(&mut world, "frontend", ("peer", TLS_PORT), slow());
    world.run(SECOND, |_| false).expect("both stand");
    let backend = IdPattern::Exact(id("backend"));
    change(&mut world, A, &[lives], |snapshot| revoke_id(snapshot, backend)).expect("it is in force in time");
    let refused = plain(&mut world, "frontend", ("backend", PORT), quick());
    world.calls[refused.0].expect = Expect::Refused;
    finish(&mut world).expect("one is cut, one refused, one delivered");
    assert_eq!(report(&world, A, lives).closed, Some(CloseReason::PolicyChanged));
    assert_eq!(report(&world, A, refused).refused, Some(RefuseReason::PeerRevoked));
    assert_eq!(report(&world, A, direct).closed, Some(CloseReason::Finished));
}

#[test]
fn a_workload_of_this_node_that_is_revoked_is_refused_here_already() {
    let mut world = World::new(&Setup::new(34));
    let to_backend = plain(&mut world, "frontend", ("backend", PORT), slow());
    let local = plain(&mut world, "frontend", ("local", PORT), slow());
    let batch = plain(&mut world, "batch", ("backend", PORT), slow());
    world.run(SECOND, |_| false).expect("all stand");
    let frontend = IdPattern::Exact(id("frontend"));
    change(&mut world, A, &[to_backend, local], |snapshot| revoke_id(snapshot, frontend)).expect("in time");
    for to in ["backend", "local"] {
        let refused = plain(&mut world, "frontend", (to, PORT), quick());
        world.calls[refused.0].expect = Expect::Refused;
        world.run(world.clock.micros() + SECOND, |_| false).expect("nothing breaks");
        let said = report(&world, A, refused);
        assert_eq!(said.refused, Some(RefuseReason::PeerRevoked), "{to}");
        assert!(said.rule.is_some() && said.detail.is_some(), "{to}: {said:#?}");
    }
    finish(&mut world).expect("the others are delivered");
    for cut in [to_backend, local] {
        assert_eq!(report(&world, A, cut).closed, Some(CloseReason::PolicyChanged));
    }
    assert_eq!(report(&world, A, batch).closed, Some(CloseReason::Finished));
}

#[test]
fn the_callee_of_a_local_call_is_revoked_like_any_server() {
    let mut world = World::new(&Setup::new(35));
    let lives = plain(&mut world, "frontend", ("local", PORT), slow());
    // Keeps the worker turning, by whose turns the simulation tells that all was decided again.
    plain(&mut world, "batch", ("backend", PORT), slow());
    world.run(SECOND, |_| false).expect("it stands");
    change(&mut world, A, &[lives], |snapshot| revoke_id(snapshot, IdPattern::Exact(id("local")))).expect("in time");
    let refused = plain(&mut world, "frontend", ("local", PORT), quick());
    world.calls[refused.0].expect = Expect::Refused;
    finish(&mut world).expect("one is cut, one refused, one delivered");
    assert_eq!(report(&world, A, lives).closed, Some(CloseReason::PolicyChanged));
    assert_eq!(report(&world, A, refused).refused, Some(RefuseReason::PeerRevoked));
}
