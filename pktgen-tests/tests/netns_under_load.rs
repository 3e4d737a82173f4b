//! What an operator does to gateways at work, under 200 new connections a second: no call fails, and no
//! connection that is held is dropped.
//!
//! `SLUICE_RESTARTS=20 SLUICE_ROTATIONS=30 cargo test --test netns_under_load` restarts the control process
//! and changes the root more often.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use pktgen_tests::calls::Calls;
use pktgen_tests::load::{Server, complete, open};
use pktgen_tests::netns::gateway::{self, Gateway};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, wait_until};
use snapshot::ConnectionReport;

const RATE: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(30);

fn backend() -> SocketAddr {
    SocketAddr::new(Host::Backend.v4(), 3000)
}

/// Connections that have begun and say nothing for now.
fn hold(pair: &Pair) -> Vec<TcpStream> {
    let opened = pair.site.frontend.enter(|| (1..=20).map(|number| open(backend(), number)).collect::<Result<_>>());
    opened.unwrap().expect("connections that are held")
}

fn end(held: &[TcpStream]) {
    for (number, stream) in (1..).zip(held) {
        complete(stream, number, 10_000).expect("a connection from before");
    }
}

fn none_failed(calls: Calls, server: &Server) {
    let (count, failures) = calls.finish();
    println!("{count} calls, {} failed", failures.len());
    assert!(count > u64::from(RATE) / 2, "only {count} calls");
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(server.failures(), Vec::<String>::new());
}

#[test]
fn a_control_process_that_is_killed_and_comes_back_costs_nobody_and_its_revisions_go_on() {
    let restarts = std::env::var("SLUICE_RESTARTS").ok().map_or(3, |text| text.parse::<u32>().unwrap());
    let mut pair = Pair::configure(&Setup::default()).unwrap();
    pair.node_a.launch().unwrap();
    pair.node_b.launch_apart().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    let server = Server::start(&pair.site.backend, backend()).unwrap();
    let held = hold(&pair);
    let calls = Calls::start(&pair.site.frontend, backend(), RATE);
    for _ in 0..restarts {
        let before = pair.node_b.status().unwrap();
        pair.node_b.kill_control().unwrap();
        pair.node_b.launch_control().unwrap();
        pair.node_b.wait_ready().unwrap();
        let after = pair.node_b.status().unwrap();
        assert_eq!(after.pid, before.pid, "the dataplane is the same");
        assert!(after.in_force > before.in_force, "{:?} after {:?}", after.in_force, before.in_force);
    }
    none_failed(calls, &server);
    end(&held);
    pair.ensure_nothing_refused().unwrap();
}

#[test]
fn a_root_that_rotates_by_overlap_fails_no_handshake_and_drops_no_connection() {
    let pair = Pair::start(&Setup { ttl: "4s", ..Setup::default() }).unwrap();
    let server = Server::start(&pair.site.backend, backend()).unwrap();
    let rotations = std::env::var("SLUICE_ROTATIONS").ok().map_or(1, |text| text.parse::<u32>().unwrap());
    let calls = Calls::start(&pair.site.frontend, backend(), RATE);
    let mut authority = pair.authority.clone();
    for rotation in 1..=rotations {
        let successor = pair.site.rig.directory().join(format!("ca-{rotation}"));
        gateway::authority(&successor).unwrap();
        rotate(&pair, &authority, &successor);
        authority = successor;
    }
    none_failed(calls, &server);
    pair.ensure_nothing_refused().unwrap();
}

/// From one root to the next, and nobody who is connected notices.
fn rotate(pair: &Pair, authority: &Path, successor: &Path) {
    let roots = |authority: &Path| fs::read_to_string(authority.join("root.crt")).unwrap();
    let (old, new) = (roots(authority), roots(successor));
    let before = hold(pair);
    let nodes = [&pair.node_a, &pair.node_b];
    // Both are believed everywhere before anybody shows the new one.
    for node in nodes {
        fs::write(node.directory().join("roots.pem"), format!("{old}{new}")).unwrap();
        node.apply("own.yaml", OWN).unwrap();
        assert_eq!(believed(node).len(), 2, "{}", node.name());
    }
    for node in nodes {
        succeed(node, successor);
    }
    let after = hold(pair);
    end(&before);
    // The last word of those that have just ended may still be under way, and would be cut short.
    wait_until("those from before are over", PATIENCE, || {
        let ports: Vec<_> = before.iter().map(|held| held.local_addr().expect("it stands").port()).collect();
        let lives = |c: &ConnectionReport| c.closed.is_none() && ports.contains(&c.client.port());
        (!pair.node_a.connections().ok()?.iter().any(lives) && !pair.node_b.connections().ok()?.iter().any(lives))
            .then_some(())
    })
    .unwrap();
    // Whoever is believed by the old one alone has gone by now.
    for node in nodes {
        node.apply("roots.pem", &new).unwrap();
    }
    for node in nodes {
        let believed = believed(node);
        assert_eq!(believed.len(), 1, "{} believes {believed:?}", node.name());
    }
    end(&after);
}

const OWN: &str = "apiVersion: sluice.dev/v1alpha1
kind: TrustBundle
metadata: { name: own }
spec:
  trustDomain: example.com
  roots:
    - file: roots.pem
";

/// Gives the node an intermediate of that root, and waits until all its SVIDs are of it.
fn succeed(node: &Gateway, authority: &Path) {
    let fresh = node.directory().with_extension("ca");
    gateway::issue_node(authority, node.name(), &fresh).unwrap();
    for file in ["bundle.pem", "node.crt", "node.key"] {
        fs::rename(fresh.join(file), node.directory().join("ca").join(file)).unwrap();
    }
    let swapped = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    wait_until("all SVIDs are of the new root", PATIENCE, || {
        let report = node.report().ok()?;
        // Those of workloads of the other node have none.
        let fresh = report.identities.iter().filter_map(|identity| identity.not_before).all(|from| from > swapped);
        (fresh && report.problems.is_empty()).then_some(())
    })
    .unwrap();
}

/// The roots that the node verifies peers by, each once.
fn believed(node: &Gateway) -> BTreeSet<String> {
    let rows = node.sluice(&["bundle", "-o", "json"]).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(rows.ok().unwrap()).unwrap();
    let roots = rows.iter().filter_map(|row| row["roots"].as_array()).flatten();
    roots.map(|root| root["id"].as_str().expect("a root has an ID").to_owned()).collect()
}
