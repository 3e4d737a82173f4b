//! Our own resources out of a cluster, and what each node writes into their statuses.

use std::collections::BTreeMap;
use std::time::Duration;

use ctrl::config::objects::Id;
use ctrl::kubernetes::listed::Patience;
use ctrl::kubernetes::{Verdict, start_with};
use ctrl::source::News;
use serde_json::json;
use snapshot::Version;
use tokio::time::{Instant, sleep, timeout};

use crate::{DEADLINE, gateway};
use pktgen_tests::played::kube_api::{Api, Mood, WORKLOADS, resource};

fn workload(name: &str, id: &str) -> serde_json::Value {
    let spec = json!({ "workloadID": id, "selectors": [{ "net:ip": "198.18.1.2" }] });
    resource("WorkloadIdentity", "core.riptides.io/v1alpha1", name, spec)
}

#[tokio::test]
async fn resources_of_the_namespaces_that_are_asked_for_come_with_their_generation_and_without_what_a_cluster_adds() {
    let (api, directory, news) = (Api::start(), tempfile::tempdir().unwrap(), News::default());
    api.tell(|world| {
        world.put(WORKLOADS, workload("shop/a", "shop/a"));
        world.put(WORKLOADS, workload("other/a", "other/a"));
        world.put(WORKLOADS, workload("bank/a", "bank/a"));
    });
    let gateway = gateway(&api, &directory, "namespaces: [shop, bank]");
    let mut feed = start_with(&gateway, &news, Patience::default()).unwrap();
    let mut until = async |want: &[(&str, u64)]| {
        let told = async {
            loop {
                if let Some(objects) = feed.new_objects() {
                    let all: Vec<_> =
                        objects.iter().map(|((_, name), object)| (name.as_str(), object.generation)).collect();
                    if all == want {
                        return objects;
                    }
                }
                news.notified().await;
            }
        };
        timeout(DEADLINE, told).await.unwrap_or_else(|_| panic!("want {want:?}"))
    };
    let all = until(&[("bank/a", 1), ("shop/a", 1)]).await;
    let of = &all[&("WorkloadIdentity", "shop/a".to_owned())];
    let want = json!({ "apiVersion": "core.riptides.io/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": { "name": "a", "namespace": "shop" }, "spec": workload("shop/a", "shop/a")["spec"] });
    assert_eq!((of.uid.as_str(), &of.value), ("uid-of-a", &want));
    api.tell(|world| {
        world.put(WORKLOADS, workload("shop/a", "shop/b"));
        world.put(WORKLOADS, workload("other/a", "other/b"));
        world.remove(WORKLOADS, "bank/a");
    });
    until(&[("shop/a", 2)]).await;
    // What others write beside the spec is no news.
    let lists = api.asked("list");
    let mut annotated = workload("shop/a", "shop/b");
    annotated["metadata"]["annotations"] = json!({ "somebody": "was here" });
    annotated["status"] = json!({ "nodes": [] });
    api.put(WORKLOADS, annotated);
    api.put(WORKLOADS, workload("bank/c", "bank/c"));
    until(&[("bank/c", 1), ("shop/a", 2)]).await;
    assert_eq!(api.asked("list"), lists);
}

fn verdict(name: &str, generation: u64, in_force: bool) -> (Id, Verdict) {
    let (_, short) = name.split_once('/').unwrap();
    let snapshot = in_force.then_some(Version(7));
    let verdict = Verdict {
        uid: format!("uid-of-{short}"),
        generation,
        in_force,
        message: format!("about {name}"),
        snapshot,
        since: 1_800_000_000,
    };
    (("WorkloadIdentity", name.to_owned()), verdict)
}

#[tokio::test]
async fn each_node_writes_its_own_entry_of_a_status_and_what_cannot_be_written_is_tried_again() {
    let (api, directory, news) = (Api::start(), tempfile::tempdir().unwrap(), News::default());
    api.tell(|world| ["shop/a", "shop/b"].into_iter().for_each(|name| world.put(WORKLOADS, workload(name, name))));
    let short = Patience { back_off: Duration::from_millis(50), ..Patience::default() };
    let [one, two] = ["node: node-a", "node: node-b"]
        .map(|node| start_with(&gateway(&api, &directory, node), &news, short).unwrap());
    let of = |api: &Api, name: &str, node: &str| -> serde_json::Value {
        let all = api.look(|world| world.objects[WORKLOADS][name]["status"]["nodes"].clone());
        all.as_array().into_iter().flatten().find(|entry| entry["node"] == node).cloned().unwrap_or_default()
    };
    let until = async |what: &str, is: &dyn Fn() -> bool| {
        let until = Instant::now() + DEADLINE;
        while !is() {
            assert!(Instant::now() < until, "{what}: {:?}", api.look(|world| world.objects[WORKLOADS].clone()));
            sleep(Duration::from_millis(10)).await;
        }
    };
    let missing = "workloadidentities.core.riptides.io \"a\" is forbidden";
    api.tell(|world| world.mood = Mood::Refuses(Some("patch"), 403, missing));
    // One that is gone, and another one of the same name, hold nobody up.
    let gone = verdict("shop/gone", 1, true);
    let mut other = verdict("shop/a", 1, true);
    one.say(
        [gone.clone(), verdict("shop/a", 1, true), verdict("shop/b", 1, false)]
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into(),
    );
    let problem = || one.live().now().into_iter().find(|shown| shown.what == "statuses of them").unwrap().problem;
    until("it is named", &|| {
        problem().is_some_and(|why| why.contains("verb `patch` on `workloadidentities/status` of core.riptides.io"))
    })
    .await;
    api.tell(|world| world.mood = Mood::Well);
    until("both are written", &|| !of(&api, "shop/b", "node-a").is_null()).await;
    assert_eq!(
        of(&api, "shop/a", "node-a"),
        json!({ "node": "node-a", "snapshot": 7, "conditions": [{ "type": "InForce", "status": "True", "observedGeneration": 1,
            "lastTransitionTime": "2027-01-15T08:00:00Z", "reason": "InForce", "message": "about shop/a" }] })
    );
    let refused = of(&api, "shop/b", "node-a");
    assert_eq!(
        (&refused["conditions"][0]["status"], &refused["conditions"][0]["reason"]),
        (&json!("False"), &json!("Refused"))
    );
    until("it is well again", &|| problem().is_none()).await;

    two.say([verdict("shop/a", 1, false)].into_iter().collect::<BTreeMap<_, _>>().into());
    until("the other node's", &|| !of(&api, "shop/a", "node-b").is_null()).await;
    assert_eq!(of(&api, "shop/a", "node-a")["snapshot"], 7, "this one's stays");
    // Only what is new is written.
    let before = api.asked("patch");
    other.1.uid = "another".into();
    one.say([gone, other, verdict("shop/b", 2, true)].into_iter().collect::<BTreeMap<_, _>>().into());
    until("the newer generation", &|| of(&api, "shop/b", "node-a")["conditions"][0]["observedGeneration"] == 2).await;
    assert_eq!(api.asked("patch"), before + 2);
    assert_eq!(of(&api, "shop/a", "node-a")["snapshot"], 7);
}
