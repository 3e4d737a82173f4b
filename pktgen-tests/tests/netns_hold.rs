//! Many connections, one after the other and all at once: none refused, none left behind, and those
//! that are idle cost nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pktgen_tests::load::{Server, call, complete, open};
use pktgen_tests::netns::gateway::Gateway;
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, cpu_shares, raise_file_limit, wait_until};

#[test]
fn a_thousand_in_sequence_and_two_thousand_at_once_leave_nothing_behind() {
    raise_file_limit(20_000).unwrap();
    // While connections from before the capture are let through, ended flows stay known for longer.
    let pair = Pair::start(&Setup { limits: "{ preExistingGrace: 0s }", ..Setup::default() }).unwrap();
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    // The first connection may grow what every later one uses.
    pair.site.frontend.enter(|| call(address, 0, 1000)).unwrap().unwrap();
    let gateways = [&pair.node_a, &pair.node_b];
    let start = gateways.map(|gateway| settled(gateway).unwrap());

    let began = Instant::now();
    pair.site
        .frontend
        .enter(|| (1..=1000).try_for_each(|n| call(address, n, 1000).with_context(|| format!("call {n}"))))
        .unwrap()
        .unwrap();
    println!("1,000 in sequence: {:.1} s", began.elapsed().as_secs_f64());
    ensure_back(&gateways, &start).unwrap();

    let began = Instant::now();
    let held = pair
        .site
        .frontend
        .enter(|| (0..2000).map(|n| open(address, n).with_context(|| format!("open {n}"))).collect::<Result<Vec<_>>>())
        .unwrap()
        .unwrap();
    println!("2,000 opened: {:.1} s", began.elapsed().as_secs_f64());
    for gateway in gateways {
        let sessions: u64 = gateway.status().unwrap().cores.iter().map(|core| core.sessions).sum();
        assert!(sessions >= 2000, "{} has {sessions} sessions", gateway.name());
        let shares = cpu_shares(&gateway.namespace().pids(), Duration::from_secs(5)).unwrap();
        let share: f64 = shares.iter().map(|(_, share)| share).sum();
        println!("{} with 2,000 idle connections: {:.2} % of a core {shares:.3?}", gateway.name(), share * 100.0);
        assert!(share < 0.02, "{} uses {:.1} % of a core while idle", gateway.name(), share * 100.0);
    }
    // Idle, they still carry every byte.
    for (number, stream) in (0..).zip(&held) {
        complete(stream, number, 1000).unwrap();
    }
    drop(held);
    ensure_back(&gateways, &start).unwrap();
    assert_eq!(server.failures(), Vec::<String>::new());
    assert_eq!(server.accepted(), 3001);
    pair.ensure_nothing_refused().unwrap();
}

/// Sessions, flows and frames in use, and resident memory of the dataplane in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Use {
    sessions: u64,
    flows: u64,
    frames: u64,
    memory: u64,
}

fn usage(gateway: &Gateway) -> Result<Use> {
    let status = gateway.status()?;
    let sum = |of: fn(&snapshot::CoreReport) -> u64| status.cores.iter().map(of).sum();
    let text = std::fs::read_to_string(format!("/proc/{}/status", status.pid))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let memory = line.trim().trim_end_matches(" kB").parse()?;
    Ok(Use {
        sessions: sum(|c| c.sessions),
        flows: sum(|c| c.flows),
        frames: sum(|c| c.frames - c.frames_free),
        memory,
    })
}

/// The use with no session left.
fn settled(gateway: &Gateway) -> Result<Use> {
    let mut last = None;
    wait_until("no session or flow is left", Duration::from_secs(30), || {
        last = usage(gateway).ok();
        last.filter(|usage| usage.sessions == 0 && usage.flows == 0)
    })
    .with_context(|| format!("{}: {last:?}", gateway.name()))
}

fn ensure_back(gateways: &[&Gateway], start: &[Use]) -> Result<()> {
    let began = Instant::now();
    for (gateway, start) in gateways.iter().zip(start) {
        let mut last = None;
        // Frames in use are those that wait in rings, so some more or fewer at any moment is no leak;
        // memory of pools once used stays with the process: half as much again is not a leak per connection.
        let back = |now: &Use| {
            now.sessions == start.sessions
                && now.flows == start.flows
                && now.frames <= start.frames + 64
                && now.memory <= start.memory + start.memory / 2
        };
        wait_until("all is back to its start", Duration::from_secs(30), || {
            last = usage(gateway).ok();
            last.filter(back)
        })
        .with_context(|| format!("{}: at start {start:?}, now {last:?}", gateway.name()))?;
        println!("{} back to its start: {start:?}, now {last:?}", gateway.name());
    }
    println!("back after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
