//! What is carried, and how it ends, mode by mode: one call at a time on a quiet network.

use std::net::SocketAddr;
use std::time::Duration;

use pktgen_tests::sim::topology::{GREETING_PORT, PORT, SIMPLE_PORT, Segment, TLS_PORT, address};
use pktgen_tests::sim::{Begin, Call, Expect, Finish, Script, Setup, Shown, Side, World};
use snapshot::{CloseReason, Direction, TlsMode};

const A: usize = 0;
const B: usize = 1;
const TIMES: i64 = 400_000_000;

fn request() -> [Script; 2] {
    [
        Script::new(30_000, Begin::AtOnce, Finish::Last),
        Script::new(50_000, Begin::AfterReceived(30_000), Finish::WhenSent),
    ]
}

fn to(world: &mut World, from: &'static str, to: &str, port: u16, v6: bool, scripts: [Script; 2]) -> Call {
    let client = SocketAddr::new(address(from, v6), world.port());
    let server = SocketAddr::new(address(to, v6), port);
    Call { client, server, from, scripts, expect: Expect::Delivered, plain: false }
}

#[test]
fn mutual_tls_is_reported_with_both_identities_over_both_families_and_every_mtu() {
    for v6 in [false, true] {
        for mtus in [[1500, 1500], [9000, 1500], [65_535, 9_000], [1500, 1280], [65_535, 65_535]] {
            let mut world = World::new(&Setup { mtus, ..Setup::new(11) });
            let call = to(&mut world, "frontend", "backend", PORT, v6, request());
            let id = world.call(0, call);
            world.finish(TIMES, "MUTUAL");
            for (node, local, peer, direction) in
                [(A, "frontend", "backend", Direction::Egress), (B, "backend", "frontend", Direction::Inbound)]
            {
                let said = world.report(node, id);
                assert_eq!(said.closed, Some(CloseReason::Finished));
                assert_eq!(said.local_id.as_deref(), Some(format!("spiffe://example.com/{local}").as_str()));
                assert_eq!(said.peer_id.as_deref(), Some(format!("spiffe://example.com/{peer}").as_str()));
                assert_eq!((said.direction, said.mode), (direction, Some(TlsMode::Mutual)));
                assert_eq!((said.sent, said.received), (30_000, 50_000));
                assert_eq!(said.tls.as_ref().map(|tls| tls.version.as_str()), Some("TLSv1.3"));
            }
        }
    }
}

#[test]
fn permissive_serves_plain_and_tls_callers_also_where_the_service_speaks_first() {
    let greeting = || {
        [
            Script::new(300, Begin::AfterReceived(700), Finish::Last),
            Script::new(700, Begin::AtOnce, Finish::WhenReceived(300)),
        ]
    };
    for (name, port, scripts) in [("client first", PORT, request()), ("server first", GREETING_PORT, greeting())] {
        let mut world = World::new(&Setup::new(12));
        let call = to(&mut world, "legacy", "open", port, false, scripts.clone());
        let plain = world.call(0, Call { plain: true, ..call });
        let call = to(&mut world, "peer", "open", port, false, scripts);
        let sealed = world.call_tls(0, call, Shown::Own);
        world.finish(TIMES, name);
        assert_eq!(world.report(B, plain).tls, None, "{name}");
        let said = world.report(B, sealed);
        assert_eq!(said.peer_id.as_deref(), Some("spiffe://example.com/peer"), "{name}");
        assert_eq!(said.closed, Some(CloseReason::Finished), "{name}");
    }
}

#[test]
fn permissive_refuses_a_tls_caller_that_is_in_no_list_and_resets_the_service_with_nothing_sent() {
    let mut world = World::new(&Setup::new(12));
    let call = to(&mut world, "peer", "open", PORT, false, request());
    let id = world.call_tls(0, Call { expect: Expect::Refused, ..call }, Shown::Stranger);
    world.finish(TIMES, "PERMISSIVE");
    assert_eq!(world.report(B, id).refused, Some(snapshot::RefuseReason::NotAllowedInbound));
}

#[test]
fn simple_serves_anonymous_callers_and_calls_servers_that_ask_for_no_certificate() {
    let mut world = World::new(&Setup::new(13));
    let call = to(&mut world, "peer", "simple", PORT, false, request());
    let inbound = world.call_tls(0, call, Shown::Nothing);
    let call = to(&mut world, "frontend", "peer", SIMPLE_PORT, false, request());
    let egress = world.call(0, call);
    // And from one gateway to the other.
    let call = to(&mut world, "frontend", "simple", PORT, false, request());
    let both = world.call(0, call);
    world.finish(TIMES, "SIMPLE");
    let said = world.report(B, inbound);
    assert_eq!((said.mode, said.peer_id.clone()), (Some(TlsMode::Simple), None));
    assert!(said.tls.is_some());
    let said = world.report(A, egress);
    assert_eq!(said.peer_id.as_deref(), Some("spiffe://example.com/peer"));
    assert_eq!(said.tls.as_ref().and_then(|tls| tls.local_serial.clone()), None, "no client certificate");
    assert_eq!(world.report(A, both).closed, Some(CloseReason::Finished));
    assert_eq!(world.report(B, both).closed, Some(CloseReason::Finished));
}

#[test]
fn disabled_ports_and_permissive_egress_are_relayed_plain_and_counted() {
    let mut world = World::new(&Setup::new(14));
    let call = to(&mut world, "frontend", "raw", PORT, false, request());
    let disabled = world.call(0, Call { plain: true, ..call });
    let call = to(&mut world, "frontend", "open", GREETING_PORT, false, request());
    let permissive = world.call(0, Call { plain: true, ..call });
    world.finish(TIMES, "plain");
    for id in [disabled, permissive] {
        for node in [A, B] {
            assert_eq!(world.report(node, id).tls, None);
            assert_eq!(world.report(node, id).closed, Some(CloseReason::Finished));
        }
    }
}

#[test]
fn a_call_between_workloads_of_one_node_is_decided_and_relayed_there() {
    let mut world = World::new(&Setup::new(15));
    let call = to(&mut world, "frontend", "local", PORT, false, request());
    let allowed = world.call(0, call);
    let call = to(&mut world, "batch", "local", PORT, false, request());
    let refused = world.call(0, Call { expect: Expect::Refused, ..call });
    let call = to(&mut world, "nobody", "local", PORT, false, request());
    let nobody = world.call(0, Call { expect: Expect::Refused, ..call });
    world.finish(TIMES, "local");
    let said = world.report(A, allowed);
    assert_eq!((said.direction, said.closed), (Direction::Local, Some(CloseReason::Finished)));
    assert_eq!(said.peer_id.as_deref(), Some("spiffe://example.com/local"));
    assert_eq!(world.report(A, refused).refused, Some(snapshot::RefuseReason::NotAllowedInbound));
    assert_eq!(world.report(A, nobody).refused, Some(snapshot::RefuseReason::NoIdentity));
    assert!(world.gateways[B].ended.is_empty(), "node-b never heard of it");
}

#[test]
fn a_stock_peer_is_served_and_called_directly_over_mutual_tls() {
    let mut world = World::new(&Setup { real_crypto: true, ..Setup::new(16) });
    let call = to(&mut world, "peer", "backend", PORT, false, request());
    let inbound = world.call_tls(0, call, Shown::Own);
    let call = to(&mut world, "frontend", "peer", TLS_PORT, true, request());
    let egress = world.call(0, call);
    world.finish(TIMES, "direct");
    assert_eq!(world.report(B, inbound).tls.map(|tls| tls.group), Some("X25519MLKEM768".into()));
    assert_eq!(world.report(A, egress).tls.map(|tls| tls.group), Some("X25519MLKEM768".into()));
}

#[test]
fn tls_that_ends_without_close_notify_is_delivered_to_its_last_byte_and_then_reset_as_a_truncation() {
    // Far more than one turn, or the window, carries, and a reader that is still at it when the FIN comes.
    let cut = Script::new(200_000, Begin::AtOnce, Finish::Truncate);
    let reader = Script::new(0, Begin::AtOnce, Finish::Last).paced(2_000, 1_000);
    for (name, side, node) in [("a caller", Side::Client, B), ("a server", Side::Server, A)] {
        let mut world = World::new(&Setup::new(17));
        let expect = Expect::AbortedBy(side);
        let id = if side == Side::Client {
            let call = to(&mut world, "peer", "backend", PORT, false, [cut.clone(), reader.clone()]);
            world.call_tls(0, Call { expect, ..call }, Shown::Own)
        } else {
            let call = to(&mut world, "frontend", "peer", TLS_PORT, false, [reader.clone(), cut.clone()]);
            world.call(0, Call { expect, ..call })
        };
        world.finish(TIMES, name);
        let victim = &world.end(id, side.other()).expect("there is a victim").progress;
        assert_eq!((victim.received, victim.ended, victim.aborted), (200_000, false, true), "{name}");
        assert_eq!(world.report(node, id).closed, Some(CloseReason::Truncated), "{name}");
        assert_eq!(world.gateways[node].mailbox().counters.closed(CloseReason::Truncated), 1, "{name}");
    }
}

#[test]
fn a_half_closed_connection_is_cut_when_the_open_half_stays_silent() {
    let mut setup = Setup::new(18);
    setup.timeouts.half_close = Duration::from_secs(30);
    let mut world = World::new(&setup);
    let scripts =
        [Script::new(5_000, Begin::AtOnce, Finish::WhenSent), Script::new(5_000, Begin::AtOnce, Finish::Never)];
    let call = to(&mut world, "frontend", "backend", PORT, false, scripts);
    let id = world.call(0, Call { expect: Expect::AbortedBy(Side::Server), ..call });
    world.run_until_over(TIMES).expect("it is cut");
    assert!(world.clock.micros() > 29_000_000, "not before its time");
    let client = world.end(id, Side::Client).expect("there is a client");
    assert!(client.progress.aborted && !client.progress.ended, "{:?}", client.progress);
    let reasons = [A, B].map(|node| world.report(node, id).closed);
    assert!(reasons.contains(&Some(CloseReason::HalfCloseTimeout)), "{reasons:?}");
    world.drain().expect("all is free at the end");
}

#[test]
fn a_peer_that_vanishes_is_found_out() {
    for (name, busy, reason) in
        [("while data is in flight", true, CloseReason::UserTimeout), ("while idle", false, CloseReason::IdleTimeout)]
    {
        let mut setup = Setup::new(19);
        setup.timeouts.user = Duration::from_secs(30);
        setup.timeouts.keep_alive = Duration::from_secs(20);
        setup.tuning.timeout = 300_000;
        let mut world = World::new(&setup);
        let send = if busy { 100_000 } else { 1_000 };
        let scripts = [
            Script::new(send, Begin::AtOnce, Finish::Last).paced(1_000, 10_000),
            Script::new(100, Begin::AtOnce, Finish::Never),
        ];
        let call = to(&mut world, "frontend", "backend", PORT, false, scripts);
        let id = world.call(0, Call { expect: Expect::GivenUp, ..call });
        world.run(200_000, |_| false).expect("it stands");
        world.host("backend").unplugged = true;
        let over = world.run(TIMES, |world| world.end(id, Side::Client).is_some_and(|end| end.progress.over));
        assert_eq!(over, Ok(true), "{name}: the client hears of it");
        let client = world.end(id, Side::Client).expect("there is a client");
        assert!(client.progress.aborted && !client.progress.ended, "{name}: {:?}", client.progress);
        assert_eq!(world.report(B, id).closed, Some(reason), "{name}");
        world.drain().expect("all is free at the end");
    }
}

#[test]
fn a_newer_snapshot_cuts_what_it_refuses_and_nothing_else() {
    let mut world = World::new(&Setup::new(20));
    let slow = || {
        [
            Script::new(60_000, Begin::AtOnce, Finish::Last).paced(500, 20_000),
            Script::new(60_000, Begin::AtOnce, Finish::WhenReceived(60_000)).paced(500, 20_000),
        ]
    };
    let call = to(&mut world, "batch", "backend", PORT, false, slow());
    let cut = world.call(0, Call { expect: Expect::Cut, ..call });
    let call = to(&mut world, "frontend", "backend", PORT, false, slow());
    let kept = world.call(0, call);
    world.run(500_000, |_| false).expect("both stand");
    for node in [A, B] {
        world.push(node, &[], |_| {});
    }
    world.run(1_000_000, |_| false).expect("nothing is cut by a version that says the same");
    assert!([A, B].iter().all(|&node| world.gateways[node].ended.is_empty()));
    world.push(B, &[], |snapshot| {
        let list = snapshot.workloads[0].inbound.as_mut().expect("backend has a list");
        list.retain(|entry| !entry.matches("spiffe://example.com/batch"));
    });
    world.finish(TIMES, "cut");
    let said = world.report(B, cut);
    assert_eq!((said.closed, said.version), (Some(CloseReason::PolicyChanged), world.gateways[B].snapshot().version));
    assert!(said.sent < 60_000);
    assert_eq!(world.report(B, kept).closed, Some(CloseReason::Finished));
}

#[test]
fn a_workload_that_is_taken_away_takes_its_calls_with_it_and_nothing_else() {
    let mut world = World::new(&Setup::new(23));
    let slow = [
        Script::new(60_000, Begin::AtOnce, Finish::Last).paced(500, 20_000),
        Script::new(60_000, Begin::AtOnce, Finish::WhenReceived(60_000)).paced(500, 20_000),
    ];
    let call = to(&mut world, "frontend", "backend", PORT, false, slow);
    let cut = world.call(0, Call { expect: Expect::Cut, ..call });
    world.run(500_000, |_| false).expect("it stands");
    let id = world.gateways[B].snapshot().workloads[0].spiffe_id.clone();
    world.push(B, &[], |snapshot| snapshot.workloads.clear());
    world.finish(TIMES, "taken away");
    let said = world.report(B, cut);
    assert_eq!((said.closed, said.local_id), (Some(CloseReason::PolicyChanged), Some(id)));
    assert!(said.workload.is_some_and(|name| name.contains("backend")), "it is told by the name that it had");
}

#[test]
fn a_link_that_eats_every_frame_for_a_while_delays_and_loses_nothing() {
    let mut world = World::new(&Setup::new(21));
    let call = to(&mut world, "frontend", "backend", PORT, false, request());
    world.call(0, call);
    world.run(1_500, |_| false).expect("the handshake is under way");
    world.cut_link(Segment::Wire, true);
    world.run(6_000_000, |_| false).expect("nothing breaks");
    world.cut_link(Segment::Wire, false);
    world.finish(TIMES, "outage");
}

#[test]
fn a_caller_that_missed_its_reset_is_told_again_as_soon_as_it_speaks() {
    let mut world = World::new(&Setup::new(22));
    let slow = [
        Script::new(60_000, Begin::AtOnce, Finish::Last).paced(500, 20_000),
        Script::new(60_000, Begin::AtOnce, Finish::WhenReceived(60_000)),
    ];
    let call = to(&mut world, "batch", "backend", PORT, false, slow);
    let id = world.call(0, Call { expect: Expect::Cut, ..call });
    world.run(500_000, |_| false).expect("it stands");
    world.cut_link(Segment::InsideA, true);
    world.push(B, &[], |snapshot| snapshot.workloads[0].inbound = Some(vec![]));
    world.run(700_000, |_| false).expect("the reset is lost");
    world.cut_link(Segment::InsideA, false);
    let told = world.run(4_000_000, |world| world.end(id, Side::Client).is_some_and(|end| end.progress.aborted));
    assert_eq!(told, Ok(true), "long before the flow is forgotten");
}

#[test]
fn a_slow_reader_that_has_closed_its_own_side_gets_everything() {
    let mut setup = Setup::new(23);
    setup.tuning.receive = 4 << 10;
    let mut world = World::new(&setup);
    let scripts = [
        Script::new(60_000, Begin::AtOnce, Finish::WhenSent),
        Script::new(100, Begin::AtOnce, Finish::WhenSent).paced(1_000, 1_300_000),
    ];
    let call = to(&mut world, "frontend", "backend", PORT, false, scripts);
    world.call(0, call);
    world.finish(TIMES, "slow reader");
}
