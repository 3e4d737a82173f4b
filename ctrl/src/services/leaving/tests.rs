//! What has left, as time goes by and others come.

use super::*;
use crate::attest::pods::Pod;
use crate::config::load_files;
use crate::services::cluster::{fill, problems};
use crate::services::{assemble, shown};

const WEB: &str = "kubernetes: { name: web }";
const BOTH: [&str; 2] = ["198.18.2.2:8080", "198.18.2.3:8080"];

/// A node, what is listed and in force there, and what has left.
struct Node {
    loaded: Loaded,
    resolved: Resolved,
    listed: AllLed,
    leaving: Leaving,
    pods: Pods,
    begun: Instant,
}

fn loaded(services: &[(&str, &str)]) -> Loaded {
    let gateway = include_str!("../../../tests/data/gateway.yaml").replacen("spec:\n", "spec:\n  kubernetes: {}\n", 1);
    let service = |(name, spec): &(&str, &str)| {
        format!(
            "---\napiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\n\
             spec: {{ {spec} }}\n"
        )
    };
    let text: String = services.iter().map(service).collect();
    let files = [("g.yaml".into(), gateway), ("s.yaml".into(), text)];
    load_files(&files).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Virtual addresses with those that take their calls, and endpoints.
fn led(virtuals: &[(&str, &[&str])], endpoints: &[&str]) -> Led {
    let takes = |takes: &[&str]| takes.iter().map(|text| at(text)).collect();
    Led {
        virtual_addresses: virtuals.iter().map(|(text, behind)| (at(text), takes(behind))).collect(),
        endpoints: endpoints.iter().map(|text| (at(text), true)).collect(),
        problem: None,
        ..Led::default()
    }
}

fn web(endpoints: &[&str]) -> Led {
    led(&[("10.96.0.1:80", endpoints)], endpoints)
}

impl Node {
    /// Whose Service `web` leads to both.
    fn new(services: &[(&str, &str)]) -> Self {
        let loaded = loaded(services);
        let resolved = crate::resolve::of_hosts(&loaded);
        let (listed, leaving, pods) = Default::default();
        let mut node = Self { loaded, resolved, listed, leaving, pods, begun: Instant::now() };
        node.lists(0, &[("shop/web", web(&BOTH))]);
        node
    }

    fn see(&mut self, loaded: &Loaded, seconds: u64) {
        let (before, now) = (Before { in_force: &self.loaded, resolved: &self.resolved }, Duration::from_secs(seconds));
        self.leaving.see(loaded, &self.listed, before, &self.pods, self.begun + now);
    }

    /// So many seconds after the beginning. True: something is other than before.
    fn passes(&mut self, seconds: u64) -> bool {
        self.see(&self.loaded.clone(), seconds);
        fill(&mut self.loaded, &self.listed, &self.leaving)
    }

    fn lists(&mut self, seconds: u64, all: &[(&str, Led)]) {
        self.listed = Arc::new(all.iter().map(|(name, led)| ((*name).to_owned(), led.clone())).collect());
        self.passes(seconds);
    }

    /// The configuration is another from now on.
    fn becomes(&mut self, seconds: u64, services: &[(&str, &str)]) {
        let mut loaded = loaded(services);
        self.see(&loaded, seconds);
        fill(&mut loaded, &self.listed, &self.leaving);
        self.loaded = loaded;
        self.resolved = crate::resolve::of_hosts(&self.loaded);
    }

    fn ends(&self) -> Option<u64> {
        self.leaving.next_end().map(|end| (end - self.begun).as_secs())
    }

    /// Of the snapshot, each virtual address with those that take its calls, and each endpoint; `!`: it is given none.
    fn leads(&self) -> Vec<String> {
        let (services, _) = assemble(&self.loaded, &self.resolved, &HashSet::new());
        let mut all = vec![];
        for row in shown(&self.loaded, &services) {
            let name = row.name.strip_prefix("shop/").unwrap().to_owned();
            all.extend(row.virtual_addresses.iter().map(|v| format!("{name} {} > {:?}", v.address, v.endpoints)));
            let ready = |ready: bool| if ready { "" } else { "!" };
            all.extend(row.endpoints.iter().map(|of| format!("{name} {}{}", of.address, ready(of.ready))));
        }
        all
    }
}

#[tokio::test]
async fn an_endpoint_that_left_its_slices_stays_for_a_time_of_its_own_and_is_given_no_calls() {
    let mut node = Node::new(&[("web", WEB)]);
    let both = "web 10.96.0.1:80 > [198.18.2.2:8080, 198.18.2.3:8080]";
    assert_eq!(
        (node.leads(), node.ends()),
        (vec![both.into(), "web 198.18.2.2:8080".into(), "web 198.18.2.3:8080".into()], None)
    );
    node.lists(100, &[("shop/web", web(&BOTH[1..]))]);
    let one = ["web 10.96.0.1:80 > [198.18.2.3:8080]", "web 198.18.2.2:8080!", "web 198.18.2.3:8080"];
    assert_eq!((node.leads(), node.ends()), (one.map(str::to_owned).to_vec(), Some(160)));
    // Each has its own time, whatever else goes on.
    node.lists(130, &[("shop/web", web(&[]))]);
    let none = ["web 10.96.0.1:80 > []", "web 198.18.2.2:8080!", "web 198.18.2.3:8080!"];
    assert_eq!((node.leads(), node.ends()), (none.map(str::to_owned).to_vec(), Some(160)));
    assert!(!node.passes(159), "nothing is over");
    assert_eq!(node.leads(), none);
    assert!(node.passes(160));
    assert_eq!((node.leads(), node.ends()), (vec![none[0].to_owned(), none[2].to_owned()], Some(190)));
    // One that comes back is as it was; when it leaves again it has its whole time again.
    node.lists(180, &[("shop/web", web(&BOTH[1..]))]);
    assert_eq!((node.leads(), node.ends()), (vec![one[0].to_owned(), one[2].to_owned()], None));
    node.lists(300, &[("shop/web", web(&[]))]);
    assert_eq!(node.ends(), Some(360));
    assert!(node.passes(400) && !node.passes(401));
    assert_eq!((node.leads(), node.ends(), node.leaving), (vec![none[0].to_owned()], None, Leaving::default()));
}

#[tokio::test]
async fn a_cluster_ip_that_is_gone_leads_nowhere_for_a_while() {
    let mut node = Node::new(&[("web", WEB)]);
    let gone = Led { problem: Some("there is none of that name".into()), ..Led::default() };
    node.lists(0, &[("shop/web", gone)]);
    assert_eq!(node.leads(), ["web 10.96.0.1:80 > []", "web 198.18.2.2:8080!", "web 198.18.2.3:8080!"]);
    assert_eq!(problems(&node.loaded, &node.listed).len(), 1, "it is told of at once");
    // It may be another by then, which is called at once.
    node.lists(30, &[("shop/web", led(&[("10.96.0.2:80", &BOTH[..1])], &BOTH[..1]))]);
    let other = [
        "web 10.96.0.2:80 > [198.18.2.2:8080]",
        "web 10.96.0.1:80 > []",
        "web 198.18.2.2:8080",
        "web 198.18.2.3:8080!",
    ];
    assert_eq!(node.leads(), other);
    node.passes(60);
    assert_eq!(node.leads(), [other[0], other[2]]);
}

/// Anybody's who has it by then.
#[tokio::test]
async fn what_left_and_is_somebody_elses_by_now_is_theirs_at_once() {
    let api = |endpoints: &[&str], ip: &str| led(&[(ip, endpoints)], endpoints);
    let stays = ["web 10.96.0.1:80 > []", "web 198.18.2.2:8080!", "web 198.18.2.3:8080!"];
    for (name, other, listed, want) in [
        (
            "nobody's",
            "kubernetes: { name: api }",
            api(&["198.18.2.2:9090"], "10.96.0.9:80"),
            [&["api 10.96.0.9:80 > [198.18.2.2:9090]", "api 198.18.2.2:9090"][..], &stays].concat(),
        ),
        (
            "an endpoint of the cluster's",
            "kubernetes: { name: api }",
            api(&BOTH[..1], "10.96.0.9:80"),
            vec!["api 10.96.0.9:80 > [198.18.2.2:8080]", "api 198.18.2.2:8080", stays[0], stays[2]],
        ),
        (
            "a cluster IP",
            "kubernetes: { name: api }",
            api(&["198.18.2.4:1"], "10.96.0.1:80"),
            vec!["api 10.96.0.1:80 > [198.18.2.4:1]", "api 198.18.2.4:1", stays[1], stays[2]],
        ),
        (
            "a file's",
            "addresses: [{ address: 198.18.2.3, port: 8080 }]",
            Led::default(),
            vec!["api 198.18.2.3:8080", stays[0], stays[1]],
        ),
        (
            "a name's",
            "addresses: [{ address: backend-api.myapp.svc.cluster.local, port: 8080 }]",
            Led::default(),
            vec!["api 198.18.2.2:8080", stays[0], stays[2]],
        ),
        (
            "a file's virtual address",
            "addresses: [{ address: 198.18.2.4, port: 1 }], virtualAddresses: [{ address: 198.18.2.2, port: 8080, targetPorts: [1] }]",
            Led::default(),
            vec!["api 198.18.2.2:8080 > [198.18.2.4:1]", "api 198.18.2.4:1", stays[0], stays[2]],
        ),
    ] {
        let mut node = Node::new(&[("web", WEB)]);
        node.lists(0, &[("shop/web", led(&[("10.96.0.1:80", &[])], &[]))]);
        assert_eq!(node.leads(), stays, "{name}");
        node.listed = Arc::new([("shop/api".to_owned(), listed), ("shop/web".to_owned(), Led::default())].into());
        node.becomes(10, &[("web", WEB), ("api", other)]);
        assert_eq!(node.leads(), want, "{name}");
    }
}

#[tokio::test]
async fn what_left_and_is_another_pods_by_now_is_that_ones_at_once() {
    let pod = |uid: &str, host_network: bool| Pod {
        namespace: "shop".into(),
        name: "p".into(),
        uid: uid.into(),
        resource_version: "1".into(),
        service_account: "a".into(),
        labels: BTreeMap::new(),
        addresses: vec!["198.18.2.2".parse().unwrap()],
        host_network,
    };
    for (name, before, after, stays) in [
        ("the same one", Some(pod("u1", false)), Some(pod("u1", false)), true),
        ("gone by now", Some(pod("u1", false)), None, true),
        ("another one", Some(pod("u1", false)), Some(pod("u2", false)), false),
        ("one, of none before", None, Some(pod("u2", false)), false),
        ("the node's own", None, Some(pod("u2", true)), true),
    ] {
        let pods = |pod: Option<Pod>| Arc::new(pod.into_iter().map(|pod| ("shop/p".to_owned(), pod)).collect());
        let mut node = Node::new(&[("web", WEB)]);
        node.pods = pods(before);
        node.lists(0, &[("shop/web", web(&BOTH[1..]))]);
        node.pods = pods(after);
        assert_eq!(node.passes(1), !stays, "{name}");
        assert_eq!(node.leads().contains(&"web 198.18.2.2:8080!".to_owned()), stays, "{name}");
    }
}

#[tokio::test]
async fn a_service_leads_where_it_did_until_what_it_names_now_is_listed() {
    let file = "addresses: [{ address: backend-api.myapp.svc.cluster.local, port: 8080 }, { address: 198.18.2.3, port: 8080 }, \
                { address: 198.18.2.4, port: 9090, ready: false }], \
                virtualAddresses: [{ address: 203.0.113.9, port: 80, targetPorts: [8080, 9090] }]";
    let was = [
        "web 203.0.113.9:80 > [198.18.2.2:8080, 198.18.2.3:8080]",
        "web 198.18.2.2:8080",
        "web 198.18.2.3:8080",
        "web 198.18.2.4:9090!",
    ];
    let mut node = Node::new(&[("web", file)]);
    assert_eq!(node.leads(), was);
    node.becomes(0, &[("web", "kubernetes: { name: a }")]);
    assert_eq!((node.leads(), node.ends()), (was.map(str::to_owned).to_vec(), None));
    let told = problems(&node.loaded, &node.listed);
    assert_eq!(
        told,
        [
            "Service shop/web: shop/a in the cluster: it has not been listed yet; what the Service led to before stays until then"
        ]
    );
    // However long that takes, and however often it is read again.
    node.becomes(500, &[("web", "kubernetes: { name: a }, labels: { a: b }")]);
    node.passes(1000);
    node.becomes(1000, &[("web", "kubernetes: { name: b }")]);
    assert_eq!(node.leads(), was);
    let b = led(&[("10.96.0.5:80", &["198.18.2.3:8080"])], &["198.18.2.3:8080"]);
    node.lists(2000, &[("shop/b", b)]);
    let left = [
        "web 10.96.0.5:80 > [198.18.2.3:8080]",
        "web 203.0.113.9:80 > []",
        "web 198.18.2.2:8080!",
        "web 198.18.2.3:8080",
        "web 198.18.2.4:9090!",
    ];
    assert_eq!((node.leads(), node.ends()), (left.map(str::to_owned).to_vec(), Some(2060)));
    // To another name of the cluster's: what left before keeps its time.
    node.becomes(2030, &[("web", "kubernetes: { name: c }")]);
    assert_eq!((node.leads(), node.ends()), (left.map(str::to_owned).to_vec(), Some(2060)));
    assert!(node.passes(2060));
    assert_eq!(node.leads(), [left[0], left[3]]);
    // What a file says holds at once, and so does that nobody wants it.
    node.becomes(2070, &[("web", "addresses: [{ address: 198.18.7.7, port: 1 }]")]);
    assert_eq!(node.leads(), ["web 198.18.7.7:1"]);
    node.becomes(2070, &[("web", "kubernetes: { name: c }"), ("new", "kubernetes: { name: d }")]);
    assert_eq!(node.leads(), ["web 198.18.7.7:1"], "a Service that was none before has nothing that stays");
    node.becomes(2070, &[]);
    assert_eq!((node.leads(), node.leaving), (vec![], Leaving::default()));
}

#[tokio::test]
async fn a_restart_goes_on_with_what_left() {
    let mut node = Node::new(&[("web", WEB), ("api", "addresses: [{ address: 198.18.3.3, port: 1 }]")]);
    node.lists(0, &[("shop/web", led(&[("10.96.0.7:80", &BOTH[1..])], &BOTH[1..]))]);
    let now = [("web", WEB), ("api", "kubernetes: { name: api }")];
    node.becomes(0, &now);
    let leads = node.leads();
    let remembered = node.leaving.beside(&node.loaded, &node.listed);
    let mut next = Node { loaded: loaded(&now), leaving: Leaving::default(), listed: remembered, ..node };
    assert!(fill(&mut next.loaded, &next.listed, &next.leaving));
    let sorted = |leads: Vec<String>| leads.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(next.leads()), sorted(leads));
    assert!(problems(&next.loaded, &next.listed)[0].contains("it has not been listed yet; what the Service led to"));
    next.lists(5000, &[("shop/web", web(&BOTH[1..])), ("shop/api", Led::default())]);
    assert_eq!((sorted(next.leads()).contains("web 198.18.2.2:8080!"), next.ends()), (true, Some(5060)));
    assert!(next.leads().contains(&"api 198.18.3.3:1!".to_owned()));
}

#[tokio::test]
async fn what_left_is_bounded_and_who_has_few_keeps_them() {
    let many = |service: u32, count: u32| -> Vec<SocketAddr> {
        (0..count)
            .map(|n| SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + (service << 16) + n).into(), 80))
            .collect()
    };
    let of = |all: &[SocketAddr]| Led { endpoints: all.iter().map(|at| (*at, true)).collect(), ..Led::default() };
    let names: Vec<_> =
        (0..6).map(|n| (format!("s{n}"), format!("kubernetes: {{ name: s{n} }}"), format!("shop/s{n}"))).collect();
    let services: Vec<_> = names.iter().map(|(name, spec, _)| (name.as_str(), spec.as_str())).collect();
    let mut node = Node::new(&services);
    let few = many(0, 3);
    let crowd = |n: u32| many(n + 1, MOST as u32 + 500);
    let listed = |n: usize, left: usize| {
        let all = if n == 5 { few.clone() } else { crowd(n as u32) };
        of(all.get(left..).unwrap_or_default())
    };
    let lists = |left: usize| -> Vec<_> {
        names.iter().enumerate().map(|(n, (.., name))| (name.as_str(), listed(n, left))).collect()
    };
    node.lists(0, &lists(0));
    node.lists(10, &lists(200));
    assert_eq!(node.leaving.0["shop/s0"].left.len(), 200);
    node.lists(20, &lists(usize::MAX));
    let counts: Vec<_> = node.leaving.0.values().map(|of| of.left.len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), MOST_OF_ALL, "{counts:?}");
    assert_eq!((counts.iter().max(), counts[5]), (Some(&MOST), few.len()), "{counts:?}");
    let first = node.leaving.0["shop/s0"].left.keys().next().copied();
    assert_eq!(first, Some(crowd(0)[500]), "those that were to go first are gone");
}
