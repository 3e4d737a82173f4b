//! Changes of a Gateway that runs: what would take it down is refused, and what a change costs is said.

use crate::answers::answer;
use crate::fake::{FakeDataplane, Said};
use crate::node::{Node, POLICY};

/// With a dataplane that has all of it in force, and would go on for ever.
fn running() -> Node {
    let mut node = Node::new("1h");
    node.start();
    FakeDataplane::hello(&node.admin(), None).serve(answer);
    node.says(0, &["status", "--wait", "30s"]);
    node
}

/// `sluice apply` of that Gateway: exit code, standard output, standard error.
fn apply(node: &Node, gateway: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let file = node.path("gateway.yaml");
    std::fs::write(&file, gateway).unwrap();
    let done = node.sluice(&[&["apply", "-f", file.to_str().unwrap()], more].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn in_force(node: &Node) -> String {
    std::fs::read_to_string(node.config().join("gateway.yaml")).unwrap()
}

#[test]
fn a_gateway_with_an_interface_that_is_not_there_does_not_replace_one_that_runs() {
    let node = running();
    let (good, directory) = (node.gateway("1h"), node.config());
    let bad = good.replace("out0", "out9");
    let here = ["--config", directory.to_str().unwrap()];
    for more in [&[][..], &["--dry-run"], &["--force"], &here, &[&here[..], &["--force"]].concat()] {
        let (code, _, said) = apply(&node, &bad, more);
        assert_eq!(code, Some(1), "{more:?}: {said}");
        assert!(said.contains("nothing was changed"), "{more:?}: {said}");
        let place = "gateway.yaml:8:20: error: spec.ports[1].interface: there is no interface out9 here";
        assert!(said.contains(place) && said.contains("in0") && said.contains("out0"), "{more:?}: {said}");
        assert_eq!(in_force(&node), good, "{more:?}");
    }

    // By the file itself.
    let version = node.json(&["status"])["version"].clone();
    node.write("gateway.yaml", &bad);
    let status = node.status_until(|s| s["config"]["errors"].to_string().contains("out9"));
    assert_eq!((&status["version"], &status["ready"]), (&version, &true.into()), "{status}");
    assert!(node.json(&["get", "gateways"]).to_string().contains("out0"), "the last good one stays");
    node.write("gateway.yaml", &good);
    node.status_until(|s| s["config"]["errors"].as_array().is_some_and(Vec::is_empty));

    // An interface that went is no reason against a change that leaves the ports as they are.
    node.sh("ip link del out0");
    let (code, said, error) = apply(&node, &good.replace("ttl: 1h", "ttl: 2h"), &[]);
    assert_eq!(code, Some(0), "{said}{error}");
    // Once it is there it is right, whatever it costs.
    node.sh("ip link add out9 type veth peer name x9");
    let (code, said, error) = apply(&node, &bad, &["--force", "--wait", "0s"]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert_eq!(in_force(&node), bad);
}

#[test]
fn a_first_start_waits_for_an_interface_and_takes_other_changes_meanwhile() {
    let mut node = Node::new("1h");
    node.write("gateway.yaml", &node.gateway("1h").replace("out0", "out9"));
    node.start();
    let version = node.status_until(|s| s["version"].is_number())["version"].as_u64();
    node.write("policy.yaml", &POLICY.replace("PERMISSIVE", "MUTUAL"));
    node.status_until(|s| s["version"].as_u64() > version);
    // Nor does it hold to a name that was wrong from the beginning.
    let (code, said, error) = apply(&node, &node.gateway("1h").replace("out0", "out8"), &["--wait", "0s"]);
    assert_eq!(code, Some(0), "{said}{error}");
}

#[test]
fn a_change_that_restarts_the_dataplane_says_so_asks_first_and_waits_for_the_new_one() {
    let node = running();
    let anew = node.gateway("1h").replace("cores: [0]", "cores: [0]\n  limits: { history: 2048 }");
    let directory = node.config();
    let here = ["--config", directory.to_str().unwrap()];
    for more in [&[][..], &["--dry-run"], &here, &[&here[..], &["--dry-run"]].concat()] {
        let (code, _, said) = apply(&node, &anew, more);
        assert_eq!(code, Some(1), "{more:?}: {said}");
        let why = "1 living connection would be reset, since spec.limits restarts the dataplane; nothing was changed";
        assert!(said.contains(why) && said.contains("--force"), "{more:?}: {said}");
    }
    assert_eq!(in_force(&node), node.gateway("1h"));
    let note = "spec.limits restarts the dataplane: living connections are reset";
    for more in [&[][..], &here] {
        let (code, said, error) = apply(&node, &anew, &[more, &["--dry-run", "--force"]].concat());
        assert_eq!(code, Some(0), "{said}{error}");
        assert!(said.contains("would be right (dry run)") && said.contains(note), "{more:?}: {said}");
    }

    // The dataplane that is there acked this version long ago, with the limits of before.
    let (code, said, error) = apply(&node, &anew, &["--force", "--wait", "300ms"]);
    assert_eq!(code, Some(1), "{said}{error}");
    assert!(said.contains("not in force: waiting for the dataplane to start anew") && said.contains(note), "{said}");
    assert!(node.says(1, &["status"]).contains("waiting for the dataplane to start anew"));
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    let said = dataplane.hear_until(|said| matches!(said, Said::Boot(_)));
    assert!(matches!(&said[..], [Said::Boot(boot)] if boot.limits.history == 2048), "{said:?}");
    // Connected and not served yet.
    let (code, said, error) = apply(&node, &anew, &["--wait", "300ms"]);
    assert_eq!(code, Some(1), "{said}{error}");
    assert!(said.contains("not in force: waiting for the dataplane to put version"), "{said}");
    drop(dataplane);
    let (code, said, error) = apply(&node, &anew, &["--wait", "300ms"]);
    assert_eq!(code, Some(1), "{said}{error}");
    assert!(said.contains("unchanged, not in force: waiting for a dataplane to connect"), "{said}");
    FakeDataplane::hello(&node.admin(), None).serve(answer);
    let (code, said, error) = apply(&node, &anew, &["--wait", "60s"]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("unchanged, in force as version"), "{said}");

    let (code, said, error) = apply(&node, &anew.replace("15020", "15021"), &[]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("in force") && !said.contains(note), "{said}");
    assert!(said.contains("spec.admin takes effect when sluice-ctrl is restarted"), "{said}");
}

#[test]
fn an_audit_log_needs_its_directory() {
    let node = running();
    let audited = node.path("audit");
    let gateway = format!("{}  audit: {{ file: {}/x.jsonl }}\n", node.gateway("1h"), audited.display());
    let absent = format!("spec.audit.file: there is no directory {}", audited.display());
    for more in [&[][..], &["--force", "--dry-run"]] {
        let (code, _, said) = apply(&node, &gateway, more);
        assert_eq!(code, Some(1), "{more:?}: {said}");
        assert!(said.contains(&format!("gateway.yaml:13:18: error: {absent}")), "{more:?}: {said}");
    }
    std::fs::create_dir(&audited).unwrap();
    let (code, said, error) = apply(&node, &gateway, &[]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(!node.says(0, &["status"]).contains("problem"));
    std::fs::remove_dir(&audited).unwrap();
    assert!(node.says(0, &["status"]).contains(&format!("problem    {absent}")));
    let check = node.says(1, &["check", "--config", node.config().to_str().unwrap()]);
    assert!(check.contains(&format!("✗ audit: {absent}")), "{check}");
}

#[test]
fn a_netns_that_is_not_there_is_named_where_it_is_needed_before_a_call_is_refused() {
    let node = running();
    let absent = "the netns of port in0: there is no /run/netns/sluice-nowhere";
    let gateway = node.gateway("1h").replace("side: inside", "side: inside, netns: /run/netns/sluice-nowhere");
    node.write("gateway.yaml", &gateway);
    let version = node.json(&["status"])["version"].as_u64();
    let directory = node.config();
    let check = || {
        let done = node.sluice(&["check", "--config", directory.to_str().unwrap()]);
        String::from_utf8(done.stdout).unwrap()
    };
    assert!(check().contains(&format!("! port in0: {absent}")), "{}", check());
    assert!(!node.says(0, &["status"]).contains(absent), "nobody needs it");
    node.write("policy.yaml", &POLICY.replace("net:ip: 198.18.1.2", "net:ip: 198.18.1.2, process:uid: 1000"));
    let status = node.status_until(|s| s["version"].as_u64() > version);
    assert!(status["problems"].to_string().contains(absent), "{status}");
    assert!(node.says(0, &["status", "--wait", "30s"]).contains(&format!("problem    {absent}")));
    assert!(check().contains(&format!("✗ port in0: {absent}")), "{}", check());
}
