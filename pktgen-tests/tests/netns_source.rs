//! A far side that knows no way back to the workload: out of reach as itself, in reach as its node.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pktgen_tests::load::{Exchange, Server, call, exchange};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Cables, Host, wait_until};
use snapshot::RefuseReason;

const PATIENCE: Duration = Duration::from_secs(20);

/// The first egress entry of the frontend, which is the policy's only one, leaves as the node.
fn from_the_node() -> String {
    let policy = policy();
    let entry = "  egress:\n    - selectors:\n";
    assert_eq!(policy.matches(entry).count(), 1);
    policy.replace(entry, "  egress:\n    - source: node\n      selectors:\n")
}

#[test]
fn a_far_side_without_a_route_to_the_workload_is_reached_from_the_nodes_address_only() {
    let cables = Cables { queues: 2, ..Cables::mtu(1500) };
    let pair = Pair::start(&Setup { cores: &[0, 1], cables, ..Setup::default() }).unwrap();
    for prefix in ["198.18.1.0/24", "2001:db8:1::/64"] {
        pair.site.wire.ip(&format!("route del {prefix}")).unwrap();
    }
    let addresses = [false, true].map(|v6| SocketAddr::new(Host::Backend.address(v6), 3000));
    let servers = addresses.map(|address| Server::start(&pair.site.backend, address).unwrap());
    let one_call = |address| pair.site.frontend.enter(|| call(address, 1, 100)).unwrap();

    for address in addresses {
        assert!(one_call(address).is_err(), "{address} has no way back to the frontend");
        let client = Host::Frontend.address(address.is_ipv6());
        let reason = wait_until("the call is given up", PATIENCE, || {
            pair.node_a.refused().ok()?.iter().find(|c| c.client.ip() == client)?.refused
        });
        assert_eq!(reason.unwrap(), RefuseReason::ConnectTimeout, "{address}");
    }
    assert_eq!(servers.each_ref().map(Server::accepted), [0, 0]);

    pair.node_a.apply("policy.yaml", &from_the_node()).unwrap();
    let told = pair.node_a.explain(&Host::Frontend.v4().to_string(), &addresses[0].to_string()).unwrap();
    assert!(told.steps.iter().any(|step| step.contains("source: node")), "{told:#?}");
    for (address, server) in addresses.into_iter().zip(&servers) {
        exchange(&pair.site.frontend, address, Exchange { connections: 32, bytes: 100_000 }).unwrap();
        assert_eq!((server.accepted(), server.failures()), (32, vec![]), "{address}");
        let node: IpAddr = if address.is_ipv4() { "198.18.10.1" } else { "2001:db8:10::1" }.parse().unwrap();
        let at = |c: &&snapshot::ConnectionReport| c.server == address;
        let said = pair.node_a.connections().unwrap();
        let sources: HashSet<_> = said.iter().filter(at).map(|c| c.source.expect("the node's address")).collect();
        assert_eq!(sources.len(), 32, "each call has a port of its own");
        assert!(sources.iter().all(|source| source.ip() == node && source.port() >= 61_000), "{sources:?}");
        let heard = pair.node_b.connections().unwrap();
        let heard: HashSet<_> = heard.iter().filter(at).map(|c| c.client).collect();
        assert_eq!(heard, sources, "node-b sees what node-a says");
        let cores: HashSet<u32> = said.iter().filter(at).map(|c| c.core).collect();
        assert_eq!(cores.len(), 2, "both cores have work");
    }
}
