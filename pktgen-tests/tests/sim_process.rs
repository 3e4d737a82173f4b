//! One address, two workloads, and an attestor that answers at once, late, never, wrongly: who calls is
//! known before anything is spent, or the call is refused.

mod attested;

use std::net::SocketAddr;

use attested::{A, B, SECOND, finish, quick, report, slow};
use dataplane::planted::{Bug, plant};
use dataplane::stats::Total;
use dataplane::worker::HELD;
use pktgen_tests::packet::Packet;
use pktgen_tests::sim::attestor::{Answer, Attestor, owner};
use pktgen_tests::sim::topology::{self, PORT, Segment, address, id};
use pktgen_tests::sim::{Broken, Call, CallId, Expect, Script, Setup, World};
use snapshot::{CloseReason, ConnectionReport, Found, OnChange, ProcessSelector, RefuseReason, Snapshot};

/// What a SYN is held at the most, in milliseconds.
const PATIENCE: u64 = 100;

const FRONTEND: u32 = 1;
const BATCH: u32 = 2;

fn uid(uid: u32, line: u32) -> ProcessSelector {
    ProcessSelector { uid: Some(uid), ..ProcessSelector::of(format!("policy.yaml:{line}")) }
}

/// `frontend` and `batch` both have the frontend's addresses, and users tell them apart.
fn share(snapshot: &mut Snapshot, frontend: &[ProcessSelector], batch: &[ProcessSelector]) {
    let mut places = snapshot.workloads[0].places.clone();
    for (workload, selectors) in snapshot.workloads.iter_mut().zip([frontend, batch]) {
        places.iter_mut().for_each(|place| place.processes = selectors.to_vec());
        workload.places = places.clone();
    }
}

fn world(say: impl FnMut(&dataplane::worker::Asked) -> Answer + 'static) -> World {
    let mut world = World::new(&Setup::new(41));
    world.push(A, &[], |snapshot| share(snapshot, &[uid(FRONTEND, 1)], &[uid(BATCH, 2)]));
    world.gateways[A].attestor = Attestor::new(say);
    world
}

fn call(world: &mut World, v6: bool, scripts: [Script; 2], expect: Expect) -> CallId {
    let client = SocketAddr::new(address("frontend", v6), world.port());
    let server = SocketAddr::new(address("backend", v6), PORT);
    let call = Call { client, server, from: "frontend", scripts, expect, plain: false };
    world.call(world.clock.micros(), call)
}

/// One call that the attestor says this of, and what node-a made of it.
fn told(answer: Answer, expect: Expect) -> Result<(World, ConnectionReport), Broken> {
    let mut world = world(move |_| answer.clone());
    let id = call(&mut world, false, quick(), expect);
    finish(&mut world)?;
    let said = report(&world, A, id).clone();
    Ok((world, said))
}

#[test]
fn each_process_calls_under_its_own_identity_over_both_families() {
    for v6 in [false, true] {
        for (user, name) in [(FRONTEND, "frontend"), (BATCH, "batch")] {
            for delay in [0, 50_000] {
                let mut world = world(move |_| Answer::After(delay, owner(&[user])));
                let call = call(&mut world, v6, quick(), Expect::Delivered);
                finish(&mut world).unwrap_or_else(|broken| panic!("{name}: {broken}"));
                assert_eq!(report(&world, B, call).peer_id, Some(id(name)));
                let said = report(&world, A, call);
                assert_eq!((said.local_id.clone(), said.closed), (Some(id(name)), Some(CloseReason::Finished)));
                let evidence = said.attested.as_deref().expect("evidence");
                assert!(evidence.starts_with(&format!("process:uid {user} (policy.yaml:{user}): pid")), "{evidence}");
                assert_eq!(world.gateways[A].attestor.asked.len(), 1);
            }
        }
    }
}

/// What is no answer, what refuses it, and what the refusal says.
fn no_answers() -> Vec<(&'static str, Answer, &'static str)> {
    let wrongly = |found: Found| Answer::AtOnce(found);
    vec![
        ("never", Answer::Never, "nobody said within"),
        ("late", Answer::After(150_000, owner(&[FRONTEND])), "nobody said within"),
        ("nobody found", wrongly(Err("no process holds it".into())), "no process holds it"),
        ("a stranger", wrongly(owner(&[7])), "uid 7, gid 7, cgroup /) matches no selector of default/"),
        ("an empty list", wrongly(owner(&[])), "no process holds the socket"),
        ("one of each", wrongly(owner(&[FRONTEND, BATCH])), "2 processes hold the socket, and not all match default/"),
        ("a stranger too", wrongly(owner(&[FRONTEND, 7])), "not all match default/frontend"),
    ]
}

#[test]
fn what_is_no_answer_in_time_refuses_the_call_before_anything_is_spent() {
    for (name, answer, says) in no_answers() {
        let (world, said) = told(answer, Expect::Refused).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        assert_eq!(said.refused, Some(RefuseReason::NotAttested), "{name}");
        assert!(said.detail.as_deref().is_some_and(|detail| detail.contains(says)), "{name}: {said:#?}");
        assert!(world.gateways[B].ended.is_empty(), "{name}: nothing left for the far side");
        let begun = world.gateways[A].mailbox().counters.total(dataplane::stats::Total::SessionsOpened);
        assert_eq!(begun, 0, "{name}: no session was begun");
        let took = said.ended_at.expect("it ended") - start();
        assert!(took <= PATIENCE + 1, "{name}: refused after {took} ms");
    }
}

/// Milliseconds at which every simulation begins.
fn start() -> u64 {
    pktgen_tests::sim::clock::EPOCH * 1_000
}

/// Where one workload alone has a place with selectors, a list of nobody must not match it.
fn nobody_alone() -> Result<(), Broken> {
    let mut world = world(|_| Answer::AtOnce(owner(&[])));
    world.push(A, &[], |snapshot| {
        share(snapshot, &[uid(FRONTEND, 1)], &[]);
        snapshot.workloads[1].places.clear();
    });
    let id = call(&mut world, false, quick(), Expect::Refused);
    finish(&mut world)?;
    assert_eq!(report(&world, A, id).refused, Some(RefuseReason::NotAttested));
    Ok(())
}

#[test]
fn a_socket_that_nobody_holds_is_nobodys_also_where_one_workload_alone_may_call() {
    nobody_alone().unwrap();
}

#[test]
fn two_identities_for_one_flow_are_nobody_and_both_are_named() {
    let (_, said) = two_identities().expect("it is refused");
    assert_eq!(said.refused, Some(RefuseReason::NotAttested));
    let detail = said.detail.expect("a detail");
    let both = [(id("batch"), 2), (id("frontend"), 1)];
    assert!(detail.starts_with("2 identities for one flow: "), "{detail}");
    for (id, line) in both {
        assert!(detail.contains(&format!("{id} (process:uid {FRONTEND}, policy.yaml:{line})")), "{detail}");
    }
}

fn two_identities() -> Result<(World, ConnectionReport), Broken> {
    let mut world = world(|_| Answer::AtOnce(owner(&[FRONTEND])));
    world.push(A, &[], |snapshot| share(snapshot, &[uid(FRONTEND, 1)], &[uid(BATCH, 3), uid(FRONTEND, 2)]));
    let id = call(&mut world, false, quick(), Expect::Refused);
    finish(&mut world)?;
    let said = report(&world, A, id).clone();
    Ok((world, said))
}

/// A SYN as the frontend's kernel would send it.
fn syn(port: u16, sequence: u32) -> Vec<u8> {
    let (client, server) =
        (SocketAddr::new(address("frontend", false), port), SocketAddr::new(address("backend", false), PORT));
    let (segment, number) = topology::host("frontend");
    let mac = topology::mac(segment, number);
    let packet = Packet {
        seq: sequence,
        source_mac: mac,
        destination_mac: topology::gateway_mac(A, true),
        ..Packet::syn(client, server)
    };
    packet.frame()
}

/// The first SYN of a 4-tuple is a process's that may call; the one that comes while it is held is
/// another's. How many connections node-b sees.
fn overtaken(first: u32, second: u32) -> Result<(usize, usize), Broken> {
    let mut asked = 0;
    let mut world = world(move |_| {
        asked += 1;
        if asked == 1 { Answer::After(60_000, owner(&[FRONTEND])) } else { Answer::After(70_000, owner(&[7])) }
    });
    world.inject(Segment::InsideA, syn(9_000, first));
    world.run(20_000, |_| false)?;
    world.inject(Segment::InsideA, syn(9_000, second));
    world.run(2 * SECOND, |_| false)?;
    let begun = world.gateways[A].mailbox().counters.total(dataplane::stats::Total::SessionsOpened);
    Ok((world.gateways[A].attestor.asked.len(), begun as usize))
}

#[test]
fn a_syn_that_comes_again_is_asked_about_once_and_one_of_another_call_anew() {
    assert_eq!(overtaken(1_000, 1_000), Ok((1, 1)), "the same SYN again");
    assert_eq!(overtaken(1_000, 9_999), Ok((2, 0)), "the answer to the first is not the second's");
}

#[test]
fn no_more_syns_are_held_than_there_is_room_for_and_what_is_full_has_a_name() {
    let mut world = world(|_| Answer::Never);
    for port in 0..HELD as u16 {
        world.inject(Segment::InsideA, syn(10_000 + port, 1));
    }
    world.run(20_000, |_| false).unwrap();
    world.inject(Segment::InsideA, syn(20_000, 1));
    world.run(50_000, |_| false).unwrap();
    let of = |world: &World, reason| world.gateways[A].ended.iter().filter(|said| said.refused == Some(reason)).count();
    assert_eq!(of(&world, RefuseReason::AttestationsFull), 1);
    assert_eq!(of(&world, RefuseReason::NotAttested), 0);
    world.run(SECOND, |_| false).unwrap();
    assert_eq!(of(&world, RefuseReason::NotAttested), HELD);
    // There is room again.
    world.inject(Segment::InsideA, syn(30_000, 1));
    world.run(2 * SECOND, |_| false).unwrap();
    assert_eq!(of(&world, RefuseReason::NotAttested), HELD + 1);
}

#[test]
fn a_living_call_is_cut_when_its_process_no_longer_matches_and_others_are_not() {
    let mut world = world(|asked| Answer::AtOnce(owner(&[if asked.client.is_ipv6() { BATCH } else { FRONTEND }])));
    let (frontend, batch) =
        (call(&mut world, false, slow(), Expect::Cut), call(&mut world, true, slow(), Expect::Delivered));
    world.run(2 * SECOND, |_| false).unwrap();
    world.push(A, &[], |snapshot| share(snapshot, &[uid(9, 1)], &[uid(BATCH, 2)]));
    finish(&mut world).unwrap();
    let said = report(&world, A, frontend);
    assert_eq!(said.closed, Some(CloseReason::PolicyChanged), "{said:#?}");
    assert!(said.detail.as_deref().is_some_and(|detail| detail.contains("matches no selector")), "{said:#?}");
    assert_eq!(report(&world, A, batch).closed, Some(CloseReason::Finished));
}

#[test]
fn a_call_that_is_kept_without_permission_is_cut_when_its_process_is_somebody_elses() {
    let mut world = world(|asked| Answer::AtOnce(owner(&[if asked.client.is_ipv6() { BATCH } else { FRONTEND }])));
    world.push(A, &[], |snapshot| {
        snapshot.workloads.iter_mut().for_each(|workload| workload.living.on_change = OnChange::Keep);
    });
    let (frontend, batch) =
        (call(&mut world, false, slow(), Expect::Cut), call(&mut world, true, slow(), Expect::Delivered));
    world.run(SECOND, |_| false).unwrap();
    world.push(A, &[], |snapshot| {
        snapshot.workloads.iter_mut().for_each(|workload| workload.outbound = Some(vec![]));
    });
    world.run(2 * SECOND, |_| false).unwrap();
    assert_eq!(world.gateways[A].mailbox().counters.total(Total::Kept), 2);
    world.push(A, &[], |snapshot| share(snapshot, &[uid(9, 1)], &[uid(BATCH, 2)]));
    finish(&mut world).unwrap();
    assert_eq!(report(&world, A, frontend).closed, Some(CloseReason::PolicyChanged));
    assert_eq!(report(&world, A, batch).closed, Some(CloseReason::Finished));
}

#[test]
fn each_planted_bug_of_attestation_is_caught() {
    for bug in Bug::OF_PROCESSES {
        plant(Some(bug));
        let missed = match bug {
            Bug::OneHolderEnough => told(Answer::AtOnce(owner(&[FRONTEND, 7])), Expect::Refused).is_ok(),
            Bug::FirstOfTwo => two_identities().is_ok(),
            Bug::AnswerUnbound => overtaken(1_000, 9_999) == Ok((2, 0)),
            Bug::HeldTooLong => told(Answer::After(150_000, owner(&[FRONTEND])), Expect::Refused).is_ok(),
            Bug::NobodyIsEverybody => nobody_alone().is_ok(),
            other => unreachable!("{other:?} is none of attestation's"),
        };
        plant(None);
        assert!(!missed, "{bug:?} was not caught");
    }
}
