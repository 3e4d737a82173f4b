//! One address, two workloads that listen there: who is called is known before anything is spent, or the call is
//! refused.

mod attested;

use std::net::SocketAddr;

use attested::{A, B, LIMIT, SECOND, finish, quick, report, slow};
use dataplane::planted::{Bug, plant};
use dataplane::stats::Total;
use dataplane::worker::{Asked, FROM_WIRE, HELD};
use pktgen_tests::packet::Packet;
use pktgen_tests::sim::attestor::{Answer, Attestor, owner};
use pktgen_tests::sim::host::Service;
use pktgen_tests::sim::topology::{self, PORT, Segment, address, id};
use pktgen_tests::sim::{Broken, Call, CallId, Expect, Script, Setup, World};
use snapshot::policy::Endpoint;
use snapshot::{
    CloseReason, ConnectionReport, Found, Party, ProcessSelector, RefuseReason, Snapshot, Unfound, VirtualAddress,
};

const BACKEND: u32 = 1;
const OPEN: u32 = 2;

fn uid(uid: u32) -> ProcessSelector {
    ProcessSelector { uid: Some(uid), ..ProcessSelector::of(format!("policy.yaml:{uid}")) }
}

/// `backend` and `open` both have the backend's addresses, and users tell them apart.
fn share(snapshot: &mut Snapshot, backend: u32, open: u32) {
    let mut places = snapshot.workloads[0].places.clone();
    for (workload, user) in snapshot.workloads.iter_mut().zip([backend, open]) {
        places.iter_mut().for_each(|place| place.processes = vec![uid(user)]);
        workload.places = places.clone();
    }
}

fn world(say: impl FnMut(&Asked) -> Answer + 'static) -> World {
    let mut world = World::new(&Setup::new(43));
    world.push(B, &[], |snapshot| share(snapshot, BACKEND, OPEN));
    world.gateways[B].attestor = Attestor::new(say);
    world
}

fn call(world: &mut World, (from, to): (&'static str, &str), v6: bool, scripts: [Script; 2], expect: Expect) -> CallId {
    let (client, server) = (SocketAddr::new(address(from, v6), world.port()), SocketAddr::new(address(to, v6), PORT));
    let call = Call { client, server, from, scripts, expect, plain: false };
    world.call(world.clock.micros(), call)
}

fn sessions(world: &World, node: usize) -> u64 {
    world.gateways[node].mailbox().counters.total(Total::SessionsOpened)
}

const TO_BACKEND: (&str, &str) = ("frontend", "backend");

#[test]
fn a_call_from_the_wire_is_for_whose_process_listens_over_both_families() {
    for v6 in [false, true] {
        for (user, name) in [(BACKEND, "backend"), (OPEN, "open")] {
            let mut world = world(move |asked| {
                assert_eq!((asked.party, asked.server.port()), (Party::Listener, PORT));
                Answer::After(50_000, owner(&[user]))
            });
            let call = call(&mut world, TO_BACKEND, v6, quick(), Expect::Delivered);
            finish(&mut world).unwrap_or_else(|broken| panic!("{name}: {broken}"));
            assert_eq!(report(&world, A, call).peer_id, Some(id(name)), "the caller is shown who it is");
            let said = report(&world, B, call);
            assert_eq!((said.local_id.clone(), said.closed), (Some(id(name)), Some(CloseReason::Finished)));
            let evidence = said.attested.as_deref().expect("evidence");
            assert!(evidence.starts_with(&format!("process:uid {user} (policy.yaml:{user}): pid")), "{evidence}");
            assert!(evidence.ends_with("listens by socket 4711"), "{evidence}");
            assert_eq!(world.gateways[B].attestor.asked.len(), 1);
        }
    }
}

fn nobody() -> Found {
    Err(Unfound::Nobody("nobody listens".into()))
}

/// One call from the wire that the attestor says this of, and what node-b made of it.
fn told(answer: Answer, expect: Expect) -> Result<(World, ConnectionReport), Broken> {
    let mut world = world(move |_| answer.clone());
    let id = call(&mut world, TO_BACKEND, false, quick(), expect);
    finish(&mut world)?;
    let said = report(&world, B, id).clone();
    Ok((world, said))
}

#[test]
fn without_an_answer_in_time_the_call_is_refused_before_anything_is_spent() {
    let wrongly = |found: Found| Answer::AtOnce(found);
    for (name, answer, says) in [
        ("never", Answer::Never, "who listens: see sluice-ctrl"),
        ("late", Answer::After(150_000, owner(&[BACKEND])), "who listens: see sluice-ctrl"),
        ("nobody", wrongly(nobody()), "nobody listens"),
        ("a stranger", wrongly(owner(&[7])), "matches no selector of default/"),
        ("one of each", wrongly(owner(&[BACKEND, OPEN])), "not all match default/"),
        ("a stranger too", wrongly(owner(&[BACKEND, 7])), "not all match default/backend"),
    ] {
        let (world, said) = told(answer, Expect::Refused).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        assert_eq!(said.refused, Some(RefuseReason::NotAttested), "{name}");
        assert!(said.detail.as_deref().is_some_and(|detail| detail.contains(says)), "{name}: {said:#?}");
        assert_eq!(sessions(&world, B), 0, "{name}");
    }
}

/// On node-a: the frontend and `local` are told by process, and call one another.
fn both_ends(caller: Answer, listener: Answer, expect: Expect) -> (World, CallId) {
    let mut world = World::new(&Setup::new(44));
    world.push(A, &[], |snapshot| {
        for (at, user) in [(0, BACKEND), (3, OPEN)] {
            snapshot.workloads[at].places.iter_mut().for_each(|place| place.processes = vec![uid(user)]);
        }
    });
    world.gateways[A].attestor = Attestor::new(move |asked| match asked.party {
        Party::Caller => caller.clone(),
        Party::Listener => listener.clone(),
    });
    let id = call(&mut world, ("frontend", "local"), false, quick(), expect);
    finish(&mut world).unwrap_or_else(|broken| panic!("{broken}"));
    (world, id)
}

#[test]
fn within_a_node_both_ends_are_asked_about_at_once_and_both_have_to_be_told() {
    let (frontend, local) =
        (|after| Answer::After(after, owner(&[BACKEND])), |after| Answer::After(after, owner(&[OPEN])));
    for (caller, listener) in [(frontend(60_000), local(80_000)), (frontend(80_000), local(60_000))] {
        let (world, id) = both_ends(caller, listener, Expect::Delivered);
        let said = report(&world, A, id);
        assert_eq!(
            (said.local_id.clone(), said.peer_id.clone()),
            (Some(topology::id("frontend")), Some(topology::id("local")))
        );
        let evidence = said.attested.as_deref().expect("evidence");
        assert!(evidence.contains("uid 1") && evidence.contains("holds socket 4711; process:uid 2"), "{evidence}");
        assert_eq!(world.gateways[A].attestor.asked.len(), 2);
    }
    for (caller, listener, says) in [
        (frontend(0), Answer::Never, "who listens"),
        (Answer::Never, local(0), "who calls"),
        (frontend(0), Answer::AtOnce(nobody()), "nobody listens"),
        (frontend(0), Answer::AtOnce(owner(&[BACKEND])), "matches no selector of default/local"),
        (Answer::AtOnce(owner(&[OPEN])), local(0), "matches no selector of default/frontend"),
    ] {
        let (world, id) = both_ends(caller, listener, Expect::Refused);
        let said = report(&world, A, id);
        assert_eq!(said.refused, Some(RefuseReason::NotAttested));
        assert!(said.detail.as_deref().is_some_and(|detail| detail.contains(says)), "{says}: {said:#?}");
        assert_eq!(sessions(&world, A), 0);
    }
}

/// Behind it: `local`, told by its process, at three ports of which it listens at all but the closed one.
const VIP: &str = "203.0.113.10:80";
const ENDPOINTS: [u16; 3] = [3101, 3102, 3103];
const CLOSED: u16 = 3102;

fn at_local(port: u16) -> SocketAddr {
    SocketAddr::new(address("local", false), port)
}

/// Forty calls of the frontend to the virtual address, and what node-a says of each.
fn balanced(
    say: impl FnMut(&Asked) -> Answer + 'static,
    open: &[u16],
    expect: Expect,
) -> (World, Vec<ConnectionReport>) {
    let mut world = World::new(&Setup::new(45));
    let vip: SocketAddr = VIP.parse().unwrap();
    for name in ["local", "frontend"] {
        world.host(name).stands_for = vec![vip];
    }
    open.iter().for_each(|port| world.host("local").listen(*port, Service::Plain));
    world.push(A, &[], |snapshot| {
        snapshot.workloads[3].places.iter_mut().for_each(|place| place.processes = vec![uid(OPEN)]);
        let service = &mut snapshot.services[2];
        service.endpoints = ENDPOINTS.map(|port| Endpoint { address: at_local(port), host: None }).into();
        service.virtual_addresses = vec![VirtualAddress { address: vip, endpoints: vec![0, 1, 2] }];
    });
    world.gateways[A].attestor = Attestor::new(say);
    let calls: Vec<_> = (0..40)
        .map(|nth| {
            let client = SocketAddr::new(address("frontend", false), world.port());
            let call = Call { client, server: vip, from: "frontend", scripts: quick(), expect, plain: false };
            world.call(nth * 100_000, call)
        })
        .collect();
    world.run_until_over(LIMIT).unwrap();
    world.run(world.clock.micros() + SECOND, |_| false).unwrap();
    let said = calls.into_iter().map(|id| report(&world, A, id).clone()).collect();
    (world, said)
}

fn total(world: &World, total: Total) -> u64 {
    world.gateways[A].mailbox().counters.total(total)
}

#[test]
fn a_call_to_a_virtual_address_goes_to_the_endpoint_whose_listener_was_asked_for() {
    let (world, said) = balanced(|_| Answer::After(20_000, owner(&[OPEN])), &ENDPOINTS, Expect::Delivered);
    for said in said {
        let asked = world.gateways[A].attestor.asked.iter().find(|asked| asked.client == said.client);
        assert_eq!(asked.map(|asked| asked.server), said.endpoint, "{said:#?}");
        assert!(said.attested.is_some() && said.closed == Some(CloseReason::Finished), "{said:#?}");
    }
}

#[test]
fn an_endpoint_where_nobody_listens_is_left_for_another_and_given_no_calls_after_five() {
    let says = |asked: &Asked| Answer::AtOnce(if asked.server.port() == CLOSED { nobody() } else { owner(&[OPEN]) });
    let (world, said) = balanced(says, &[3101, 3103], Expect::Delivered);
    assert!(said.iter().all(|said| said.closed == Some(CloseReason::Finished)), "{said:#?}");
    assert!(said.iter().all(|said| said.endpoint != Some(at_local(CLOSED))), "{said:#?}");
    let counts = [Total::ConnectsRetried, Total::EndpointsFailed, Total::EndpointEjections];
    assert_eq!(counts.map(|each| total(&world, each)), [5, 5, 1]);
    // Where somebody else listens, the call is refused: that is no matter of which endpoint.
    let says = |asked: &Asked| Answer::AtOnce(owner(&[if asked.server.port() == CLOSED { 7 } else { OPEN }]));
    let (world, said) = balanced(says, &[3101, 3103], Expect::Delivered);
    let refused: Vec<_> = said.iter().filter(|said| said.refused == Some(RefuseReason::NotAttested)).collect();
    assert!(!refused.is_empty() && refused.iter().all(|said| said.endpoint == Some(at_local(CLOSED))), "{said:#?}");
    assert_eq!(refused[0].workload.as_deref(), Some("default/local"));
    assert_eq!(total(&world, Total::ConnectsRetried), 0);
}

/// The attestor says that somebody listens at the closed port. How many calls went on to another one, of which
/// nobody was asked.
fn went_on_unasked() -> u64 {
    let (world, said) = balanced(|_| Answer::AtOnce(owner(&[OPEN])), &[3101, 3103], Expect::Delivered);
    let lost = said.iter().filter(|said| said.refused == Some(RefuseReason::ConnectRefused)).count();
    assert!(lost > 0 || total(&world, Total::ConnectsRetried) > 0, "{said:#?}");
    total(&world, Total::ConnectsRetried)
}

#[test]
fn a_call_that_finds_its_endpoint_closed_is_given_no_other_whose_listener_is_unknown() {
    assert_eq!(went_on_unasked(), 0);
}

#[test]
fn an_answer_about_who_listened_behind_another_port_or_at_another_time_is_none() {
    // While it is asked who listens, a snapshot comes by which that is another matter.
    let mut world = world(|_| Answer::After(60_000, owner(&[BACKEND])));
    let id = call(&mut world, TO_BACKEND, false, quick(), Expect::Refused);
    world.run(20_000, |_| false).unwrap();
    world.push(B, &[], |snapshot| share(snapshot, 9, OPEN));
    finish(&mut world).unwrap();
    let said = report(&world, B, id);
    assert_eq!((said.refused, sessions(&world, B)), (Some(RefuseReason::NotAttested), 0), "{said:#?}");
    // By one in which the address alone is enough, nobody has to be asked again.
    let mut world = self::world(|_| Answer::After(60_000, owner(&[7])));
    let id = call(&mut world, TO_BACKEND, false, quick(), Expect::Delivered);
    world.run(20_000, |_| false).unwrap();
    world.push(B, &[], |snapshot| {
        snapshot.workloads[1].places.clear();
        snapshot.workloads[0].places.iter_mut().for_each(|place| place.processes.clear());
    });
    finish(&mut world).unwrap();
    assert_eq!(report(&world, B, id).local_id, Some(topology::id("backend")));
}

#[test]
fn a_living_call_is_cut_when_its_listener_no_longer_matches_and_others_are_not() {
    let mut world = world(|asked| Answer::AtOnce(owner(&[if asked.client.is_ipv6() { OPEN } else { BACKEND }])));
    let backend = call(&mut world, TO_BACKEND, false, slow(), Expect::Cut);
    let open = call(&mut world, TO_BACKEND, true, slow(), Expect::Delivered);
    world.run(2 * SECOND, |_| false).unwrap();
    world.push(B, &[], |snapshot| share(snapshot, 9, OPEN));
    finish(&mut world).unwrap();
    let said = report(&world, B, backend);
    assert_eq!(said.closed, Some(CloseReason::PolicyChanged), "{said:#?}");
    assert!(said.detail.as_deref().is_some_and(|detail| detail.contains("matches no selector")), "{said:#?}");
    assert_eq!(report(&world, B, open).closed, Some(CloseReason::Finished));
}

fn syn(from: (&str, u16), to: &str, node: usize, inside: bool) -> Vec<u8> {
    let (client, server) = (SocketAddr::new(address(from.0, false), from.1), SocketAddr::new(address(to, false), PORT));
    let (segment, number) = topology::host(from.0);
    let (source_mac, destination_mac) = (topology::mac(segment, number), topology::gateway_mac(node, inside));
    Packet { seq: 1, source_mac, destination_mac, ..Packet::syn(client, server) }.frame()
}

/// As many SYNs from the wire as there is room for, then one of a workload's. How many had no room, and whether the
/// workload's was held.
fn flood() -> (usize, bool) {
    let mut world = world(|_| Answer::Never);
    (0..HELD as u16).for_each(|port| world.inject(Segment::Wire, syn(("peer", 10_000 + port), "backend", B, false)));
    world.run(20_000, |_| false).unwrap();
    world.inject(Segment::InsideB, syn(("backend", 9_000), "frontend", B, true));
    world.run(SECOND, |_| false).unwrap();
    let full = |said: &&ConnectionReport| said.refused == Some(RefuseReason::AttestationsFull);
    let asked = world.gateways[B].attestor.asked.iter().any(|asked| asked.client.port() == 9_000);
    (world.gateways[B].ended.iter().filter(full).count(), asked)
}

#[test]
fn a_flood_of_syns_from_the_wire_leaves_the_workloads_their_share_of_those_that_are_held() {
    assert_eq!(flood(), (HELD - FROM_WIRE, true));
}

#[test]
fn each_planted_bug_of_listeners_is_caught() {
    for bug in Bug::OF_LISTENERS {
        plant(Some(bug));
        let missed = match bug {
            Bug::UnaskedIsFirst => told(Answer::Never, Expect::Refused).is_ok(),
            Bug::AnyListener => went_on_unasked() == 0,
            Bug::WireHoldsAll => flood() == (HELD - FROM_WIRE, true),
            other => unreachable!("{other:?} is none of listeners'"),
        };
        plant(None);
        assert!(!missed, "{bug:?} was not caught");
    }
}
