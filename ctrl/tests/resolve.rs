//! Names of services by DNS: TTLs, failures, and servers that say what they should not.

mod nameserver;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ctrl::config::{Loaded, load_files};
use ctrl::resolve::{Answer, Dns, Found, Lookups, MOST_ADDRESSES};
use nameserver::{Says, Server};
use tokio::time::timeout;

/// Longer than anything here takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A gateway with a Service of these names.
fn load(names: &[&str]) -> Loaded {
    let addresses: String = names.iter().map(|name| format!("    - {{ address: {name}, port: 80 }}\n")).collect();
    let service = format!(
        "apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: {{ name: s }}\nspec:\n  addresses:\n{addresses}  \
         labels: {{ app: a }}\n"
    );
    let gateway = include_str!("data/gateway.yaml");
    load_files(&[(PathBuf::from("policy.yaml"), service), (PathBuf::from("gateway.yaml"), gateway.into())])
        .unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// The same, asked of `server`.
fn lookups(server: &Server, names: &[&str]) -> (Lookups, Loaded) {
    let mut loaded = load(names);
    loaded.gateway.dns_servers = vec![server.address];
    let mut lookups = Lookups::new(Dns::new(&loaded.gateway.dns_servers));
    lookups.want(&loaded);
    (lookups, loaded)
}

/// Waits until what the names stand for is as it should be.
async fn until(lookups: &mut Lookups, loaded: &Loaded, what: &str, is: impl Fn(&ctrl::resolve::Resolved) -> bool) {
    let reached = async {
        while !is(&lookups.of(loaded)) {
            lookups.changed().await;
        }
    };
    if timeout(PATIENCE, reached).await.is_err() {
        panic!("{what}: {:?}", lookups.of(loaded));
    }
}

fn failed(lookups: &Lookups) -> u64 {
    lookups.counts().failed.load(std::sync::atomic::Ordering::Relaxed)
}

fn addresses(resolved: &ctrl::resolve::Resolved, name: &str) -> Vec<(IpAddr, bool)> {
    resolved.addresses(name).map(|ip| (ip, resolved.is_current(name, ip))).collect()
}

#[tokio::test]
async fn a_ttl_says_when_a_name_is_asked_for_again_and_how_long_what_it_replaces_stays() {
    let server = Server::start();
    let (one, other) = (ip("198.18.2.2"), ip("198.18.2.3"));
    server.says("short.test", Says::Addresses(vec![one], 1));
    server.says("long.test", Says::Addresses(vec![one], 3_600));
    let (mut lookups, loaded) = lookups(&server, &["short.test", "long.test"]);
    until(&mut lookups, &loaded, "both", |r| {
        ["short.test", "long.test"].iter().all(|name| addresses(r, name) == [(one, true)])
    })
    .await;
    server.says("short.test", Says::Addresses(vec![other], 1));
    server.says("long.test", Says::Addresses(vec![other], 3_600));
    until(&mut lookups, &loaded, "it moved", |r| addresses(r, "short.test") == [(one, false), (other, true)]).await;
    let told = lookups.told(&loaded.gateway, "short.test");
    let [was, is] = &told.addresses[..] else { panic!("{told:?}") };
    assert_eq!((was.address, is.address, was.ttl, is.ttl), (one, other, Some(1), Some(1)));
    assert!(was.replaced_until.is_some_and(|until| until.abs_diff(ctrl::clock::now()) <= 60), "{told:?}");
    assert_eq!((is.replaced_until, told.is_fixed, &told.last_failure), (None, false, &None), "{told:?}");
    until(&mut lookups, &loaded, "it is forgotten", |r| addresses(r, "short.test") == [(other, true)]).await;
    assert!(server.asked("short.test") >= 6, "three times in both families");
    assert_eq!(server.asked("long.test"), 2, "once in both families");
    assert_eq!(addresses(&lookups.of(&loaded), "long.test"), [(one, true)]);
    assert_eq!(failed(&lookups), 0);
}

#[tokio::test]
async fn a_name_that_is_never_answered_holds_up_no_other_and_shows_that_it_waits() {
    let server = Server::start();
    let names: Vec<String> = (0..200).map(|nth| format!("silent{nth}.test")).collect();
    names.iter().for_each(|name| server.says(name, Says::Nothing));
    server.says("quick.test", Says::Addresses(vec![ip("198.18.2.2")], 1));
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("quick.test");
    let (mut lookups, loaded) = lookups(&server, &all);
    until(&mut lookups, &loaded, "quick", |r| addresses(r, "quick.test").len() == 1).await;
    assert_eq!(failed(&lookups), 0, "nobody has given up yet");
    let failures = lookups.of(&loaded).failures();
    assert_eq!(failures.len(), 200);
    assert!(failures.iter().all(|failure| failure.reason == "no answer yet" && failure.kept == 0));
    server.says("quick.test", Says::Addresses(vec![ip("198.18.2.3")], 1));
    until(&mut lookups, &loaded, "again", |r| r.is_current("quick.test", ip("198.18.2.3"))).await;
}

#[tokio::test]
async fn names_that_do_not_exist_and_servers_that_fail_keep_the_last_good_and_are_asked_again() {
    let server = Server::start();
    let good = ip("198.18.2.2");
    server.says("n.test", Says::Addresses(vec![good], 1));
    let (mut lookups, loaded) = lookups(&server, &["n.test"]);
    until(&mut lookups, &loaded, "good", |r| r.is_current("n.test", good)).await;
    for (says, word) in [(Says::NxDomain, "NXDOMAIN"), (Says::ServFail, "erver")] {
        server.says("n.test", says);
        let fails = |r: &ctrl::resolve::Resolved| {
            r.failures().first().is_some_and(|f| f.reason.contains(word) && f.kept == 1) && r.is_current("n.test", good)
        };
        until(&mut lookups, &loaded, word, fails).await;
        let told = lookups.told(&loaded.gateway, "n.test");
        assert!(told.is_failing && told.last_failure.as_ref().is_some_and(|last| last.why.contains(word)), "{told:?}");
    }
    assert!(failed(&lookups) >= 2);
    server.says("n.test", Says::Addresses(vec![good, ip("198.18.2.3")], 60));
    until(&mut lookups, &loaded, "well again", |r| r.failures().is_empty() && addresses(r, "n.test").len() == 2).await;
    let told = lookups.told(&loaded.gateway, "n.test");
    assert!(!told.is_failing && told.last_failure.is_some() && told.next_in.is_some(), "{told:?}");
}

#[tokio::test]
async fn what_comes_by_a_chain_of_names_is_good_for_as_long_as_its_shortest_link() {
    let server = Server::start();
    let to = vec![ip("198.18.2.2"), ip("2001:db8:2::2")];
    server.says("n.test", Says::Alias("elsewhere.test", 2, to, 3_600));
    let answer = Dns::new(&[server.address]).look_up("n.test").await;
    let two = Duration::from_secs(2);
    let want = Answer {
        v4: Found::Addresses(vec![(ip("198.18.2.2"), two)]),
        v6: Found::Addresses(vec![(ip("2001:db8:2::2"), two)]),
    };
    assert_eq!(answer, want);
}

#[tokio::test]
async fn an_answer_with_another_id_is_nobodys() {
    let server = Server::start();
    server.says("n.test", Says::WrongIdFirst(ip("203.0.113.66"), vec![ip("198.18.2.2")], 60));
    let (mut lookups, loaded) = lookups(&server, &["n.test"]);
    until(&mut lookups, &loaded, "the right one", |r| addresses(r, "n.test") == [(ip("198.18.2.2"), true)]).await;
}

#[tokio::test]
async fn hundreds_of_addresses_come_over_tcp_and_are_bounded() {
    let server = Server::start();
    let many: Vec<IpAddr> =
        (0..MOST_ADDRESSES as u32 + 88).map(|n| std::net::Ipv4Addr::from(0xc612_0000 + n).into()).collect();
    server.says("n.test", Says::Truncated(many.clone(), 60));
    let (mut lookups, loaded) = lookups(&server, &["n.test"]);
    until(&mut lookups, &loaded, "all that are taken", |r| addresses(r, "n.test").len() == MOST_ADDRESSES).await;
    assert_eq!(lookups.of(&loaded).left_out().collect::<Vec<_>>(), [("n.test", 88)]);
}

#[tokio::test]
async fn the_files_of_the_system_are_respected_and_read_again_when_they_change() {
    let server = Server::start();
    let directory = tempfile::tempdir().expect("a directory");
    let (resolv_conf, hosts) = (directory.path().join("resolv.conf"), directory.path().join("hosts"));
    std::fs::write(&resolv_conf, "nameserver 192.0.2.1\nsearch corp.test\noptions ndots:2\n").expect("written");
    std::fs::write(&hosts, "198.18.7.7 listed.test\n").expect("written");
    let dns = Dns::by(&[server.address], resolv_conf.clone(), hosts.clone());
    let v4 = |answer: &Answer| match &answer.v4 {
        Found::Addresses(list) => list.iter().map(|(ip, _)| *ip).collect::<Vec<_>>(),
        Found::None(_) | Found::Failed(_) => vec![],
    };
    server.says("listed.test", Says::Addresses(vec![ip("198.18.2.9"), ip("2001:db8::9")], 60));
    let listed = dns.look_up("listed.test").await;
    assert_eq!((v4(&listed), server.asked("listed.test")), (vec![ip("198.18.7.7")], 0));
    assert_eq!(listed.failure(), None);
    server.says("db.corp.test", Says::Addresses(vec![ip("198.18.2.2")], 60));
    server.says("db", Says::Addresses(vec![ip("198.18.2.3")], 60));
    assert_eq!(v4(&dns.look_up("db").await), [ip("198.18.2.2")], "one dot is less than two: the search domain first");
    assert_eq!(server.asked("db"), 0, "one family alone is an answer: the other is not looked for elsewhere");
    std::fs::write(&resolv_conf, "nameserver 192.0.2.1\nsearch other-domain.test\n").expect("written");
    std::fs::write(&hosts, "").expect("written");
    assert_eq!(v4(&dns.look_up("listed.test").await), [ip("198.18.2.9")]);
    assert_eq!(v4(&dns.look_up("db").await), [ip("198.18.2.3")]);
    assert_eq!(server.asked("db.other-domain.test"), 2);
    // Without a server of our own those of the file are asked, and a file that names none says so.
    std::fs::write(&resolv_conf, "# nothing\n").expect("written");
    let alone = Dns::by(&[] as &[SocketAddr], resolv_conf, hosts);
    let why = alone.look_up("db").await.failure().expect("it fails");
    assert!(why.contains("resolv.conf") && why.contains("nameserver"), "{why}");
}

#[tokio::test]
async fn other_servers_are_asked_at_once_and_what_the_ones_before_say_late_is_not_heard() {
    let (old, new) = (Server::start(), Server::start());
    old.says("n.test", Says::Addresses(vec![ip("198.18.2.2")], 3_600));
    new.says("n.test", Says::Addresses(vec![ip("198.18.2.3")], 3_600));
    old.says("late.test", Says::Nothing);
    new.says("late.test", Says::Addresses(vec![ip("198.18.2.4")], 3_600));
    let (mut lookups, mut loaded) = lookups(&old, &["n.test", "late.test"]);
    until(&mut lookups, &loaded, "the first", |r| r.is_current("n.test", ip("198.18.2.2"))).await;
    loaded.gateway.dns_servers = vec![new.address];
    lookups.keep(&loaded);
    lookups.await_first(&loaded, PATIENCE).await;
    assert_eq!(addresses(&lookups.of(&loaded), "n.test"), [(ip("198.18.2.2"), false), (ip("198.18.2.3"), true)]);
    assert_eq!(addresses(&lookups.of(&loaded), "late.test"), [(ip("198.18.2.4"), true)]);
    assert_eq!(failed(&lookups), 0, "the silence of the old one is nobody's failure");
    // A name that nobody wants any more is forgotten, and one that comes back is asked for anew.
    lookups.keep(&load(&["other.test"]));
    assert_eq!(lookups.of(&loaded).addresses("n.test").count(), 0);
}
