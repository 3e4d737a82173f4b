//! Addresses that processes tell apart: who is asked about, what steering takes for all of them, and whose a
//! call from or to such an address is.

use std::net::SocketAddr;

use ::snapshot::report::Caller;
use ::snapshot::{Owner, Place, Prefix, Process, ProcessSelector, RefuseReason, Side, TlsMode};

use super::policies::{at_cidr, deny_inbound, deny_outbound, with};
use super::views::{PORTS, caught};
use super::{FROM_FRONTEND, FROM_NOBODY, OUTSIDE, Way};
use crate::policy::captures::{Source, captures};
use crate::policy::{Known, Listener, Proof, Route, Standing, What, Why, Witnesses, explain};
use crate::snapshot::Compiled;
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{API_AT, DATABASE, DB_AT, FRONTEND, World, at};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SHARED: &str = "198.18.1.2:80";

fn uid(uid: u32) -> ProcessSelector {
    ProcessSelector { uid: Some(uid), ..ProcessSelector::of(format!("p.yaml:{uid}")) }
}

fn place(address: &str, length: u8, users: &[u32]) -> Place {
    let prefix = Prefix::new(address.parse().unwrap(), length);
    let processes = users.iter().map(|user| uid(*user)).collect();
    Place { interface: "in0".into(), prefix, mac: Some(MAC), processes }
}

/// The frontend is user 1 and the database user 2, at one address.
fn shared() -> World {
    let mut world = World::new();
    world.frontend().places = vec![place("198.18.1.2", 32, &[1])];
    world.database().places = vec![place("198.18.1.2", 32, &[2])];
    world
}

fn owner(users: &[u32]) -> Owner {
    let process = |uid: &u32| Process {
        pid: 1,
        started: 1,
        name: "x".into(),
        path: None,
        executable: (1, 1),
        uid: *uid,
        gid: 0,
        cgroup: "/".into(),
    };
    Owner { inode: 1, processes: users.iter().map(process).collect() }
}

/// Called by a process of these users.
fn by(compiled: &Compiled, users: &[u32], (side, interface, client): Way, to: &str) -> Route {
    let owner = owner(users);
    compiled.route_of(Proof::of_caller(Known::Owner(&owner)), side, interface, at(client), at(to), NOW)
}

/// To where a process of these users listens.
fn heard_by(compiled: &Compiled, users: &[u32], (side, interface, client): Way, to: &str) -> Route {
    let owner = owner(users);
    compiled.route_of(Proof::of_listener(Known::Owner(&owner)), side, interface, at(client), at(to), NOW)
}

fn workload(route: &Route) -> Option<usize> {
    match *route {
        Route::Egress { workload, .. } | Route::Inbound { workload, .. } => Some(workload),
        Route::Plain { workload, .. } => workload,
        _ => None,
    }
}

fn refused(route: &Route) -> Option<RefuseReason> {
    match route {
        Route::Refuse { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[test]
fn nobody_calls_from_a_shared_address_before_it_was_asked_which_process_does() {
    let compiled = shared().compile();
    assert!(compiled.ever_asks());
    for (side, interface, client, asks) in [
        (Side::Inside, "in0", "198.18.1.2", true),
        (Side::Inside, "in0", "::ffff:198.18.1.2", true),
        (Side::Inside, "in0", "198.18.1.4", false),
        (Side::Inside, "in1", "198.18.1.2", false),
        (Side::Outside, "out0", "198.18.1.2", false),
    ] {
        let wanted = compiled.wanted(Proof::NONE, (side, interface), client.parse().unwrap(), at(API_AT));
        assert_eq!((wanted.caller, wanted.listener), (asks, None), "{interface} {client}");
    }
    assert_eq!(refused(&super::route(&compiled, FROM_FRONTEND, API_AT)), Some(RefuseReason::NotAttested));
    assert_eq!(workload(&by(&compiled, &[1], FROM_FRONTEND, API_AT)), Some(0));
    assert_eq!(workload(&by(&compiled, &[2, 2], FROM_FRONTEND, API_AT)), Some(1));
    for nobody in [&[3][..], &[1, 2], &[1, 3], &[]] {
        assert_eq!(
            refused(&by(&compiled, nobody, FROM_FRONTEND, API_AT)),
            Some(RefuseReason::NotAttested),
            "{nobody:?}"
        );
    }
    // Whoever is found out about elsewhere, an address alone is enough there.
    let alone = World::new().compile();
    assert!(!alone.ever_asks());
    assert_eq!(workload(&by(&alone, &[3], FROM_FRONTEND, API_AT)), Some(0));
}

#[test]
fn the_longest_prefix_decides_whether_processes_are_asked_and_wider_ones_of_the_kind_count_too() {
    let mut world = shared();
    world.frontend().places = vec![place("198.18.1.0", 24, &[1]), place("198.18.1.9", 32, &[])];
    let compiled = world.compile();
    assert_eq!(workload(&by(&compiled, &[1], FROM_FRONTEND, API_AT)), Some(0), "the /24 counts at the /32");
    assert_eq!(workload(&by(&compiled, &[2], FROM_FRONTEND, API_AT)), Some(1));
    let elsewhere = (Side::Inside, "in0", "198.18.1.7:1");
    assert_eq!(refused(&by(&compiled, &[2], elsewhere, API_AT)), Some(RefuseReason::NotAttested));
    assert!(
        compiled.wanted(Proof::NONE, (Side::Inside, "in0"), "198.18.1.9".parse().unwrap(), at(API_AT)).is_nothing()
    );
    // A wider place without selectors admits nobody whom the narrower one does not.
    world.frontend().places = vec![place("198.18.1.0", 24, &[])];
    let compiled = world.compile();
    assert_eq!(refused(&by(&compiled, &[1], FROM_FRONTEND, API_AT)), Some(RefuseReason::NotAttested));
    assert_eq!(workload(&by(&compiled, &[1], elsewhere, API_AT)), Some(0));
}

#[test]
fn steering_takes_from_a_shared_address_what_any_of_its_workloads_or_nobody_would_be_asked_about() {
    let mut world = shared();
    world.database().egress.clear();
    let made = captures(&world.compile(), &PORTS);
    // One source, whose MAC has to fit as anybody's.
    let [source @ Source { set, mac, .. }] = made.sources[..] else { panic!("{:?}", made.sources) };
    assert!(set > 2 && mac == Some(MAC), "{source:?}");
    assert!(caught(&made, set, at(API_AT)) == Some(true), "the frontend's service");
    assert_eq!(caught(&made, set, at("203.0.113.1:80")), None);
    world.database().unmatched_egress = ::snapshot::Unmatched::Refuse;
    let made = captures(&world.compile(), &PORTS);
    assert!(caught(&made, made.sources[0].set, at("203.0.113.1:80")) == Some(true));
}

#[test]
fn a_call_to_a_shared_address_is_its_listeners_and_nobodys_where_none_matches() {
    let compiled = shared().compile();
    for (way, interface) in [(OUTSIDE, Some("in0")), (FROM_NOBODY, Some("in0"))] {
        let wanted = compiled.wanted(Proof::NONE, (way.0, way.1), at(way.2).ip(), at(SHARED));
        assert_eq!((wanted.caller, wanted.listener.map(|port| &**port)), (false, interface), "{way:?}");
    }
    assert_eq!(workload(&heard_by(&compiled, &[1], OUTSIDE, SHARED)), Some(0));
    assert_eq!(workload(&heard_by(&compiled, &[2, 2], OUTSIDE, SHARED)), Some(1));
    for nobody in [&[3][..], &[1, 2], &[1, 3], &[]] {
        let route = heard_by(&compiled, nobody, OUTSIDE, SHARED);
        assert_eq!(refused(&route), Some(RefuseReason::NotAttested), "{nobody:?}");
    }
    assert_eq!(refused(&super::route(&compiled, OUTSIDE, SHARED)), Some(RefuseReason::NotAttested));
    // Of one workload alone too: what else listens at its address is not it.
    let mut world = shared();
    world.database().places = vec![place("198.18.1.3", 32, &[2])];
    let compiled = world.compile();
    assert_eq!(workload(&heard_by(&compiled, &[2], OUTSIDE, DB_AT)), Some(1));
    assert_eq!(refused(&heard_by(&compiled, &[1], OUTSIDE, DB_AT)), Some(RefuseReason::NotAttested));
}

#[test]
fn what_listens_at_one_address_says_nothing_of_another() {
    let found = Listener { at: at(SHARED), behind: "in0".into(), owner: owner(&[1]).into() };
    let witnesses = Witnesses { caller: None, listener: Some(found.clone()) };
    assert_eq!(witnesses.proof(at(SHARED)).listener, Known::Behind("in0", &owner(&[1])));
    assert_eq!(witnesses.proof(at("198.18.1.2:81")).listener, Known::Nothing);
    assert_eq!(witnesses.proof(at(DB_AT)), Proof::NONE);
    // Nor what was found behind another port.
    let compiled = shared().compile();
    let route = |witnesses: &Witnesses| {
        compiled.route_of(witnesses.proof(at(SHARED)), OUTSIDE.0, OUTSIDE.1, at(OUTSIDE.2), at(SHARED), NOW)
    };
    assert_eq!(workload(&route(&witnesses)), Some(0));
    let elsewhere = Witnesses { caller: None, listener: Some(Listener { behind: "in7".into(), ..found }) };
    assert_eq!(refused(&route(&elsewhere)), Some(RefuseReason::NotAttested));
}

#[test]
fn nobody_is_asked_who_listens_where_all_leave_the_port_alone() {
    let mut world = shared();
    world.frontend().ports = vec![(80, TlsMode::Disable), (81, TlsMode::Disable)];
    world.database().ports = vec![(80, TlsMode::Disable)];
    let compiled = world.compile();
    let made = captures(&compiled, &PORTS);
    let to = |port: u16| SocketAddr::new(at(SHARED).ip(), port);
    for (port, asks) in [(80, false), (81, true), (82, true)] {
        let (side, interface, client) = OUTSIDE;
        let wanted = compiled.wanted(Proof::NONE, (side, interface), at(client).ip(), to(port));
        assert_eq!(wanted.listener.is_some(), asks, "{port}");
        let route = compiled.route(side, interface, at(client), to(port), NOW);
        assert_eq!(refused(&route).is_some(), asks, "{port}");
        assert!(asks || matches!(route, Route::Plain { why: Why::NotOurs, .. }));
        let exact = made.inbound.iter().find(|i| (i.address, i.port) == (to(port).ip(), port));
        let any = made.inbound.iter().find(|i| (i.address, i.port) == (to(port).ip(), 0));
        let inbound = exact.or(any).expect("an entry");
        assert_eq!((inbound.take, inbound.protected), (asks, asks), "{port}");
        let guarded = made.guarded.iter().filter(|g| g.port == port || g.port == 0).max_by_key(|g| g.port);
        assert_eq!(guarded.map(|g| g.guard), Some(asks), "{port}");
    }
    // At 81 the frontend leaves it alone and the database does not: the listener decides.
    let one = heard_by(&compiled, &[1], OUTSIDE, "198.18.1.2:81");
    assert!(matches!(one, Route::Plain { workload: Some(0), why: Why::Disabled, .. }), "{one:?}");
    assert!(matches!(heard_by(&compiled, &[2], OUTSIDE, "198.18.1.2:81"), Route::Inbound { workload: 1, .. }));
}

#[test]
fn explain_supposes_the_process_of_whom_it_is_asked_about_and_decides_nothing_of_an_address_alone() {
    let compiled = shared().compile();
    let told = explain(&compiled, &Caller::Id(FRONTEND.into()), at(API_AT), NOW);
    assert!(told.allowed && told.undecided.is_empty(), "{told:#?}");
    assert!(explain(&compiled, &Caller::Id(DATABASE.into()), at(API_AT), NOW).passed, "it has no egress entry");
    let address = Caller::Address("198.18.1.2".parse().unwrap());
    let told = explain(&compiled, &address, at(API_AT), NOW);
    assert_eq!((told.allowed, told.passed, told.refused), (false, false, None), "{told:#?}");
    assert_eq!(told.undecided, [FRONTEND, DATABASE]);
    let steps = [
        "198.18.1.2 on in0 is an address of apps/frontend, apps/database: the process that calls decides.".to_owned(),
        format!("Undecided: the process that calls decides; ask for a SPIFFE ID instead, {FRONTEND} or {DATABASE}."),
    ];
    assert_eq!(told.steps, steps);
    // A call that no process would be let through with is refused, whoever calls.
    let mut world = shared();
    with(&mut world, vec![at_cidr("198.18.0.0/16", deny_outbound())]);
    let told = explain(&world.compile(), &address, at(API_AT), NOW);
    assert_eq!((told.refused, told.undecided.len()), (Some(RefuseReason::DeniedByRule), 0), "{told:#?}");
}

#[test]
fn explain_tells_what_becomes_of_a_call_at_each_process_that_may_listen() {
    let from = Caller::Address("198.18.9.9".parse().unwrap());
    let mut world = shared();
    world.frontend().ports = vec![(80, TlsMode::Disable)];
    let told = explain(&world.compile(), &from, at(SHARED), NOW);
    let has = |part: &str| told.steps.iter().any(|step| step.contains(part));
    assert!(has("198.18.1.2 is an address of 2 workloads: the process that listens decides."), "{told:#?}");
    assert!(has("At 198.18.1.2:80 where apps/frontend listens (process:uid 1):"), "{told:#?}");
    assert!(has("The mode is DISABLE") && has("The caller's certificate decides"), "{told:#?}");
    // One's alone: it is supposed, and said.
    world.database().places = vec![place("198.18.1.3", 32, &[2])];
    let told = explain(&world.compile(), &from, at(DB_AT), NOW);
    let says = "198.18.1.3 is workload apps/database where a process with process:uid 2 listens.";
    assert!(told.steps.iter().any(|step| step == says) && told.refused.is_none(), "{told:#?}");
}

#[test]
fn nobody_is_asked_about_a_call_that_no_answer_would_help() {
    let mut world = shared();
    let (client, server) = (at(OUTSIDE.2).ip(), at(SHARED));
    let reason = |world: &World, side, interface, client| {
        let hopeless = world.compile().hopeless(side, interface, client, server);
        hopeless.as_ref().and_then(refused)
    };
    assert_eq!(reason(&world, OUTSIDE.0, OUTSIDE.1, client), None);
    with(&mut world, vec![at_cidr("198.18.9.0/24", deny_inbound())]);
    let denied = std::mem::take(&mut world.database().policies);
    assert_eq!(reason(&world, OUTSIDE.0, OUTSIDE.1, client), None, "the other one may listen");
    world.database().policies = denied;
    assert_eq!(reason(&world, OUTSIDE.0, OUTSIDE.1, client), Some(RefuseReason::DeniedByRule));
    assert_eq!(reason(&world, OUTSIDE.0, OUTSIDE.1, "198.18.8.1".parse().unwrap()), None);
    // Nobody of this node calls where all ask for an identity.
    let nobody = at(FROM_NOBODY.2).ip();
    world.frontend().mode = TlsMode::Mutual;
    assert_eq!(reason(&world, Side::Inside, "in0", nobody), Some(RefuseReason::NoIdentity));
    world.database().mode = TlsMode::Permissive;
    assert_eq!(reason(&world, Side::Inside, "in0", nobody), None);
}

#[test]
fn a_connection_that_is_older_than_the_selectors_has_lost_its_permission_and_none_of_its_ends() {
    let mut world = World::new();
    let before = world.compile();
    let root = before.roots("example.com").unwrap().any();
    let peer = crate::tls::Peer { root, ..super::peer(FRONTEND) };
    let way = |compiled: &Compiled, way: Way, to: &str, proof: Proof<'_>| {
        let standing = Standing::new(&before, &super::route(&before, way, to), true, Some(&peer));
        standing.decide_again(compiled, proof, way.0, way.1, at(way.2), at(to)).unwrap_err().what
    };
    world.database().places = vec![place("198.18.1.3", 32, &[2])];
    let told = world.compile();
    assert_eq!(way(&told, OUTSIDE, DB_AT, Proof::NONE), What::Permission);
    // Who was found to be another's is no end of it.
    let stranger = owner(&[1]);
    assert_eq!(way(&told, OUTSIDE, DB_AT, Proof::of_listener(Known::Owner(&stranger))), What::End);
    // Nor is it anybody's whose the address is not.
    world.database().places = vec![place("198.18.1.9", 32, &[2])];
    world.frontend().places.push(place("198.18.1.3", 32, &[1]));
    assert_eq!(way(&world.compile(), OUTSIDE, DB_AT, Proof::NONE), What::End);
}
