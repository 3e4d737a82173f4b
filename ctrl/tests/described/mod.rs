//! `sluice describe`: Services, Policies and trust domains of a node, with a dataplane and without.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapshot::{ConnectionReport, EndpointLoad, Query, Reply, RuleHits, TlsReport};

use crate::answers::{answer, live};
use crate::ca::Ca;
use crate::fake::FakeDataplane;
use crate::node::Node;

const UNKNOWN: &str = "no dataplane is connected: start sluice-dataplane, or see its log";

/// A Service, the frontend that calls it, and a backend, which is of this node too.
const SHOP: &str = "\
apiVersion: core.riptides.io/v1alpha1
kind: Service
metadata: { name: backend, namespace: shop }
spec:
  addresses:
    - { address: 198.18.2.9, port: 3000 }
    - { address: 198.18.2.8, port: 3000, ready: false }
    - { address: backend-api.myapp.svc.cluster.local, port: 3000 }
    - { address: 198.18.1.3, port: 8443 }
  virtualAddresses: [{ address: 203.0.113.10, port: 80, targetPorts: [3000] }]
  labels: { app: shop, tier: backend }
---
apiVersion: core.riptides.io/v1alpha1
kind: WorkloadIdentity
metadata: { name: frontend, namespace: shop }
spec:
  workloadID: shop/frontend
  selectors: [{ net:ip: 198.18.1.2 }]
  connection: { tls: { mode: PERMISSIVE } }
  egress:
    - selectors: [{ tier: backend }]
      connection: { tls: { mode: MUTUAL } }
      allowedSPIFFEIDs: [spiffe://example.com/shop/backend]
    - selectors: [{ app: shop }]
---
apiVersion: core.riptides.io/v1alpha1
kind: WorkloadIdentity
metadata: { name: backend, namespace: shop }
spec:
  workloadID: shop/backend
  selectors: [{ net:ip: 198.18.1.3 }]
  connection: { tls: { mode: MUTUAL, ports: { \"8443\": DISABLE } } }
  allowedSPIFFEIDs: { outbound: [] }
";

fn start(files: &[(&str, &str)]) -> Node {
    let mut node = Node::new("1h");
    node.sh("ip neigh add 198.18.1.3 lladdr 02:00:00:00:01:03 dev in0 nud permanent");
    files.iter().for_each(|(name, text)| node.write(name, text));
    node.start();
    node.status_until(|status| status["version"].is_number());
    node
}

fn until(node: &Node, arguments: &[&str], what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let described = node.json(arguments);
        if is(&described) {
            return described;
        }
        assert!(Instant::now() < until, "{what}: {described:#}");
        std::thread::park_timeout(Duration::from_millis(25));
    }
}

fn column<'v>(described: &'v Value, list: &str, field: &str) -> Vec<&'v Value> {
    described[list].as_array().unwrap().iter().map(|row| &row[field]).collect()
}

fn problems(described: &Value) -> String {
    described["problems"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_service_is_described_by_where_its_endpoints_come_from_how_they_do_and_who_selects_it() {
    let port = ", port: 8443 }\n";
    let named = SHOP.replacen(port, &format!("{port}    - {{ address: gone.test, port: 3000 }}\n"), 1);
    let node = start(&[("policy.yaml", &named)]);
    let asked = ["describe", "service", "backend"];
    let service = node.json(&asked);
    // Without a dataplane there are no numbers.
    assert_eq!(service["not_counted"], UNKNOWN, "{service:#}");
    assert!(column(&service, "endpoints", "live").iter().all(|live| live.is_null()), "{service:#}");
    assert_eq!(column(&service, "names", "name"), ["backend-api.myapp.svc.cluster.local", "gone.test"]);
    assert_eq!((&service["names"][0]["is_fixed"], &service["revision"]["or_before"]), (&json!(true), &json!(true)));
    assert!(problems(&service).contains("gone.test does not resolve: "), "{service:#}");

    let soon = (ctrl::clock::now() + 30 * 86_400) * 1000;
    let load = move |core, address: &str, ejected_until| EndpointLoad {
        core,
        address: address.parse().unwrap(),
        active: 1,
        connected: 3,
        failed: 5,
        streak: 0,
        ejections: 1,
        ejected_until,
    };
    FakeDataplane::hello(&node.admin(), None).serve(move |query, in_force| match query {
        Query::Endpoints => Reply::Endpoints {
            part: vec![
                load(0, "198.18.2.9:3000", Some(soon)),
                load(1, "198.18.2.9:3000", None),
                load(0, "198.18.2.2:3000", None),
            ],
            more: false,
        },
        other => answer(other, in_force),
    });
    node.says(0, &["status", "--wait", "30s"]);
    let service = until(&node, &asked, "it is counted", |service| service["not_counted"].is_null());
    let endpoint = |address: &str| {
        let mut all = service["endpoints"].as_array().unwrap().iter();
        all.find(|row| row["address"] == address).unwrap_or_else(|| panic!("{address} in {service:#}"))
    };
    let literal = endpoint("198.18.2.9:3000");
    assert_eq!((&literal["from"], &literal["place"]), (&json!("literal"), &json!("policy.yaml:6")));
    assert_eq!(
        literal["given"],
        json!({ "active": 2, "connected": 6, "failed": 10, "ejections": 2, "ejected_on": [0], "ejected_until": soon / 1000 })
    );
    // The one that lives in these answers goes to 198.18.2.2:3000.
    let fixed = endpoint("198.18.2.2:3000");
    assert_eq!((&fixed["from"], &fixed["live"], &literal["live"]), (&json!("hosts"), &json!(1), &json!(0)));
    let (idle, own) = (endpoint("198.18.2.8:3000"), endpoint("198.18.1.3:8443"));
    assert_eq!((&idle["ready"], &idle["given"]), (&json!(false), &Value::Null));
    assert_eq!(own["workloads"], json!(["shop/backend"]));
    let ports = json!([{ "port": 3000, "endpoints": 3, "inbound": [] },
        { "port": 8443, "endpoints": 1, "inbound": [{ "workload": "shop/backend", "mode": "DISABLE" }] }]);
    assert_eq!(service["ports"], ports);
    let (first, second) =
        ("shop/frontend spec.egress[0] (policy.yaml:22)", "shop/frontend spec.egress[1] (policy.yaml:25)");
    assert_eq!(column(&service, "selected_by", "rule"), [first, second]);
    assert_eq!(column(&service, "selected_by", "mode"), ["MUTUAL", "PERMISSIVE"]);
    assert_eq!(column(&service, "selected_by", "behind"), [&Value::Null, &json!(first)]);
    assert!(problems(&service).contains("calls are kept away from 198.18.2.9:3000"), "{service:#}");

    let text = node.says(0, &["describe", "service", "shop/backend"]);
    for words in [
        "service    shop/backend (policy.yaml:1)\nlabels     app=shop, tier=backend\nrevision   as it is since version ",
        "endpoints:\nENDPOINT         FROM                                       TTL  STATE               LIVE  ACTIVE  CONNECTED  FAILED  WORKLOAD\n",
        "198.18.2.8:3000  literal                                    -    not ready           0     -       -          -       -\n",
        "\nvirtual addresses:\nVIRTUAL          LEADS TO\n203.0.113.10:80  198.18.2.2:3000, 198.18.2.9:3000\n",
        "\nports:\nPORT  ENDPOINTS  MODE\n3000  3          not of this node\n8443  1          DISABLE (shop/backend)\n",
        "never: shop/frontend spec.egress[0] (policy.yaml:22) comes first",
        "gone.test                            0          ",
    ] {
        assert!(text.contains(words), "{words}\nin\n{text}");
    }
}

#[test]
fn what_is_described_says_since_which_version_it_is_as_it_is_and_names_that_are_not_there_say_what_is_near() {
    let other = SHOP
        .split("---\n")
        .next()
        .unwrap()
        .replace("name: backend,", "name: ledger,")
        .replace("203.0.113.10", "203.0.113.11");
    let other = other.replace("app: shop, tier: backend", "app: ledger");
    let node = start(&[("policy.yaml", SHOP), ("ledger.yaml", &other)]);
    let since = |name: &str| node.json(&["describe", "service", name])["revision"].clone();
    let first = since("backend");
    FakeDataplane::hello(&node.admin(), None).serve(answer);
    node.says(0, &["status", "--wait", "30s"]);
    node.write("ledger.yaml", &other.replace("198.18.2.9", "198.18.2.10"));
    let newer = until(&node, &["describe", "service", "ledger"], "the change is in force", |service| {
        service["revision"]["since"].as_u64() > first["since"].as_u64()
            && service["revision"]["in_force"] == service["revision"]["made"]
    });
    assert_eq!(newer["revision"]["or_before"], false, "{newer:#}");
    assert_eq!(since("backend")["since"], first["since"], "nothing of it has changed");

    for (arguments, want) in [
        (["service", "shop/bakend"], "there is no Service shop/bakend here: did you mean shop/backend?"),
        (["policy", "partners"], "there is no Policy partners here: `sluice get policies` lists"),
        (
            ["trustbundle", "exmaple.com"],
            "there is no trust domain or TrustBundle exmaple.com here: did you mean example.com?",
        ),
        (["workload", "fronted"], "there is no workload fronted here: did you mean shop/frontend?"),
    ] {
        let done = node.sluice(&[&["describe"], &arguments[..]].concat());
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(1) && done.stdout.is_empty() && said.contains(want), "{want}: {done:?}");
    }
    // A shell that completes a name hears those that there are, by the socket that the line names.
    let complete = |words: &[&str]| {
        let line = [&["--", "sluice"], words].concat();
        let index = words.len().to_string();
        let mut command = node.inside(crate::node::SLUICE);
        command.args(line).env("SLUICE_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let socket = node.admin().display().to_string();
    let names = complete(&["describe", "service", "--socket", &socket, "shop/"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), ["shop/backend", "shop/ledger"], "{names}");
    assert_eq!(complete(&["describe", "bundle", "--socket", &socket, "ex"]), "example.com");
    assert_eq!(complete(&["describe", "workload", "--socket", "/nonexistent.sock", "sh"]), "");
}

const RULES: &str = "\
apiVersion: sluice.dev/v1alpha1
kind: Policy
metadata: { name: guard, namespace: shop }
spec:
  workloads: [spiffe://example.com/shop/*]
  rules:
    - { action: allow, direction: inbound, peers: [spiffe://partner.org/billing] }
    - { action: deny, direction: inbound, peers: [spiffe://example.com/shop/batch], enforcement: shadow }
    - { action: deny, direction: inbound, peers: [spiffe://example.com/shop/old] }
    - { action: deny, direction: inbound, cidrs: [203.0.113.0/24] }
";

#[test]
fn a_policy_is_described_by_its_rules_in_the_order_that_they_are_asked_and_by_whom_it_leaves_without() {
    let stranger = "---\napiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: { name: stranger, namespace: shop }\n\
                    spec:\n  workloadID: bank/stranger\n  selectors: [{ net:ip: 198.18.1.4 }]\n";
    let node = start(&[("policy.yaml", &format!("{SHOP}{stranger}")), ("rules.yaml", RULES)]);
    let policy = node.json(&["describe", "policy", "guard"]);
    assert_eq!((&policy["not_counted"], &policy["rules"][0]["calls"]), (&json!(UNKNOWN), &Value::Null));
    let rule = "shop/guard spec.rules[3] (rules.yaml:10)";
    FakeDataplane::hello(&node.admin(), None).serve(move |query, in_force| match query {
        Query::Rules => Reply::Rules { part: vec![RuleHits { rule: rule.into(), hits: 7 }], more: false },
        other => answer(other, in_force),
    });
    node.says(0, &["status", "--wait", "30s"]);
    let policy = until(&node, &["describe", "policy", "guard"], "it is counted", |p| p["not_counted"].is_null());
    assert_eq!(column(&policy, "rules", "asked"), ["addresses", "peer", "list", "shadow"]);
    assert_eq!(column(&policy, "rules", "calls"), [7, 0, 0, 0]);
    assert_eq!(policy["rules"][0]["rule"], rule);
    assert_eq!(policy["selects"][0]["workloads"], json!(["shop/backend", "shop/frontend"]));
    assert_eq!(policy["unnamed"], json!(["shop/stranger"]));
    let [backend, frontend] = &policy["workloads"].as_array().unwrap()[..] else { panic!("{policy:#}") };
    assert_eq!((&backend["inbound"]["admits"], &backend["outbound"]["admits"]), (&json!("nobody"), &json!("nobody")));
    assert_eq!(backend["inbound"]["says"], "MUTUAL without a list; port 8443 is DISABLE");
    assert_eq!(backend["outbound"]["says"], "the list (policy.yaml:33) is empty");
    assert_eq!((&frontend["inbound"]["admits"], &frontend["is_here"]), (&json!("everybody"), &json!(true)));
    let foreign = "spiffe://partner.org/billing: trust domain partner.org has no bundle in force, so this admits nobody of it (rules.yaml:7)";
    assert_eq!(
        problems(&policy).matches("partner.org").count(),
        2,
        "told once, by its name and its domain: {policy:#}"
    );
    assert!(problems(&policy).contains(foreign), "{policy:#}");
    let text = node.says(0, &["describe", "policy", "shop/guard"]);
    for words in [
        "rules, in the order that they are asked:\nASKED           SAYS ",
        "at the SYN      deny inbound from 203.0.113.0/24                       7      shop/guard spec.rules[3] (rules.yaml:10)\n",
        "in shadow       deny inbound (shadow) spiffe://example.com/shop/batch  0 ",
        "WORKLOADS                    MEANS                        PLACE\nspiffe://example.com/shop/*  shop/backend, shop/frontend  rules.yaml:5\n",
        "shop/backend   yes   nobody: MUTUAL without a list; port 8443 is DISABLE  nobody: the list (policy.yaml:33) is empty\n",
        "named by no policy: shop/stranger",
    ] {
        assert!(text.contains(words), "{words}\nin\n{text}");
    }
}

#[test]
fn a_trust_domain_is_described_by_its_roots_who_lives_by_them_and_whom_it_revokes() {
    let (ca, now) = (Ca::of("partner.org"), ctrl::clock::now());
    let trust = "apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: { name: partner }\nspec:\n  trustDomain: partner.org\n  \
                 roots: [{ file: partner.pem }]\n  crls: [{ file: partner.crl, onStale: warn }]\n  revoked: { serials: [\"4f3a01\"] }\n";
    let mut node = Node::new("1h");
    std::fs::write(node.config().join("partner.pem"), ca.pem()).unwrap();
    std::fs::write(node.config().join("partner.crl"), ca.crl(3, &[7, 8], now - 60)).unwrap();
    node.write("trust.yaml", trust);
    node.start();
    node.status_until(|status| status["version"].is_number());
    let bundle = node.json(&["describe", "trustbundle", "partner"]);
    assert_eq!((&bundle["roots"][0]["live"], &bundle["live_elsewhere"]), (&Value::Null, &Value::Null));
    assert_eq!(bundle["not_counted"], UNKNOWN, "{bundle:#}");

    let root = bundle["roots"][0]["id"].as_str().unwrap().to_owned();
    let peers = [
        ("spiffe://partner.org/billing", root.clone()),
        ("spiffe://partner.org/billing", root),
        ("spiffe://partner.org/billing", "another".into()),
        ("spiffe://example.com/x", "another".into()),
    ];
    FakeDataplane::hello(&node.admin(), None).serve(move |query, in_force| match query {
        Query::Live => {
            let one = |(id, root): &(&str, String)| {
                let tls = live().tls.map(|tls| TlsReport { peer_root: Some(root.clone()), ..tls });
                ConnectionReport { peer_id: Some((*id).into()), tls, ..live() }
            };
            Reply::Connections { part: peers.iter().map(one).collect(), more: false }
        }
        other => answer(other, in_force),
    });
    node.says(0, &["status", "--wait", "30s"]);
    let bundle = until(&node, &["describe", "bundle", "partner.org"], "it is counted", |b| b["not_counted"].is_null());
    assert_eq!((&bundle["roots"][0]["live"], &bundle["live_elsewhere"]), (&json!(2), &json!(1)), "{bundle:#}");
    assert_eq!(
        (&bundle["roots"][0]["from"], &bundle["resource"]),
        (&json!("partner.pem"), &json!("default/partner (trust.yaml:1)"))
    );
    assert_eq!((&bundle["crls"][0]["is_stale"], &bundle["crls"][0]["entries"]), (&json!(true), &json!(2)));
    assert_eq!(bundle["revoked"], json!([{ "what": "serial 4f3a01", "place": "trust.yaml:8" }]));
    assert!(problems(&bundle).contains("is past its nextUpdate"), "{bundle:#}");
    let own = node.json(&["describe", "bundle", "example.com"]);
    assert_eq!((&own["own"], &own["roots"][0]["sources"]), (&json!(true), &json!(["embedded"])), "{own:#}");
    let text = node.says(0, &["describe", "bundle", "partner.org"]);
    for words in [
        "domain     partner.org\nresource   default/partner (trust.yaml:1)\nrevision   ",
        "elsewhere  living connections by none of these roots: 1",
        "roots:\nROOT                 SHA256            NOT AFTER             EXPIRES IN  LIVE  FROM\nCN=partner.org root  ",
        "CRLs:\nCRL OF               NUMBER  ISSUED ",
        "stale    2        warn      partner.crl (trust.yaml:7)",
    ] {
        assert!(text.contains(words), "{words}\nin\n{text}");
    }
}
