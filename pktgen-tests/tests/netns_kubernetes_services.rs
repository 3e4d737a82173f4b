//! Calls to a cluster IP through real gateways: spread over the endpoints of the slices, moved as those change,
//! and going on while the API is away and ctrl restarts.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use pktgen_tests::calls::Calls;
use pktgen_tests::load::{Exchange, Server, exchange};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, wait_until};
use pktgen_tests::played::kube_api::{Api, CLUSTER_SERVICES, SLICES, cluster_service, ready, slice};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const PAGE: &str = include_str!("../../deploy/docs/kubernetes.md");

/// The Service of the page's chapter on Services, as it stands.
fn example() -> &'static str {
    let (_, chapter) = PAGE.split_once("## Services of the cluster").expect("the page has the chapter");
    let (_, after) = chapter.split_once("```yaml\n").expect("it has an example");
    after.split_once("```").expect("it ends").0
}

fn vip(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:ffff::30]:80" } else { "203.0.113.30:80" }.parse().unwrap()
}

/// Endpoints of one port of the backend's.
fn part(api: &Api, name: &str, port: u16, conditions: &Value) {
    for v6 in [false, true] {
        let (name, ip) =
            (format!("shop/{name}-{}", if v6 { "v6" } else { "v4" }), Host::Backend.address(v6).to_string());
        api.put(SLICES, slice(&name, "backend", &[("http", port)], &[(&ip, conditions.clone())]));
    }
}

/// The row of the example's Service in `sluice services`.
fn row(pair: &Pair) -> Option<Value> {
    let output = pair.node_a.sluice(&["services", "shop/backend", "-o", "json"]).ok()?;
    serde_json::from_str::<Vec<Value>>(&output.stdout).ok()?.pop()
}

/// Until calls to the cluster IP of a family are given to exactly these ports of the backend.
fn until_given(pair: &Pair, v6: bool, want: &[u16]) {
    let want: Vec<_> = want.iter().map(|port| json!(SocketAddr::new(Host::Backend.address(v6), *port))).collect();
    let given = || {
        let row = row(pair)?;
        let virtuals = row["virtual_addresses"].as_array()?.iter().find(|v| v["address"] == json!(vip(v6)))?;
        (virtuals["endpoints"] == json!(want)).then_some(())
    };
    wait_until(&format!("calls to {} are given to {want:?}", vip(v6)), PATIENCE, given)
        .unwrap_or_else(|error| panic!("{error:#}: {:#?}", row(pair)));
}

/// The same by addresses, which the cluster's has for its first ones.
fn by_addresses() -> String {
    let (head, labels) = (example().split_once("spec:").unwrap().0, "{ app: myapp, service: backend-api }");
    let each = |what: &dyn Fn(bool) -> String| format!("[{}, {}]", what(false), what(true));
    let endpoint = |v6| format!("{{ address: \"{}\", port: 3000 }}", Host::Backend.address(v6));
    let virt = |v6| format!("{{ address: \"{}\", port: 80, targetPorts: [3000] }}", vip(v6).ip());
    let (addresses, virtuals) = (each(&endpoint), each(&virt));
    format!("{head}spec: {{ addresses: {addresses}, virtualAddresses: {virtuals}, labels: {labels} }}\n")
}

fn servers(pair: &Pair, port: u16) -> [Server; 2] {
    [false, true].map(|v6| Server::start(&pair.site.backend, SocketAddr::new(Host::Backend.address(v6), port)).unwrap())
}

fn call(pair: &Pair, v6: bool) -> anyhow::Result<()> {
    exchange(&pair.site.frontend, vip(v6), Exchange { connections: 20, bytes: 20_000 })
}

#[test]
fn calls_to_a_cluster_ip_reach_its_endpoints_and_follow_their_slices_while_they_go_on() {
    let mut pair = Pair::configure(&Setup { files: &[("backend.yaml", example())], ..Setup::default() }).unwrap();
    let namespace = pair.site.node_a.clone();
    let mut api = Api::start_in(move |address| namespace.enter(|| TcpListener::bind(address).unwrap()).unwrap());
    let kubeconfig = api.kubeconfig(pair.node_a.directory());
    let gateway = pair.node_a.directory().join("gateway.yaml");
    let text = std::fs::read_to_string(&gateway).unwrap();
    let asks = format!("spec:\n  kubernetes: {{ kubeconfig: {}, resources: none }}\n", kubeconfig.display());
    std::fs::write(&gateway, text.replacen("spec:\n", &asks, 1)).unwrap();
    let ips = [false, true].map(|v6| vip(v6).ip().to_string());
    api.put(CLUSTER_SERVICES, cluster_service("shop/backend", &[&ips[0], &ips[1]], &[("http", 80, "TCP")]));
    part(&api, "backend-1", 3000, &ready());
    part(&api, "backend-2", 3100, &ready());
    let file = pair.node_a.directory().join("backend.yaml");
    std::fs::write(&file, by_addresses()).unwrap();
    for node in [&mut pair.node_a, &mut pair.node_b] {
        node.launch().unwrap();
        node.wait_ready().unwrap();
    }

    // Until the API says where the Service leads that the file names, it leads where the file said before.
    let (first, second) = (servers(&pair, 3000), servers(&pair, 3100));
    api.stop();
    std::fs::write(&file, example()).unwrap();
    let unlisted = "Service shop/backend: shop/backend in the cluster: it has not been listed yet; what the Service led \
                    to before stays until then";
    let told = || pair.node_a.report().ok()?.problems.contains(&unlisted.into()).then_some(());
    wait_until("the Service names the cluster's", PATIENCE, told).unwrap();
    [false, true].iter().for_each(|&v6| call(&pair, v6).unwrap());
    api.serve();

    // Both endpoints, in both families, each by the identity that the egress entry names.
    for v6 in [false, true] {
        until_given(&pair, v6, &[3000, 3100]);
        let before = [&first, &second].map(|servers| servers[usize::from(v6)].accepted());
        call(&pair, v6).unwrap();
        let accepted = [&first, &second].map(|servers| servers[usize::from(v6)].accepted());
        let accepted = [accepted[0] - before[0], accepted[1] - before[1]];
        assert_eq!(accepted[0] + accepted[1], 20);
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }
    let said = pair.node_a.connections().unwrap();
    let of = said.iter().filter(|connection| connection.server == vip(false)).collect::<Vec<_>>();
    let backend = Some("spiffe://example.com/myapp/app/backend-api");
    assert!(of.len() == 40 && of.iter().all(|connection| connection.peer_id.as_deref() == backend), "{of:#?}");

    // While calls go on, one ends, is gone, and another one comes; then ctrl restarts while the API is away.
    let calls = Calls::start(&pair.site.frontend, vip(false), 100);
    let at = |port| SocketAddr::new(Host::Backend.v4(), port);
    part(&api, "backend-2", 3100, &json!({ "ready": false, "serving": true, "terminating": true }));
    until_given(&pair, false, &[3000]);
    let described = pair.node_a.sluice(&["describe", "service", "backend", "-o", "json"]).unwrap();
    let described: Value = serde_json::from_str(described.ok().unwrap()).unwrap();
    let mut slices = described["slices"].as_array().unwrap().iter();
    let ending = slices.find(|slice| slice["name"] == "shop/backend-2-v4").map(|slice| &slice["ending"]);
    assert!(ending == Some(&json!(1)) && described["endpoints"][0]["from"] == "kubernetes", "{described:#}");
    wait_until("the calls that it has come to their end", PATIENCE, || {
        let row = row(&pair)?;
        let ending = row["endpoints"].as_array()?.iter().find(|one| one["address"] == json!(at(3100)))?;
        (ending["active"] == 0 && ending["ready"] == false).then_some(())
    })
    .unwrap();
    ["v4", "v6"].iter().for_each(|family| api.remove(SLICES, &format!("shop/backend-2-{family}")));
    let third = servers(&pair, 3200);
    part(&api, "backend-3", 3200, &ready());
    until_given(&pair, false, &[3000, 3200]);
    wait_until("calls reach the new one", PATIENCE, || (third[0].accepted() > 0).then_some(())).unwrap();
    // Who has looked up the one that is gone calls it yet, and not in plain.
    exchange(&pair.site.frontend, at(3100), Exchange { connections: 1, bytes: 1_000 }).unwrap();
    let said = pair.node_a.connections().unwrap();
    let of = said.iter().find(|connection| connection.server == at(3100)).expect("it was carried");
    assert_eq!(of.peer_id.as_deref(), backend);

    api.stop();
    let (before, in_force) = (pair.node_a.report().unwrap().pid, pair.node_a.status().unwrap().in_force);
    pair.node_a.kill_control().unwrap();
    wait_until("the restarted one is in force", PATIENCE, || {
        let is_other = pair.node_a.report().ok()?.pid != before;
        (is_other && pair.node_a.status().ok()?.in_force > in_force).then_some(())
    })
    .unwrap();
    let reached = third[0].accepted();
    wait_until("calls are still spread", PATIENCE, || (third[0].accepted() > reached + 20).then_some(())).unwrap();
    let (count, failed) = calls.finish();
    assert!(failed.is_empty(), "of {count} calls: {failed:#?}");
    assert!([&first, &second, &third].iter().all(|servers| servers[0].failures().is_empty()));
    pair.ensure_nothing_refused().unwrap();

    // Gone, it leads nowhere, and says so.
    api.serve();
    api.remove(CLUSTER_SERVICES, "shop/backend");
    let gone = "Service shop/backend: shop/backend in the cluster: there is none of that name";
    wait_until("that is told", PATIENCE, || pair.node_a.report().ok()?.problems.contains(&gone.into()).then_some(()))
        .unwrap();
    wait_until("it leads nowhere", PATIENCE, || {
        let row = row(&pair)?;
        let (virtuals, endpoints) = (row["virtual_addresses"].as_array()?, row["endpoints"].as_array()?);
        let nowhere = virtuals.iter().all(|v| v["endpoints"] == json!([]));
        (nowhere && endpoints.iter().all(|one| one["ready"] == false)).then_some(())
    })
    .unwrap();
    wait_until("calls to it are refused", PATIENCE, || call(&pair, false).is_err().then_some(())).unwrap();
}
