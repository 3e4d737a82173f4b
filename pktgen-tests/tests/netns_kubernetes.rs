//! Both gateways, of which one knows its workloads by the pods that a Kubernetes API tells of: replicas behind
//! two ports are one identity, a label that changes cuts, and an API or a ctrl that goes away cuts nothing.
//!
//! The API is played by the tests: no registry ships the real one.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use pktgen_tests::load::{Server, call, complete, open};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, Namespace, wait_until};
use pktgen_tests::played::kube_api::{Api, PODS, POLICIES, WORKLOADS, pod, resource};
use serde_json::{Value, json};
use snapshot::{CloseReason, RefuseReason};

const PATIENCE: Duration = Duration::from_secs(40);
const BYTES: u64 = 3_000;

fn server() -> SocketAddr {
    SocketAddr::new(Host::Backend.v4(), 3000)
}

fn frontend(number: u8, host: Host, app: &str) -> serde_json::Value {
    pod(&format!("myapp/frontend-{number}"), "node-a", &host.v4().to_string(), &[("app", app)])
}

/// node-a asks the API, which is in its own namespace, and finds the frontend by its label.
fn configure(resources: &str) -> (Pair, Api) {
    let pair = Pair::configure(&Setup::default()).unwrap();
    let namespace = pair.site.node_a.clone();
    let api = Api::start_in(move |address| namespace.enter(|| TcpListener::bind(address).unwrap()).unwrap());
    let kubeconfig = api.kubeconfig(pair.node_a.directory());
    let gateway = pair.node_a.directory().join("gateway.yaml");
    let text = std::fs::read_to_string(&gateway).unwrap();
    let asks = format!("spec:\n  kubernetes: {{ kubeconfig: {}, resources: {resources} }}\n", kubeconfig.display());
    std::fs::write(&gateway, text.replacen("spec:\n", &asks, 1)).unwrap();
    // The delivered example, as it stands.
    let policy = include_str!("../../deploy/examples/kubernetes/policy.yaml");
    std::fs::write(pair.node_a.directory().join("policy.yaml"), policy).unwrap();
    (pair, api)
}

fn hold(from: &Namespace, number: u64) -> TcpStream {
    from.enter(|| open(server(), number)).unwrap().unwrap()
}

/// Until a call from there succeeds, or is refused, as it should be.
fn until(from: &Namespace, what: &str, served: bool) {
    let called = || (from.enter(|| call(server(), 9_000, BYTES)).unwrap().is_ok() == served).then_some(());
    wait_until(what, PATIENCE, called).unwrap();
}

fn until_said(pair: &Pair, command: &[&str], words: &str) -> String {
    let said = || Some(pair.node_a.sluice(command).ok()?.stdout).filter(|said| said.contains(words));
    wait_until(&format!("{command:?} says {words:?}"), PATIENCE, said).unwrap()
}

#[test]
fn pods_of_the_api_are_the_workload_for_as_long_as_their_labels_say_so() {
    let (mut pair, mut api) = configure("follow");
    api.put(PODS, frontend(1, Host::Frontend, "something-else"));
    pair.node_a.launch().unwrap();
    pair.node_b.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    let service = Server::start(&pair.site.backend, server()).unwrap();
    let (one, two) = (pair.site.frontend.clone(), pair.site.intruder.clone());
    until(&one, "another pod's address is nobody's", false);
    let refused = wait_until("that is told", PATIENCE, || pair.node_a.refused().ok()?.pop()).unwrap();
    assert_eq!(refused.refused, Some(RefuseReason::NoIdentity));

    // Two replicas, behind a port each.
    api.tell(|world| {
        world.put(PODS, frontend(1, Host::Frontend, "frontend"));
        world.put(PODS, frontend(2, Host::Intruder, "frontend"));
    });
    until(&one, "the first is the frontend", true);
    until(&two, "so is the second", true);
    let said = until_said(&pair, &["describe", "workload", "riptides-system/frontend"], "frontend-2");
    for words in [
        "place      198.18.1.2/32 on in0",
        "place      198.18.3.2/32 on in1",
        "pod myapp/frontend-1 (uid uid-of-frontend-1, resourceVersion 3): 198.18.1.2/32 behind in0",
        "pod myapp/frontend-2 (uid uid-of-frontend-2, resourceVersion 4): 198.18.3.2/32 behind in1",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = until_said(&pair, &["status"], "2 pods of node node-a, watched for");
    assert!(said.contains(&format!("kubernetes {}: ", api.url())), "{said}");
    assert_eq!(pair.node_a.metric("sluice_kubernetes_known", "pods of node node-a").unwrap(), 2.0);

    // The same by the other keys: one of the replicas, and none if one key says otherwise.
    let delivered = include_str!("../../deploy/examples/kubernetes/policy.yaml");
    let of = |uid: &str, account: &str| {
        let by_label = "      k8s:label:app: frontend\n";
        assert!(delivered.contains(by_label), "the example's selector is another");
        let keys =
            format!("k8s:pod:name: frontend-1\n      k8s:pod:uid: {uid}\n      k8s:pod:serviceAccount: {account}\n");
        delivered.replacen(by_label, &format!("      {keys}"), 1)
    };
    for (uid, account) in [("uid-of-frontend-2", "frontend-1-account"), ("uid-of-frontend-1", "frontend-2-account")] {
        pair.node_a.apply("policy.yaml", &of("uid-of-frontend-1", "frontend-1-account")).unwrap();
        until(&one, "it has that name, UID and account", true);
        until(&two, "another pod has not", false);
        pair.node_a.apply("policy.yaml", &of(uid, account)).unwrap();
        until(&one, "one key does not hold", false);
    }
    pair.node_a.apply("policy.yaml", delivered).unwrap();
    until(&one, "by its label again", true);
    until(&two, "and the other", true);

    // The API goes away, then the control process is killed and comes back: nobody notices.
    let (held, other) = (hold(&one, 1), hold(&two, 2));
    api.stop();
    until_said(&pair, &["status"], "the last 2 stay in force");
    until(&one, "who was who still is", true);
    api.serve();
    until_said(&pair, &["status"], "2 pods of node node-a, watched for");
    let before = pair.node_a.report().unwrap().pid;
    pair.node_a.kill_control().unwrap();
    wait_until("ctrl is back", PATIENCE, || pair.node_a.report().ok().filter(|now| now.pid != before)).unwrap();
    pair.node_a.wait_ready().unwrap();
    until_said(&pair, &["status"], "2 pods of node node-a, watched for");
    for stream in [hold(&one, 3), hold(&two, 4)] {
        complete(&stream, if stream.local_addr().unwrap().ip() == Host::Frontend.v4() { 3 } else { 4 }, BYTES).unwrap();
    }

    // A label changes: that pod's connection is cut, and the other's is not touched.
    api.put(PODS, frontend(1, Host::Frontend, "something-else"));
    wait_until("it is cut", PATIENCE, || {
        let ended = pair.node_a.connections().ok()?;
        let cut = |c: &snapshot::ConnectionReport| {
            c.client == held.local_addr().unwrap() && c.closed == Some(CloseReason::PolicyChanged)
        };
        ended.iter().any(cut).then_some(())
    })
    .unwrap();
    assert!(complete(&held, 1, BYTES).is_err());
    until(&one, "nor may it call again", false);
    complete(&other, 2, BYTES).expect("the other replica's connection, from before all of it");
    until(&two, "it still may call", true);

    // A pod that went while nobody was told is gone.
    api.stop();
    api.tell(|world| {
        world.remove(PODS, "myapp/frontend-2");
        world.compact();
    });
    api.serve();
    until(&two, "its address is nobody's", false);
    until_said(&pair, &["status"], "1 pods of node node-a, watched for");
    // A call of `until` that was under way when a label changed was cut as well.
    assert!(!service.failures().is_empty(), "the held one was cut");
}

#[test]
fn a_control_process_that_restarts_while_the_api_is_away_knows_its_pods() {
    let (mut pair, mut api) = configure("none");
    api.put(PODS, frontend(1, Host::Frontend, "frontend"));
    pair.node_a.launch().unwrap();
    pair.node_b.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    let _service = Server::start(&pair.site.backend, server()).unwrap();
    let one = pair.site.frontend.clone();
    until(&one, "the pod is the frontend", true);
    let held = hold(&one, 1);
    let before = pair.node_a.status().unwrap().in_force;
    api.stop();
    pair.node_a.kill_control().unwrap();
    // Without a list the first snapshot goes by the pods of before.
    wait_until("the restarted one is in force", PATIENCE, || {
        (pair.node_a.status().ok()?.in_force > before).then_some(())
    })
    .unwrap();
    assert!(one.enter(|| call(server(), 2, BYTES)).unwrap().is_ok(), "who was who still is");
    complete(&held, 1, BYTES).expect("the connection from before");
    // What the API says then has the last word.
    api.tell(|world| world.put(PODS, frontend(1, Host::Frontend, "something-else")));
    api.serve();
    until(&one, "it is the frontend no more", false);

    // A Gateway that asks no API any more has no pods.
    api.put(PODS, frontend(1, Host::Frontend, "frontend"));
    until(&one, "it is the frontend again", true);
    let gateway = std::fs::read_to_string(pair.node_a.directory().join("gateway.yaml")).unwrap();
    let asks = gateway.lines().find(|line| line.contains("kubernetes:")).unwrap();
    pair.node_a.apply("gateway.yaml", &gateway.replace(&format!("{asks}\n"), "")).unwrap();
    until(&one, "nobody is a pod", false);
}

/// What node-a says of an object, once it does.
fn until_status(api: &Api, path: &str, name: &str, generation: u64, want: &str) -> Value {
    wait_until(&format!("{name} is {want} at generation {generation}"), PATIENCE, || {
        let status = api.look(|world| world.objects[path].get(name)?.pointer("/status/nodes/0").cloned())?;
        let condition = &status["conditions"][0];
        let is = condition["status"] == want && condition["observedGeneration"] == generation;
        (is && status["node"] == "node-a").then_some(status)
    })
    .unwrap()
}

#[test]
fn resources_of_the_cluster_are_in_force_on_the_node_and_it_says_so_in_their_status() {
    let (mut pair, mut api) = configure("follow");
    // The node has its Gateway and the Service as files; who is who, the cluster says.
    let policy = include_str!("../../deploy/examples/kubernetes/policy.yaml");
    let service = policy.split("---\n").next().unwrap();
    std::fs::write(pair.node_a.directory().join("policy.yaml"), service).unwrap();
    let list =
        |ids: &[&str]| -> Value { ids.iter().map(|id| json!(format!("spiffe://example.com/myapp/{id}"))).collect() };
    let frontend_calls = |servers: &[&str]| {
        let egress = json!([{ "selectors": [{ "app": "myapp", "service": "backend-api" }] }]);
        let spec = json!({ "workloadID": "myapp/app/frontend", "selectors": [{ "k8s:label:app": "frontend" }],
            "allowedSPIFFEIDs": { "inbound": [], "outbound": list(servers) }, "egress": egress });
        resource("WorkloadIdentity", "core.riptides.io/v1alpha1", "myapp/frontend", spec)
    };
    api.put(PODS, frontend(1, Host::Frontend, "frontend"));
    api.put(WORKLOADS, frontend_calls(&["app/backend-api"]));
    // Without the cluster's word nothing is in force, rather than less than it says.
    api.stop();
    pair.node_a.launch().unwrap();
    let said = until_said(&pair, &["status"], "has not listed its resources yet: without them there is no policy");
    assert!(!said.contains(": ready"), "{said}");
    api.serve();
    pair.node_b.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    let _service = Server::start(&pair.site.backend, server()).unwrap();
    let one = pair.site.frontend.clone();
    until(&one, "the cluster's frontend calls", true);
    let status = until_status(&api, WORKLOADS, "myapp/frontend", 1, "True");
    let snapshot = status["snapshot"].as_u64().unwrap();
    let report = pair.node_a.status().unwrap();
    assert!(snapshot > 0 && report.in_force.is_some_and(|in_force| in_force.0 >= snapshot), "{status}");
    let held = hold(&one, 1);

    // A faulty one leaves the last good in force, and says why.
    api.put(WORKLOADS, {
        let mut wrong = frontend_calls(&[]);
        wrong["spec"]["allowedSPIFFEIDs"] = json!({ "outbond": [] });
        wrong
    });
    let status = until_status(&api, WORKLOADS, "myapp/frontend", 2, "False");
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("generation 1 stays in force: WorkloadIdentity myapp/frontend: error: spec.allowedSPIFFEIDs.outbond: there is no such field"), "{message}");
    let problem = || pair.node_a.report().unwrap().problems.concat();
    assert!(problem().contains("WorkloadIdentity myapp/frontend is not in force as the API has it"), "{}", problem());
    until(&one, "the last good version holds", true);
    complete(&held, 1, BYTES).expect("and cuts nobody");

    // Nor does a file that somebody has yet to mend hold the cluster's word up.
    let file = pair.node_a.directory().join("broken.yaml");
    std::fs::write(&file, "kind: Nothing\n").unwrap();
    wait_until("it is refused", PATIENCE, || (!pair.node_a.report().ok()?.config.errors.is_empty()).then_some(()))
        .unwrap();

    // A deny of the cluster's is in force on the node, by its name; gone, it is no more.
    let held = hold(&one, 2);
    let rule = json!({ "action": "deny", "direction": "outbound", "peers": list(&["app/backend-api"]) });
    let deny = json!({ "workloads": ["myapp/frontend"], "rules": [rule] });
    api.put(POLICIES, resource("Policy", "sluice.dev/v1alpha1", "security/stop", deny));
    until_status(&api, POLICIES, "security/stop", 1, "True");
    until(&one, "it is denied", false);
    assert!(complete(&held, 2, BYTES).is_err(), "what it denies is cut");
    let by = |pair: &Pair| pair.node_a.refused().unwrap().into_iter().filter_map(|refused| refused.rule).next_back();
    let rule = wait_until("by the rule's name", PATIENCE, || by(&pair)).unwrap();
    assert_eq!(rule, "security/stop spec.rules[0] (Policy security/stop)");
    assert!(!pair.node_a.report().unwrap().config.errors.is_empty(), "the file is still at fault");
    std::fs::remove_file(file).unwrap();
    api.remove(POLICIES, "security/stop");
    until(&one, "nothing denies it any more", true);

    // A newer version that is right.
    api.put(WORKLOADS, frontend_calls(&["app/somebody-else"]));
    until_status(&api, WORKLOADS, "myapp/frontend", 3, "True");
    until(&one, "it may not call the backend any more", false);
}
