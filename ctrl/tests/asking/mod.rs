//! What people ask on the command line: names as they know them, and whether all is well.

use crate::answers::answer;
use crate::fake::FakeDataplane;
use crate::node::Node;

/// What a command that ends with `code` says of why.
fn told(node: &Node, code: i32, arguments: &[&str]) -> String {
    let done = node.sluice(arguments);
    assert_eq!(done.status.code(), Some(code), "sluice {arguments:?}: {done:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn names_are_taken_where_one_asks_and_an_error_says_what_would_be_right() {
    let mut node = Node::new("1h");
    node.start();
    FakeDataplane::hello(&node.admin(), None).serve(answer);
    node.says(0, &["status", "--wait", "60s"]);
    // Both ends of a call.
    const HOST: &str = "backend-api.myapp.svc.cluster.local";
    for (from, to) in [
        ("shop/frontend", format!("{HOST}:3000")),
        ("frontend", format!("{}.:3000", HOST.to_uppercase())),
        ("spiffe://example.com/myapp/app/frontend", "backend-api-svc:3000".into()),
    ] {
        let text = node.says(1, &["explain", "--from", from, "--to", &to]);
        assert!(text.starts_with("refused") && text.contains("refused lately"), "{from} {to}: {text}");
        assert!(text.contains("\nto         198.18.2.2:3000, of 198.18.2.2\n"), "{from} {to}: {text}");
    }
    let explain = |from, to| told(&node, 2, &["explain", "--from", from, "--to", to]);
    let ends = "use ADDRESS:PORT, [ADDRESS]:PORT for IPv6, or NAME:PORT";
    for (from, to, want) in [
        ("frontend", "198.18.2.2", ends),
        ("frontend", HOST, ends),
        ("fronted", "198.18.2.2:3000", "--from fronted: use a SPIFFE ID (spiffe://...), an address, or a workload's"),
        ("fronted", "198.18.2.2:3000", "did you mean shop/frontend?"),
        ("frontend", "backend-apj.myapp.svc.cluster.local:3000", "did you mean backend-api.myapp.svc.cluster.local?"),
        ("frontend", "nowhere:3000", "has this name, and there is no Service nowhere here"),
        ("frontend", "backend-api-svc:9", "Service shop/backend-api-svc has no address with port 9: use one of 3000"),
    ] {
        let said = explain(from, to);
        assert!(said.contains(want), "{from} {to}: {said}");
    }
    // An address of several is neither allowed nor refused.
    let shared = ["explain", "--from", "198.18.4.2", "--to", "198.18.2.2:3000"];
    let text = node.says(2, &shared);
    assert!(text.starts_with("undecided: the process that calls decides (direction -"), "{text}");
    assert!(told(&node, 2, &shared).contains("--from 198.18.4.2 may be several: ask for a SPIFFE ID"));
    assert_eq!(node.json(&shared)["undecided"][0], "spiffe://example.com/shop/web");
    // The bare name, and a name that is nobody's.
    for command in [&["describe", "workload", "frontend"][..], &["get", "workloads", "frontend"], &["workloads"]] {
        assert!(node.says(0, command).contains("spiffe://example.com/myapp/app/frontend"), "{command:?}");
    }
    node.says(0, &["bundles"]);
    for (kind, name, want) in [
        ("identities", "fronted", "error: there is no workload fronted here: did you mean shop/frontend? `sluice"),
        ("services", "nosuch", "error: there is no Service nosuch here: `sluice get services` lists those that are\n"),
        ("gateways", "node-b", "error: there is no Gateway node-b here: did you mean node-a? `sluice get gateways`"),
    ] {
        let said = told(&node, 1, &["get", kind, name]);
        assert!(said.starts_with(want), "{said}");
        assert_eq!(node.says(1, &["get", kind, name]), "", "no header of nothing");
    }
    assert_eq!(node.says(1, &["get", "services", "nosuch", "-o", "json"]), "[]\n");
    // What cannot be read is no answer.
    for command in [&["diff", "-f"][..], &["policy", "diff"]] {
        let said = told(&node, 2, &[command, &["/nonexistent/policy.yaml"]].concat());
        assert!(said.starts_with("error: /nonexistent/policy.yaml: No such file or directory"), "{said}");
        told(&node, 2, &[command, &["/"]].concat());
    }
    let said = told(&node, 1, &["ca", "issue-node", "--root", "/nonexistent", "--node", "a", "--out", "/nonexistent"]);
    assert_eq!(said, "error: /nonexistent/root.key: No such file or directory (os error 2)\n");
}

#[test]
fn a_gateway_that_serves_what_was_right_last_is_ready_and_says_that_it_is_degraded() {
    let mut node = Node::new("1h");
    for nth in 0..7 {
        node.write(&format!("empty{nth}.yaml"), "");
    }
    node.start();
    FakeDataplane::hello(&node.admin(), None).serve(answer);
    let text = node.says(0, &["status", "--strict", "--wait", "60s"]);
    let said = |text: &str| text.matches("warning: the file holds no resource").count();
    assert_eq!(said(&text), 5, "{text}");
    assert!(text.contains("\nand 2 more warnings: `sluice status -o wide` shows all\n"), "{text}");
    assert!(text.contains("): ready\n"), "{text}");
    let text = node.says(0, &["status", "-o", "wide"]);
    assert_eq!((said(&text), text.contains("more warnings")), (7, false), "{text}");
    node.write("gateway.yaml", &node.gateway("1h").replace("ca/node-a", "ca/node-x"));
    node.status_until(|s| !s["config"]["errors"].as_array().unwrap().is_empty());
    let text = node.says(0, &["status"]);
    assert!(text.contains("): ready, degraded: the configuration has faults\n"), "{text}");
    assert!(text.contains(": 1 fault; what was read "), "{text}");
    let before = node.gateway("1h");
    let (nth, line) = before.lines().enumerate().find(|(_, line)| line.contains("ca/node-a")).unwrap();
    let column = 1 + line.find("ca/node-a").unwrap();
    let at = format!("\ngateway.yaml:{}:{column}: error: spec.identity.embedded.directory: ", nth + 1);
    assert!(text.contains(&at) && text.contains("ca/node-x/node.key: No such file"), "{at} in {text}");
    assert!(node.says(1, &["status", "--strict"]).contains("ready, degraded"));
    node.write("gateway.yaml", &node.gateway("1h"));
    node.says(0, &["status", "--strict", "--wait", "60s"]);
}
