//! Programs on the ports: another one in the way, and taking ours away for good.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use pktgen_tests::load::{Server, call};
use pktgen_tests::netns::gateway::{Gateway, Settings};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, Namespace, run, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);
const PORTS: [&str; 4] = ["in0", "in1", "in2", "out0"];

/// Ports with an XDP program, and how it is attached.
fn programs(node: &Namespace) -> Vec<(&'static str, &'static str)> {
    let on = |port: &'static str| {
        let text = node.run(&format!("ip -details link show dev {port}"), PATIENCE).unwrap().stdout;
        let mode = if text.contains("xdpgeneric") { "generic" } else { "native" };
        text.contains("prog/xdp").then_some((port, mode))
    };
    PORTS.into_iter().filter_map(on).collect()
}

/// Ports with a BPF filter on tc egress.
fn guards(node: &Namespace) -> Vec<&'static str> {
    let on = |port: &&str| {
        let text = node.run(&format!("tc filter show dev {port} egress"), PATIENCE).unwrap().stdout;
        text.contains("direct-action")
    };
    PORTS.into_iter().filter(on).collect()
}

fn native(ports: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    ports.iter().map(|port| (*port, "native")).collect()
}

#[test]
fn a_port_with_a_program_of_another_is_named_and_taken_once_that_one_is_gone() {
    let mut pair = Pair::configure(&Setup::default()).unwrap();
    let node = pair.site.node_a.clone();
    let settings = Settings {
        name: "other",
        inside: &["in1"],
        cores: &[0],
        ttl: "1h",
        unmatched_egress: "pass",
        limits: "{}",
        xdp: "auto",
    };
    let mut other = Gateway::configure(&pair.site.rig, &node, &pair.authority, &settings, &[]).unwrap();
    other.launch().unwrap();
    other.wait_ready().unwrap();
    // Its programs stay in force, as they should: now they are in the way.
    other.stop().unwrap();
    let before = programs(&node);
    assert_eq!(before, native(&["in1", "out0"]));

    pair.node_a.launch().unwrap();
    let said = wait_until("it says what is in the way, and is started again", Duration::from_secs(20), || {
        let log = fs::read_to_string(pair.node_a.log()).ok()?;
        (log.matches("is attached already").count() >= 2).then_some(log)
    })
    .unwrap();
    let line = said.lines().find(|line| line.contains("is attached already")).unwrap();
    for part in ["ERROR", "in1: XDP program ", "`sluice detach`", "`ip link set in1 xdp off`"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(programs(&node), before, "it took no port, in no mode, and left theirs alone");
    let status = pair.node_a.sluice(&["status"]).unwrap();
    assert_eq!(status.status.code(), Some(1), "{status:?}");

    assert!(other.at(&node, "detach").unwrap().ok().unwrap().contains("steering program on interface in1"));
    pair.node_a.wait_ready().unwrap();
    assert_eq!(programs(&node), native(&PORTS));
}

#[test]
fn detach_is_refused_while_a_gateway_runs_and_from_elsewhere_and_then_leaves_nothing() {
    let mut pair = Pair::configure(&Setup::default()).unwrap();
    let node = pair.site.node_a.clone();
    pair.node_a.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    let pins = pair.node_a.pins().to_owned();
    let all = || (programs(&node), guards(&node), Path::new(&pins).exists());
    let attached = (native(&PORTS), vec!["in0", "in1", "in2"], true);
    assert_eq!(all(), attached);

    let check = pair.node_a.at(&node, "check").unwrap().stdout;
    assert!(check.contains("tc on in0: no filters but our own"), "{check}");
    let mut theirs = node.command("tc");
    theirs.args("filter add dev in0 egress pref 7 protocol all bpf bytecode".split(' ')).arg("1,6 0 0 0");
    run(theirs, PATIENCE).unwrap().ok().unwrap();
    let check = pair.node_a.at(&node, "check").unwrap().stdout;
    assert!(check.contains("tc on in0: 1 filters of others"), "{check}");

    assert!(check.contains("native mode: ours if a gateway runs"), "{check}");

    let refused = pair.node_a.at(&node, "detach").unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let pid = pair.node_a.status().unwrap().pid;
    assert!(refused.stderr.contains(&format!("a dataplane (pid {pid}) runs")), "{refused:?}");
    assert!(refused.stderr.contains("stop it first"), "{refused:?}");
    assert_eq!(all(), attached);
    pair.node_a.stop().unwrap();
    assert_eq!(all(), attached, "what is in force outlives the gateway");

    // A pinned program keeps its mode, and `check` says what that means for another one.
    let gateway = pair.node_a.directory().join("gateway.yaml");
    let changed = fs::read_to_string(&gateway).unwrap().replace("xdp: auto", "xdp: generic");
    fs::write(&gateway, changed).unwrap();
    let check = pair.node_a.at(&node, "check").unwrap();
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    let says = "is attached, in native mode, which is not what is configured, and stays so: `sluice detach`";
    assert_eq!(check.stdout.matches(says).count(), PORTS.len(), "{check:?}");

    // There the same numbers are other interfaces.
    let refused = pair.node_a.at(&pair.site.wire, "detach").unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&format!("nsenter --net={}", node.path().display())), "{refused:?}");
    assert_eq!(all(), attached);

    let done = pair.node_a.at(&node, "detach").unwrap();
    done.ok().unwrap();
    assert_eq!(done.stderr, "", "nothing of what libbpf says on the way");
    assert_eq!(all(), (vec![], vec![], false));
    let again = pair.node_a.at(&node, "detach").unwrap();
    assert!(again.ok().unwrap().starts_with("nothing is attached"), "{again:?}");
    // The kernel's again: what MUTUAL would refuse goes through plainly.
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    pair.site.stranger.enter(|| call(address, 1, 1000)).unwrap().unwrap();
    assert_eq!((server.accepted(), server.failures()), (1, vec![]));
}
