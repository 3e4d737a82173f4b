//! A gateway as deploy/kubernetes/daemonset.yaml starts it: the command, the environment and the capabilities of
//! the manifest, a service account whose token rotates, and an API over HTTPS. There is no container runtime
//! here: namespaces, mounts and a bounding set stand for one.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Container, Host, Service, run, wait_until};
use pktgen_tests::played::kube_api::{Api, PODS, Tls, pod};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);
/// Where a kubelet puts it.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Not root, whose processes need no right to be looked at.
const USER: u32 = 61_001;

/// What the manifest says of its container, with the node's configuration in the place of the ConfigMap.
fn manifest(account: &Path, api: SocketAddr, config: &Path) -> (Container, Vec<String>) {
    let all: Vec<Value> = serde_saphyr::from_multiple(include_str!("../../deploy/kubernetes/daemonset.yaml")).unwrap();
    let set = all.into_iter().find(|one| one["kind"] == "DaemonSet").unwrap();
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let words = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let command = words(&container["command"]);
    let in_place = |word: &String| if word == "/etc/sluice" { config.display().to_string() } else { word.clone() };
    let started = Container {
        mounts: vec![(account.to_owned(), ACCOUNT)],
        environment: vec![
            ("NODE_NAME", "node-a".into()),
            ("KUBERNETES_SERVICE_HOST", api.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", api.port().to_string()),
        ],
        capabilities: words(&container["securityContext"]["capabilities"]["add"]),
    };
    (started, command[1..].iter().map(in_place).collect())
}

/// The frontend is a pod, and of its processes this user's curl.
fn policy() -> String {
    let example = include_str!("../../deploy/examples/kubernetes/policy.yaml");
    let by_label = "      k8s:label:app: frontend\n";
    assert!(example.contains(by_label));
    example.replace(by_label, &format!("{by_label}      process:path: /usr/bin/curl\n      process:uid: {USER}\n"))
}

/// Until its calls from the pod are served, or are refused, as they should be.
fn until(pair: &Pair, what: &str, served: bool) {
    let url = format!("http://{}:3000/", Host::Backend.v4());
    let called = || {
        let mut command = pair.site.frontend.command("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]);
        command.args(["/usr/bin/curl", "-sS", "--max-time", "10", &url]);
        let output = run(command, PATIENCE).ok()?;
        (output.stdout.contains("you said") == served).then_some(())
    };
    wait_until(what, PATIENCE, called).unwrap();
}

/// Of `sluice status`.
fn until_said(pair: &Pair, words: &str) {
    let said = || pair.node_a.sluice(&["status"]).ok()?.stdout.contains(words).then_some(());
    wait_until(words, PATIENCE, said).unwrap_or_else(|error| {
        panic!("{error:#}: {}", pair.node_a.sluice(&["status"]).map(|said| said.stdout).unwrap_or_default())
    });
}

/// The names of the capabilities that a process may ever have.
fn bounding_set(pid: u32) -> BTreeSet<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let bits = u64::from_str_radix(bits.trim(), 16).unwrap();
    let known = std::process::Command::new("setpriv").arg("--list-caps").output().unwrap().stdout;
    let known = String::from_utf8(known).unwrap();
    known.lines().enumerate().filter(|(nth, _)| bits & 1 << nth != 0).map(|(_, name)| name.to_uppercase()).collect()
}

#[test]
fn the_daemonsets_container_gets_in_by_its_service_account_and_needs_no_other_capability() {
    let mut pair = Pair::configure(&Setup::default()).unwrap();
    let (namespace, tls) = (pair.site.node_a.clone(), Tls::new());
    let bind = move |address| namespace.enter(|| TcpListener::bind(address).unwrap()).unwrap();
    let mut api = Api::start_with(Some(tls.clone()), bind);
    api.put(PODS, pod("myapp/frontend-1", "node-a", &Host::Frontend.v4().to_string(), &[("app", "frontend")]));
    api.tell(|world| world.token = Some("first".into()));
    let account = pair.site.rig.directory().join("serviceaccount");
    std::fs::create_dir(&account).unwrap();
    for (name, text) in [("token", "first"), ("namespace", "sluice"), ("ca.crt", tls.ca().as_str())] {
        std::fs::write(account.join(name), text).unwrap();
    }
    std::fs::write(pair.node_a.directory().join("policy.yaml"), policy()).unwrap();
    let gateway = pair.node_a.directory().join("gateway.yaml");
    let text = std::fs::read_to_string(&gateway).unwrap();
    std::fs::write(&gateway, text.replacen("spec:\n", "spec:\n  kubernetes: { resources: none }\n", 1)).unwrap();

    let (container, arguments) = manifest(&account, api.address(), pair.node_a.directory());
    let given: BTreeSet<_> = container.capabilities.iter().cloned().collect();
    pair.node_a.launch_in(&container, &arguments).unwrap();
    pair.node_b.launch().unwrap();
    until_said(&pair, "1 pods of node node-a, watched for");
    until_said(&pair, &format!("kubernetes https://{}: ", api.address()));
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();

    // A process of the pod is found and served, with what the manifest gives and no more.
    let _service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    until(&pair, "the pod's process is the frontend", true);
    let dataplane = pair.node_a.status().unwrap().pid;
    for pid in [pair.node_a.report().unwrap().pid, dataplane] {
        assert_eq!(bounding_set(pid), given);
    }

    // The token rotates under its name, and the server believes the old one no more.
    std::fs::write(account.join("token.new"), "second").unwrap();
    std::fs::rename(account.join("token.new"), account.join("token")).unwrap();
    api.tell(|world| world.token = Some("second".into()));
    api.stop();
    until_said(&pair, "pods of node node-a not watched for");
    until(&pair, "who was who still is", true);
    api.tell(|world| world.remove(PODS, "myapp/frontend-1"));
    api.serve();
    until_said(&pair, "0 pods of node node-a, watched for");
    until(&pair, "the pod is gone", false);
}
