//! Services of a cluster and their slices, as an API server tells of them: in parts, while they move, and when
//! it forgets, lies or goes away.

use std::collections::BTreeSet;
use std::time::Duration;

use ctrl::config::load_files;
use ctrl::kubernetes::listed::Patience;
use ctrl::kubernetes::{Feed, start_with};
use ctrl::services::cluster::AllLed;
use ctrl::source::News;
use ctrl::view::Watched;
use pktgen_tests::played::kube_api::{Api, CLUSTER_SERVICES, Mood, SLICES, cluster_service, ready, slice};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(40);

struct Rig {
    api: Api,
    feed: Feed,
    news: News,
    led: Option<AllLed>,
    _directory: TempDir,
}

impl Rig {
    fn new(more: &str, prepare: impl FnOnce(&Api)) -> Self {
        let (api, directory, news) = (Api::start(), tempfile::tempdir().unwrap(), News::default());
        prepare(&api);
        api.kubeconfig(directory.path());
        let text = "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: { name: node-a }\nspec:\n  trustDomain: example.com\n  \
                    ports: [{ interface: in0, side: inside }]\n  \
                    identity: { source: embedded, embedded: { directory: ca } }\n  \
                    kubernetes: { kubeconfig: kubeconfig, resources: none, MORE }\n";
        let file = directory.path().join("gateway.yaml");
        let loaded = load_files(&[(file, text.replace("MORE", more))]).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let patience = Patience { back_off: Duration::from_millis(50), ..Patience::default() };
        let feed = start_with(&loaded.gateway, &news, patience).expect("it is asked for");
        Self { api, feed, news, led: None, _directory: directory }
    }

    fn name(&self, names: &[&str]) {
        self.feed.name_services(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
    }

    /// Each Service with its virtual addresses and those that take their calls, or what is wrong with it.
    async fn until_led(&mut self, want: &[&str]) {
        let told = |led: &AllLed| -> Vec<String> {
            let of = |(name, led): (&String, &ctrl::services::cluster::Led)| {
                let virtuals = led.virtual_addresses.iter().map(|(at, takes)| {
                    let takes: Vec<_> = takes.iter().map(ToString::to_string).collect();
                    format!(" {at}>{}", takes.join("+"))
                });
                format!("{name}{}{}", virtuals.collect::<String>(), led.problem.as_deref().unwrap_or_default())
            };
            led.iter().map(of).collect()
        };
        let all = async {
            loop {
                self.led = self.feed.new_services().or(self.led.take());
                if self.led.as_ref().is_some_and(|led| told(led) == want) {
                    return;
                }
                self.news.notified().await;
            }
        };
        let done = timeout(DEADLINE, all).await;
        done.unwrap_or_else(|_| {
            panic!("want {want:?}, have {:?}, shown {:?}", self.led.as_ref().map(told), self.feed.live().now())
        });
    }

    fn shown(&self, what: &str) -> Option<Watched> {
        self.feed.live().now().into_iter().find(|shown| shown.what == what)
    }

    async fn until_watched(&self, what: &str) {
        let until = Instant::now() + DEADLINE;
        while self.shown(what).is_none_or(|shown| shown.problem.is_some()) {
            assert!(Instant::now() < until, "{:?}", self.feed.live().now());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_problem(&self, what: &str, words: &str) {
        let until = Instant::now() + DEADLINE;
        while !self.shown(what).and_then(|shown| shown.problem).is_some_and(|problem| problem.contains(words)) {
            assert!(Instant::now() < until, "{words}: {:?}", self.feed.live().now());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn web(api: &Api) {
    api.put(CLUSTER_SERVICES, cluster_service("shop/web", &["10.96.0.1"], &[("http", 80, "TCP"), ("dns", 53, "UDP")]));
    api.put(SLICES, slice("shop/web-1", "web", &[("http", 8080)], &[("198.18.2.2", ready())]));
}

#[tokio::test]
async fn endpoints_of_a_service_are_followed_over_its_slices_as_they_move() {
    let mut rig = Rig::new("", |api| {
        web(api);
        api.put(CLUSTER_SERVICES, cluster_service("bank/web", &["10.96.0.9"], &[("http", 80, "TCP")]));
        api.put(SLICES, slice("bank/web-1", "web", &[("http", 8080)], &[("198.18.9.9", ready())]));
        api.put(SLICES, slice("shop/other-1", "other", &[("http", 8080)], &[("198.18.9.8", ready())]));
    });
    // Nobody asks the server for what nobody names.
    rig.news.notified().await;
    assert_eq!(rig.api.asked("list /api/v1/services") + rig.api.asked("list /apis/discovery"), 0);
    rig.name(&["shop/web"]);
    assert!(!rig.feed.is_listed(), "it is waited for");
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080"]).await;
    assert!(rig.feed.is_listed());
    let slices = rig.shown("endpointslices").unwrap();
    assert_eq!(slices.known, Some(1), "those of that Service, and of no other: {slices:?}");

    // A second slice, with another number for the port; the families are apart.
    rig.api.put(SLICES, slice("shop/web-2", "web", &[("http", 9090)], &[("198.18.2.3", ready())]));
    rig.api.put(SLICES, slice("shop/web-6", "web", &[("http", 8080)], &[("2001:db8::2", ready())]));
    let both = ["10.96.0.1", "fd00::1"];
    rig.api.put(CLUSTER_SERVICES, cluster_service("shop/web", &both, &[("http", 80, "TCP")]));
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080+198.18.2.3:9090 [fd00::1]:80>[2001:db8::2]:8080"]).await;
    rig.api.remove(SLICES, "shop/web-6");

    // An endpoint moves from one slice to the other, and for a while it is in both.
    let ends = json!({ "ready": false, "serving": true, "terminating": true });
    rig.api.put(
        SLICES,
        slice("shop/web-2", "web", &[("http", 8080)], &[("198.18.2.3", ready()), ("198.18.2.2", ready())]),
    );
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080+198.18.2.3:8080 [fd00::1]:80>"]).await;
    rig.api.remove(SLICES, "shop/web-1");
    rig.api
        .put(SLICES, slice("shop/web-2", "web", &[("http", 8080)], &[("198.18.2.3", ends), ("198.18.2.2", json!({}))]));
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080 [fd00::1]:80>"]).await;

    // Another one is named: it is asked anew, and what is known stays meanwhile.
    rig.name(&["shop/web", "bank/web", "shop/nobody"]);
    let nobody = "shop/nobodythere is none of that name";
    rig.until_led(&[
        "bank/web 10.96.0.9:80>198.18.9.9:8080",
        nobody,
        "shop/web 10.96.0.1:80>198.18.2.2:8080 [fd00::1]:80>",
    ])
    .await;
    rig.api.remove(CLUSTER_SERVICES, "bank/web");
    rig.until_led(&[
        "bank/webthere is none of that name",
        nobody,
        "shop/web 10.96.0.1:80>198.18.2.2:8080 [fd00::1]:80>",
    ])
    .await;
    assert!(rig.led.as_ref().unwrap()["bank/web"].endpoints.is_empty(), "it has none any more, whatever slices say");
    rig.name(&[]);
    let until = Instant::now() + DEADLINE;
    while rig.shown("endpointslices").is_some() {
        assert!(Instant::now() < until, "nobody asks any more: {:?}", rig.feed.live().now());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_server_forgets_or_says_wrong_leaves_the_last_endpoints_in_force() {
    let mut rig = Rig::new("", web);
    rig.name(&["shop/web"]);
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080"]).await;
    // What changed while it was away, and is remembered no more, is found by the list.
    rig.api.stop();
    rig.until_problem("endpointslices", "refused").await;
    assert_eq!(rig.shown("endpointslices").unwrap().known, Some(1));
    rig.api.tell(|world| {
        world.put(SLICES, slice("shop/web-2", "web", &[("http", 8080)], &[("198.18.2.3", ready())]));
        world.remove(SLICES, "shop/web-1");
        world.compact();
    });
    rig.api.serve();
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.3:8080"]).await;
    let lists = rig.shown("endpointslices").unwrap().lists;
    assert!(lists > 1, "410 Gone: it was listed again");

    let message = "endpointslices.discovery.k8s.io is forbidden";
    rig.api.tell(|world| world.mood = Mood::Refuses(Some("watch"), 403, message));
    rig.api.stop();
    rig.api.serve();
    rig.until_problem("endpointslices", "verb `watch` on `endpointslices` of discovery.k8s.io").await;
    rig.until_problem("Kubernetes services", "verb `watch` on `services` of the core group").await;
    rig.api.tell(|world| world.mood = Mood::Well);
    rig.until_watched("endpointslices").await;
}

/// A server takes any port and, of old, addresses that are none here; whose they are must not stop everybody else's.
#[tokio::test]
async fn an_odd_slice_or_service_is_left_as_it_was_and_holds_nobody_up() {
    let mut rig = Rig::new("", |api| {
        web(api);
        api.put(SLICES, slice("shop/web-9", "web", &[("http", 8080)], &[("198.18.2.300", ready())]));
        api.put(SLICES, slice("evil/web-1", "web", &[("http", 8080)], &[("198.18.2.301", ready())]));
        api.put(CLUSTER_SERVICES, cluster_service("evil/web", &["10.96.0.300"], &[("http", 80, "TCP")]));
    });
    rig.name(&["shop/web"]);
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080"]).await;
    let odd = |rig: &Rig| rig.shown("endpointslices").map(|shown| (shown.odd, shown.first_odd.unwrap_or_default()));
    let why = "EndpointSlice shop/web-9 has the address \"198.18.2.300\", which is none";
    assert_eq!(odd(&rig), Some((1, why.into())), "the one that is named, and no other");
    assert_eq!(rig.shown("Kubernetes services").unwrap().odd, 0);

    // While it is watched: what is odd stays as it was, and what comes after it is heard.
    let ports = |numbers: serde_json::Value| {
        let mut it = slice("shop/web-2", "web", &[], &[("198.18.2.3", ready())]);
        it["ports"] = numbers;
        it
    };
    let number = |port: i64| json!({ "name": "http", "port": port, "protocol": "TCP" });
    rig.api.put(SLICES, ports(json!([number(70_000), number(-1), number(9090)])));
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080+198.18.2.3:9090"]).await;
    rig.api.put(SLICES, slice("shop/web-1", "web", &[("http", 8080)], &[("198.18.2.400", ready())]));
    rig.api.put(SLICES, ports(json!([number(7070)])));
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.2:8080+198.18.2.3:7070"]).await;
    assert_eq!(odd(&rig).unwrap().0, 2);
    rig.api.put(SLICES, slice("shop/web-1", "web", &[("http", 8080)], &[("198.18.2.4", ready())]));
    rig.api.remove(SLICES, "shop/web-9");
    rig.until_led(&["shop/web 10.96.0.1:80>198.18.2.3:7070+198.18.2.4:8080"]).await;
    let until = Instant::now() + DEADLINE;
    while odd(&rig).unwrap().0 > 0 {
        assert!(Instant::now() < until, "{:?}", rig.shown("endpointslices"));
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.shown("endpointslices").unwrap().failures, 0);
}

#[tokio::test]
async fn slices_that_are_no_addresses_and_ports_that_are_no_tcp_lead_nowhere() {
    let mut rig = Rig::new("namespaces: [shop, bank]", |api| {
        web(api);
        let mut names = slice("shop/web-2", "web", &[("http", 8080)], &[("web.example.com", ready())]);
        names["addressType"] = json!("FQDN");
        api.put(SLICES, names);
        let mut all_ports = slice("shop/web-3", "web", &[("http", 1)], &[("198.18.2.9", ready())]);
        all_ports["ports"] = json!([{ "name": "http", "port": null, "protocol": "TCP" }]);
        api.put(SLICES, all_ports);
        let mut other_protocol = slice("shop/web-4", "web", &[("http", 8080)], &[("198.18.2.8", ready())]);
        other_protocol["ports"][0]["protocol"] = json!("SCTP");
        api.put(SLICES, other_protocol);
        let mut empty = slice("shop/web-5", "web", &[], &[]);
        (empty["ports"], empty["endpoints"]) = (json!(null), json!(null));
        api.put(SLICES, empty);
        let mut alias = cluster_service("bank/alias", &[], &[]);
        alias["spec"] = json!({ "type": "ExternalName", "externalName": "bank.example.com" });
        api.put(CLUSTER_SERVICES, alias);
        let mut old = cluster_service("bank/old", &["10.96.0.3"], &[("", 80, "TCP")]);
        for field in ["clusterIPs", "internalTrafficPolicy"] {
            old["spec"].as_object_mut().unwrap().remove(field);
        }
        old["spec"]["ports"][0].as_object_mut().unwrap().retain(|name, _| name == "port");
        api.put(CLUSTER_SERVICES, old);
        api.put(SLICES, slice("bank/old-1", "old", &[("", 8080)], &[("198.18.2.7", json!({ "ready": null }))]));
        api.put(CLUSTER_SERVICES, cluster_service("elsewhere/web", &["10.96.0.4"], &[("http", 80, "TCP")]));
    });
    rig.name(&["shop/web", "bank/alias", "bank/old", "elsewhere/web"]);
    rig.until_led(&[
        "bank/aliasit is an alias for \"bank.example.com\" (ExternalName): name that in `addresses`",
        "bank/old 10.96.0.3:80>198.18.2.7:8080",
        "elsewhere/webthere is none of that name",
        "shop/web 10.96.0.1:80>198.18.2.2:8080",
    ])
    .await;
    assert_eq!(rig.api.asked("list /api/v1/namespaces/shop/services"), 1);
    assert_eq!(rig.api.asked("list /api/v1/services"), 0, "only what it may be allowed is asked for");
}

#[tokio::test]
async fn so_many_names_that_a_url_would_be_too_long_are_asked_for_as_all() {
    let names: Vec<_> = (0..200).map(|n| format!("shop/a-service-with-a-long-name-{n}")).collect();
    let mut rig = Rig::new("", web);
    let mut all: Vec<_> = names.iter().map(String::as_str).collect();
    all.push("shop/web");
    rig.name(&all);
    let led = async {
        loop {
            if let Some(led) = rig.feed.new_services() {
                return led;
            }
            rig.news.notified().await;
        }
    };
    let led = timeout(DEADLINE, led).await.expect("they are listed");
    assert_eq!((led.len(), led["shop/web"].endpoints.len()), (201, 1));
    let longest = rig.api.look(|world| world.requests.iter().map(String::len).max().unwrap());
    assert!(longest < 1_000, "{longest}");
}
