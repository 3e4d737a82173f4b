//! The mirror of the kernel's network, in a namespace of its own with another at the far end.
//!
//! A test runs itself again inside `unshare --net`: what it does there touches nobody.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ctrl::netlink::{self, table};
use ctrl::publish::Resolve;
use snapshot::Network;
use tokio::sync::{mpsc, watch};

const INSIDE: &str = "SLUICE_TEST_INSIDE_NAMESPACE";
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `body` in a new network namespace: true where it is to run now.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    assert!(rustix::process::geteuid().is_root(), "these tests make network namespaces: run them as root");
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare (util-linux) is installed");
    assert!(status.success(), "{name} failed inside its namespace");
    false
}

fn sh(script: &str) {
    let done = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(done.status.success(), "{script}: {done:?}");
}

/// A host at the far end of a cable, in a namespace that ends with it.
struct Host(Child);

impl Host {
    fn at(far_end: &str, address: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        let host = Self(child);
        let pid = host.0.id();
        sh(&format!("ip link set {far_end} netns {pid}"));
        host.sh(&format!("ip addr add {address} dev {far_end} nodad; ip link set {far_end} up"));
        host
    }

    fn sh(&self, script: &str) {
        sh(&format!("nsenter -t {} -n sh -ec '{script}'", self.0.id()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const LINK: &str = "
    ip link set lo up
    ip link add out0 type veth peer name x0
    ip link add other0 type veth peer name other1
    ip addr add 198.18.3.1/24 dev out0
    ip addr add 2001:db8:3::1/64 dev out0 nodad
    ip link set out0 up
    ip link set x0 up
    ip link set other0 up
    ip link set other1 up
    ip addr add 198.18.9.1/24 dev other0
";

async fn until(network: &mut watch::Receiver<Arc<Network>>, want: impl FnMut(&Arc<Network>) -> bool) -> Arc<Network> {
    if let Ok(now) = tokio::time::timeout(PATIENCE, network.wait_for(want)).await {
        return now.unwrap().clone();
    }
    panic!("the mirror stays at {:?}", network.borrow());
}

fn has(network: &Network, prefix: &str) -> bool {
    network.routes.iter().any(|r| r.prefix.to_string() == prefix)
}

fn mac(network: &Network, address: &str) -> Option<[u8; 6]> {
    let address: IpAddr = address.parse().unwrap();
    network.neighbours.iter().find(|n| n.address == address).map(|n| n.mac)
}

#[tokio::test]
async fn the_mirror_follows_links_routes_and_neighbours_of_the_ports_only() {
    if !inside("the_mirror_follows_links_routes_and_neighbours_of_the_ports_only") {
        return;
    }
    sh(LINK);
    let (ports, ports_out) = watch::channel(vec!["out0".to_owned()]);
    let (mut network, _handle) = netlink::mirror(ports_out, 100).await.unwrap();
    let first = network.borrow_and_update().clone();
    assert_eq!(first.revision, 100);
    assert_eq!(first.links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["out0"]);
    assert!(first.links[0].up && first.links[0].mtu == 1500 && first.links[0].mac != [0; 6]);
    assert!(has(&first, "198.18.3.0/24") && has(&first, "2001:db8:3::/64") && !has(&first, "198.18.9.0/24"));

    sh("ip route add 198.18.2.0/24 via 198.18.3.2 metric 7 mtu 1400
        ip route add 2001:db8:2::/48 via 2001:db8:3::2
        ip route add 198.18.4.0/24 nexthop via 198.18.3.7 dev out0 nexthop via 198.18.9.7 dev other0
        ip route add blackhole 198.18.5.0/24
        ip route add 198.18.6.0/24 dev out0 table 77");
    let now = until(&mut network, |n| has(n, "198.18.4.0/24") && has(n, "2001:db8:2::/48")).await;
    assert!(now.revision > 100);
    let route = |prefix: &str| now.routes.iter().filter(|r| r.prefix.to_string() == prefix).collect::<Vec<_>>();
    let [via] = route("198.18.2.0/24")[..] else { panic!("{now:?}") };
    assert_eq!((via.gateway, via.metric, via.mtu), (Some("198.18.3.2".parse().unwrap()), 7, Some(1400)));
    assert_eq!(route("198.18.4.0/24").len(), 1, "the hop over the other interface is not ours");
    assert!(!has(&now, "198.18.5.0/24") && !has(&now, "198.18.6.0/24"), "no blackholes, no other tables");
    let out0 = now.links[0].index;
    let hop = |to: &str| table::next_hop(&now, to.parse().unwrap());
    assert_eq!(hop("198.18.2.9"), Some((out0, "198.18.3.2".parse().unwrap())));
    assert_eq!(hop("198.18.3.9"), Some((out0, "198.18.3.9".parse().unwrap())), "on the link");
    assert_eq!(hop("203.0.113.1"), None);

    sh("ip neigh add 198.18.3.2 lladdr 02:00:00:00:00:02 dev out0 nud reachable
        ip neigh add 2001:db8:3::2 lladdr 02:00:00:00:00:06 dev out0 nud permanent");
    let now = until(&mut network, |n| mac(n, "198.18.3.2").is_some() && mac(n, "2001:db8:3::2").is_some()).await;
    assert_eq!(mac(&now, "198.18.3.2"), Some([2, 0, 0, 0, 0, 2]));
    sh("ip neigh replace 198.18.3.2 lladdr 02:00:00:00:00:99 dev out0 nud permanent");
    until(&mut network, |n| mac(n, "198.18.3.2") == Some([2, 0, 0, 0, 0, 0x99])).await;
    sh("ip neigh del 198.18.3.2 dev out0; ip link set out0 mtu 9000");
    until(&mut network, |n| mac(n, "198.18.3.2").is_none() && n.links[0].mtu == 9000).await;

    // What the node's own packets leave from: the addresses in the kernel's order, without those of
    // second choice, and the word of a route.
    let addresses = |n: &Network| {
        let link = n.links.iter().find(|l| l.name == "out0").expect("out0 is there");
        link.addresses.iter().map(|a| format!("{}/{}", a.address, a.length)).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&network.borrow()), ["198.18.3.1/24", "2001:db8:3::1/64"], "no link-local address");
    sh("ip addr add 198.18.3.99/24 dev out0
        ip addr add 198.18.8.1/32 dev out0
        ip addr add 2001:db8:3::9/64 dev out0 nodad preferred_lft 0
        ip route add 198.18.7.0/24 via 198.18.3.2 src 198.18.8.1");
    let now = until(&mut network, |n| has(n, "198.18.7.0/24")).await;
    assert_eq!(addresses(&now), ["198.18.3.1/24", "198.18.8.1/32", "2001:db8:3::1/64"], "none second, none deprecated");
    let source = |n: &Network, to: &str| n.routes.iter().find(|r| r.prefix.to_string() == to).and_then(|r| r.source);
    assert_eq!(source(&now, "198.18.7.0/24"), Some("198.18.8.1".parse().unwrap()));
    assert_eq!(source(&now, "198.18.3.0/24"), Some("198.18.3.1".parse().unwrap()), "as the kernel wrote it");
    assert_eq!(source(&now, "198.18.2.0/24"), None);
    sh("ip addr del 198.18.8.1/32 dev out0");
    let now = until(&mut network, |n| addresses(n) == ["198.18.3.1/24", "2001:db8:3::1/64"]).await;
    assert!(!has(&now, "198.18.7.0/24"), "the kernel took the route away with its source, and said nothing");

    ports.send_replace(vec!["out0".to_owned(), "other0".to_owned()]);
    until(&mut network, |n| n.links.len() == 2 && has(n, "198.18.9.0/24")).await;
    sh("ip link set out0 down");
    until(&mut network, |n| n.links.iter().any(|l| l.name == "out0" && !l.up) && !has(n, "198.18.2.0/24")).await;
    sh("ip link del out0");
    until(&mut network, |n| n.links.len() == 1).await;
}

#[tokio::test]
async fn a_storm_of_changes_ends_in_the_same_state_as_the_kernel() {
    if !inside("a_storm_of_changes_ends_in_the_same_state_as_the_kernel") {
        return;
    }
    sh(LINK);
    let (_ports, ports_out) = watch::channel(vec!["out0".to_owned()]);
    let (mut network, _handle) = netlink::mirror(ports_out, 0).await.unwrap();
    // Far more events than the event socket holds, made faster than they are read.
    let mut batch = String::new();
    for i in 0..4000 {
        batch.push_str(&format!("route add 198.19.{}.{}/32 dev out0\n", i / 250, i % 250));
    }
    for _ in 0..3 {
        batch.push_str(&batch.clone().replace("route add", "route replace"));
        batch.truncate(1 << 20);
        batch.truncate(batch.rfind('\n').unwrap() + 1);
    }
    std::fs::write("/dev/shm/sl-ctrlrun-batch", &batch).unwrap();
    sh("ip -batch /dev/shm/sl-ctrlrun-batch; rm /dev/shm/sl-ctrlrun-batch; ip route add 198.18.77.0/24 dev out0");
    let now = until(&mut network, |n| has(n, "198.18.77.0/24")).await;
    assert_eq!(now.routes.iter().filter(|r| r.prefix.length == 32).count(), 4000);
    assert!(now.revision < 1000, "bursts are one change: {}", now.revision);
}

#[tokio::test]
async fn next_hops_in_use_are_resolved_by_the_kernel() {
    if !inside("next_hops_in_use_are_resolved_by_the_kernel") {
        return;
    }
    sh(LINK);
    let router = Host::at("x0", "198.18.3.2/24");
    router.sh("ip addr add 198.18.3.3/24 dev x0; ip addr add 2001:db8:3::2/64 dev x0 nodad");
    sh("ip route add 198.18.2.0/24 via 198.18.3.3");
    let (_ports, ports_out) = watch::channel(vec!["out0".to_owned()]);
    let (mut network, handle) = netlink::mirror(ports_out, 0).await.unwrap();
    let (destinations, destinations_out) = watch::channel(BTreeSet::new());
    let (ask, asked) = mpsc::channel(8);
    let now = network.borrow().clone();
    assert_eq!((mac(&now, "198.18.3.2"), mac(&now, "198.18.3.3"), mac(&now, "2001:db8:3::2")), (None, None, None));
    tokio::spawn(netlink::resolve::keep(handle, network.clone(), destinations_out, asked));
    // The gateway of a route, without anybody asking.
    let now = until(&mut network, |n| mac(n, "198.18.3.3").is_some()).await;
    assert_eq!(mac(&now, "198.18.3.2"), None, "nobody uses that one yet");
    // A destination on the link, IPv6.
    destinations.send_replace(BTreeSet::from(["2001:db8:3::2".parse().unwrap()]));
    until(&mut network, |n| mac(n, "2001:db8:3::2").is_some()).await;
    // What the dataplane asks for.
    ask.send(Resolve { interface: "out0".into(), address: "198.18.3.2".parse().unwrap() }).await.unwrap();
    until(&mut network, |n| mac(n, "198.18.3.2").is_some()).await;
    // One that answers only later is asked again.
    ask.send(Resolve { interface: "out0".into(), address: "198.18.3.4".parse().unwrap() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    router.sh("ip addr add 198.18.3.4/24 dev x0");
    until(&mut network, |n| mac(n, "198.18.3.4").is_some()).await;
}
