//! What a gateway asks of a cluster and writes to it, as any API server has to answer: the one that the tests
//! play, and a real one, where deploy/kubernetes/real-api runs them.

use std::collections::BTreeMap;
use std::time::Duration;

use ctrl::config::load_files;
use ctrl::kubernetes::listed::Patience;
use ctrl::kubernetes::{Feed, Verdict, start_with};
use ctrl::source::News;
use pktgen_tests::played::kube_api::{
    CLUSTER_SERVICES, Cluster, PODS, SLICES, WORKLOADS, cluster_service, pod, ready, resource, slice,
};
use serde_json::{Value, json};
use snapshot::Version;
use tempfile::TempDir;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);
const NODE: &str = "sluice-tests-a";
const OTHER: &str = "sluice-tests-b";

struct Gateway {
    feed: Feed,
    news: News,
    _directory: TempDir,
}

impl Gateway {
    fn of(cluster: &Cluster, node: &str, more: &str) -> Self {
        let (directory, news) = (tempfile::tempdir().unwrap(), News::default());
        cluster.kubeconfig(directory.path());
        let text = format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: {{ name: gateway }}\nspec:\n  trustDomain: example.com\n  \
             ports: [{{ interface: in0, side: inside }}]\n  \
             identity: {{ source: embedded, embedded: {{ directory: ca }} }}\n  \
             kubernetes: {{ kubeconfig: kubeconfig, node: {node}, {more} }}\n"
        );
        let loaded = load_files(&[(directory.path().join("gateway.yaml"), text)]).unwrap_or_else(|f| panic!("{f:#?}"));
        let patience = Patience { back_off: Duration::from_millis(200), ..Patience::default() };
        let feed = start_with(&loaded.gateway, &news, patience).expect("it is asked for");
        Self { feed, news, _directory: directory }
    }

    /// What the feed tells, once it is as it should be.
    async fn until<T>(&mut self, what: &str, told: impl Fn(&mut Feed) -> Option<T>) -> T {
        let all = async {
            loop {
                match told(&mut self.feed) {
                    Some(told) => return told,
                    None => self.news.notified().await,
                }
            }
        };
        let done = timeout(DEADLINE, all).await;
        done.unwrap_or_else(|_| panic!("{what}: {:#?}", self.feed.live().now()))
    }

    async fn until_pods(&mut self, want: &[(&str, &str, &str)]) {
        let told = |feed: &mut Feed| {
            let pods = feed.new_pods()?;
            let of = |(name, pod): (&String, &ctrl::attest::pods::Pod)| {
                (name.clone(), pod.addresses[0].to_string(), pod.labels["app"].clone())
            };
            let own = pods.iter().filter(|(name, _)| name.starts_with("sluice-tests-pods/")).map(of);
            own.eq(want.iter().map(|(name, at, app)| ((*name).into(), (*at).into(), (*app).into()))).then_some(())
        };
        self.until(&format!("{want:?}"), told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_node_are_told_as_they_come_change_and_go() {
    let cluster = Cluster::of_environment();
    let [one, two, far] = ["one", "two", "far"].map(|name| format!("sluice-tests-pods/{name}"));
    let of = |name: &str, node: &str, at: &str, app: &str| pod(name, node, at, &[("app", app)]);
    cluster.put(PODS, of(&one, NODE, "198.18.1.1", "web"));
    cluster.put(PODS, of(&far, OTHER, "198.18.1.3", "web"));
    let mut gateway = Gateway::of(&cluster, NODE, "resources: none");
    gateway.until_pods(&[(&one, "198.18.1.1", "web")]).await;
    cluster.put(PODS, of(&two, NODE, "198.18.1.2", "web"));
    cluster.put(PODS, of(&one, NODE, "198.18.1.1", "other"));
    gateway.until_pods(&[(&one, "198.18.1.1", "other"), (&two, "198.18.1.2", "web")]).await;
    cluster.remove(PODS, &one);
    gateway.until_pods(&[(&two, "198.18.1.2", "web")]).await;
    [two, far].iter().for_each(|name| cluster.remove(PODS, name));
    gateway.until_pods(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_endpoints_are_those_of_its_slices() {
    let cluster = Cluster::of_environment();
    const WEB: &str = "sluice-tests-services/web";
    let named = || [WEB.to_owned()].into();
    cluster.put(CLUSTER_SERVICES, cluster_service(WEB, &["10.96.77.1"], &[("http", 80, "TCP"), ("dns", 53, "UDP")]));
    cluster.put(SLICES, slice("sluice-tests-services/web-1", "web", &[("http", 8080)], &[("198.18.2.2", ready())]));
    let mut gateway = Gateway::of(&cluster, NODE, "resources: none");
    gateway.feed.name_services(named());
    let led = |feed: &mut Feed, want: &str| {
        let led = feed.new_services()?.get(WEB)?.clone();
        let virtuals = led.virtual_addresses.iter().map(|(at, takes)| format!("{at} > {takes:?}"));
        (virtuals.collect::<String>() + led.problem.as_deref().unwrap_or_default() == want).then_some(())
    };
    let one = "10.96.77.1:80 > [198.18.2.2:8080]";
    gateway.until(one, |feed| led(feed, one)).await;
    let ends = json!({ "ready": false, "serving": true, "terminating": true });
    cluster.put(SLICES, slice("sluice-tests-services/web-2", "web", &[("http", 9090)], &[("198.18.2.3", ends)]));
    cluster.put(SLICES, slice("sluice-tests-services/web-1", "web", &[("http", 8080)], &[]));
    let two = "10.96.77.1:80 > [198.18.2.3:9090]";
    gateway.until(two, |feed| led(feed, two)).await;
    cluster.remove(CLUSTER_SERVICES, WEB);
    let none = "there is none of that name";
    gateway.until(none, |feed| led(feed, none)).await;
    ["1", "2"].iter().for_each(|nth| cluster.remove(SLICES, &format!("sluice-tests-services/web-{nth}")));
}

fn workload(name: &str, spec: Value) -> Value {
    let mut whole = json!({ "workloadID": "tests/a", "selectors": [{ "net:ip": "198.18.1.2" }] });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    resource("WorkloadIdentity", "core.riptides.io/v1alpha1", name, whole)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_keeps_every_field_counts_its_changes_and_has_a_status_of_each_node() {
    let cluster = Cluster::of_environment();
    const NAME: &str = "sluice-tests-resources/a";
    // A misspelt field is for the gateway to find: a server that dropped it would widen what it says.
    cluster.put(WORKLOADS, workload(NAME, json!({ "allowedSPIFFEIDs": { "inbond": [] } })));
    let nodes = [NODE, OTHER];
    let mut gateways = nodes.map(|node| Gateway::of(&cluster, node, "namespaces: [sluice-tests-resources]"));
    let id = ("WorkloadIdentity", NAME.to_owned());
    let object = async |gateway: &mut Gateway, generation: u64| {
        let told = |feed: &mut Feed| feed.new_objects()?.remove(&id).filter(|object| object.generation == generation);
        gateway.until(&format!("generation {generation}"), told).await
    };
    let first = object(&mut gateways[0], 1).await;
    assert_eq!(first.value["spec"]["allowedSPIFFEIDs"], json!({ "inbond": [] }));
    object(&mut gateways[1], 1).await;

    for (generation, spec) in [(1, json!({})), (2, json!({ "allowedSPIFFEIDs": { "inbound": [] } }))] {
        if generation > 1 {
            cluster.put(WORKLOADS, workload(NAME, spec));
        }
        for gateway in &mut gateways {
            if generation > 1 {
                object(gateway, generation).await;
            }
            let verdict = Verdict {
                uid: first.uid.clone(),
                generation,
                in_force: generation > 1,
                message: format!("about generation {generation}"),
                snapshot: (generation > 1).then_some(Version(7)),
                since: 1_800_000_000 + generation,
            };
            gateway.feed.say(BTreeMap::from([(id.clone(), verdict)]).into());
        }
        let want = nodes.map(|node| {
            let (status, reason) = if generation > 1 { ("True", "InForce") } else { ("False", "Refused") };
            let mut entry = json!({ "node": node, "conditions": [{
                "type": "InForce", "status": status, "observedGeneration": generation, "reason": reason,
                "lastTransitionTime": format!("2027-01-15T08:00:0{generation}Z"),
                "message": format!("about generation {generation}") }] });
            if generation > 1 {
                entry["snapshot"] = json!(7);
            }
            entry
        });
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            let now = cluster.get(WORKLOADS, NAME);
            let mut entries = now["status"]["nodes"].as_array().cloned().unwrap_or_default();
            entries.sort_by_key(|entry| entry["node"].to_string());
            if entries == want {
                assert_eq!(now["metadata"]["generation"], generation, "a status is no change of the spec");
                break;
            }
            assert!(tokio::time::Instant::now() < until, "want {want:#?}, have {now:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    cluster.remove(WORKLOADS, NAME);
    let gone = |feed: &mut Feed| feed.new_objects()?.is_empty().then_some(());
    gateways[0].until("it is gone", gone).await;
}
