//! Every refusal that the outside can provoke: its exact reason in the report and in the counter, a
//! RST or the right alert for the caller, and not one byte for the service.

use std::net::SocketAddr;

use pktgen_tests::packet::Packet;
use pktgen_tests::sim::topology::{self, CLOSED_PORT, PORT, Segment, address};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, Shown, World};
use snapshot::RefuseReason::{self, *};
use snapshot::{IdPattern, Service, Snapshot, policy::Endpoint};

const A: usize = 0;
const B: usize = 1;

fn scripts() -> [Script; 2] {
    [Script::new(2_000, Begin::AtOnce, Finish::Last), Script::new(2_000, Begin::AfterReceived(2_000), Finish::WhenSent)]
}

fn call(world: &mut World, from: &'static str, server: SocketAddr) -> Call {
    let client = SocketAddr::new(address(from, server.is_ipv6()), world.port());
    Call { client, server, from, scripts: scripts(), expect: Expect::Refused, plain: false }
}

fn plain(world: &mut World, from: &'static str, server: SocketAddr) -> CallId {
    let call = call(world, from, server);
    world.call(0, Call { plain: from == "legacy", ..call })
}

fn tls(world: &mut World, shown: Shown) -> CallId {
    let call = call(world, "peer", backend());
    world.call_tls(0, call, shown)
}

fn backend() -> SocketAddr {
    (address("backend", false), PORT).into()
}

/// Makes `server` an endpoint of the first service of node-a, which every workload there may call.
fn endpoint(world: &mut World, server: SocketAddr) -> SocketAddr {
    world.push(A, &[], |snapshot| {
        let Service { endpoints, .. } = &mut snapshot.services[0];
        endpoints.push(Endpoint { address: server, host: None });
    });
    server
}

fn workload<'a>(snapshot: &'a mut Snapshot, name: &str) -> &'a mut snapshot::Workload {
    let name = format!("default/{name}");
    snapshot.workloads.iter_mut().find(|workload| workload.name == name).expect("a workload of that name")
}

/// By the ID that it has from now on.
fn never_had_one(workload: &mut snapshot::Workload) {
    workload.spiffe_id.push_str("-anew");
    workload.svid = None;
}

/// Name, the node that refuses, the reason, the alert that a TLS caller hears, and what to do for it.
type Case = (&'static str, usize, RefuseReason, Option<&'static str>, fn(&mut World) -> CallId);

const CASES: &[Case] = &[
    ("a caller without an identity", A, NoIdentity, None, |world| plain(world, "nobody", backend())),
    ("a caller whose SVID never came", A, NoSvid, None, |world| {
        world.push(A, &[], |snapshot| never_had_one(workload(snapshot, "frontend")));
        plain(world, "frontend", backend())
    }),
    ("a service whose SVID never came", B, NoSvid, Some(""), |world| {
        world.push(B, &[], |snapshot| never_had_one(workload(snapshot, "backend")));
        tls(world, Shown::Own)
    }),
    ("a destination that no egress rule selects", A, UnmatchedEgress, None, |world| {
        plain(world, "frontend", (address("legacy", false), 80).into())
    }),
    ("a server that is not in the outbound list", A, NotAllowedOutbound, None, |world| {
        let list = vec![IdPattern::Exact(topology::id("somebody-else"))];
        world.push(A, &[], |snapshot| workload(snapshot, "frontend").outbound = Some(list));
        plain(world, "frontend", backend())
    }),
    ("a server that is not in the entry's own list", A, NotAllowedOutbound, None, |world| {
        world.push(A, &[], |snapshot| workload(snapshot, "frontend").egress[0].allowed = Some(vec![]));
        plain(world, "frontend", backend())
    }),
    ("a caller of another node that is not in the inbound list", B, NotAllowedInbound, None, |world| {
        plain(world, "intruder", backend())
    }),
    ("the same, as its own node sees it", A, RefusedByPeer, None, |world| plain(world, "intruder", backend())),
    ("a direct caller that is not in the inbound list", B, NotAllowedInbound, Some("AccessDenied"), |world| {
        tls(world, Shown::Stranger)
    }),
    ("a workload without an inbound list", B, NoInboundList, Some("AccessDenied"), |world| {
        world.push(B, &[], |snapshot| workload(snapshot, "backend").inbound = None);
        tls(world, Shown::Own)
    }),
    ("an empty inbound list", B, NotAllowedInbound, Some("AccessDenied"), |world| {
        world.push(B, &[], |snapshot| workload(snapshot, "backend").inbound = Some(vec![]));
        tls(world, Shown::Own)
    }),
    ("a plain caller under MUTUAL", B, PlaintextRefused, None, |world| plain(world, "legacy", backend())),
    ("a caller without a certificate", B, NoClientCertificate, Some("CertificateRequired"), |world| {
        tls(world, Shown::Nothing)
    }),
    ("a certificate with two URI SANs", B, PeerNoSpiffeId, Some("BadCertificate"), |world| tls(world, Shown::TwoNames)),
    ("a certificate without a SPIFFE ID", B, PeerNoSpiffeId, Some("BadCertificate"), |world| {
        tls(world, Shown::NoSpiffeId)
    }),
    ("a trust domain without a bundle", B, PeerTrustDomainUnknown, Some("UnknownCA"), |world| {
        tls(world, Shown::OtherDomain)
    }),
    ("a chain to another root", B, PeerUntrusted, Some("UnknownCA"), |world| tls(world, Shown::OtherRoot)),
    ("an expired certificate", B, PeerExpired, Some("CertificateExpired"), |world| tls(world, Shown::Expired)),
    ("a leaf that is a CA", B, PeerBadCertificate, Some("BadCertificate"), |world| tls(world, Shown::CaLeaf)),
    ("a leaf without keyUsage", B, PeerBadCertificate, Some("BadCertificate"), |world| tls(world, Shown::NoKeyUsage)),
    ("a caller's leaf for servers only", B, PeerBadCertificate, Some("BadCertificate"), |world| {
        tls(world, Shown::ServerOnly)
    }),
    ("a leaf that was signed by another leaf", B, PeerUntrusted, Some("UnknownCA"), |world| tls(world, Shown::ByALeaf)),
    ("a key that is not the certificate's", B, PeerBadSignature, Some("DecryptError"), |world| {
        tls(world, Shown::WrongKey)
    }),
    ("TLS 1.2", B, TlsProtocol, Some("ProtocolVersion"), |world| tls(world, Shown::OldTls)),
    ("a service that is not listening", B, ConnectRefused, None, |world| {
        plain(world, "frontend", (address("backend", false), CLOSED_PORT).into())
    }),
    ("a far side that is not listening", A, ConnectRefused, None, |world| {
        let server = endpoint(world, (address("peer", false), CLOSED_PORT).into());
        plain(world, "frontend", server)
    }),
    ("a far side that does not answer", A, ConnectTimeout, None, |world| {
        world.host("peer").unplugged = true;
        let server = endpoint(world, (address("peer", false), PORT).into());
        plain(world, "frontend", server)
    }),
    ("a far side that no route leads to", A, Unreachable, None, |world| {
        let server = endpoint(world, "203.0.113.7:443".parse().expect("an address"));
        plain(world, "frontend", server)
    }),
    ("a far side that accepts and then says nothing", A, HandshakeTimeout, None, |world| {
        let server = endpoint(world, (address("legacy", false), 4000).into());
        world.host("legacy").listen(4000, pktgen_tests::sim::host::Service::Mute);
        plain(world, "frontend", server)
    }),
];

#[test]
fn each_refusal_has_its_reason_and_its_sign_and_reaches_no_service() {
    for &(name, node, reason, alert, prepare) in CASES {
        let mut world = World::new(&Setup::new(7));
        let id = prepare(&mut world);
        world.run_until_over(120_000_000).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        let client = world.calls[id.0].client;
        let said: Vec<_> = world.gateways[node].ended.iter().filter(|report| report.client == client).collect();
        assert_eq!(said.iter().map(|report| report.refused).collect::<Vec<_>>(), [Some(reason)], "{name}: {said:#?}");
        assert_eq!(world.gateways[node].mailbox().counters.refused(reason), 1, "{name}");
        world.judge().unwrap_or_else(|broken| panic!("{name}: {broken}"));
        if let Some(alert) = alert {
            let heard = world.end(id, pktgen_tests::sim::Side::Client).and_then(|end| end.progress.tls.clone());
            assert_eq!(heard.as_deref().unwrap_or(""), alert, "{name}");
        }
        world.drain().unwrap_or_else(|broken| panic!("{name}: {broken}"));
    }
}

/// Its own port has gone, say, and a wider route leads over the wire: whoever answers there is not the
/// workload, and what TLS protected so far would go out in clear.
#[test]
fn a_workload_whose_route_leads_over_the_wire_is_not_called_there() {
    let setup = Setup::new(9);
    let mut world = World::new(&setup);
    let mut network = topology::network(B, setup.mtus);
    let wire = |v4: bool| network.routes.iter().find(|r| r.gateway.is_some_and(|g| g.is_ipv4() == v4)).cloned();
    let over_the_wire = [true, false].map(|v4| wire(v4).expect("there is a way to the other node"));
    for route in network.routes.iter_mut().filter(|route| route.interface == 10) {
        let way = &over_the_wire[usize::from(!route.prefix.address.is_ipv4())];
        (route.interface, route.gateway) = (way.interface, way.gateway);
    }
    world.gateways[B].connect_to(&network);
    world.wake(B);
    let id = plain(&mut world, "frontend", backend());
    world.run_until_over(120_000_000).expect("it is refused");
    let client = world.calls[id.0].client;
    let said: Vec<_> = world.gateways[B].ended.iter().filter(|report| report.client == client).collect();
    assert_eq!(said.iter().map(|report| report.refused).collect::<Vec<_>>(), [Some(Unreachable)], "{said:#?}");
    world.judge().expect("it is refused");
}

/// SYNs from addresses that nobody has: nothing answers our SYN-ACK.
fn flood(world: &mut World, count: u16) {
    for port in 1..=count {
        let source = SocketAddr::new("198.18.9.200".parse().expect("an address"), port);
        let mut packet = Packet::syn(source, backend());
        packet.source_mac = [2, 9, 9, 9, 9, 9];
        packet.destination_mac = topology::gateway_mac(B, false);
        world.inject(Segment::Wire, packet.frame());
    }
}

#[test]
fn a_syn_flood_fills_a_table_and_harms_nobody_who_is_connected() {
    for (reason, sessions, handshakes, flows) in
        [(SessionsFull, 32, 1_000, 4_000), (HandshakesFull, 256, 16, 4_000), (FlowsFull, 256, 256, 24)]
    {
        let mut setup = Setup::new(3);
        setup.limits.sessions = sessions;
        setup.limits.handshakes = handshakes;
        setup.limits.flows = flows;
        let mut world = World::new(&setup);
        let slow = [
            Script::new(40_000, Begin::AtOnce, Finish::Last).paced(200, 50_000),
            Script::new(40_000, Begin::AtOnce, Finish::WhenReceived(40_000)),
        ];
        let call = call(&mut world, "frontend", backend());
        let id = world.call(0, Call { scripts: slow, expect: Expect::Delivered, ..call });
        world.run(500_000, |_| false).expect("no promise is broken");
        flood(&mut world, 400);
        world.run(1_000_000, |_| false).expect("no promise is broken");
        let counters = &world.gateways[B].mailbox().counters;
        assert!(counters.refused(reason) > 100, "{reason}: {}", counters.refused(reason));
        world.run_until_over(60_000_000).expect("the connection before the flood goes on");
        world.judge().expect("it is delivered");
        // What the flood had taken is free again, and the next caller is served.
        let timeouts = world.gateways[B].mailbox().counters.refused(SynReceivedTimeout);
        assert!(timeouts > 0, "{reason}: unanswered SYN-ACKs are given up");
        let call = self::call(&mut world, "frontend", backend());
        world.call(0, Call { expect: Expect::Delivered, ..call });
        world.run_until_over(60_000_000).expect("a call after the flood is served");
        world.judge().unwrap_or_else(|broken| panic!("{reason}: {broken} ({id:?})"));
        world.drain().expect("all is free at the end");
    }
}

#[test]
fn a_caller_that_resets_its_own_syn_is_gone() {
    let mut world = World::new(&Setup::new(3));
    let client: SocketAddr = (address("frontend", false), 9_999).into();
    let mut packet = Packet::syn(client, backend());
    packet.source_mac = topology::mac(Segment::InsideA, 2);
    packet.destination_mac = topology::gateway_mac(A, true);
    world.inject(Segment::InsideA, packet.frame());
    let reset = Packet { flags: pktgen_tests::packet::RST, seq: packet.seq + 1, ..packet };
    world.run(200, |_| false).expect("the SYN arrives");
    world.inject(Segment::InsideA, reset.frame());
    world.run(20_000_000, |_| false).expect("no promise is broken");
    assert_eq!(world.gateways[A].ended.iter().map(|report| report.refused).collect::<Vec<_>>(), [Some(CallerGone)]);
    world.drain().expect("all is free at the end");
}

#[test]
fn a_handshake_under_way_is_decided_by_the_snapshot_that_came_meanwhile() {
    let mut setup = Setup::new(5);
    setup.delays[Segment::Wire.index()] = 50_000;
    let mut world = World::new(&setup);
    let id = plain(&mut world, "batch", backend());
    // The ClientHello is under way when the list changes.
    world.run(120_000, |_| false).expect("no promise is broken");
    world.push(B, &[], |snapshot| workload(snapshot, "backend").inbound = Some(vec![]));
    world.run_until_over(30_000_000).expect("it ends");
    world.judge().expect("the service gets nothing");
    let client = world.calls[id.0].client;
    let report = world.gateways[B].ended.iter().find(|report| report.client == client).expect("it is reported");
    assert!(matches!(report.refused, Some(PolicyChanged | NotAllowedInbound)), "{report:#?}");
    world.drain().expect("all is free at the end");
}

#[test]
fn a_caller_before_the_first_snapshot_is_refused_and_the_next_one_is_served() {
    let mut world = World::new(&Setup::new(11));
    let first = world.gateways[B].mailbox().compiled.pop().expect("the first snapshot waits");
    let early = tls(&mut world, Shown::Own);
    world.run_until_over(30_000_000).expect("it ends");
    let said = world.gateways[B].ended.last().expect("it is reported");
    assert_eq!((said.client, said.refused), (world.calls[early.0].client, Some(NoSnapshot)), "{said:#?}");
    assert_eq!(world.gateways[B].mailbox().counters.refused(NoSnapshot), 1);
    world.gateways[B].mailbox().compiled.force_push(first);
    world.wake(B);
    let call = call(&mut world, "peer", backend());
    world.call_tls(0, Call { expect: Expect::Delivered, ..call }, Shown::Own);
    world.run_until_over(30_000_000).expect("it ends");
    world.judge().expect("the early one was reset, the next one delivered");
    world.drain().expect("all is free at the end");
}
