//! Pods as the Kubernetes API tells of them, by a server that is right, lies, hangs, refuses and goes away.

mod kube_objects;

use std::time::Duration;

use ctrl::attest::pods::Pods;
use ctrl::config::{Gateway, load_files};
use ctrl::kubernetes::listed::Patience;
use ctrl::kubernetes::{Feed, start_with};
use ctrl::source::News;
use ctrl::view::Watched;
use pktgen_tests::played::kube_api::{Api, Mood, PODS, pod};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(40);

const PODS_ONLY: &str = "resources: none";

struct Rig {
    api: Api,
    feed: Feed,
    news: News,
    pods: Option<Pods>,
    _directory: TempDir,
}

fn gateway(api: &Api, directory: &TempDir, more: &str) -> Gateway {
    api.kubeconfig(directory.path());
    let text = "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: { name: node-a }\nspec:\n  trustDomain: example.com\n  \
                ports: [{ interface: in0, side: inside }]\n  \
                identity: { source: embedded, embedded: { directory: ca } }\n  kubernetes: { kubeconfig: kubeconfig, MORE }\n";
    let file = directory.path().join("gateway.yaml");
    load_files(&[(file, text.replace("MORE", more))]).unwrap_or_else(|faults| panic!("{faults:#?}")).gateway
}

impl Rig {
    async fn new(prepare: impl FnOnce(&Api)) -> Self {
        let short = Duration::from_millis(50);
        Self::with(Patience { back_off: short, ..Patience::default() }, prepare).await
    }

    async fn with(patience: Patience, prepare: impl FnOnce(&Api)) -> Self {
        let (api, directory, news) = (Api::start(), tempfile::tempdir().unwrap(), News::default());
        prepare(&api);
        let feed = start_with(&gateway(&api, &directory, PODS_ONLY), &news, patience).expect("it is asked for");
        Self { api, feed, news, pods: None, _directory: directory }
    }

    /// Until the pods that are known are these, by `name=address`.
    async fn until_pods(&mut self, want: &[&str]) {
        let told = |pods: &Pods| -> Vec<String> {
            let of = |pod: &ctrl::attest::pods::Pod| pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
            pods.iter().map(|(name, pod)| format!("{name}={}", of(pod).join("+"))).collect()
        };
        let all = async {
            loop {
                self.pods = self.feed.new_pods().or(self.pods.take());
                if self.pods.as_ref().is_some_and(|pods| told(pods) == want) {
                    return;
                }
                self.news.notified().await;
            }
        };
        let done = timeout(DEADLINE, all).await;
        done.unwrap_or_else(|_| {
            panic!("want {want:?}, have {:?}, shown {:?}", self.pods.as_ref().map(told), self.shown())
        });
    }

    fn shown(&self) -> Watched {
        self.feed.live().now().remove(0)
    }

    async fn until_shown(&self, what: &str, is: impl Fn(&Watched) -> bool) -> Watched {
        let until = Instant::now() + DEADLINE;
        loop {
            let shown = self.shown();
            if is(&shown) {
                return shown;
            }
            assert!(Instant::now() < until, "{what}: {shown:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_problem(&self, words: &str) -> Watched {
        self.until_shown(words, |shown| shown.problem.as_ref().is_some_and(|problem| problem.contains(words))).await
    }

    async fn until_watched(&self) -> Watched {
        self.until_shown("it is watched", |shown| shown.problem.is_none() && shown.since.is_some()).await
    }
}

fn web(number: u8, node: &str) -> serde_json::Value {
    pod(&format!("shop/web-{number}"), node, &format!("198.18.1.{number}"), &[("app", "web")])
}

#[tokio::test]
async fn pods_of_this_node_are_listed_page_by_page_and_each_change_follows() {
    let mut rig = Rig::new(|api| {
        api.tell(|world| {
            world.page = 2;
            (1..=5).for_each(|number| world.put(PODS, web(number, if number == 3 { "node-b" } else { "node-a" })));
        });
    })
    .await;
    rig.until_pods(&[
        "shop/web-1=198.18.1.1",
        "shop/web-2=198.18.1.2",
        "shop/web-4=198.18.1.4",
        "shop/web-5=198.18.1.5",
    ])
    .await;
    let shown = rig.until_watched().await;
    assert_eq!((shown.known, shown.lists, shown.failures), (Some(4), 1, 0), "{shown:?}");
    assert_eq!((shown.server, shown.what), (rig.api.url(), "pods of node node-a".into()));
    assert_eq!(rig.api.asked("list"), 2, "pages of two");

    rig.api.tell(|world| {
        world.remove(PODS, "shop/web-1");
        world.put(PODS, web(6, "node-a"));
        world.put(PODS, web(7, "node-b"));
        world.put(PODS, pod("shop/web-2", "node-a", "198.18.1.22", &[]));
    });
    rig.until_pods(&[
        "shop/web-2=198.18.1.22",
        "shop/web-4=198.18.1.4",
        "shop/web-5=198.18.1.5",
        "shop/web-6=198.18.1.6",
    ])
    .await;
    let of = rig.pods.as_ref().unwrap()["shop/web-6"].clone();
    assert_eq!(
        (of.uid.as_str(), of.service_account.as_str(), of.host_network),
        ("uid-of-web-6", "web-6-account", false)
    );
    assert_eq!(of.labels, [("app".to_owned(), "web".to_owned())].into());
    assert!(rig.pods.as_ref().unwrap()["shop/web-2"].labels.is_empty());

    // One that has ended has no address any more, whatever its status says; one that has none yet waits.
    let mut ended = web(4, "node-a");
    ended["status"]["phase"] = json!("Succeeded");
    let mut young = web(8, "node-a");
    young["status"] = json!({ "phase": "Pending" });
    rig.api.tell(|world| [ended, young].into_iter().for_each(|pod| world.put(PODS, pod)));
    rig.until_pods(&["shop/web-2=198.18.1.22", "shop/web-5=198.18.1.5", "shop/web-6=198.18.1.6", "shop/web-8="]).await;
    assert_eq!((rig.api.asked("list"), rig.api.asked("watch")), (2, 1), "changes came by the one watch");
}

#[tokio::test]
async fn a_server_that_is_restarted_is_asked_from_the_last_version_on_and_listed_again_if_that_is_gone() {
    let mut rig = Rig::new(|api| api.put(PODS, web(1, "node-a"))).await;
    rig.until_pods(&["shop/web-1=198.18.1.1"]).await;
    let heard = rig.until_watched().await.heard_at;
    rig.api.stop();
    rig.until_problem("refused").await;
    assert_eq!(rig.shown().known, Some(1), "what is known stays");
    rig.api.put(PODS, web(2, "node-a"));
    rig.api.serve();
    rig.until_pods(&["shop/web-1=198.18.1.1", "shop/web-2=198.18.1.2"]).await;
    let shown = rig.until_watched().await;
    assert_eq!((shown.lists, shown.failing_since), (1, None), "{shown:?}");
    assert!(shown.failures > 0 && shown.heard_at >= heard, "{shown:?}");

    // A bookmark is a version to go on from, even where all before it is forgotten.
    let watches = rig.api.asked("watch");
    rig.api.tell(|world| world.bookmark(PODS));
    rig.api.put(PODS, web(3, "node-a"));
    rig.until_pods(&["shop/web-1=198.18.1.1", "shop/web-2=198.18.1.2", "shop/web-3=198.18.1.3"]).await;
    rig.until_shown("from there it would go on", |shown| shown.version.as_deref() == Some("5")).await;
    rig.api.tell(|world| world.bookmark(PODS));
    rig.until_shown("it is heard", |shown| shown.version.as_deref() == Some("6")).await;
    rig.api.tell(|world| (world.compact(), world.mood = Mood::Curt).0);
    rig.until_problem("ended the watch at once").await;
    rig.api.tell(|world| (world.mood = Mood::Well, world.put(PODS, web(4, "node-a"))).0);
    let four = ["shop/web-1=198.18.1.1", "shop/web-2=198.18.1.2", "shop/web-3=198.18.1.3", "shop/web-4=198.18.1.4"];
    rig.until_pods(&four).await;
    assert!(rig.api.asked("watch") > watches);
    assert_eq!(rig.shown().lists, 1, "{:?}", rig.api.look(|world| world.requests.clone()));

    // What went while nobody was told is found by the list.
    for in_a_watch in [true, false] {
        let (lists, failures) = (rig.shown().lists, rig.shown().failures);
        if !in_a_watch {
            rig.api.stop();
        }
        let number = if in_a_watch { 1 } else { 2 };
        rig.api.tell(|world| {
            world.remove(PODS, &format!("shop/web-{number}"));
            world.compact();
        });
        if !in_a_watch {
            rig.api.serve();
        }
        rig.until_pods(&four[number..]).await;
        assert!(rig.shown().lists > lists);
        assert!(!in_a_watch || rig.shown().failures == failures, "falling behind is no failure");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_its_verb() {
    let message = "pods is forbidden: User \"system:serviceaccount:sluice:gateway\" cannot do that";
    let mut rig = Rig::new(|api| {
        api.tell(|world| world.mood = Mood::Refuses(Some("list"), 403, message));
        api.put(PODS, web(1, "node-a"));
    })
    .await;
    let shown = rig.until_problem("a ClusterRole of ours has to allow verb `list` on `pods` of the core group").await;
    assert!(shown.problem.unwrap().contains(message));
    assert_eq!((shown.known, rig.feed.is_listed()), (None, false));
    rig.api.tell(|world| world.mood = Mood::Refuses(Some("watch"), 403, message));
    rig.until_problem("verb `watch` on `pods`").await;
    rig.until_pods(&["shop/web-1=198.18.1.1"]).await;
    rig.api.tell(|world| (world.mood, world.token) = (Mood::Well, Some("another".into())));
    rig.until_problem("it does not know this token or certificate").await;
    rig.api.tell(|world| world.token = Some("let-me-in".into()));
    rig.until_watched().await;
}

#[tokio::test]
async fn whatever_a_server_says_wrong_is_named_and_leaves_what_is_known_in_force() {
    let mut rig = Rig::new(|api| api.put(PODS, web(1, "node-a"))).await;
    let item = |pod: serde_json::Value| json!({ "metadata": { "resourceVersion": "9" }, "items": [pod] }).to_string();
    let mut bad_address = web(2, "node-a");
    bad_address["metadata"]["resourceVersion"] = json!("9");
    bad_address["status"]["podIPs"] = json!([{ "ip": "198.18.1.300" }]);
    let crowd: Vec<_> = (0..5001)
        .map(|n| json!({ "metadata": { "name": format!("p{n}"), "namespace": "a", "uid": "u", "resourceVersion": "1" }, "spec": {} }))
        .collect();
    let crowd = json!({ "metadata": { "resourceVersion": "9" }, "items": crowd }).to_string();
    let cases: Vec<(Mood, &str)> = vec![
        (Mood::Says("no JSON at all".into()), "not understood: expected"),
        (Mood::Says("[]".into()), "not understood: "),
        (Mood::Says(json!({ "metadata": {} }).to_string()), "missing field `resourceVersion`"),
        (Mood::Says(item(json!({ "metadata": {}, "spec": {} }))), "missing field `name`"),
        (Mood::Says(item(bad_address)), "pod shop/web-2 has the address \"198.18.1.300\", which is none"),
        (Mood::Says(crowd), "it has 5001 pods of node node-a, at most 5000 are taken"),
        (Mood::Says(" ".repeat(33 << 20)), "more than 32 MiB at once"),
        (Mood::Refuses(None, 500, "etcd is on fire"), "500: etcd is on fire"),
        (Mood::Refuses(None, 429, "not so fast"), "429: not so fast"),
        (Mood::Curt, "ended the watch at once"),
        (Mood::Endless, "more than 32 MiB at once"),
    ];
    for (mood, words) in cases {
        rig.until_pods(&["shop/web-1=198.18.1.1"]).await;
        rig.until_watched().await;
        // So that the list is what it hears of next.
        rig.api.tell(|world| world.mood = Mood::Refuses(Some("watch"), 500, "go away"));
        rig.api.stop();
        rig.api.serve();
        rig.until_problem("go away").await;
        rig.api.tell(|world| world.mood = mood.clone());
        rig.until_problem(words).await;
        assert_eq!(rig.shown().known, Some(1), "{words}");
        rig.api.tell(|world| world.mood = Mood::Well);
        rig.until_watched().await;
    }
    // In a watch that stands.
    rig.api.tell(|world| world.mood = Mood::Says("{\"type\":\"ADDED\",\"object\":{}}".into()));
    rig.until_problem("not understood: missing field").await;
    rig.api.tell(|world| (world.mood = Mood::Well, world.remove(PODS, "shop/web-1")).0);
    rig.until_pods(&[]).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_asked_again() {
    let short = Duration::from_millis(300);
    let patience = Patience { answer: short * 5, silence: short, back_off: short };
    let mut rig = Rig::with(patience, |api| api.put(PODS, web(1, "node-a"))).await;
    rig.until_pods(&["shop/web-1=198.18.1.1"]).await;
    // Silence alone is no fault: the watch is asked for anew.
    rig.until_shown("it is asked again", |_| rig.api.asked("watch") > 3).await;
    rig.api.tell(|world| world.mood = Mood::Hangs);
    rig.until_problem("does not answer within").await;
    assert_eq!(rig.shown().known, Some(1));
    rig.api.tell(|world| (world.mood = Mood::Well, world.put(PODS, web(2, "node-a"))).0);
    rig.until_pods(&["shop/web-1=198.18.1.1", "shop/web-2=198.18.1.2"]).await;
    rig.until_watched().await;
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_yet_is_waited_for() {
    let (mut api, directory, news) = (Api::start(), tempfile::tempdir().unwrap(), News::default());
    let gateway = gateway(&api, &directory, PODS_ONLY);
    let file = directory.path().join("kubeconfig");
    let good = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let patience = Patience { back_off: Duration::from_millis(50), ..Patience::default() };
    let feed = start_with(&gateway, &news, patience).unwrap();
    api.stop();
    let mut rig = Rig { api, feed, news, pods: None, _directory: directory };
    rig.until_problem("kubeconfig: ").await;
    std::fs::write(&file, "{ nothing: of the kind").unwrap();
    rig.until_problem("failed to parse kubeconfig").await;
    std::fs::write(&file, good).unwrap();
    rig.until_problem("refused").await;
    rig.api.serve();
    rig.until_pods(&[]).await;
}
