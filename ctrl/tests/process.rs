//! sluice-ctrl as a process, with a fake dataplane at its channel and the CLI at its admin socket.

mod answers;
mod asking;
#[path = "https/ca.rs"]
mod ca;
mod described;
mod fake;
mod gateway;
mod node;

use std::os::unix::fs::PermissionsExt;

use answers::answer;
use fake::{FakeDataplane, Said};
use node::{Node, POLICY};
use snapshot::{Snapshot, Version};

fn serial(snapshot: &Snapshot) -> String {
    snapshot.workloads[0].svid.as_ref().expect("the frontend has an SVID").serial.clone()
}

#[test]
fn a_gateway_becomes_ready_when_its_dataplane_has_the_snapshot_in_force() {
    let mut node = Node::new("1h");
    node.start();
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    let said = dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    let Some(Said::Boot(boot)) = said.first() else { panic!("{said:?}") };
    assert_eq!((boot.node.as_str(), boot.ports.len()), ("node-a", 2));
    let snapshot = said.iter().find_map(|s| if let Said::Snapshot(s) = s { Some(s) } else { None }).unwrap();
    let keys: Vec<_> = said.iter().filter_map(|s| if let Said::Key(id, _) = s { Some(*id) } else { None }).collect();
    let frontend = &snapshot.workloads[0];
    assert_eq!(frontend.spiffe_id, "spiffe://example.com/myapp/app/frontend");
    assert_eq!(frontend.places[0].prefix.to_string(), "198.18.1.2/32");
    assert_eq!(keys, [frontend.svid.as_ref().unwrap().key]);
    let Some(Said::Network(network)) = said.last() else { panic!("{said:?}") };
    let via = network.routes.iter().find(|r| r.prefix.to_string() == "198.18.2.0/24").unwrap();
    assert_eq!((via.gateway, via.metric, via.mtu), (Some("198.18.3.2".parse().unwrap()), 7, Some(1400)));
    node.says(1, &["status", "--wait", "0s"]);
    let version = snapshot.version;
    dataplane.ack(version);
    dataplane.serve(answer);
    // Acked through the background thread's connection, which is the same one.
    let text = node.says(0, &["status", "--wait", "10s"]);
    assert!(text.contains("ready") && text.contains("native, copy") && text.contains("shop/frontend"), "{text}");
    let mode = std::fs::metadata(node.admin()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn a_change_applies_whole_or_not_at_all() {
    let mut node = Node::new("1h");
    node.start();
    let same = node.path("policy.yaml");
    std::fs::copy(node.config().join("policy.yaml"), &same).unwrap();
    node.status_until(|s| s["version"].as_u64().is_some());
    let told = node.says(1, &["apply", "-f", same.to_str().unwrap(), "--wait", "100ms"]);
    assert!(told.contains("unchanged, not in force: waiting for a dataplane to connect"), "{told}");
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    let first = dataplane.next_snapshot();
    let late = node.sluice(&["apply", "-f", same.to_str().unwrap(), "--wait", "100ms"]);
    assert_eq!(late.status.code(), Some(1), "{late:?}");
    assert!(String::from_utf8_lossy(&late.stdout).contains("waiting for the dataplane to put version"), "{late:?}");
    dataplane.ack(first.version);
    dataplane.serve(answer);
    // One file is right and other than before, the other is not right: neither is taken.
    node.write("policy.yaml", &POLICY.replace("PERMISSIVE", "MUTUAL"));
    node.write("broken.yaml", "kind: WorkloadIdentity\n");
    let status = node.status_until(|s| !s["config"]["errors"].as_array().unwrap().is_empty());
    assert_eq!(status["version"], first.version.0, "{status}");
    let text = node.says(1, &["validate", "--config", node.config().to_str().unwrap()]);
    assert_eq!(text, "\n");
    assert!(node.says(0, &["identities"]).contains("PERMISSIVE"));
    std::fs::remove_file(node.config().join("broken.yaml")).unwrap();
    node.status_until(|s| {
        s["config"]["errors"].as_array().unwrap().is_empty() && s["version"].as_u64() > Some(first.version.0)
    });
    assert!(node.says(0, &["identities"]).contains("MUTUAL"));
    // A directory that reads the same makes no new version.
    let version = node.json(&["status"])["version"].clone();
    node.write("policy.yaml", &POLICY.replace("PERMISSIVE", "MUTUAL"));
    let apply = node.path("policy.yaml");
    std::fs::write(&apply, "nonsense: true\n").unwrap();
    let done = node.sluice(&["apply", "-f", apply.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("nothing was changed"), "{done:?}");
    assert_eq!(node.json(&["status"])["version"], version);
    std::fs::write(&apply, POLICY).unwrap();
    // Without a look at the clock: it is in force when the command returns.
    let applied = node.json(&["apply", "-f", apply.to_str().unwrap()]);
    assert_eq!((&applied["changed"], &applied["in_force"]), (&true.into(), &true.into()), "{applied}");
    assert!(applied["version"].as_u64() > version.as_u64(), "{applied}");
    assert!(node.says(0, &["identities"]).contains("PERMISSIVE"));
    assert!(node.says(0, &["apply", "-f", apply.to_str().unwrap()]).contains("unchanged, in force"));
}

#[test]
fn a_file_that_held_resources_and_is_empty_is_named_until_it_holds_some_or_is_gone() {
    let mut node = Node::new("1h");
    node.start();
    node.status_until(|s| s["version"].is_number());
    let about = |status: &serde_json::Value| {
        let problems = status["problems"].as_array().unwrap().iter().filter_map(|problem| problem.as_str());
        problems.filter(|problem| problem.contains("policy.yaml")).map(str::to_owned).collect::<Vec<_>>()
    };
    let said = "policy.yaml is empty; it held 2 resources before, and they are out of force: write it again, or remove \
                it if that is meant";
    let policy = node.config().join("policy.yaml");
    std::fs::write(&policy, "").unwrap();
    let status = node.status_until(|s| !about(s).is_empty());
    assert_eq!((about(&status), status["identities"].as_array().unwrap().len()), (vec![said.to_owned()], 0));
    let shown = node.sluice(&["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&format!("problem    {said}")), "{shown:?}");
    assert!(node.log().contains(said), "{}", node.log());
    // It is still said after a change of another file, which is read and is in force nowhere, without a dataplane.
    node.write("gateway.yaml", &node.gateway("2h"));
    node.says(1, &["apply", "-f", node.config().join("gateway.yaml").to_str().unwrap()]);
    assert_eq!(about(&node.json(&["status"])), [said]);
    node.write("policy.yaml", POLICY);
    assert!(!node.status_until(|s| about(s).is_empty())["identities"].as_array().unwrap().is_empty());
    std::fs::write(&policy, "# to come\n").unwrap();
    node.status_until(|s| !about(s).is_empty());
    std::fs::remove_file(&policy).unwrap();
    node.status_until(|s| about(s).is_empty());
}

#[test]
fn versions_go_on_after_a_restart_and_over_what_the_dataplane_has_in_force() {
    let mut node = Node::new("1h");
    node.start();
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    let first = dataplane.next_snapshot().version;
    dataplane.ack(first);
    node.kill();
    node.start();
    let dataplane = FakeDataplane::hello(&node.admin(), Some(first));
    let second = dataplane.next_snapshot().version;
    assert!(second > first, "{second} after {first}");
    drop(dataplane);
    let dataplane = FakeDataplane::hello(&node.admin(), Some(Version(5000)));
    dataplane.hear_until(|s| matches!(s, Said::Snapshot(s) if s.version > Version(5000)));
}

#[test]
fn svids_of_six_seconds_are_renewed_at_half_life_with_their_keys() {
    let mut node = Node::new("6s");
    node.start();
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    let mut serials = vec![];
    let mut keys = 0;
    while serials.len() < 3 {
        for said in dataplane.hear_until(|s| matches!(s, Said::Snapshot(_))) {
            match said {
                Said::Key(..) => keys += 1,
                Said::Snapshot(snapshot) => {
                    let svid = snapshot.workloads[0].svid.as_ref().unwrap();
                    assert!(svid.not_after > ctrl::clock::now(), "published before it expires");
                    serials.push(serial(&snapshot));
                    dataplane.ack(snapshot.version);
                }
                Said::Boot(_) | Said::Network(_) | Said::Query(..) | Said::Closed => {}
            }
        }
        serials.dedup();
    }
    assert!(keys >= 3, "a new SVID has a new key: {keys}");
}

#[test]
fn the_command_line_shows_what_the_dataplane_says() {
    let mut node = Node::new("1h");
    node.start();
    FakeDataplane::hello(&node.admin(), None).serve(answer);
    node.says(0, &["status", "--wait", "10s"]);
    let text = node.says(0, &["connections"]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("DIRECTION  CLIENT") && lines[1].contains("X25519MLKEM768"), "{text}");
    let text = node.says(0, &["connections", "--refused"]);
    assert!(text.contains("NotAllowedOutbound") && text.contains("22:13:20.500"), "{text}");
    assert!(!text.contains('\x1b'), "no colours but on a terminal");
    let text = node.says(0, &["connections", "-o", "wide"]);
    assert!(text.lines().next().unwrap().contains("FROM CLIENT  TO CLIENT"), "{text}");
    // Seconds, here as in the status.
    let refused = &node.json(&["connections", "--refused"])[0];
    assert_eq!((&refused["opened_at"], &refused["ended_at"]), (&1_700_000_000.0.into(), &1_700_000_000.5.into()));
    assert_eq!(node.json(&["connections"])[0]["ended_at"], serde_json::Value::Null);
    assert_eq!(node.json(&["status"])["dataplane"]["started_at"], 1_700_000_000);
    let id = "spiffe://example.com/myapp/app/frontend";
    let text = node.says(1, &["explain", "--from", id, "--to", "198.18.2.2:3000"]);
    assert!(text.contains("refused") && text.contains("remedy") && text.contains("refused lately"), "{text}");
    let text = node.says(0, &["explain", "--from", "2001:db8::9", "--to", "198.18.1.2:3000"]);
    assert!(text.starts_with("allowed only with a certificate of spiffe://example.com/myapp/app/* (direc"), "{text}");
    let failed = node.sluice(&["explain", "--from", "198.18.1.2", "--to", "198.18.2.2:3000"]);
    assert!(String::from_utf8_lossy(&failed.stderr).contains("no core answers"), "{failed:?}");
    let server = ["whois", "198.18.2.2:3000"];
    let text = node.says(0, &server);
    assert!(text.starts_with("198.18.2.2:3000 is spiffe://example.com/myapp/app/backend-api\n"), "{text}");
    assert!(text.contains("with        shop/frontend at 198.18.1.2:4000") && text.contains("revision 1"), "{text}");
    let found = &node.json(&[&server[..], &["--local", "198.18.1.2:4000"]].concat())[0];
    assert_eq!((&found["known_by"], &found["since"]), (&"certificate".into(), &1_700_000_000.0.into()), "{found}");
    let text = node.says(1, &[&server[..], &["--local", "198.18.1.2:4001"]].concat());
    assert!(text.starts_with("no live connection of 198.18.2.2:3000 with 198.18.1.2:4001"), "{text}");
    let text = node.says(1, &["whois", "198.18.2.2:9", "-o", "json"]);
    assert_eq!(text, "[]\n");
    node.says(2, &["whois", "198.18.2.2"]);
    let text = node.says(0, &["get", "services"]);
    assert_eq!(
        text,
        "NAME                  ADDRESSES                                 LABELS\nshop/backend-api-svc  backend-api.myapp.svc.cluster.local:3000  app=myapp,service=backend-api\n"
    );
    assert_eq!(node.json(&["get", "gateways"])[0]["trust_domain"], "example.com");
    let nowhere = node.sluice(&["status", "--socket", "/nonexistent.sock"]);
    assert_eq!(nowhere.status.code(), Some(3), "{nowhere:?}");
}

#[test]
fn metrics_are_openmetrics_with_every_reason_and_readyz_follows_the_dataplane() {
    let mut node = Node::new("1h");
    node.start();
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    let curl = |path: &str| node.sh(&format!("curl -s -w ' %{{http_code}}' http://127.0.0.1:15020{path}"));
    assert!(curl("/readyz").ends_with(" 503"));
    assert_eq!(curl("/livez"), "ok\n 200");
    drop(dataplane);
    FakeDataplane::hello(&node.admin(), None).serve(answer);
    node.says(0, &["status", "--wait", "10s"]);
    assert_eq!(curl("/readyz"), "ok\n 200");
    let text = curl("/metrics");
    for want in [
        "sluice_refused_connections_total{reason=\"NoIdentity\"} 5\n",
        "sluice_refused_connections_total{reason=\"PeerExpired\"} 0\n",
        "sluice_dropped_packets_total{reason=\"SourceSpoofed\"} 0\n",
        "sluice_sessions{core=\"0\"} 3\n",
        "sluice_ready 1\n",
        "sluice_bytes_sent_total 77\n",
        "sluice_port_up{interface=\"in0\",side=\"inside\"} 1\n",
        "# EOF\n 200",
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
    assert!(text.contains("sluice_svid_not_after_timestamp_seconds{workload=\"shop/frontend\""), "{text}");
}

#[test]
fn no_private_key_is_in_any_log_answer_or_file() {
    let mut node = Node::new("1h");
    node.start();
    let dataplane = FakeDataplane::hello(&node.admin(), None);
    let said = dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    let key = said.iter().find_map(|s| if let Said::Key(_, key) = s { Some(key.clone()) } else { None }).unwrap();
    let snapshot = said.iter().find_map(|s| if let Said::Snapshot(s) = s { Some(s) } else { None }).unwrap();
    // P-256 in PKCS#8 (RFC 5915): the scalar's 32 bytes stand after the version of the inner key.
    let at = key.pkcs8().windows(4).position(|w| w == [2, 1, 1, 4]).expect("an EC private key") + 5;
    let scalar = &key.pkcs8()[at..at + 32];
    let bytes = snapshot::codec::to_state(snapshot).unwrap();
    assert!(!bytes.windows(32).any(|w| w == scalar), "not in the memfd");
    dataplane.serve(answer);
    let hex: String = scalar.iter().map(|b| format!("{b:02x}")).collect();
    let decimal = format!("{scalar:?}");
    let decimal = decimal.trim_matches(['[', ']']);
    let mut seen = node.log();
    for command in [&["status"][..], &["identities"], &["connections"], &["get", "gateways"], &["get", "identities"]] {
        let done = node.sluice(&[command, &["-o", "json"]].concat());
        seen.push_str(&String::from_utf8_lossy(&done.stdout).split_whitespace().collect::<Vec<_>>().join(" "));
    }
    assert!(seen.contains("example.com"));
    for secret in [hex.as_str(), decimal, "PRIVATE KEY"] {
        assert!(!seen.to_lowercase().contains(&secret.to_lowercase()), "{secret} is shown");
    }
    for entry in std::fs::read_dir(node.admin().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert!(!std::fs::read(&path).unwrap().windows(32).any(|w| w == scalar), "{}", path.display());
        }
    }
}

#[test]
fn a_port_in_use_and_a_second_control_process_are_clear_errors() {
    let mut node = Node::new("1h");
    node.start();
    node.status_until(|s| s["version"].is_number());
    let second = node.inside(node::CTRL).arg("--config").arg(node.config()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another sluice-ctrl"), "{second:?}");
    let other = node.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::rename(node.config().join("ca"), other.join("ca")).unwrap();
    std::fs::write(other.join("gateway.yaml"), node.gateway("1h").replace("node-a.sock", "node-b.sock")).unwrap();
    let third = node.inside(node::CTRL).arg("--config").arg(&other).output().unwrap();
    assert_eq!(third.status.code(), Some(1));
    let text = String::from_utf8_lossy(&third.stderr);
    assert!(text.contains("cannot listen on 127.0.0.1:15020"), "{text}");
}

#[test]
fn check_says_what_the_machine_lacks() {
    let node = Node::new("1h");
    let directory = node.config();
    let check = ["check", "--config", directory.to_str().unwrap()];
    let text = node.sluice(&check);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("port in0: driver veth runs XDP natively"), "{text}");
    assert!(text.contains("! port in0: up, MTU 1500; up to 65535"), "{text}");
    assert!(text.contains("✓ identity source: opens"), "{text}");
    node.write("gateway.yaml", &node.gateway("1h").replace("out0", "out7").replace("cores: [0]", "cores: [999]"));
    let text = node.says(1, &check);
    assert!(text.contains("✗ port out7: there is no such interface here"), "{text}");
    assert!(text.contains("✗ cores: spec.cores has 999"), "{text}");
}
