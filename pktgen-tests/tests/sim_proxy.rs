//! The PROXY header before what a service gets: who is told of, that it comes first whatever happens on the
//! wire, and that nothing else changes by it.

use std::net::SocketAddr;

use dataplane::session::Which;
use dataplane::stats::Total;
use dataplane::worker::Command;
use pktgen_tests::sim::host::Service;
use pktgen_tests::sim::topology::{GREETING_PORT, PORT, address, id as spiffe_id};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, Shown, Side, World};
use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use snapshot::{CloseReason, ProxyProtocol, RefuseReason};

const A: usize = 0;
const B: usize = 1;
const TIMES: i64 = 400_000_000;

fn request() -> [Script; 2] {
    [
        Script::new(30_000, Begin::AtOnce, Finish::Last),
        Script::new(50_000, Begin::AfterReceived(30_000), Finish::WhenSent),
    ]
}

/// The service speaks first.
fn greeting() -> [Script; 2] {
    [
        Script::new(300, Begin::AfterReceived(700), Finish::Last),
        Script::new(700, Begin::AtOnce, Finish::WhenReceived(300)),
    ]
}

/// A world in which every service of both nodes waits for a header, and is sent one.
fn world(setup: &Setup) -> World {
    let mut world = World::new(setup);
    for name in ["backend", "open", "simple", "local"] {
        world.host(name).speak(PORT, Service::Proxied);
    }
    world.host("open").speak(GREETING_PORT, Service::Proxied);
    send_headers(&mut world, ProxyProtocol::V2);
    world
}

fn send_headers(world: &mut World, version: ProxyProtocol) {
    for node in [A, B] {
        world.push(node, &[], |snapshot| snapshot.workloads.iter_mut().for_each(|w| w.proxy.version = version));
    }
}

fn to(world: &mut World, from: &'static str, to: &str, port: u16, v6: bool, scripts: [Script; 2]) -> Call {
    let client = SocketAddr::new(address(from, v6), world.port());
    let server = SocketAddr::new(address(to, v6), port);
    Call { client, server, from, scripts, expect: Expect::Delivered, plain: false }
}

/// What a service was told, read by a parser that is not ours.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    ends: (SocketAddr, SocketAddr),
    id: Option<String>,
    server_name: Option<String>,
    tls: Option<Tls>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tls {
    certificate: bool,
    verified: bool,
    version: Option<String>,
    common_name: Option<String>,
    cipher: Option<String>,
}

fn header(world: &World, id: CallId) -> Vec<u8> {
    let server = world.end(id, Side::Server).unwrap_or_else(|| panic!("{id:?} reached its service"));
    server.header.clone().expect("it waits for a header")
}

fn told(world: &World, id: CallId) -> Told {
    let bytes = header(world, id);
    let config = ParseConfig { include_tlvs: true, allow_v1: false, allow_v2: true };
    let (header, length) = ProxyHeader::parse(&bytes, config).expect("a header");
    assert_eq!(length, bytes.len());
    let address = header.proxied_address().expect("addresses");
    let text = |text: Option<&str>| text.map(str::to_owned);
    Told {
        ends: (address.source, address.destination),
        id: header.tlvs().find_map(|tlv| match tlv {
            Ok(Tlv::Custom(0xd0, id)) => Some(String::from_utf8(id.into_owned()).expect("text")),
            _ => None,
        }),
        server_name: text(header.authority()),
        tls: header.ssl().map(|ssl| Tls {
            certificate: ssl.client_ssl() && ssl.client_cert_conn(),
            verified: ssl.verify() == 0,
            version: text(ssl.version()),
            common_name: text(ssl.cn()),
            cipher: text(ssl.cipher()),
        }),
    }
}

fn about(world: &World, id: CallId, caller: Option<&str>, server_name: Option<&str>, tls: Option<Tls>) -> Told {
    let Call { client, server, .. } = world.calls[id.0];
    Told { ends: (client, server), id: caller.map(spiffe_id), server_name: server_name.map(str::to_owned), tls }
}

/// The certificates of a simulation have a common name.
fn tls(certificate: bool) -> Option<Tls> {
    Some(Tls {
        certificate,
        verified: certificate,
        version: Some("TLSv1.3".into()),
        common_name: certificate.then(|| "workload".into()),
        cipher: Some("TLS_AES_128_GCM_SHA256".into()),
    })
}

#[test]
fn a_service_is_told_of_its_verified_caller_and_the_counts_of_payload_are_as_without() {
    for v6 in [false, true] {
        for mtus in [[1500, 1500], [1280, 1280], [65_535, 65_535]] {
            let mut world = world(&Setup { mtus, ..Setup::new(61) });
            let call = to(&mut world, "frontend", "backend", PORT, v6, request());
            let id = world.call(0, call);
            world.finish(TIMES, "MUTUAL");
            assert_eq!(told(&world, id), about(&world, id, Some("frontend"), Some("backend.default.svc"), tls(true)));
            let said = world.report(B, id);
            assert_eq!((said.sent, said.received, said.closed), (30_000, 50_000, Some(CloseReason::Finished)));
            let total = |node: usize, total| world.gateways[node].mailbox().counters.total(total);
            assert_eq!(total(B, Total::BytesSent), 30_000);
            assert_eq!([A, B].map(|node| total(node, Total::ProxyHeaders)), [0, 1]);
            assert_eq!(total(B, Total::ProxyHeaderBytes), header(&world, id).len() as u64);
        }
    }
}

#[test]
fn plain_anonymous_and_attested_callers_are_told_of_as_what_they_are() {
    let mut world = world(&Setup::new(62));
    let call = to(&mut world, "legacy", "open", PORT, false, request());
    let plain = world.call(0, Call { plain: true, ..call });
    let call = to(&mut world, "peer", "open", PORT, false, request());
    let verified = world.call_tls(0, call, Shown::Own);
    let call = to(&mut world, "peer", "simple", PORT, false, request());
    let anonymous = world.call_tls(0, call, Shown::Nothing);
    let call = to(&mut world, "frontend", "local", PORT, true, request());
    let within = world.call(0, call);
    // What does its own TLS is not touched: its service gets the caller's bytes from the first on.
    let call = to(&mut world, "frontend", "raw", PORT, false, request());
    let disabled = world.call(0, Call { plain: true, ..call });
    world.finish(TIMES, "callers");
    assert_eq!(told(&world, plain), about(&world, plain, None, None, None));
    let named = Some("service.default.svc");
    assert_eq!(told(&world, verified), about(&world, verified, Some("peer"), named, tls(true)));
    assert_eq!(told(&world, anonymous), about(&world, anonymous, None, named, tls(false)));
    assert_eq!(told(&world, within), about(&world, within, Some("frontend"), None, None));
    assert_eq!(world.end(disabled, Side::Server).and_then(|end| end.header.clone()), None);
}

#[test]
fn a_service_that_speaks_first_does_so_behind_its_header() {
    let mut world = world(&Setup::new(63));
    let call = to(&mut world, "legacy", "open", GREETING_PORT, false, greeting());
    let plain = world.call(0, Call { plain: true, ..call });
    let call = to(&mut world, "peer", "open", GREETING_PORT, true, greeting());
    let sealed = world.call_tls(0, call, Shown::Own);
    // A silent caller may yet speak TLS: until it is late for that, nobody is told that it is plain.
    world.run(1_400_000, |_| false).expect("nothing breaks");
    assert_eq!(header(&world, plain), b"", "its service stands, and waits");
    assert_eq!(told(&world, sealed), about(&world, sealed, Some("peer"), Some("service.default.svc"), tls(true)));
    world.finish(TIMES, "server first");
    assert_eq!(told(&world, plain), about(&world, plain, None, None, None));
}

/// TCP comes to stand, and what the caller says in the first half second is lost.
fn lose_first_words(world: &mut World, id: CallId) {
    world.hushed = Some(world.calls[id.0].client);
    world.run(world.clock.micros() + 500_000, |_| false).expect("nothing breaks");
    world.hushed = None;
    assert!(world.end(id, Side::Server).is_some(), "its service stands, and has to wait");
}

#[test]
fn a_caller_whose_hello_is_lost_once_is_not_taken_for_a_plain_one() {
    let mut world = world(&Setup::new(64));
    let call = to(&mut world, "peer", "open", PORT, false, request());
    let id = world.call_tls(0, call, Shown::Own);
    lose_first_words(&mut world, id);
    world.finish(TIMES, "a late hello");
    assert_eq!(told(&world, id).id, Some(spiffe_id("peer")));
}

#[test]
fn the_header_comes_first_and_whole_over_links_that_lose_repeat_and_bend_frames() {
    use {Begin::*, Finish::*};
    for seed in 70..74 {
        let mut setup = Setup::new(seed);
        setup.faults = 40;
        setup.limits.buffer = 16 << 10;
        setup.timeouts.syn_received = std::time::Duration::from_secs(20);
        setup.timeouts.handshake = std::time::Duration::from_secs(40);
        let mut world = world(&setup);
        let mut calls = Vec::new();
        for nth in 0..8 {
            for (client, server) in [
                // Both at once; half-closed by the caller before the service has said a word; and the other way.
                ((AtOnce, WhenSent), (AtOnce, WhenSent)),
                ((AtOnce, WhenSent), (AfterEnd, WhenSent)),
                ((AfterEnd, WhenSent), (AtOnce, WhenSent)),
            ] {
                let scripts = [Script::new(20_000, client.0, client.1), Script::new(20_000, server.0, server.1)];
                let call = to(&mut world, "frontend", "backend", PORT, seed % 2 == 0, scripts);
                calls.push((world.call(nth * 10_000, call), "frontend"));
            }
            let call = to(&mut world, "peer", "open", GREETING_PORT, false, greeting());
            calls.push((world.call_tls(nth * 10_000, call, Shown::Own), "peer"));
        }
        world.finish(TIMES, &format!("seed {seed}"));
        for (id, caller) in calls {
            assert_eq!(told(&world, id).id, Some(spiffe_id(caller)), "seed {seed}, {id:?}");
        }
    }
}

#[test]
fn who_is_refused_is_not_told_of() {
    let mut world = world(&Setup::new(65));
    for (port, shown, late, reason) in [
        (PORT, Shown::Stranger, false, RefuseReason::NotAllowedInbound),
        (GREETING_PORT, Shown::Stranger, true, RefuseReason::NotAllowedInbound),
        (PORT, Shown::Nothing, true, RefuseReason::NoClientCertificate),
    ] {
        // PERMISSIVE: the service is dialed before the verdict, and hears nothing before it.
        let call = to(&mut world, "peer", "open", port, false, request());
        let id = world.call_tls(0, Call { expect: Expect::Refused, ..call }, shown);
        if late {
            lose_first_words(&mut world, id);
        }
        world.finish(TIMES, "refused");
        assert_eq!(world.report(B, id).refused, Some(reason));
        assert!(world.end(id, Side::Server).is_none_or(|end| end.header.as_deref() == Some(b"")), "{port} {shown:?}");
    }
    let call = to(&mut world, "intruder", "backend", PORT, false, request());
    let id = world.call(0, Call { expect: Expect::Refused, ..call });
    world.finish(TIMES, "MUTUAL");
    assert!(world.end(id, Side::Server).is_none(), "no SYN before Allow");
    assert_eq!(world.gateways[B].mailbox().counters.total(Total::ProxyHeaders), 0);
}

#[test]
fn a_snapshot_that_says_otherwise_is_for_new_connections_and_cuts_none() {
    let mut world = world(&Setup::new(66));
    let slow = [
        Script::new(60_000, Begin::AtOnce, Finish::Last).paced(2_000, 50_000),
        Script::new(60_000, Begin::AtOnce, Finish::WhenReceived(60_000)).paced(2_000, 50_000),
    ];
    let call = to(&mut world, "frontend", "backend", PORT, false, slow);
    let living = world.call(0, call);
    world.run(500_000, |_| false).expect("it stands");
    send_headers(&mut world, ProxyProtocol::None);
    world.host("backend").speak(PORT, Service::Plain);
    let call = to(&mut world, "frontend", "backend", PORT, false, request());
    let without = world.call(600_000, call);
    world.finish(TIMES, "changed");
    assert_eq!(told(&world, living).id, Some(spiffe_id("frontend")));
    assert_eq!(world.end(without, Side::Server).and_then(|end| end.header.clone()), None);
    assert_eq!(world.report(B, living).closed, Some(CloseReason::Finished));
}

#[test]
fn a_port_that_says_otherwise_is_served_so() {
    let mut world = world(&Setup::new(67));
    world.push(B, &[], |snapshot| {
        let open = snapshot.workloads.iter_mut().find(|w| w.name == "default/open").expect("a workload");
        open.proxy.version = ProxyProtocol::None;
        open.proxy.ports = vec![(GREETING_PORT, ProxyProtocol::V2)];
    });
    world.host("open").speak(PORT, Service::Plain);
    let call = to(&mut world, "peer", "open", GREETING_PORT, false, greeting());
    let with = world.call_tls(0, call, Shown::Own);
    let call = to(&mut world, "peer", "open", PORT, false, request());
    let without = world.call_tls(0, call, Shown::Own);
    world.finish(TIMES, "ports");
    assert_eq!(told(&world, with).id, Some(spiffe_id("peer")));
    assert_eq!(world.end(without, Side::Server).and_then(|end| end.header.clone()), None);
}

/// The connections that a list of `node` holds, in the order of their beginning.
fn list(world: &mut World, node: usize, peer: SocketAddr, local: Option<SocketAddr>) -> Vec<u64> {
    world.gateways[node].listed.clear();
    let which = Which::With { peer, local };
    world.gateways[node].mailbox().commands.push(Command::ListLive { query: 1, which }).expect("room for a command");
    world.wake(node);
    world.run(world.clock.micros() + 5_000, |_| false).expect("nothing breaks");
    let mut listed: Vec<_> = world.gateways[node].listed.iter().map(|report| report.id).collect();
    listed.sort_unstable();
    listed
}

#[test]
fn a_list_by_an_end_holds_the_connections_that_a_program_of_the_node_has_with_it() {
    let mut world = world(&Setup::new(68));
    let slow = || {
        [
            Script::new(1_000, Begin::AtOnce, Finish::Last).paced(10, 100_000),
            Script::new(1_000, Begin::AtOnce, Finish::WhenReceived(1_000)),
        ]
    };
    let mut call = |from, name| {
        let call = to(&mut world, from, name, PORT, false, slow());
        let ends = (call.client, call.server);
        world.call(0, call);
        ends
    };
    let [(frontend, backend), (batch, _)] = ["frontend", "batch"].map(|from| call(from, "backend"));
    let (within, local) = call("frontend", "local");
    world.run(500_000, |_| false).expect("all stand");
    let mut count = |node, peer, local| list(&mut world, node, peer, local).len();
    // A service about its caller, and not about its own end.
    assert_eq!([frontend, batch, backend].map(|peer| count(B, peer, None)), [1, 1, 0]);
    assert_eq!([backend, local].map(|own| count(B, frontend, Some(own))), [1, 0]);
    // A caller about its server, which others call too, and not about itself.
    assert_eq!([backend, frontend, batch].map(|peer| count(A, peer, None)), [2, 0, 0]);
    assert_eq!([frontend, batch, within].map(|own| count(A, backend, Some(own))), [1, 1, 0]);
    // Within a node each of the two about the other.
    assert_eq!([within, local].map(|peer| count(A, peer, None)), [1, 1]);
    assert_eq!(
        [count(A, within, Some(local)), count(A, local, Some(within)), count(A, within, Some(within))],
        [1, 1, 0]
    );
    world.finish(TIMES, "listed");
    assert_eq!(list(&mut world, B, frontend, None), [0; 0], "what has ended is nobody's any more");
}

#[test]
fn a_gateway_that_drains_still_tells_of_those_whom_it_has_taken() {
    let mut world = world(&Setup::new(69));
    let slow = [
        Script::new(20_000, Begin::AtOnce, Finish::Last).paced(1_000, 100_000),
        Script::new(30_000, Begin::AfterReceived(20_000), Finish::WhenSent),
    ];
    let call = to(&mut world, "frontend", "backend", PORT, false, slow);
    let living = world.call(0, call);
    let call = to(&mut world, "legacy", "open", GREETING_PORT, false, greeting());
    let silent = world.call(0, Call { plain: true, ..call });
    world.run(1_000_000, |_| false).expect("one is relayed, the other has yet to be told of");
    world.gateways[B].mailbox().commands.push(Command::Drain).expect("room for a command");
    world.wake(B);
    world.run_until_over(TIMES).expect("both end");
    world.judge().expect("in order, and whole");
    assert_eq!(told(&world, living).id, Some(spiffe_id("frontend")));
    assert_eq!(told(&world, silent).id, None);
}
