//! `connection.bypass`: plain callers of MUTUAL ports, let in by exact source and exact port, and by nothing
//! less; and what becomes of them when the entry goes.

mod living;

use std::net::{IpAddr, SocketAddr};

use dataplane::planted::{Bug, plant};
use dataplane::stats::Total;
use living::{A, B, SECOND, call, change, deny_all, lasting, on_change, total, waiting};
use pktgen_tests::sim::topology::{CLOSED_PORT, PORT, address};
use pktgen_tests::sim::{Begin, Broken, Call, CallId, Expect, Finish, Script, Setup, Shown, Side, World};
use snapshot::{Admitted, Bypass, CloseReason, OnChange, RefuseReason, RuleId, RuleSource, Snapshot};

/// Lets these in at `ports` of the workload in this place.
fn bypass(snapshot: &mut Snapshot, workload: usize, sources: &[IpAddr], ports: &[u16]) {
    let rule = RuleId(snapshot.rules.len() as u32);
    let holder = &mut snapshot.workloads[workload];
    let name = format!("{} spec.connection.bypass[{}]", holder.name, holder.bypass.len());
    snapshot.rules.push(RuleSource { name, place: "probes.yaml:7".into() });
    holder.bypass.push(Bypass { rule, sources: sources.to_vec(), ports: ports.to_vec(), node: vec![] });
}

const BACKEND: usize = 0;
/// Of node-a.
const LOCAL: usize = 3;

/// A world in which `legacy` may probe the backend.
fn world(seed: u64) -> World {
    let mut world = World::new(&Setup::new(seed));
    let legacy = [false, true].map(|v6| address("legacy", v6));
    world.push(B, &[], |snapshot| bypass(snapshot, BACKEND, &legacy, &[PORT]));
    world
}

fn request() -> [Script; 2] {
    [Script::new(900, Begin::AtOnce, Finish::Last), Script::new(900, Begin::AfterReceived(900), Finish::WhenSent)]
}

/// A probe that says nothing and ends in this way.
fn silent(finish: Finish) -> [Script; 2] {
    [Script::new(0, Begin::AtOnce, finish), Script::new(0, Begin::AfterEnd, Finish::WhenSent)]
}

fn to(world: &mut World, from: &'static str, server: SocketAddr, scripts: [Script; 2], expect: Expect) -> CallId {
    let client = SocketAddr::new(address(from, server.is_ipv6()), world.port());
    let plain = ["legacy", "peer"].contains(&from);
    let call = Call { client, server, from, scripts, expect, plain };
    world.call(world.clock.micros(), call)
}

fn backend(v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(address("backend", v6), port)
}

fn finish(world: &mut World) -> Result<(), Broken> {
    world.run_until_over(20 * SECOND)?;
    world.finish(20 * SECOND, "bypass");
    Ok(())
}

fn hits(world: &World, node: usize, workload: usize) -> Vec<u64> {
    world.gateways[node].compiled().workloads[workload].bypass.hits().map(|(_, hits)| hits).collect()
}

#[test]
fn a_probe_from_a_listed_source_is_served_plain_counted_and_named() {
    let mut world = world(71);
    let v4 = to(&mut world, "legacy", backend(false, PORT), request(), Expect::Delivered);
    let v6 = to(&mut world, "legacy", backend(true, PORT), request(), Expect::Delivered);
    finish(&mut world).unwrap();
    for probe in [v4, v6] {
        let said = world.report(B, probe);
        assert_eq!((said.closed, said.admitted), (Some(CloseReason::Finished), Some(Admitted::Bypass)));
        assert_eq!(said.rule.as_deref(), Some("default/backend spec.connection.bypass[0] (probes.yaml:7)"));
        assert_eq!((said.tls, said.peer_id), (None, None));
    }
    assert_eq!(hits(&world, B, BACKEND), [2]);
    assert_eq!((total(&world, B, Total::RelayedBypass), total(&world, B, Total::RelayedPlain)), (2, 2));
}

#[test]
fn a_probe_that_says_nothing_has_what_it_came_for_when_it_is_answered() {
    for (finish_by, closed) in [
        (Finish::WhenSent, CloseReason::Finished),
        (Finish::Abort { sent: 0, received: 0 }, CloseReason::ResetByClient),
    ] {
        let mut world = world(72);
        let expect = if closed == CloseReason::Finished { Expect::Delivered } else { Expect::AbortedBy(Side::Client) };
        let probe = to(&mut world, "legacy", backend(false, PORT), silent(finish_by), expect);
        finish(&mut world).unwrap();
        let said = world.report(B, probe);
        assert_eq!((said.closed, said.refused, said.admitted), (Some(closed), None, Some(Admitted::Bypass)));
        assert_eq!(hits(&world, B, BACKEND), [1]);
    }
}

/// A gateway that answered by itself would call a dead service well.
#[test]
fn a_probe_of_a_service_that_is_not_there_is_refused_by_it() {
    let mut world = World::new(&Setup::new(73));
    world.push(B, &[], |snapshot| bypass(snapshot, BACKEND, &[address("legacy", false)], &[CLOSED_PORT]));
    let probe = to(&mut world, "legacy", backend(false, CLOSED_PORT), silent(Finish::WhenSent), Expect::Refused);
    finish(&mut world).unwrap();
    let said = world.report(B, probe);
    assert_eq!((said.refused, said.admitted), (Some(RefuseReason::ConnectRefused), None));
    let heard = world.end(probe, Side::Client).expect("it called").progress.clone();
    assert!(!heard.connected, "{heard:?}");
}

/// What is not listed, exactly: another port of the same source, another source at the same port. What became
/// of the four.
fn unlisted() -> Result<(World, Vec<CallId>), Broken> {
    let mut world = world(74);
    let other = backend(false, CLOSED_PORT);
    let probes = vec![
        to(&mut world, "legacy", other, request(), Expect::Refused),
        to(&mut world, "peer", backend(false, PORT), request(), Expect::Refused),
        to(&mut world, "peer", backend(true, PORT), request(), Expect::Refused),
    ];
    world.run_until_over(20 * SECOND)?;
    for probe in &probes {
        let said = world.report(B, *probe).refused;
        if said != Some(RefuseReason::PlaintextRefused) {
            return Err(world.broken(format!("{probe:?} got further than its first byte: {said:?}")));
        }
    }
    finish(&mut world)?;
    Ok((world, probes))
}

#[test]
fn another_port_and_another_source_are_refused_as_ever() {
    let (world, probes) = unlisted().unwrap();
    assert!(probes.iter().all(|probe| world.report(B, *probe).admitted.is_none()));
    assert_eq!(hits(&world, B, BACKEND), [0]);
}

#[test]
fn a_listed_source_that_offers_tls_is_a_caller_like_any_other() {
    let mut world = World::new(&Setup::new(75));
    world.push(B, &[], |snapshot| bypass(snapshot, BACKEND, &[address("peer", false)], &[PORT]));
    let mut tls = |shown, expect| {
        let client = SocketAddr::new(address("peer", false), world.port());
        let call =
            Call { client, server: backend(false, PORT), from: "peer", scripts: request(), expect, plain: false };
        world.call_tls(0, call, shown)
    };
    let own = tls(Shown::Own, Expect::Delivered);
    let stranger = tls(Shown::Stranger, Expect::Refused);
    let nobody = tls(Shown::Nothing, Expect::Refused);
    finish(&mut world).unwrap();
    let said = world.report(B, own);
    assert_eq!((said.admitted, said.peer_id.as_deref()), (Some(Admitted::Identity), Some("spiffe://example.com/peer")));
    assert_eq!(world.report(B, stranger).refused, Some(RefuseReason::NotAllowedInbound));
    assert_eq!(world.report(B, nobody).refused, Some(RefuseReason::NoClientCertificate));
    assert_eq!(hits(&world, B, BACKEND), [0], "none of them bypassed anything");
}

#[test]
fn a_probe_needs_no_svid_of_ours_and_a_deny_comes_before_it() {
    let mut world = world(76);
    world.push(B, &[], |snapshot| snapshot.workloads[BACKEND].svid = None);
    let served = to(&mut world, "legacy", backend(false, PORT), request(), Expect::Delivered);
    world.run_until_over(20 * SECOND).unwrap();
    world.push(B, &[], |snapshot| deny_all(snapshot, "legacy"));
    let denied = to(&mut world, "legacy", backend(false, PORT), request(), Expect::Refused);
    finish(&mut world).unwrap();
    assert_eq!(world.report(B, served).admitted, Some(Admitted::Bypass));
    assert_eq!(world.report(B, denied).refused, Some(RefuseReason::DeniedByRule));
}

/// Callers behind an inside port with a listed address: a workload, and one that has no identity there, as
/// somebody has who puts another's address on his packets.
fn from_inside() -> Result<World, Broken> {
    let mut world = World::new(&Setup::new(77));
    let sources = ["batch", "nobody"].map(|name| address(name, false));
    world.push(A, &[], |snapshot| bypass(snapshot, LOCAL, &sources, &[PORT]));
    let server = SocketAddr::new(address("local", false), PORT);
    for (from, reason) in [("batch", RefuseReason::NotAllowedInbound), ("nobody", RefuseReason::NoIdentity)] {
        let call = to(&mut world, from, server, request(), Expect::Refused);
        world.run_until_over(20 * SECOND)?;
        let said = world.report(A, call).refused;
        if said != Some(reason) {
            return Err(world.broken(format!("{from}: {said:?}, not {reason:?}")));
        }
    }
    world.finish(20 * SECOND, "from inside");
    Ok(world)
}

#[test]
fn who_sends_from_an_inside_port_is_asked_who_it_is_whatever_address_is_listed() {
    let world = from_inside().unwrap();
    assert_eq!(hits(&world, A, LOCAL), [0]);
}

/// A living probe, and then the entry goes.
fn taken_away(then: OnChange) -> Result<(World, CallId), Broken> {
    let mut world = world(78);
    world.push(B, &[], |snapshot| {
        snapshot.workloads.iter_mut().for_each(|workload| workload.living = on_change(then));
    });
    let probe = to(&mut world, "legacy", backend(false, PORT), waiting(), Expect::Cut);
    // Of a gateway where nothing happens no turns are made.
    call(&mut world, "legacy", "open", lasting(9));
    world.run(world.clock.micros() + SECOND, |_| false)?;
    change(&mut world, |snapshot| snapshot.workloads[BACKEND].bypass.clear());
    world.run(world.clock.micros() + SECOND / 2, |_| false)?;
    Ok((world, probe))
}

#[test]
fn an_entry_that_goes_takes_its_living_connections_along_as_on_change_says() {
    for then in [OnChange::Cut, OnChange::Drain, OnChange::Keep] {
        let (mut world, probe) = taken_away(then).unwrap();
        let is_live =
            |world: &World| !world.gateways[B].ended.iter().any(|ended| ended.client == world.calls[probe.0].client);
        assert_eq!(is_live(&world), then != OnChange::Cut, "{then:?}");
        world.run(world.clock.micros() + 3 * SECOND, |_| false).unwrap();
        assert_eq!(is_live(&world), then == OnChange::Keep, "{then:?}");
        if then != OnChange::Keep {
            let said = world.report(B, probe);
            assert_eq!((said.closed, said.admitted), (Some(CloseReason::PolicyChanged), Some(Admitted::Bypass)));
        }
        // The new one is refused in any case.
        let new = to(&mut world, "legacy", backend(false, PORT), request(), Expect::Refused);
        world.run(world.clock.micros() + 3 * SECOND, |_| false).unwrap();
        assert_eq!(world.report(B, new).refused, Some(RefuseReason::PlaintextRefused), "{then:?}");
        assert_eq!(total(&world, B, Total::Kept), u64::from(then == OnChange::Keep));
    }
}

#[test]
fn an_entry_that_stays_keeps_its_connections_and_its_count_through_other_changes() {
    let mut world = world(79);
    let probe = to(&mut world, "legacy", backend(false, PORT), waiting(), Expect::Cut);
    call(&mut world, "legacy", "open", lasting(9));
    world.run(SECOND, |_| false).unwrap();
    let legacy = [false, true].map(|v6| address("legacy", v6));
    change(&mut world, |snapshot| {
        let entry = snapshot.workloads[BACKEND].bypass.pop().expect("there is one");
        bypass(snapshot, BACKEND, &[address("peer", true)], &[PORT]);
        snapshot.workloads[BACKEND].bypass.push(entry);
    });
    change(&mut world, |snapshot| bypass(snapshot, BACKEND, &legacy, &[CLOSED_PORT]));
    world.run(world.clock.micros() + SECOND, |_| false).unwrap();
    assert!(world.gateways[B].ended.iter().all(|ended| ended.client != world.calls[probe.0].client));
    assert_eq!(hits(&world, B, BACKEND), [0, 1, 0]);
}

#[test]
fn each_planted_bug_of_bypasses_is_caught() {
    let outlived = || {
        let (world, probe) = taken_away(OnChange::Cut)?;
        let cut = world.gateways[B].ended.iter().any(|ended| ended.client == world.calls[probe.0].client);
        if cut { Ok(()) } else { Err(world.broken("it lives on".into())) }
    };
    type Run<'a> = &'a dyn Fn() -> Result<(), Broken>;
    let cases: [(Bug, Run<'_>, &str); 3] = [
        (Bug::BypassAnyPort, &|| unlisted().map(drop), "got further"),
        (Bug::BypassInside, &|| from_inside().map(drop), "payload without an Allow in force"),
        (Bug::BypassOutlived, &outlived, "it lives on"),
    ];
    for (bug, run, sign) in cases {
        assert!(Bug::OF_BYPASSES.contains(&bug));
        run().unwrap_or_else(|broken| panic!("{bug:?} without the bug: {broken}"));
        plant(Some(bug));
        let caught = run();
        plant(None);
        let broken = caught.expect_err("it was not caught");
        assert!(broken.what.contains(sign), "{bug:?}: {broken}");
    }
}
