//! What an operator does to gateways at work, under 200 new connections a second: no call fails, and no
//! connection that is held is dropped.
//!
//! `SLUICE_RESTARTS=20 SLUICE_ROTATIONS=30 cargo test --test netns_under_load` restarts the control process
//! and changes the root more often.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use pktgen_tests::calls::Calls;
use pktgen_tests::load::{Server, complete, open};
use pktgen_tests::netns::gateway::{self, Gateway, binary};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, run, wait_until};
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
    let pair = Pair::start(&Setup::default()).unwrap();
    let server = Server::start(&pair.site.backend, backend()).unwrap();
    without_overlap_it_is_refused(&pair);
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

/// A CA of another root, and nobody believes the old one but by the CA that goes.
fn without_overlap_it_is_refused(pair: &Pair) {
    let (node, directory) = (&pair.node_a, pair.site.rig.directory());
    let other = directory.join("ca-other");
    gateway::authority(&other).unwrap();
    gateway::issue_node(&other, node.name(), &node.directory().join("ca-other")).unwrap();
    let file = signing_by(node, "ca-other", directory).display().to_string();
    let held = hold(pair);
    let apply = ["apply", "-f", &file, "--name", "gateway.yaml"];
    let mut here = node.namespace().command(binary("sluice").unwrap());
    here.args(apply).arg("--config").arg(node.directory());
    let before = (believed(node), serials(node));
    let dry = node.sluice(&[&apply[..], &["--dry-run"]].concat()).unwrap();
    for refused in [node.sluice(&apply).unwrap(), dry, run(here, PATIENCE).unwrap()] {
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("20 living connections chain to roots that this would drop"), "{refused:?}");
        assert!(refused.stderr.contains("CN=Sluice root of example.com of example.com: 20"), "{refused:?}");
    }
    assert_eq!((believed(node), serials(node)), before, "nothing was changed");
    end(&held);
}

/// The node's Gateway with another directory of its CA, in a file elsewhere.
fn signing_by(node: &Gateway, ca: &str, directory: &Path) -> PathBuf {
    let text = fs::read_to_string(node.directory().join("gateway.yaml")).unwrap();
    let (head, tail) = text.split_once("embedded: { directory: ").expect("the Gateway has an embedded CA");
    let (_, tail) = tail.split_once(',').expect("ttl follows");
    let file = directory.join(format!("{}-{ca}.yaml", node.name()));
    fs::write(&file, format!("{head}embedded: {{ directory: {ca},{tail}")).unwrap();
    file
}

/// Of the SVIDs that the node holds.
fn serials(node: &Gateway) -> BTreeSet<String> {
    node.report().unwrap().identities.into_iter().filter_map(|identity| identity.serial).collect()
}

/// From one root to the next, and nobody who is connected notices: node-a goes the way that deploy/docs/trust.md
/// tells, in node-b the files of its CA change.
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
    let ca = successor.file_name().and_then(|name| name.to_str()).unwrap();
    move_on(&pair.node_a, successor, ca);
    succeed(&pair.node_b, successor);
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

/// Gives the node an intermediate of that root in a directory of its own: all is signed anew, and takes no force.
fn move_on(node: &Gateway, authority: &Path, ca: &str) {
    gateway::issue_node(authority, node.name(), &node.directory().join(ca)).unwrap();
    let file = signing_by(node, ca, node.directory().parent().unwrap()).display().to_string();
    let before = serials(node);
    let applied = node.sluice(&["apply", "-f", &file, "--name", "gateway.yaml", "--wait", "30s"]).unwrap();
    assert!(applied.ok().unwrap().contains("in force as version"), "{applied:?}");
    let now = serials(node);
    assert!(before.len() == now.len() && before.is_disjoint(&now), "{now:?} after {before:?}");
}

/// The same in its place, one file after the other.
fn succeed(node: &Gateway, authority: &Path) {
    let fresh = node.directory().with_extension("ca");
    gateway::issue_node(authority, node.name(), &fresh).unwrap();
    let before = serials(node);
    for file in ["bundle.pem", "node.crt", "node.key"] {
        fs::rename(fresh.join(file), node.directory().join("ca").join(file)).unwrap();
    }
    wait_until("all SVIDs are of the new root, and in force", PATIENCE, || {
        let report = node.report().ok()?;
        let now: BTreeSet<_> = report.identities.iter().filter_map(|identity| identity.serial.clone()).collect();
        let in_force = report.dataplane.as_ref()?.in_force >= report.version;
        let fresh = now.len() == before.len() && now.is_disjoint(&before);
        (fresh && in_force && report.problems.is_empty()).then_some(())
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
