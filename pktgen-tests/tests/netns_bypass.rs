//! The example of probes as it is delivered, through real gateways: the node's own kernel and a load balancer's
//! checker are served in clear, exactly they at exactly that port, and no longer than the entries stand.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use pktgen_tests::netns::gateway::{BACKEND, Gateway};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Namespace, Output, Service, run, wait_until};
use serde_json::Value;
use snapshot::{Admitted, CloseReason, RefuseReason};

/// Of events that come sooner or later.
const PATIENCE: Duration = Duration::from_secs(30);
const PROBES: &str = include_str!("../../deploy/examples/probes/probes.yaml");

/// The demo's resources without the one of this name.
fn without(name: &str) -> String {
    let policy = policy();
    let all = policy.split("---\n").filter(|resource| !resource.contains(&format!("  name: {name}\n")));
    all.collect::<Vec<_>>().join("---\n")
}

/// The example without its entries.
fn without_bypass() -> String {
    let (head, tail) = PROBES.split_once("    bypass:\n").unwrap();
    let (_, tail) = tail.split_once("  allowedSPIFFEIDs:\n").unwrap();
    format!("{head}  allowedSPIFFEIDs:\n{tail}")
}

/// As every view names the entry.
fn rule(nth: usize) -> String {
    let mut begins = PROBES.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("- sources:"));
    let (line, _) = begins.nth(nth).expect("there are so many entries");
    format!("riptides-system/backend-api spec.connection.bypass[{nth}] (probes.yaml:{})", line + 1)
}

fn curl(from: &Namespace, address: IpAddr, port: u16, extra: &str) -> Output {
    let mut command = from.command("curl");
    command.args(["-sS", "--max-time", "10", "-H", "X-Marker: probe"]).args(extra.split_whitespace());
    command.arg("--resolve").arg(format!("{BACKEND}:{port}:{address}")).arg(format!("http://{BACKEND}:{port}/"));
    run(command, PATIENCE).unwrap()
}

fn served(from: &Namespace, v6: bool) {
    let reply = curl(from, Host::Backend.address(v6), 3000, "");
    assert!(reply.stdout.contains("you said: probe"), "IPv6 {v6}: {reply:?}");
}

/// Of both entries: connections of the gateway's, and SYNs of the node's.
fn counted(gateway: &Gateway) -> Option<Vec<(u64, u64)>> {
    let output = gateway.sluice(&["describe", "workload", "riptides-system/backend-api", "-o", "json"]).ok()?;
    let said: Value = serde_json::from_str(&output.stdout).ok()?;
    let entries = said["bypass"].as_array()?.iter();
    entries.map(|entry| Some((entry["connections"].as_u64()?, entry["from_node"].as_u64()?))).collect()
}

/// A connection that has been answered once.
fn hold(from: &Namespace) -> TcpStream {
    let server = SocketAddr::new(Host::Backend.v4(), 3000);
    let mut stream = from.enter(|| TcpStream::connect_timeout(&server, PATIENCE)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: probe\r\n\r\n").unwrap();
    let mut first = [0; 4];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP");
    stream
}

/// Connections that the service's kernel has with this address.
fn held_with(pair: &Pair, address: &str) -> usize {
    let line = format!("ss -Htn state established dst {address}");
    pair.site.backend.run(&line, PATIENCE).unwrap().ok().unwrap().lines().count()
}

fn start(probes: &str) -> (Pair, Service) {
    let policy = without("backend-api");
    let files = [("policy.yaml", policy.as_str()), ("probes.yaml", probes)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    (pair, service)
}

#[test]
fn the_delivered_probes_are_served_plain_counted_and_shown_and_nobody_else_is() {
    let (pair, service) = start(PROBES);
    for v6 in [false, true] {
        served(&pair.site.node_b, v6);
        served(&pair.site.legacy, v6);
        let seen = service.accepted_from(Host::Legacy).unwrap();
        assert_eq!(seen, 1 + usize::from(v6), "the service sees the checker's own address");
    }
    // A probe that connects and says nothing.
    drop(pair.site.legacy.enter(|| TcpStream::connect((Host::Backend.v4(), 3000))).unwrap().unwrap());
    wait_until("both entries have counted", PATIENCE, || (counted(&pair.node_b)? == [(0, 2), (3, 0)]).then_some(()))
        .unwrap();
    let of_legacy =
        |c: &snapshot::ConnectionReport| [false, true].map(|v6| Host::Legacy.address(v6)).contains(&c.client.ip());
    let ended = || {
        let all = pair.node_b.connections().ok()?.into_iter().filter(of_legacy).collect::<Vec<_>>();
        (all.len() == 3 && all.iter().all(|probe| probe.closed.is_some())).then_some(all)
    };
    for probe in wait_until("all have ended", PATIENCE, ended).unwrap() {
        assert_eq!((probe.admitted, probe.rule.as_deref()), (Some(Admitted::Bypass), Some(rule(1).as_str())));
        assert_eq!(probe.closed, Some(CloseReason::Finished), "{probe:?}");
    }
    let table = pair.node_b.sluice(&["connections", "--closed", "-o", "wide"]).unwrap();
    assert!(table.stdout.contains("plain (bypass)"), "{table:?}");
    for name in ["sluice_bypass_connections_total", "sluice_bypass_node_syns_total"] {
        let nth = usize::from(name.contains("connections"));
        assert!(pair.node_b.metric(name, &rule(nth)).unwrap() >= 2.0, "{name}");
    }
    let told = pair.node_b.explain("198.18.30.2", "198.18.2.2:3000").unwrap();
    assert!(told.allowed && told.rule == Some(rule(1)), "{told:?}");

    // Another port, for both of them; and somebody else at the same port.
    let refused = |from: IpAddr| {
        let all = pair.node_b.refused().ok()?;
        all.iter().rev().find(|c| c.client.ip() == from)?.refused
    };
    assert!(!curl(&pair.site.legacy, Host::Backend.v4(), 3001, "").status.success());
    let reason = wait_until("node-b tells of it", PATIENCE, || refused(Host::Legacy.v4())).unwrap();
    assert_eq!(reason, RefuseReason::PlaintextRefused);
    let dropped = || pair.node_b.metric("sluice_steered_packets", "guard_drop").unwrap();
    let before = dropped();
    assert!(!curl(&pair.site.node_b, Host::Backend.v4(), 3001, "--connect-timeout 1").status.success());
    wait_until("the guard drops it", PATIENCE, || (dropped() > before).then_some(())).unwrap();
    // The wire's router has no entry: 198.18.20.254.
    assert!(!curl(&pair.site.wire, Host::Backend.v4(), 3000, "").status.success());
    assert_eq!(counted(&pair.node_b).unwrap(), [(0, 2), (3, 0)]);
    // And the mesh goes on as ever.
    served(&pair.site.frontend, false);
}

#[test]
fn living_probes_end_with_their_entries() {
    let (pair, _service) = start(PROBES);
    let (mut checker, mut node) = (hold(&pair.site.legacy), hold(&pair.site.node_b));
    assert_eq!((held_with(&pair, "198.18.30.2"), held_with(&pair, "198.18.2.1")), (1, 1));
    pair.node_b.apply("probes.yaml", &without_bypass()).unwrap();
    let mut rest = Vec::new();
    let cut = checker.read_to_end(&mut rest).expect_err("it is reset");
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
    let ended = || pair.node_b.connections().ok()?.into_iter().find(|c| c.client.ip() == Host::Legacy.v4())?.closed;
    assert_eq!(wait_until("it is told", PATIENCE, ended).unwrap(), CloseReason::PolicyChanged);
    // The node's own went past the gateway: the service's next word on it is its last.
    node.write_all(b"GET / HTTP/1.1\r\nHost: probe\r\n\r\n").unwrap();
    let gone = || (held_with(&pair, "198.18.2.1") == 0).then_some(());
    wait_until("the service loses it", PATIENCE, gone).unwrap();
    assert!(!curl(&pair.site.node_b, Host::Backend.v4(), 3000, "--connect-timeout 1").status.success());
    assert!(!curl(&pair.site.legacy, Host::Backend.v4(), 3000, "").status.success());
}

/// The frontend, on a node with other workloads: who sends the node's address from behind another port.
#[test]
fn an_address_that_is_forged_behind_an_inside_port_bypasses_nothing() {
    let identity = PROBES
        .replace("backend-api", "frontend")
        .replace("198.18.2.2", "198.18.1.2")
        .replace("2001:db8:2::2", "2001:db8:1::2")
        .replace("198.18.2.1", "198.18.1.1")
        .replace("2001:db8:2::1", "2001:db8:1::1");
    let policy = without("frontend");
    let files = [("policy.yaml", policy.as_str()), ("probes.yaml", identity.as_str())];
    let mut pair = Pair::configure(&Setup { files: &files, ..Setup::default() }).unwrap();
    pair.node_a.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    let directory = pair.site.rig.directory().join("frontend");
    fs::create_dir(&directory).unwrap();
    let service = Service::start(&pair.site.frontend, &directory).unwrap();
    let frontend = Host::Frontend.v4();
    let reply = curl(&pair.site.node_a, frontend, 3000, "");
    assert!(reply.stdout.contains("you said: probe"), "the node itself may: {reply:?}");
    let before = service.accepted().unwrap();

    pair.site.stranger.ip("address add 198.18.1.1/32 dev lo").unwrap();
    // Who asks for the router's MAC in the router's own name gets no answer.
    let mac = pair.site.node_a.mac("in2").unwrap().map(|byte| format!("{byte:02x}")).join(":");
    pair.site.stranger.ip(&format!("neigh replace 198.18.4.1 lladdr {mac} dev eth0")).unwrap();
    let reply = curl(&pair.site.stranger, frontend, 3000, "--interface 198.18.1.1 --connect-timeout 2");
    assert!(!reply.status.success(), "{reply:?}");
    let forged: IpAddr = "198.18.1.1".parse().unwrap();
    let refused = || pair.node_a.refused().ok()?.into_iter().find(|c| c.client.ip() == forged)?.refused;
    assert_eq!(wait_until("node-a tells of it", PATIENCE, refused).unwrap(), RefuseReason::NoIdentity);
    assert_eq!(service.accepted().unwrap(), before);
}
