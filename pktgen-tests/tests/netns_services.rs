//! Virtual addresses and names by DNS as an operator has them: the example of deploy/docs/services.md as it
//! stands, over two cores.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pktgen_tests::load::{Exchange, Server, exchange};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Cables, Host, Namespace, wait_until};
use serde_json::Value;
use snapshot::RefuseReason;

const PATIENCE: Duration = Duration::from_secs(60);
const PAGE: &str = include_str!("../../deploy/docs/services.md");

/// The first YAML block of the page: the Service that the example adds.
fn example() -> String {
    let (_, after) = PAGE.split_once("```yaml\n").expect("the page has an example");
    after.split_once("```").expect("it ends").0.to_owned()
}

fn vip(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:ffff::10]:80" } else { "203.0.113.10:80" }.parse().unwrap()
}

/// The rows of `sluice services` for the example's Service.
fn endpoints(pair: &Pair) -> Vec<Value> {
    let output = pair.node_a.sluice(&["services", "backend-balanced", "-o", "json"]).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    rows[0]["endpoints"].as_array().unwrap().clone()
}

#[test]
fn the_example_spreads_calls_over_two_ports_and_leaves_one_that_is_closed() {
    let example = example();
    let policy = policy();
    let files = [("policy.yaml", policy.as_str()), ("services.yaml", example.as_str())];
    let cables = Cables { queues: 2, ..Cables::mtu(1500) };
    let pair = Pair::start(&Setup { cores: &[0, 1], cables, files: &files, ..Setup::default() }).unwrap();
    for v6 in [false, true] {
        let at = |port| SocketAddr::new(Host::Backend.address(v6), port);
        let servers = [3000, 3100].map(|port| Server::start(&pair.site.backend, at(port)).unwrap());
        exchange(&pair.site.frontend, vip(v6), Exchange { connections: 40, bytes: 50_000 }).unwrap();
        let accepted = servers.each_ref().map(Server::accepted);
        assert_eq!((accepted[0] + accepted[1], servers.each_ref().map(Server::failures)), (40, [vec![], vec![]]));
        // Each core draws for itself, and which core a call is on is the kernel's hash.
        assert!(accepted.iter().all(|&count| count >= 10), "{accepted:?}");
        let said = pair.node_a.connections().unwrap();
        let of: Vec<_> = said.iter().filter(|c| c.server == vip(v6)).collect();
        assert_eq!(of.iter().map(|c| c.endpoint.unwrap()).collect::<HashSet<_>>(), HashSet::from([at(3000), at(3100)]));
        assert_eq!(of.iter().map(|c| c.core).collect::<HashSet<_>>().len(), 2, "both cores have work");
        // Where the hash of the endpoint's 4-tuple is another core's, the port is another.
        let heard: HashSet<_> = pair.node_b.connections().unwrap().iter().map(|c| c.client).collect();
        let client = |c: &&snapshot::ConnectionReport| c.source.unwrap_or(c.client);
        assert!(of.iter().map(client).all(|client| heard.contains(&client) && client.ip() == of[0].client.ip()));
        assert!(of.iter().any(|c| c.source.is_some()) && of.iter().any(|c| c.source.is_none()));
    }
    let told = pair.node_a.explain(&Host::Frontend.v4().to_string(), &vip(false).to_string()).unwrap();
    assert!(told.steps.iter().any(|step| step.contains("one of its 2 endpoints")), "{told:#?}");
    let counts = |rows: &[Value]| -> BTreeMap<String, u64> {
        rows.iter().map(|row| (row["address"].as_str().unwrap().into(), row["connected"].as_u64().unwrap())).collect()
    };
    let connected = counts(&endpoints(&pair));
    assert_eq!(connected.len(), 4);
    assert_eq!(connected.values().sum::<u64>(), 80);
    assert_eq!(pair.node_a.metric("sluice_balanced_total", "").unwrap(), 80.0);
    refused_and_ejected(&pair, &example);
}

/// A host on the wire where nobody listens is an endpoint too: callers notice nothing of it.
fn refused_and_ejected(pair: &Pair, example: &str) {
    let closed = SocketAddr::new(Host::Legacy.v4(), 3000);
    let with = example.replacen("  addresses:\n", "  addresses:\n    - { address: 198.18.30.2, port: 3000 }\n", 1);
    assert_ne!(with, example);
    let server = Server::start(&pair.site.backend, SocketAddr::new(Host::Backend.v4(), 3000)).unwrap();
    let _other = Server::start(&pair.site.backend, SocketAddr::new(Host::Backend.v4(), 3100)).unwrap();
    pair.node_a.apply("services.yaml", &with).unwrap();
    let ejected = || {
        endpoints(pair).into_iter().find(|row| row["address"] == closed.to_string() && !row["ejected_until"].is_null())
    };
    // Each core ejects for itself; calls go on until one has.
    let row = wait_until("the closed one is ejected", PATIENCE, || {
        exchange(&pair.site.frontend, vip(false), Exchange { connections: 20, bytes: 1_000 }).unwrap();
        ejected()
    })
    .unwrap();
    assert!(row["failed"].as_u64().unwrap() >= 5 && row["connected"] == 0, "{row}");
    let described = pair.node_a.sluice(&["describe", "service", "backend-balanced", "-o", "json"]).unwrap();
    let described: Value = serde_json::from_str(&described.stdout).unwrap_or_else(|e| panic!("{e}: {described:?}"));
    let mut all = described["endpoints"].as_array().unwrap().iter();
    let given = all.find(|row| row["address"] == closed.to_string()).map(|row| &row["given"]);
    assert!(given.is_some_and(|given| given["ejections"].as_u64() >= Some(1)), "{described:#}");
    assert!(pair.node_a.metric("sluice_connects_retried_total", "").unwrap() >= 5.0);
    assert!(server.failures().is_empty());
    let refused = pair.node_a.refused().unwrap();
    assert!(refused.is_empty(), "{refused:#?}");
    let none = with.lines().filter(|line| !line.contains("- { address: 198.18.")).collect::<Vec<_>>().join("\n");
    pair.node_a.apply("services.yaml", &format!("{none}\n")).unwrap();
    assert!(exchange(&pair.site.frontend, vip(false), Exchange { connections: 1, bytes: 100 }).is_err());
    let reason = wait_until("it is refused", PATIENCE, || pair.node_a.refused().ok()?.first()?.refused).unwrap();
    assert_eq!(reason, RefuseReason::NoEndpoint);
}

/// Answers every A question with one address, which may change, and a TTL of a second.
struct Names {
    other: Arc<AtomicBool>,
}

impl Names {
    fn serve(namespace: &Namespace, at: SocketAddr, answers: [IpAddr; 2]) -> Self {
        let socket = namespace.enter(|| UdpSocket::bind(at)).unwrap().unwrap();
        let other = Arc::new(AtomicBool::new(false));
        let chosen = other.clone();
        std::thread::spawn(move || {
            let mut question = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let answer = answers[usize::from(chosen.load(Ordering::Relaxed))];
                let _ = socket.send_to(&reply(&question[..length], answer), from);
            }
        });
        Self { other }
    }
}

fn reply(question: &[u8], answer: IpAddr) -> Vec<u8> {
    let mut end = 12;
    while question[end] != 0 {
        end += usize::from(question[end]) + 1;
    }
    end += 5;
    let mut message = question[..end].to_vec();
    message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    if let (IpAddr::V4(v4), [0, 1]) = (answer, &question[end - 4..end - 2]) {
        message[7] = 1;
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        message.extend_from_slice(&v4.octets());
    }
    message
}

const NAMED: &str = "apiVersion: core.riptides.io/v1alpha1
kind: Service
metadata: { name: named, namespace: riptides-system }
spec:
  addresses:
    - { address: moving.test, port: 3000 }
  virtualAddresses:
    - { address: 203.0.113.20, port: 80, targetPorts: [3000] }
  labels: { app: myapp, service: backend-api }
";

#[test]
fn a_name_that_moves_is_followed_within_its_ttl_and_what_it_left_stays_captured() {
    let policy = policy();
    let files = [("policy.yaml", policy.as_str()), ("named.yaml", NAMED)];
    let mut pair = Pair::configure(&Setup { files: &files, ..Setup::default() }).unwrap();
    let gone: IpAddr = "198.18.2.99".parse().unwrap();
    let server: SocketAddr = "127.0.0.1:5353".parse().unwrap();
    let names = Names::serve(pair.node_a.namespace(), server, [gone, Host::Backend.v4()]);
    let gateway = pair.node_a.directory().join("gateway.yaml");
    let text = std::fs::read_to_string(&gateway).unwrap();
    std::fs::write(&gateway, format!("{text}  dns: {{ servers: [\"{server}\"] }}\n")).unwrap();
    for node in [&mut pair.node_a, &mut pair.node_b] {
        node.launch().unwrap();
        node.wait_ready().unwrap();
    }
    let rows = || {
        let output = pair.node_a.sluice(&["services", "named", "-o", "json"]).ok()?;
        let rows: Vec<Value> = serde_json::from_str(&output.stdout).ok()?;
        let virtuals = rows[0]["virtual_addresses"][0]["endpoints"].as_array()?.clone();
        let all = rows[0]["endpoints"].as_array()?.iter().map(|row| row["address"].clone()).collect::<Vec<_>>();
        Some((all, virtuals))
    };
    let [old, new] = [gone, Host::Backend.v4()].map(|ip| Value::from(format!("{ip}:3000")));
    wait_until("it resolves", PATIENCE, || rows().filter(|r| *r == (vec![old.clone()], vec![old.clone()]))).unwrap();
    names.other.store(true, Ordering::Relaxed);
    wait_until("it moved, and the old one is captured yet", PATIENCE, || {
        rows().filter(|r| *r == (vec![new.clone(), old.clone()], vec![new.clone()]))
    })
    .unwrap();
    let server = Server::start(&pair.site.backend, SocketAddr::new(Host::Backend.v4(), 3000)).unwrap();
    wait_until("calls go there", PATIENCE, || {
        exchange(&pair.site.frontend, "203.0.113.20:80".parse().unwrap(), Exchange { connections: 1, bytes: 100 }).ok()
    })
    .unwrap();
    assert!(server.accepted() >= 1);
    wait_until("the old one is forgotten", PATIENCE, || {
        rows().filter(|r| *r == (vec![new.clone()], vec![new.clone()]))
    })
    .unwrap();
}
