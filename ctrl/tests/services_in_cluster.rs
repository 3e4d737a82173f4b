//! Services of a cluster: which endpoints take whose calls, and what becomes of that as a Service of ours.

mod words;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ctrl::config::Loaded;
use ctrl::resolve::Resolved;
use ctrl::services::cluster::{
    AllLed, ClusterService, Led, MOST_ENDPOINTS, MOST_VIRTUAL, MOST_VIRTUAL_OF_ALL, Slice, SliceEndpoint, SliceRow,
    State, fill, lead, named, problems,
};
use ctrl::services::leaving::Leaving;
use ctrl::services::{assemble, shown};
use words::{GATEWAY, differs, load, words};

const ASKS: (&str, &str) = ("spec:\n", "spec:\n  kubernetes: {}\n");

fn of_cluster(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\n\
         spec: {{ {spec} }}\n"
    )
}

/// On a node that asks the API.
fn loaded(services: &str) -> Loaded {
    let gateway = words::gateway(ASKS.0, ASKS.1);
    load(&[("s.yaml", services), ("g.yaml", &gateway)]).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)))
}

fn service(ips: &[&str], ports: &[(&str, u16)]) -> ClusterService {
    let ports = ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
    ClusterService { ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ports, ..ClusterService::default() }
}

/// `endpoints`: address, state, node.
fn slice(ports: &[(&str, u16)], endpoints: &[(&str, State, &str)]) -> Slice {
    let endpoint = |(ip, state, node): &(&str, State, &str)| SliceEndpoint {
        ip: ip.parse().unwrap(),
        state: *state,
        node: Some((*node).to_owned()),
    };
    Slice {
        name: "shop/web-abcde".into(),
        service: "shop/web".into(),
        ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn led(service: &ClusterService, slices: &[Slice]) -> Led {
    let other = Slice { service: "bank/web".into(), ..slice(&[("http", 8080)], &[("198.18.9.9", State::Ready, "a")]) };
    let named = BTreeSet::from(["shop/web".to_owned()]);
    let find = |name: &str| (name == "shop/web").then_some(service);
    lead(&named, find, slices.iter().chain([&other]), "node-a").remove("shop/web").unwrap()
}

/// Each virtual address with those that take its calls, then the endpoints; `!`: it is given none.
fn told(led: &Led) -> Vec<String> {
    let list = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let virtuals = led.virtual_addresses.iter().map(|(at, takes)| format!("{at} > {}", list(takes)));
    let endpoints = led.endpoints.iter().map(|(at, ready)| format!("{at}{}", if *ready { "" } else { "!" }));
    virtuals.chain(endpoints).collect()
}

#[test]
fn calls_go_where_kube_proxy_would_send_them() {
    use State::{Ending, NotReady, Ready};
    let one = service(&["10.96.0.1"], &[("http", 80)]);
    let local = ClusterService { local: true, ..one.clone() };
    let both = service(&["10.96.0.1", "fd00::1"], &[("http", 80), ("admin", 81)]);
    let http = [("http", 8080)];
    let (headless, unnamed) = (service(&[], &[("http", 80)]), service(&["10.96.0.1"], &[("", 80)]));
    type Case<'c> = (&'c str, &'c ClusterService, Vec<Slice>, &'c [&'c str]);
    let cases: Vec<Case<'_>> = vec![
        (
            "those that are ready",
            &one,
            vec![slice(
                &http,
                &[("198.18.2.2", Ready, "b"), ("198.18.2.3", NotReady, "b"), ("198.18.2.4", Ending, "b")],
            )],
            &["10.96.0.1:80 > 198.18.2.2:8080", "198.18.2.2:8080", "198.18.2.3:8080!", "198.18.2.4:8080!"],
        ),
        (
            "if none is, those that serve while they end",
            &one,
            vec![slice(&http, &[("198.18.2.3", NotReady, "b"), ("198.18.2.4", Ending, "b")])],
            &["10.96.0.1:80 > 198.18.2.4:8080", "198.18.2.3:8080!", "198.18.2.4:8080"],
        ),
        (
            "nobody",
            &one,
            vec![slice(&http, &[("198.18.2.3", NotReady, "b")])],
            &["10.96.0.1:80 > ", "198.18.2.3:8080!"],
        ),
        ("no slice", &one, vec![], &["10.96.0.1:80 > "]),
        (
            "several slices, and endpoints that are being moved from one to the other",
            &one,
            vec![
                slice(&http, &[("198.18.2.2", NotReady, "b"), ("198.18.2.3", Ready, "b")]),
                slice(&http, &[("198.18.2.2", Ready, "b"), ("198.18.2.3", Ending, "b")]),
            ],
            &["10.96.0.1:80 > 198.18.2.2:8080 198.18.2.3:8080", "198.18.2.2:8080", "198.18.2.3:8080"],
        ),
        (
            "a port has the number that its slice gives it, and an endpoint stands for its own family",
            &both,
            vec![
                slice(&[("http", 8080), ("admin", 9090)], &[("198.18.2.2", Ready, "b")]),
                slice(&[("http", 9090), ("metrics", 7070)], &[("198.18.2.3", Ready, "b")]),
                slice(&[("http", 8080)], &[("2001:db8::2", Ready, "b")]),
            ],
            &[
                "10.96.0.1:80 > 198.18.2.2:8080 198.18.2.3:9090",
                "10.96.0.1:81 > 198.18.2.2:9090",
                "[fd00::1]:80 > [2001:db8::2]:8080",
                "[fd00::1]:81 > ",
                "198.18.2.2:8080",
                "198.18.2.2:9090",
                "198.18.2.3:9090",
                "[2001:db8::2]:8080",
            ],
        ),
        (
            "one port's ending endpoint is another's not ready one",
            &both,
            vec![
                slice(&[("http", 8080)], &[("198.18.2.2", Ready, "b")]),
                slice(&[("http", 8080), ("admin", 9090)], &[("198.18.2.3", Ending, "b")]),
            ],
            &[
                "10.96.0.1:80 > 198.18.2.2:8080",
                "10.96.0.1:81 > 198.18.2.3:9090",
                "[fd00::1]:80 > ",
                "[fd00::1]:81 > ",
                "198.18.2.2:8080",
                "198.18.2.3:8080!",
                "198.18.2.3:9090",
            ],
        ),
        (
            "headless",
            &headless,
            vec![slice(&http, &[("198.18.2.2", Ready, "b"), ("198.18.2.3", NotReady, "b")])],
            &["198.18.2.2:8080", "198.18.2.3:8080!"],
        ),
        (
            "a port without a name",
            &unnamed,
            vec![slice(&[("", 8080)], &[("198.18.2.2", Ready, "b")])],
            &["10.96.0.1:80 > 198.18.2.2:8080", "198.18.2.2:8080"],
        ),
        (
            "those of this node alone",
            &local,
            vec![slice(&http, &[("198.18.2.2", Ready, "node-b"), ("198.18.2.3", Ending, "node-a")])],
            &["10.96.0.1:80 > 198.18.2.3:8080", "198.18.2.2:8080", "198.18.2.3:8080"],
        ),
    ];
    let wrong: String =
        cases.iter().filter_map(|(name, of, slices, want)| differs(name, &told(&led(of, slices)), want)).collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_leads_nowhere_says_why_and_what_is_too_much_is_counted() {
    let one = || vec![slice(&[("http", 8080)], &[("198.18.2.2", State::Ready, "b")])];
    let alias = ClusterService { alias: Some("web.example.com".into()), ..ClusterService::default() };
    let problem = |of: &ClusterService, slices: &[Slice]| led(of, slices).problem.unwrap_or_default();
    assert!(problem(&alias, &[]).contains("alias for \"web.example.com\" (ExternalName)"));
    assert!(problem(&service(&["10.96.0.1"], &[]), &one()).contains("no TCP port"));
    assert_eq!(problem(&service(&["10.96.0.1"], &[("http", 80)]), &one()), "");

    let crowd = |count: usize| vec![Slice { endpoints: many(count), ..slice(&[("http", 8080)], &[]) }];
    let web = service(&["10.96.0.1"], &[("http", 80)]);
    let (fits, over) = (led(&web, &crowd(MOST_ENDPOINTS)), led(&web, &crowd(MOST_ENDPOINTS + 3)));
    assert_eq!((fits.endpoints.len(), fits.problem), (MOST_ENDPOINTS, None));
    let why = over.problem.unwrap();
    assert_eq!((over.endpoints.len(), why.starts_with("3 of its endpoints are left out")), (MOST_ENDPOINTS, true));

    let names: Vec<_> = (0..=MOST_VIRTUAL).map(|n| format!("p{n}")).collect();
    let ports: Vec<_> = names.iter().zip(1..).map(|(name, port)| (name.as_str(), port)).collect();
    let (fits, over) = (led(&service(&["10.96.0.1"], &ports[1..]), &[]), led(&service(&["10.96.0.1"], &ports), &[]));
    assert_eq!((fits.virtual_addresses.len(), fits.problem), (MOST_VIRTUAL, None));
    let why = over.problem.unwrap();
    assert_eq!((over.virtual_addresses.len(), why.starts_with("1 of its ports are left out")), (MOST_VIRTUAL, true));
}

fn many(count: usize) -> Vec<SliceEndpoint> {
    let ip = |n: usize| Ipv4Addr::from(0xc612_0000 + n as u32).into();
    (0..count).map(|n| SliceEndpoint { ip: ip(n), state: State::Ready, node: None }).collect()
}

/// Whoever may write a Service and its slices says how much stands in them.
#[test]
fn what_services_ask_for_is_bounded_for_one_and_for_all_and_who_asks_for_little_gets_it() {
    let names: Vec<_> = (0..MOST_VIRTUAL).map(|n| format!("p{n}")).collect();
    let ports: Vec<_> = names.iter().zip(1..).map(|(name, port)| (name.as_str(), port)).collect();
    let huge = service(&["10.96.0.1"], &ports);
    let same: Vec<_> = names.iter().map(|name| (name.as_str(), 8080)).collect();
    let crowd = Slice { endpoints: many(MOST_ENDPOINTS), ..slice(&same, &[]) };
    let small = Slice { service: "shop/small".into(), ..slice(&[("p0", 8080)], &[("198.19.2.2", State::Ready, "a")]) };
    let mut all = vec![crowd.clone(), small];
    all.extend((0..9).map(|n| Slice { service: format!("evil/{n}"), ..crowd.clone() }));
    let named: BTreeSet<_> = all.iter().map(|slice| slice.service.clone()).collect();
    let led = lead(&named, |_| Some(&huge), all.iter(), "node-a");
    let behind = |led: &Led| led.virtual_addresses.iter().map(|(_, takes)| takes.len()).sum::<usize>();
    assert!(behind(&led["shop/small"]) == 1 && led["shop/small"].problem.is_none(), "{:?}", led["shop/small"].problem);
    let most = led.values().flat_map(|led| &led.virtual_addresses).map(|(_, takes)| takes.len()).max();
    assert_eq!(most, Some(snapshot::balance::MOST_ENDPOINTS), "behind one virtual address");
    assert!(led.values().map(behind).sum::<usize>() <= snapshot::balance::MOST_ENDPOINTS_OF_ALL);
    // What has no room leads nowhere, and is no less captured for it.
    assert!(led.values().all(|led| led.virtual_addresses.len() == MOST_VIRTUAL));
    let full = led.values().filter(|led| led.problem.as_ref().is_some_and(|why| why.contains("are left out"))).count();
    assert!(full >= 9, "{full} say so");

    let named: BTreeSet<_> = (0..200).map(|n| format!("evil/{n}")).collect();
    let led = lead(&named, |_| Some(&huge), [].into_iter(), "node-a");
    assert_eq!(led.values().map(|led| led.virtual_addresses.len()).sum::<usize>(), MOST_VIRTUAL_OF_ALL);
}

#[test]
fn a_slice_is_told_of_with_how_its_endpoints_do() {
    use State::{Ending, NotReady, Ready};
    let endpoints = [("198.18.2.2", Ready, "b"), ("198.18.2.3", NotReady, "b"), ("198.18.2.4", Ending, "b")];
    let told = led(&service(&["10.96.0.1"], &[("http", 80)]), &[slice(&[("http", 8080), ("", 9090)], &endpoints)]);
    let (name, ports) = ("shop/web-abcde".to_owned(), vec!["http:8080".to_owned(), "9090".to_owned()]);
    assert_eq!(told.slices, [SliceRow { name, ports, ready: 1, ending: 1, not_ready: 1 }]);
}

fn all(led: impl IntoIterator<Item = (&'static str, Led)>) -> AllLed {
    Arc::new(led.into_iter().map(|(name, led)| (name.to_owned(), led)).collect::<BTreeMap<_, _>>())
}

fn leading(virtuals: &[(&str, &[&str])], endpoints: &[&str]) -> Led {
    let at = |text: &&str| text.parse::<SocketAddr>().unwrap();
    let in_order = |takes: &[&str]| takes.iter().map(at).collect::<BTreeSet<_>>().into_iter().collect();
    let virtuals = virtuals.iter().map(|(address, takes)| (at(address), in_order(takes)));
    Led {
        virtual_addresses: virtuals.collect(),
        endpoints: endpoints.iter().map(|address| (at(address), true)).collect(),
        problem: None,
        slices: vec![],
    }
}

#[test]
fn a_service_leads_where_the_clusters_does_until_that_is_gone() {
    let text = of_cluster("web", "kubernetes: { name: web }, labels: { app: web }");
    let mut loaded = loaded(&text);
    assert_eq!(named(&loaded), BTreeSet::from(["shop/web".to_owned()]));
    assert!(!fill(&mut loaded, &AllLed::default(), &Leaving::default()));
    let unlisted = problems(&loaded, &AllLed::default());
    assert!(
        unlisted[0].starts_with("Service shop/web: shop/web in the cluster: it has not been listed yet"),
        "{unlisted:?}"
    );

    let two = ["198.18.2.2:8080", "198.18.2.3:8080", "198.18.2.3:9090"];
    let there = all([("shop/web", leading(&[("10.96.0.1:80", &two[..2]), ("10.96.0.1:81", &two[2..])], &two))]);
    assert!(
        fill(&mut loaded, &there, &Leaving::default()) && !fill(&mut loaded, &there, &Leaving::default()),
        "it says what is new, and that nothing is"
    );
    assert_eq!(problems(&loaded, &there), [""; 0]);
    let (services, warnings) = assemble(&loaded, &Resolved::default(), &HashSet::new());
    assert_eq!(words(&warnings), [""; 0]);
    let row = shown(&loaded, &services).remove(0);
    let virtuals: Vec<_> = row.virtual_addresses.iter().map(|v| (v.address.to_string(), v.endpoints.clone())).collect();
    let at = |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|text| text.parse().unwrap()).collect() };
    assert_eq!(virtuals, [("10.96.0.1:80".into(), at(&two[..2])), ("10.96.0.1:81".into(), at(&two[2..]))]);
    assert_eq!((row.endpoints.len(), row.kubernetes.as_deref()), (3, Some("shop/web")));

    let gone = Led { problem: Some("there is none of that name".into()), ..Led::default() };
    let gone = all([("shop/web", gone)]);
    assert!(fill(&mut loaded, &gone, &Leaving::default()));
    let (services, _) = assemble(&loaded, &Resolved::default(), &HashSet::new());
    assert_eq!((services[0].endpoints.len(), services[0].virtual_addresses.len()), (0, 0));
    assert_eq!(problems(&loaded, &gone), ["Service shop/web: shop/web in the cluster: there is none of that name"]);
}

/// Whoever may write to the cluster must not be able to keep a node from changing.
#[test]
fn what_a_cluster_says_against_a_file_or_itself_costs_its_own_address_and_no_more() {
    let text = [
        of_cluster("a", "kubernetes: { name: a }"),
        of_cluster("b", "kubernetes: { name: b }"),
        of_cluster(
            "file",
            "addresses: [{ address: 10.96.0.7, port: 80 }], virtualAddresses: [{ address: 10.96.0.8, port: 80 }]",
        ),
    ];
    let mut loaded = loaded(&text.concat());
    let (one, two) = ("198.18.2.2:8080", "198.18.2.3:8080");
    let a = leading(&[("10.96.0.1:80", &[one]), ("10.96.0.7:80", &[one]), ("10.96.0.8:80", &[one])], &[one]);
    let b = leading(&[("10.96.0.1:80", &[two]), ("10.96.0.2:80", &[two, "10.96.0.1:80"])], &[two, "10.96.0.1:80"]);
    fill(&mut loaded, &all([("shop/a", a), ("shop/b", b)]), &Leaving::default());
    let (services, warnings) = assemble(&loaded, &Resolved::default(), &HashSet::new());
    let of = |nth: usize| -> Vec<String> {
        let service: &snapshot::Service = &services[nth];
        let virtuals = service.virtual_addresses.iter().map(|v| format!("{} > {}", v.address, v.endpoints.len()));
        virtuals.chain(service.endpoints.iter().map(|endpoint| endpoint.address.to_string())).collect()
    };
    assert_eq!(of(0), ["10.96.0.1:80 > 1", one]);
    assert_eq!(of(1), ["10.96.0.2:80 > 1", two]);
    assert_eq!(of(2), ["10.96.0.8:80 > 1", "10.96.0.7:80"]);
    let warnings = words(&warnings).join("\n");
    for words in [
        "10.96.0.7:80 of the cluster is another Service's address",
        "10.96.0.8:80 of the cluster is another Service's address",
        "10.96.0.1:80 of the cluster is another Service's address",
        "an endpoint is 10.96.0.1:80, which is a virtual address",
    ] {
        assert!(warnings.contains(words), "{words}: {warnings}");
    }
}

#[test]
fn a_service_is_of_a_cluster_or_by_addresses_and_is_named_once() {
    let one = of_cluster("web", "kubernetes: { namespace: bank, name: web }");
    let cases = [
        (
            of_cluster("a", "kubernetes: { name: web }, addresses: []"),
            "s.yaml:5:21: error: spec.kubernetes: what this leads to is the cluster's to say [leave addresses and \
             virtualAddresses out, or give them to a Service of their own]",
        ),
        (
            of_cluster("a", "kubernetes: { name: web }, virtualAddresses: []"),
            "s.yaml:5:21: error: spec.kubernetes: what this leads to is the cluster's to say [leave addresses and \
             virtualAddresses out, or give them to a Service of their own]",
        ),
        (of_cluster("a", "labels: {}"), "s.yaml:5:7: error: spec.addresses: is missing"),
        (of_cluster("a", "kubernetes: { namespace: bank }"), "s.yaml:5:21: error: spec.kubernetes.name: is missing"),
        (
            of_cluster("a", "kubernetes: { name: Web }"),
            "s.yaml:5:29: error: spec.kubernetes.name: \"Web\": not a resource name [as `kubectl get \
             services -A` shows it]",
        ),
        (
            format!("{one}{}", of_cluster("twin", "kubernetes: { namespace: bank, name: web }")),
            "s.yaml:5:21: error: spec.kubernetes: bank/web is named twice, first by shop/twin in s.yaml:7 [a Service of a \
             cluster is one Service here: give that one all the labels]",
        ),
    ];
    let mut wrong = String::new();
    let asks = words::gateway(ASKS.0, ASKS.1);
    for (text, want) in &cases {
        let found = load(&[("s.yaml", text), ("g.yaml", &asks)]).map_or_else(|faults| words(&faults), |_| vec![]);
        wrong += &differs(text, &found, &[want]).unwrap_or_default();
    }
    assert!(wrong.is_empty(), "{wrong}");
    let warned = |gateway: &str| words(&load(&[("s.yaml", &one), ("g.yaml", gateway)]).unwrap().warnings);
    assert_eq!(warned(&asks), [""; 0]);
    let some = words::gateway(ASKS.0, "spec:\n  kubernetes: { namespaces: [shop] }\n");
    assert!(warned(&some)[0].contains("the Gateway's kubernetes.namespaces lack bank"), "{:?}", warned(&some));
    assert!(warned(GATEWAY)[0].contains("the Gateway has no `kubernetes`"), "{:?}", warned(GATEWAY));
    // Nor does a rule match nothing, as long as nobody knows where the Service leads.
    let caller = "---\napiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: { name: w }\nspec:\n  \
                  workloadID: w\n  selectors: [{ net:ip: 203.0.113.12 }]\n  allowedSPIFFEIDs: { inbound: [], outbound: [] }\n  \
                  egress: [{ selectors: [{ app: web }] }]\n---\napiVersion: sluice.dev/v1alpha1\nkind: Policy\n\
                  metadata: { name: p }\nspec:\n  workloads: [default/w]\n  \
                  rules: [{ action: allow, direction: outbound, peers: [\"spiffe://example.com/b\"], ports: [8080] }]\n";
    let text = of_cluster("web", "kubernetes: { name: web }, labels: { app: web }") + caller;
    let loaded = load(&[("s.yaml", &text), ("g.yaml", &asks)]).unwrap_or_else(|f| panic!("{:#?}", words(&f)));
    assert_eq!(words(&loaded.warnings), [""; 0]);
}
