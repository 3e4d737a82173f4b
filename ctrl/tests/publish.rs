//! The channel to the dataplane, against a fake one.

mod fake;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ctrl::publish::socket::{self, Lock};
use ctrl::publish::{Published, Publisher, QueryError, Resolve, State};
use fake::{FakeDataplane, Said};
use snapshot::channel::PrivateKey;
use snapshot::{
    Boot, ConnectionReport, Cores, Counters, Direction, KeyId, Limits, Network, OnAbsent, Query, Reply, SCHEMA,
    Snapshot, Timeouts, ToCtrl, Unmatched, Version, Waiting,
};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    _directory: tempfile::TempDir,
    _lock: Lock,
    admin: PathBuf,
    publisher: Publisher,
    asked: mpsc::Receiver<Resolve>,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let admin = directory.path().join("run/a.sock");
    let lock = socket::lock(&admin).unwrap();
    let (publisher, asked) = Publisher::listen(&admin, &lock).unwrap();
    Rig { _directory: directory, _lock: lock, admin, publisher, asked }
}

fn boot(node: &str) -> Boot {
    Boot {
        node: node.into(),
        ports: vec![],
        cores: Cores(vec![0]),
        waiting: Waiting::Adaptive,
        on_absent: OnAbsent::Drop,
        groups: snapshot::Group::ALL.to_vec(),
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        pin_directory: "/sys/fs/bpf/none".into(),
    }
}

fn snapshot(version: u64) -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        version: Version(version),
        node: "a".into(),
        trust_domain: "example.com".into(),
        workloads: vec![],
        services: vec![],
        bundles: vec![],
        policies: vec![],
        revoked: vec![],
        rules: vec![],
        unmatched_egress: Unmatched::Pass,
        assembled_at: 0,
        living: snapshot::Living::default(),
        audit: None,
    }
}

fn key(n: u8) -> (KeyId, PrivateKey) {
    (KeyId([n; 32]), PrivateKey::new(vec![n; 100]))
}

impl Rig {
    fn publish(&self, version: u64, keys: &[u8]) {
        let keys = keys.iter().copied().map(key).collect();
        let published = Arc::new(Published::new(&snapshot(version), keys).unwrap());
        self.publisher.set(|desired| desired.state = Some(published));
    }

    fn publish_all(&self, version: u64, keys: &[u8]) {
        self.publisher.set(|desired| {
            desired.boot = Some(Arc::new(boot("a")));
            desired.network = Some(Arc::new(Network { revision: 7, ..Network::default() }));
        });
        self.publish(version, keys);
    }

    async fn until(&self, want: impl FnMut(&State) -> bool) -> State {
        let mut state = self.publisher.state();
        tokio::time::timeout(PATIENCE, state.wait_for(want)).await.expect("the state is reached").unwrap().clone()
    }
}

fn kinds(said: &[Said]) -> Vec<String> {
    said.iter()
        .map(|s| match s {
            Said::Boot(_) => "boot".into(),
            Said::Key(id, _) => format!("key {}", id.0[0]),
            Said::Snapshot(s) => format!("snapshot {}", s.version),
            Said::Network(n) => format!("network {}", n.revision),
            Said::Query(..) => "query".into(),
            Said::Closed => "closed".into(),
        })
        .collect()
}

fn report(id: u64) -> ConnectionReport {
    ConnectionReport {
        id,
        core: 0,
        direction: Direction::Egress,
        client: "198.18.1.2:4000".parse().unwrap(),
        server: "198.18.2.2:3000".parse().unwrap(),
        source: None,
        workload: None,
        local_id: None,
        peer_id: None,
        mode: None,
        tls: None,
        state: "Relaying".into(),
        refused: None,
        closed: None,
        detail: None,
        rule: None,
        shadow: None,
        version: Version(1),
        opened_at: 0,
        ended_at: None,
        sent: 0,
        received: 0,
        allowed_by: None,
        attested: None,
        endpoint: None,
        admitted: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataplane_that_says_hello_gets_boot_keys_snapshot_network_in_this_order() {
    let rig = rig();
    rig.publish_all(5, &[1, 2]);
    let dataplane = FakeDataplane::hello(&rig.admin, None);
    let said = dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    assert_eq!(kinds(&said), ["boot", "key 1", "key 2", "snapshot 5", "network 7"]);
    assert!(matches!(&said[1], Said::Key(_, k) if *k == key(1).1));
    assert!(!rig.publisher.ready(), "sent is not in force");
    dataplane.ack(Version(5));
    rig.until(|s| s.in_force == Some(Version(5)) && s.acked == Some(Version(5))).await;
    assert!(rig.publisher.ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_that_the_dataplane_does_not_have_go_before_a_later_snapshot() {
    let rig = rig();
    rig.publish_all(1, &[1, 2]);
    let dataplane = FakeDataplane::hello(&rig.admin, None);
    dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    rig.publish(2, &[2, 3]);
    assert_eq!(kinds(&dataplane.hear_until(|s| matches!(s, Said::Snapshot(_)))), ["key 3", "snapshot 2"]);
    // Snapshot 2 did not refer to key 1: it may be gone over there.
    rig.publish(3, &[1, 3]);
    assert_eq!(kinds(&dataplane.hear_until(|s| matches!(s, Said::Snapshot(_)))), ["key 1", "snapshot 3"]);
    dataplane.say(&ToCtrl::Nack { version: Version(3), reason: "no such rule".into() });
    let state = rig.until(|s| s.nack.is_some()).await;
    assert_eq!(state.nack, Some((Version(3), "no such rule".into())));
    rig.publish(4, &[1, 3]);
    let said = dataplane.hear_until(|s| matches!(s, Said::Snapshot(_)));
    assert_eq!(kinds(&said), ["key 1", "key 3", "snapshot 4"], "after a refusal all keys go again");
    dataplane.ack(Version(4));
    rig.until(|s| s.nack.is_none() && s.in_force == Some(Version(4))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataplane_that_comes_back_gets_everything_again() {
    let rig = rig();
    rig.publish_all(1, &[1]);
    let first = FakeDataplane::hello(&rig.admin, None);
    first.hear_until(|s| matches!(s, Said::Network(_)));
    drop(first);
    rig.until(|s| s.dataplane.is_none()).await;
    rig.publish(2, &[1]);
    let second = FakeDataplane::hello(&rig.admin, Some(Version(1)));
    let said = second.hear_until(|s| matches!(s, Said::Network(_)));
    assert_eq!(kinds(&said), ["boot", "key 1", "snapshot 2", "network 7"]);
}

/// Whoever answers each change with the same wish again must not hear of that wish as a change.
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_changes_nothing_is_no_news_of_the_dataplane() {
    let rig = rig();
    rig.publish_all(1, &[1]);
    let dataplane = FakeDataplane::hello(&rig.admin, None);
    dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    dataplane.ack(Version(1));
    rig.until(|s| s.acked == Some(Version(1)) && s.sent == Some(Version(1))).await;
    let mut state = rig.publisher.state();
    state.borrow_and_update();
    rig.publisher.set(|_| {});
    // A later wish has been carried out, so the empty one has too.
    rig.publish(2, &[1]);
    dataplane.hear_until(|s| matches!(s, Said::Snapshot(_)));
    rig.until(|s| s.sent == Some(Version(2))).await;
    let mut news = 0;
    while state.has_changed().expect("the publisher lives") {
        state.borrow_and_update();
        news += 1;
    }
    assert_eq!(news, 1, "only that version 2 was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_dataplane_is_the_one_and_the_old_one_is_let_go() {
    let rig = rig();
    rig.publish_all(1, &[]);
    let old = FakeDataplane::hello(&rig.admin, None);
    old.hear_until(|s| matches!(s, Said::Network(_)));
    let new = FakeDataplane::hello(&rig.admin, None);
    new.hear_until(|s| matches!(s, Said::Network(_)));
    assert!(matches!(old.hear(), Said::Closed));
    new.ack(Version(1));
    rig.until(|s| s.in_force == Some(Version(1))).await;
    assert!(rig.publisher.ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataplane_that_does_not_read_holds_up_nothing_and_later_gets_only_the_latest() {
    let rig = rig();
    rig.publish_all(1, &[]);
    let stuck = FakeDataplane::hello(&rig.admin, None);
    rig.until(|s| s.sent == Some(Version(1))).await;
    // A packet with its accounting takes part of the socket's buffer: it is full long before this.
    for version in 2..2000 {
        rig.publish(version, &[1, 2, 3, 4, 5, 6, 7, 8]);
        tokio::task::yield_now().await;
    }
    let short = Duration::from_millis(50);
    let answer = rig.publisher.query(Query::Status, short).await;
    assert!(matches!(answer, Err(QueryError::Timeout(_))), "{answer:?}");
    let said = stuck.hear_until(|s| matches!(s, Said::Snapshot(s) if s.version == Version(1999)));
    assert!(said.len() < 1500, "overtaken snapshots are not sent: {} messages", said.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_find_their_replies_in_any_order_and_parts_are_put_together() {
    let rig = rig();
    rig.publish_all(1, &[]);
    assert_eq!(rig.publisher.query(Query::Status, PATIENCE).await, Err(QueryError::NoDataplane));
    let dataplane = FakeDataplane::hello(&rig.admin, None);
    dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    let ask = |query| {
        let publisher = rig.publisher.clone();
        tokio::spawn(async move { publisher.query(query, PATIENCE).await })
    };
    let live = ask(Query::Live);
    let (live_id, query) = dataplane.next_query();
    assert_eq!(query, Query::Live);
    let counters = ask(Query::Counters);
    let (counters_id, _) = dataplane.next_query();
    dataplane.reply(live_id, Reply::Connections { part: vec![report(1), report(2)], more: true });
    dataplane.reply(counters_id, Reply::Counters(Counters::default()));
    dataplane.reply(live_id, Reply::Connections { part: vec![report(3)], more: false });
    dataplane.reply(999, Reply::Failed("nobody asked".into()));
    assert_eq!(counters.await.unwrap(), Ok(Reply::Counters(Counters::default())));
    let all = Reply::Connections { part: vec![report(1), report(2), report(3)], more: false };
    assert_eq!(live.await.unwrap(), Ok(all));
    let lost = ask(Query::Status);
    dataplane.next_query();
    drop(dataplane);
    assert_eq!(lost.await.unwrap(), Err(QueryError::Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_is_cut_off_and_the_next_dataplane_is_served() {
    let rig = rig();
    rig.publish_all(1, &[]);
    let hello = |schema| ToCtrl::Hello { schema, pid: 1, build: "x".into(), in_force: None };
    let cases: [(&str, Vec<u8>); 3] = [
        ("garbage", vec![0xff; 40]),
        ("not Hello first", snapshot::codec::to_message(&ToCtrl::Ack { version: Version(1) }).unwrap()),
        ("another schema", snapshot::codec::to_message(&hello(SCHEMA + 1)).unwrap()),
    ];
    for (name, bytes) in cases {
        let dataplane = FakeDataplane::connect(&rig.admin);
        dataplane.say_bytes(&bytes);
        assert!(matches!(dataplane.hear(), Said::Closed), "{name}");
        assert_eq!(rig.publisher.state().borrow().dataplane, None, "{name}");
    }
    let dataplane = FakeDataplane::hello(&rig.admin, None);
    dataplane.hear_until(|s| matches!(s, Said::Network(_)));
    dataplane.say(&hello(SCHEMA));
    assert!(matches!(dataplane.hear(), Said::Closed), "Hello twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_that_the_dataplane_asks_for_come_out() {
    let mut rig = rig();
    rig.publish_all(1, &[]);
    let dataplane = FakeDataplane::hello(&rig.admin, None);
    let address = "198.18.2.2".parse().unwrap();
    dataplane.say(&ToCtrl::Resolve { interface: "out0".into(), address });
    let asked = tokio::time::timeout(PATIENCE, rig.asked.recv()).await.unwrap();
    assert_eq!(asked, Some(Resolve { interface: "out0".into(), address }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_the_owners_alone_and_so_is_the_gateway() {
    let rig = rig();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&snapshot::channel::socket_path(&rig.admin)), 0o600);
    assert_eq!(mode(rig.admin.parent().unwrap()), 0o700);
    let second = socket::lock(&rig.admin).unwrap_err();
    assert!(second.to_string().contains("in use by another sluice-ctrl"), "{second}");
    // What a process that was killed left behind is in nobody's way.
    let (directory, admin) = (rig._directory, rig.admin.clone());
    drop(rig._lock);
    let lock = socket::lock(&admin).unwrap();
    assert!(Publisher::listen(&admin, &lock).is_ok());
    drop(directory);
}

#[test]
fn private_keys_are_not_in_the_debug_output_of_what_carries_them() {
    let published = Published::new(&snapshot(1), vec![(KeyId([1; 32]), PrivateKey::new(vec![77; 100]))]).unwrap();
    let text = format!("{published:?}");
    assert!(text.contains("PrivateKey(..)") && !text.contains("77, 77"), "{text}");
}
