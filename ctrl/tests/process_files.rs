//! sluice-ctrl with a source `files`: what the dataplane gets, and what the operator sees.

mod fake;
mod node;
mod openssl;

use fake::FakeDataplane;
use node::Node;
use openssl::*;
use snapshot::Snapshot;

fn serial(snapshot: &Snapshot) -> Option<String> {
    snapshot.workloads[0].svid.as_ref().map(|svid| svid.serial.clone())
}

#[test]
fn the_first_snapshot_has_the_files_svid_and_a_torn_write_is_shown_with_what_would_be_right() {
    let mut node = Node::new("1h");
    let (ca, certs) = (Authority::new(), node.path("certs"));
    let (leaf, other, root) = (ca.svid(), ca.svid(), ca.root());
    let lay = |leaf: &Leaf| {
        put(&certs, "cert.pem", &leaf.certificate);
        put(&certs, "key.pem", &leaf.key);
        put(&certs, "ca.pem", &root);
    };
    lay(&leaf);
    let sources = format!(
        "sources: [{{ name: certs, source: files, files: {{ directory: {} }}, workloads: [shop/*] }}, {{ name: node-ca, ",
        certs.display()
    );
    let text = node.gateway("1h").replace("identity: { ", &format!("identity: {{ {sources}"));
    let text = text.replace("ttl: 1h } }", "ttl: 1h } }] }");
    let text = text.replace("admin: {", &format!("admin: {{ stateDirectory: {},", node.path("state").display()));
    node.write("gateway.yaml", &text);
    for _ in 0..2 {
        // Also when it comes back while a dataplane runs: no snapshot without the SVID in between.
        node.start();
        let dataplane = FakeDataplane::hello(&node.admin(), None);
        let snapshot = dataplane.next_snapshot();
        assert_eq!(serial(&snapshot), Some(leaf.serial()));
        let roots = &snapshot.bundles[0].roots;
        assert_eq!(roots.len(), 2, "the files' root and the embedded CA's");
        node.kill();
        for file in ["node-a.trust", "node-a.version"] {
            assert!(node.path("state").join(file).is_file(), "{file} in the state directory");
            assert!(!node.path("run").join(file.replace('.', ".sock.")).exists(), "{file} beside the socket");
        }
    }

    node.start();
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    dataplane.next_snapshot();
    drop(dataplane);
    let shown = node.says(0, &["identities", "-o", "wide"]);
    assert!(shown.contains("SOURCE") && shown.contains(" certs ") && shown.contains(&leaf.serial()), "{shown}");
    put(&certs, "key.pem", &other.key);
    let torn = certs.join("key.pem").display().to_string();
    let names = |said: &serde_json::Value| said["problems"].to_string().contains(&torn);
    let status = node.status_until(|status| names(status));
    assert!(status["problems"].to_string().contains("is not that of the certificate in"), "{status}");
    let identity = &status["identities"][0];
    assert_eq!((identity["serial"].as_str(), identity["source"].as_str()), (Some(&*leaf.serial()), Some("certs")));
    let shown = node.says(0, &["identities"]);
    assert!(shown.contains("not renewed"), "{shown}");
    lay(&other);
    let status = node.status_until(|status| status["identities"][0]["serial"].as_str() == Some(&*other.serial()));
    assert!(!names(&status), "{status}");
    let key = other.key.lines().nth(1).unwrap();
    assert!(
        !node.log().contains(key) && node.log().contains("the files of an identity are not right"),
        "{}",
        node.log()
    );
}
