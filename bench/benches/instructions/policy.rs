//! Policy: an allow list by itself, the verdict over a workload's inbound list and over a Policy of its,
//! and the route through a workload's egress entries.

use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use dataplane::policy::{AllowList, Route, Verdict, decide};
use dataplane::snapshot::Compiled;
use dataplane::tls::{Peer, Root};
use gungraun::prelude::*;
use pktgen_tests::sim::clock::EPOCH;
use pktgen_tests::sim::topology::add_policy;
use pktgen_tests::sim::topology::{PORT, address};
use snapshot::policy::Endpoint;
use snapshot::{
    Action, EgressRule, Enforcement, IdPattern, PolicyRule, PortRange, Prefix, RuleDirection, RuleId, Service, Side,
    Snapshot, SourceAddress,
};

use super::name::TIMES;
use super::node::{compiled, workload};

#[library_benchmark(setup = lists)]
#[bench::ids_10(10, IdPattern::Exact)]
#[bench::ids_100(100, IdPattern::Exact)]
#[bench::ids_1000(1_000, IdPattern::Exact)]
#[bench::ids_10000(10_000, IdPattern::Exact)]
#[bench::ids_100000(100_000, IdPattern::Exact)]
#[bench::paths_10(10, IdPattern::Under)]
#[bench::paths_100(100, IdPattern::Under)]
#[bench::paths_1000(1_000, IdPattern::Under)]
#[bench::paths_10000(10_000, IdPattern::Under)]
#[bench::paths_100000(100_000, IdPattern::Under)]
fn allow_list(asked: Vec<(Rc<AllowList>, String)>) -> Vec<(Rc<AllowList>, String)> {
    asked.iter().for_each(|(list, id)| assert!(list.admits(black_box(id))));
    asked
}

/// Questions to lists of so many rules.
fn lists(rules: u32, pattern: fn(String) -> IdPattern) -> Vec<(Rc<AllowList>, String)> {
    let patterns: Vec<IdPattern> = (0..rules).map(|number| pattern(path(number))).collect();
    let lists: Vec<Rc<AllowList>> = (0..keyings(rules)).map(|_| Rc::new(AllowList::new(&patterns))).collect();
    let id = |number: u32| match pattern(path(number)) {
        IdPattern::Exact(id) => id,
        IdPattern::Under(path) => path + "service",
    };
    let question = |n: u32| (lists[n as usize % lists.len()].clone(), id(n * 7_919 % rules));
    (0..TIMES as u32).map(question).collect()
}

/// The product's tables are keyed by chance, so that nobody can choose what collides. Enough of them
/// make a sum that is nearly the same on each run; a whole policy takes long to compile under valgrind,
/// so there are fewer of those (`bench::gate` knows).
fn keyings(rules: u32) -> u32 {
    if rules <= 1_000 { 64 } else { 16 }
}

#[library_benchmark(setup = callers)]
#[bench::rules_10(10)]
#[bench::rules_100(100)]
#[bench::rules_1000(1_000)]
#[bench::rules_10000(10_000)]
#[bench::rules_100000(100_000)]
fn inbound_verdict((compiled, route, peer): (Compiled, Route, Peer)) -> (Compiled, Route, Peer) {
    for _ in 0..TIMES {
        assert!(matches!(decide(black_box(&compiled), &route, Some(&peer)), Verdict::Allow(_)));
    }
    (compiled, route, peer)
}

/// A workload that so many may call.
fn callers(rules: u32) -> (Compiled, Route, Peer) {
    let compiled = compiled(1, |snapshot| {
        let allowed = (0..rules).map(|number| IdPattern::Exact(path(number))).collect();
        workload(snapshot, "backend").inbound = Some(allowed);
    });
    let client = SocketAddr::new(address("frontend", false), 40_000);
    let server = SocketAddr::new(address("backend", false), PORT);
    let route = compiled.route(Side::Outside, "out0", client, server, EPOCH);
    let (spiffe_id, root) = (path(rules - 1).into(), Root::of_nobody());
    let peer = Peer { spiffe_id, serial: "1".into(), not_after: EPOCH + 60, root, issued: Arc::default() };
    (compiled, route, peer)
}

#[library_benchmark(setup = ruled)]
#[bench::rules_10(10)]
#[bench::rules_100(100)]
#[bench::rules_1000(1_000)]
#[bench::rules_10000(10_000)]
#[bench::rules_100000(100_000)]
fn policy_verdict((compiled, route, peer): (Vec<Compiled>, Route, Peer)) -> (Vec<Compiled>, Route, Peer) {
    for at in 0..TIMES as usize {
        let compiled = black_box(&compiled[at % compiled.len()]);
        assert!(matches!(decide(compiled, &route, Some(&peer)), Verdict::Allow(_)));
    }
    (compiled, route, peer)
}

/// A workload whose callers so many rules are about, in the shapes that rules have: denies by ID, by path
/// and by address, an allow under conditions. The last one admits.
fn ruled(rules: u32) -> (Vec<Compiled>, Route, Peer) {
    let rule = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        let last = number + 1 == rules;
        let network = Prefix::new([10, high, middle, low].into(), 32);
        let (peers, cidrs) = match number % 3 {
            _ if last => (vec![IdPattern::Exact(path(number))], vec![Prefix::new([0; 4].into(), 0)]),
            0 => (vec![IdPattern::Exact(path(number))], vec![]),
            1 => (vec![IdPattern::Under(path(number))], vec![network]),
            _ => (vec![], vec![network]),
        };
        let action = if last { Action::Allow } else { Action::Deny };
        let ports = PortRange::new(PORT, PORT + 1).into_iter().filter(|_| number % 3 == 1).collect();
        let (direction, enforcement) = (RuleDirection::Inbound, Enforcement::Enforce);
        PolicyRule { action, direction, enforcement, peers, cidrs, ports }
    };
    let edit = |snapshot: &mut Snapshot| {
        workload(snapshot, "backend").inbound = Some(vec![]);
        add_policy(snapshot, (0..rules).map(rule).collect());
    };
    let compiled: Vec<_> = (0..keyings(rules) / 8).map(|_| compiled(1, edit)).collect();
    let client = SocketAddr::new(address("frontend", false), 40_000);
    let server = SocketAddr::new(address("backend", false), PORT);
    let route = compiled[0].route(Side::Outside, "out0", client, server, EPOCH);
    let (spiffe_id, root) = (path(rules - 1).into(), Root::of_nobody());
    let peer = Peer { spiffe_id, serial: "1".into(), not_after: EPOCH + 60, root, issued: Arc::default() };
    (compiled, route, peer)
}

#[library_benchmark(setup = callees)]
#[bench::rules_10(10)]
#[bench::rules_100(100)]
#[bench::rules_1000(1_000)]
#[bench::rules_10000(10_000)]
#[bench::rules_100000(100_000)]
fn egress_route((compiled, calls): (Vec<Compiled>, Vec<Call>)) -> (Vec<Compiled>, Vec<Call>) {
    for (at, (client, server)) in calls.iter().enumerate() {
        let compiled = black_box(&compiled[at % compiled.len()]);
        let route = compiled.route(Side::Inside, "in0", *client, *server, EPOCH);
        assert!(matches!(route, Route::Egress { .. }));
    }
    (compiled, calls)
}

type Call = (SocketAddr, SocketAddr);

/// Calls of a workload with an egress entry for each of so many services.
fn callees(rules: u32) -> (Vec<Compiled>, Vec<Call>) {
    let at = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        SocketAddr::new([10, high, middle, low].into(), PORT)
    };
    let edit = |snapshot: &mut Snapshot| {
        snapshot.services = (0..rules)
            .map(|n| Service {
                name: format!("default/s{n}"),
                endpoints: vec![Endpoint { address: at(n), host: None }],
                virtual_addresses: vec![],
            })
            .collect();
        let entry = |service| EgressRule {
            id: RuleId(0),
            services: vec![service],
            mode: None,
            allowed: None,
            source: SourceAddress::Preserve,
        };
        snapshot.workloads.iter_mut().for_each(|workload| workload.egress.clear());
        workload(snapshot, "frontend").egress = (0..rules).map(entry).collect();
    };
    let client = SocketAddr::new(address("frontend", false), 40_000);
    let calls = (0..TIMES as u32).map(|n| (client, at(n * 7_919 % rules))).collect();
    ((0..keyings(rules) / 8).map(|_| compiled(0, edit)).collect(), calls)
}

fn path(number: u32) -> String {
    format!("spiffe://example.com/team-{number}/app/")
}

library_benchmark_group!(name = policies, benchmarks = [allow_list, inbound_verdict, policy_verdict, egress_route]);
