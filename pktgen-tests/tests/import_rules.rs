//! The rules of who may import whom, checked against what cargo resolved.
//!
//! `deny.toml` holds the rules; `cargo deny check bans` enforces the same file, but is not on
//! every machine, and a rule that is checked only where a tool is installed is not enforced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

type Wrappers = BTreeMap<String, BTreeSet<String>>;

#[test]
fn crates_are_imported_only_by_those_who_may() {
    let rules = rules(&std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml stands at the root"));
    for guarded in ["smoltcp", "xsk-rs", "libbpf-rs", "tokio", "ctrl", "dataplane"] {
        assert!(rules.contains_key(guarded), "deny.toml has no rule for {guarded}");
    }
    let broken = violations(&rules, &importers());
    assert!(broken.is_empty(), "deny.toml does not allow: {}", broken.join("; "));
}

#[test]
fn an_import_that_no_rule_allows_is_found() {
    let rules = rules(r#"{ crate = "smoltcp", wrappers = ["tcp-stack"] },"#);
    let importers = vec![("tcp-stack".to_owned(), "smoltcp".to_owned()), ("ctrl".to_owned(), "smoltcp".to_owned())];
    assert_eq!(violations(&rules, &importers), ["ctrl imports smoltcp"]);
}

#[test]
fn one_library_does_the_cryptography() {
    // Whom a crate is built for, `cargo metadata` does not say: it lists what some feature might bring.
    let importers = |of: &str| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--workspace", "--edges=normal,build,dev", "--locked", "--offline", "--invert", of])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        String::from_utf8(output.stdout).expect("cargo prints text")
    };
    assert!(importers("aws-lc-rs").contains("dataplane"), "cargo tree prints who imports");
    for other in ["ring", "openssl-sys"] {
        assert_eq!(importers(other), "", "aws-lc-rs it is, and {other} is no second");
    }
}

fn violations(rules: &Wrappers, importers: &[(String, String)]) -> Vec<String> {
    importers
        .iter()
        .filter(|(by, what)| rules.get(what).is_some_and(|allowed| !allowed.contains(by)))
        .map(|(by, what)| format!("{by} imports {what}"))
        .collect()
}

/// Lines of the form `{ crate = "x", wrappers = ["a", "b"] },`.
fn rules(text: &str) -> Wrappers {
    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    text.lines()
        .filter(|line| line.trim_start().starts_with("{ crate"))
        .map(quoted)
        .filter_map(|mut names| (!names.is_empty()).then(|| (names.remove(0), names.into_iter().collect())))
        .collect()
}

/// (importer, imported) for each edge of the resolved graph, of any kind.
fn importers() -> Vec<(String, String)> {
    // Of this platform only: what others need was never fetched.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let graph: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> =
        list(&graph["packages"]).iter().map(|package| (package["id"].to_string(), name(package))).collect();
    let mut edges = Vec::new();
    for node in list(&graph["resolve"]["nodes"]) {
        for dependency in list(&node["dependencies"]) {
            edges.push((names[&node["id"].to_string()].clone(), names[&dependency.to_string()].clone()));
        }
    }
    edges
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace")
}
