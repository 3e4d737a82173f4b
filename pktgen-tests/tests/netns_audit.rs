//! The audit log and the way from PERMISSIVE to MUTUAL, through both gateways: who was let in and who was not,
//! who still calls plain, and a switch that is not made unasked while somebody does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pktgen_tests::netns::gateway::{BACKEND, binary};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Namespace, Output, Service, run, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(15);
const INTRUDER: &str = include_str!("../../deploy/demo/intruder.yaml");
const FRONTEND_ID: &str = "spiffe://example.com/myapp/app/frontend";
const BACKEND_ID: &str = "spiffe://example.com/myapp/app/backend-api";

fn curl(from: &Namespace, scheme: &str, extra: &[&str]) -> Output {
    let mut command = from.command("curl");
    command.args(["-sS", "--max-time", "10", "-H", "X-Marker: audit"]).args(extra);
    let address = Host::Backend.address(false);
    command.arg("--resolve").arg(format!("{BACKEND}:3000:{address}")).arg(format!("{scheme}://{BACKEND}:3000/"));
    run(command, PATIENCE).unwrap()
}

fn served(output: &Output) -> bool {
    output.stdout.contains("you said: audit")
}

/// The newest line about a call from there with this decision, once there is one; every line has to parse.
fn line(file: &Path, decision: &str, from: Host) -> Value {
    let from = format!("{}:", from.address(false));
    wait_until(&format!("{decision} from {from} in the audit log"), PATIENCE, || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let whole = text.lines().take(text.matches('\n').count());
        let lines: Vec<Value> = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.into_iter().rev().find(|line| {
            line["decision"] == decision && line["client"].as_str().is_some_and(|client| client.starts_with(&from))
        })
    })
    .unwrap()
}

/// The frontend's identity, for a caller that has no gateway.
fn svid(pair: &Pair, directory: &Path) -> [PathBuf; 2] {
    let script = format!(
        "cd {}; echo 'subjectAltName = URI:{FRONTEND_ID}\nbasicConstraints = critical, CA:FALSE\n\
         keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth, clientAuth' > ext\n\
         openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=legacy -keyout key -out csr &&\n\
         openssl x509 -req -days 1 -in csr -CA {root}.crt -CAkey {root}.key -CAcreateserial -extfile ext -out crt",
        directory.display(),
        root = pair.authority.join("root").display(),
    );
    let made = directory.join("make.sh");
    fs::write(&made, script).unwrap();
    pair.site.legacy.run(&format!("sh {}", made.display()), PATIENCE).unwrap().ok().unwrap();
    [directory.join("crt"), directory.join("key")]
}

/// The policy in which the backend's mode is this.
fn backend_is(mode: &str) -> String {
    let policy = policy();
    assert!(policy.contains("mode: MUTUAL"));
    policy.replacen("mode: MUTUAL", &format!("mode: {mode}"), 1)
}

#[test]
fn the_audit_log_says_who_was_let_in_and_a_workload_goes_to_mutual_when_nobody_calls_it_plain() {
    let (permissive, mutual) = (backend_is("PERMISSIVE"), backend_is("MUTUAL"));
    let files = [("policy.yaml", permissive.as_str()), ("intruder.yaml", INTRUDER)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let _service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let (legacy, node_b) = (&pair.site.legacy, &pair.node_b);
    let directory = pair.site.rig.directory().join("audit");
    fs::create_dir(&directory).unwrap();
    let file = directory.join("b.jsonl");
    let gateway = fs::read_to_string(node_b.directory().join("gateway.yaml")).unwrap();
    let pid = node_b.status().unwrap().pid;
    let audited = directory.join("gateway.yaml");
    fs::write(&audited, format!("{gateway}  audit: {{ file: {} }}\n", file.display())).unwrap();
    let applied = node_b.sluice(&["apply", "-f", &audited.display().to_string()]).unwrap();
    assert!(applied.status.success() && applied.stdout.contains("in force as"), "{applied:?}");
    assert_eq!(node_b.status().unwrap().pid, pid, "no connection is lost by turning it on");

    // Accepted, refused by policy, and plain.
    assert!(served(&curl(&pair.site.frontend, "http", &[])));
    let accepted = line(&file, "accepted", Host::Frontend);
    let identities = pair.node_a.report().unwrap().identities;
    let frontend = identities.iter().find(|identity| identity.spiffe_id == FRONTEND_ID).unwrap();
    assert_eq!(accepted["serial"].as_str(), frontend.serial.as_deref());
    assert_eq!((&accepted["caller_id"], &accepted["server_id"]), (&FRONTEND_ID.into(), &BACKEND_ID.into()));
    assert_eq!((&accepted["server"], &accepted["mode"]), (&"198.18.2.2:3000".into(), &"PERMISSIVE".into()));
    assert_eq!(accepted["tls"], "TLSv1.3");
    let (revision, now) = (accepted["revision"].as_u64().unwrap(), node_b.status().unwrap().in_force.unwrap().0);
    assert!(revision > 0 && revision <= now, "{revision} of {now}");
    let placed = |line: &Value| {
        let at = permissive.lines().position(|line| line.trim() == format!("- {FRONTEND_ID}")).unwrap() + 1;
        let rule = line["rule"].as_str().unwrap();
        assert!(
            rule.contains("riptides-system/backend-api") && rule.contains(&format!("(policy.yaml:{at})")),
            "{rule}"
        );
    };
    placed(&accepted);
    for field in ["time", "not_after"] {
        let at: jiff::Timestamp = accepted[field].as_str().unwrap().parse().unwrap();
        let want =
            if field == "time" { jiff::Timestamp::now().as_second() } else { frontend.not_after.unwrap() as i64 };
        assert!((at.as_second() - want).abs() < 30, "{field}: {at}");
    }

    assert!(!served(&curl(&pair.site.intruder, "http", &[])));
    let refused = line(&file, "refused", Host::Intruder);
    assert_eq!(refused["reason"], "NotAllowedInbound", "{refused}");
    assert_eq!(refused["caller_id"], "spiffe://example.com/myapp/app/intruder");
    let intruder = identities.iter().find(|identity| identity.spiffe_id.ends_with("/intruder")).unwrap();
    assert_eq!(refused["serial"].as_str(), intruder.serial.as_deref(), "{refused}");
    placed(&refused);

    assert!(served(&curl(legacy, "http", &[])));
    let plain = line(&file, "accepted", Host::Legacy);
    assert_eq!((&plain["caller_id"], &plain["tls"], &plain["serial"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Not ready, by either name, and not switched unasked: neither over the socket nor in the directory.
    for name in ["backend-api", "riptides-system/backend-api-svc"] {
        let status = node_b.sluice(&["migrate", "status", name]).unwrap();
        assert_eq!(status.status.code(), Some(1), "{status:?}");
        assert!(status.stdout.contains("198.18.30.2 called plain on port 3000, once"), "{status:?}");
        let frontend = status.stdout.lines().find(|line| line.starts_with(FRONTEND_ID)).unwrap();
        assert!(frontend.contains("mTLS"), "{frontend}");
    }
    let unknown = node_b.sluice(&["migrate", "status", "nobody"]).unwrap();
    assert!(!unknown.status.success() && unknown.stderr.contains("is called \"nobody\""), "{unknown:?}");
    let stricter = directory.join("stricter.yaml");
    fs::write(&stricter, &mutual).unwrap();
    let path = stricter.display().to_string();
    let apply = ["apply", "-f", &path, "--name", "policy.yaml"];
    let mut here = pair.site.node_b.command(binary("sluice").unwrap());
    here.args(apply).arg("--config").arg(node_b.directory());
    for output in [node_b.sluice(&apply).unwrap(), run(here, PATIENCE).unwrap()] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stderr.contains("1 caller spoke plain in the last 24h"), "{output:?}");
        assert!(output.stderr.contains("198.18.30.2 called plain on port 3000, once"), "{output:?}");
    }
    let now = fs::read_to_string(node_b.directory().join("policy.yaml")).unwrap();
    assert_eq!(now, permissive, "nothing was changed");

    // The caller has moved: ready, and switched without force.
    let [certificate, key] = svid(&pair, &directory).map(|path| path.display().to_string());
    assert!(served(&curl(legacy, "https", &["-k", "--cert", &certificate, "--key", &key])));
    wait_until("the backend is ready for MUTUAL", PATIENCE, || {
        node_b.sluice(&["migrate", "status", "backend-api"]).unwrap().status.success().then_some(())
    })
    .unwrap();
    let applied = node_b.sluice(&apply).unwrap();
    assert!(applied.status.success() && applied.stdout.contains("in force"), "{applied:?}");
    assert!(!served(&curl(legacy, "http", &[])));
    assert_eq!(line(&file, "refused", Host::Legacy)["reason"], "PlaintextRefused");
    let status = node_b.sluice(&["migrate", "status", "backend-api"]).unwrap();
    assert!(status.status.success() && status.stdout.contains("it is MUTUAL"), "{status:?}");

    // A log that cannot be written costs its lines, and nothing else; it goes on by itself.
    let away = directory.with_extension("away");
    fs::rename(&directory, &away).unwrap();
    assert!(served(&curl(&pair.site.frontend, "http", &[])));
    let said = |what: &str| {
        let status = node_b.sluice(&["status"]).unwrap();
        assert!(status.status.success(), "still ready: {status:?}");
        status.stdout.lines().any(|line| line.starts_with("audit ") && line.contains(what)).then_some(())
    };
    wait_until("the status says so", PATIENCE, || said("1 failed; takes nothing:")).unwrap();
    assert_eq!(node_b.metric("sluice_audit_failed_total", "").unwrap(), 1.0);
    fs::rename(&away, &directory).unwrap();
    assert!(served(&curl(&pair.site.frontend, "http", &[])));
    let written =
        |text: &str| text.contains("\"decision\":\"omitted\",\"of\":\"any\",\"reason\":\"FileError\",\"count\":1}");
    wait_until("the log goes on", PATIENCE, || fs::read_to_string(&file).ok().filter(|text| written(text))).unwrap();
    said(&format!("{}: ", file.display())).unwrap();
    let lines = fs::read_to_string(&file).unwrap().lines().filter(|line| !line.contains("\"omitted\"")).count();
    assert_eq!(node_b.metric("sluice_audit_lines_total", "").unwrap(), lines as f64);
}
