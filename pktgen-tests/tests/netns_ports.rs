//! A port that goes down or away is its own trouble: the others go on, and it is taken up again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use pktgen_tests::load::{Exchange, Server, call, exchange};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{End, Host, Namespace, cpu_shares, wait_until};
use pktgen_tests::rounds::{Rounds, echo};

const INTRUDER: &str = include_str!("../../deploy/demo/intruder.yaml");

/// The rate of the frontend's exchanges without the other port, over that with it. What else the
/// machine does can halve either at any time, so they are measured in turns until one pair of them
/// is fair; a gateway that one port slows down fails every pair.
fn keeps_its_rate(pair: &Pair, address: SocketAddr, without: impl Fn(), with: impl Fn()) -> f64 {
    let rate = || {
        let began = Instant::now();
        exchange(&pair.site.frontend, address, Exchange { connections: 4, bytes: 10_000_000 }).unwrap();
        began.elapsed().as_secs_f64().recip()
    };
    let mut best = 0.0;
    for _ in 0..8 {
        let before = rate();
        without();
        best = f64::max(best, rate() / before);
        with();
        if best > 0.9 {
            break;
        }
    }
    best
}

fn answered(from: &Namespace, address: SocketAddr) -> Result<()> {
    from.enter(|| call(address, 7, 1000))?
}

#[test]
fn a_port_that_goes_comes_back_and_the_others_keep_their_rate() {
    let list = "      - spiffe://example.com/myapp/app/frontend\n";
    let both = policy().replacen(list, &format!("{list}      - spiffe://example.com/myapp/app/intruder\n"), 1);
    let files = [("intruder.yaml", INTRUDER), ("policy.yaml", both.as_str())];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let _server = Server::start(&pair.site.backend, address).unwrap();
    let (frontend, second, node) = (&pair.site.frontend, &pair.site.intruder, &pair.site.node_a);
    answered(second, address).unwrap();
    let set = |state: &str| node.ip(&format!("link set in1 {state}")).unwrap();
    let kept = keeps_its_rate(&pair, address, || set("down"), || set("up"));
    println!("rate with in1 down: {kept:.2} of before");
    assert!(kept > 0.9, "in1 is down, and in0 keeps {kept:.2} of its rate");
    back(second, address, "in1 is up again");

    let remove = || node.ip("link del in1").unwrap();
    let lay_again = || {
        let (here, there) = (["198.18.3.1/24", "2001:db8:3::1/64"], ["198.18.3.2/24", "2001:db8:3::2/64"]);
        let (here, there) = (End::new(node, "in1", &here), End::new(second, "eth0", &there));
        pair.site.rig.cable(&here, &there, 1500, 1).unwrap();
        second.ip("route add default via 198.18.3.1").unwrap();
    };
    let kept = keeps_its_rate(&pair, address, remove, lay_again);
    println!("rate with in1 gone: {kept:.2} of before");
    assert!(kept > 0.9, "in1 is gone, and in0 keeps {kept:.2} of its rate");
    back(second, address, "in1 is there again");

    node.ip("link set out0 down").unwrap();
    node.ip("link set out0 up").unwrap();
    node.ip("route replace default via 198.18.10.254").unwrap();
    back(frontend, address, "out0 is up again");

    wait_until("no session is left", Duration::from_secs(30), || {
        let cores = pair.node_a.status().ok()?.cores;
        cores.iter().all(|core| core.sessions == 0).then_some(())
    })
    .unwrap();
}

fn back(from: &Namespace, address: SocketAddr, when: &str) {
    wait_until(&format!("calls are answered when {when}"), Duration::from_secs(20), || answered(from, address).ok())
        .unwrap();
}

#[test]
fn a_gateway_whose_ports_are_all_down_rests_and_takes_them_up_again() {
    let pair = Pair::start(&Setup::default()).unwrap();
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    echo(&pair.site.backend, address).unwrap();
    let (frontend, node) = (&pair.site.frontend, &pair.site.node_a);
    // In the middle of things: what the gateway then wants to send closes the sockets of its ports. The
    // connection itself is cut, since its workload is attested by routes, which go with the interface.
    let held = Rounds::start(frontend, address).unwrap();
    held.go_on(1).unwrap();
    let set = |state: &str| {
        for port in ["in0", "in1", "in2", "out0"] {
            node.ip(&format!("link set {port} {state}")).unwrap();
        }
    };
    set("down");
    wait_until("all ports are known to be down", Duration::from_secs(10), || {
        pair.node_a.status().ok()?.ports.iter().all(|port| !port.up).then_some(())
    })
    .unwrap();
    let shares = cpu_shares(&node.pids(), Duration::from_secs(2)).unwrap();
    println!("with all ports down: {shares:.3?}");
    let worst = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    assert!(worst < 0.1, "it spins: {shares:.3?}");

    set("up");
    node.ip("route replace default via 198.18.10.254").unwrap();
    let again = || Rounds::start(frontend, address).ok();
    let new = wait_until("a new connection stands", Duration::from_secs(20), again).unwrap();
    new.go_on(1).unwrap();
    new.finish().unwrap();
}
