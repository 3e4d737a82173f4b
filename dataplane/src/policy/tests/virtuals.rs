//! Virtual addresses: what steering captures of them, and what is said of them.

use ::snapshot::report::Caller;
use ::snapshot::{
    Action, Enforcement, Policy, PolicyRule, Prefix, RefuseReason, RuleDirection, RuleId, RuleSource, TlsMode,
    VirtualAddress,
};

use super::views::{PORTS, caught};
use crate::policy::captures::captures;
use crate::policy::explain;
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{API_AT, DB_AT, World, at};

const VIP: &str = "203.0.113.10:80";

/// The first service has the API and the database of this node for endpoints; behind its virtual address are
/// those of these indices.
fn world(behind: Vec<u32>) -> World {
    let mut world = World::new();
    let database = world.snapshot.services[1].endpoints[0].clone();
    let service = &mut world.snapshot.services[0];
    service.endpoints.push(database);
    service.virtual_addresses = vec![VirtualAddress { address: at(VIP), endpoints: behind }];
    world
}

#[test]
fn a_virtual_address_is_captured_of_those_who_may_call_it_and_of_those_who_are_nobody() {
    let of = |world: &World| {
        let made = captures(&world.compile(), &PORTS);
        [0, 1, 2].map(|set| caught(&made, set, at(VIP)))
    };
    let mut world = world(vec![0]);
    assert_eq!(of(&world), [Some(true), Some(true), None], "nobody, the frontend, the database");
    let modes = |world: &mut World, mode| {
        for entry in &mut world.frontend().egress {
            (entry.mode, entry.allowed) = (Some(mode), None);
        }
        world.frontend().outbound = None;
    };
    modes(&mut world, TlsMode::Permissive);
    assert_eq!(of(&world), [Some(true), Some(false), None]);
    modes(&mut world, TlsMode::Disable);
    assert_eq!(of(&world), [Some(true), None, None], "not ours to touch");
    world.snapshot.services[0].virtual_addresses[0].endpoints.clear();
    modes(&mut world, TlsMode::Mutual);
    assert_eq!(of(&world), [Some(true), Some(true), None], "refused by name, and not left to the kernel");
}

/// Where somebody else resolves the address, a call that steering lets by reaches the endpoint all the same.
#[test]
fn a_virtual_address_leads_nobody_around_a_deny_of_its_endpoint() {
    let caught_of = |behind: Vec<u32>, cidr: Prefix| {
        let mut world = world(behind);
        world.frontend().egress.clear();
        let (action, direction, enforcement) = (Action::Deny, RuleDirection::Outbound, Enforcement::Enforce);
        let rule = PolicyRule { action, direction, enforcement, peers: vec![], cidrs: vec![cidr], ports: vec![] };
        let source = RuleSource { name: "apps/p spec.rules[0]".into(), place: "q.yaml:1".into() };
        let first = RuleId(world.snapshot.rules.len() as u32);
        world.snapshot.rules.push(source);
        world.snapshot.policies = vec![Policy { name: "apps/p".into(), first, rules: vec![rule] }];
        world.frontend().policies = vec![0];
        caught(&captures(&world.compile(), &PORTS), 1, at(VIP))
    };
    let (api, database) = (Prefix::host(at(API_AT).ip()), Prefix::host(at(DB_AT).ip()));
    assert_eq!(caught_of(vec![0, 1], api), Some(true));
    assert_eq!(caught_of(vec![0], database), None, "it does not lead there");
}

#[test]
fn what_is_said_of_it_is_what_is_said_of_each_endpoint() {
    let caller = Caller::Address("198.18.1.2".parse().unwrap());
    let ask = |behind: Vec<u32>, to: &str| explain(&world(behind).compile(), &caller, at(to), NOW);
    let (api, database) = (ask(vec![0], API_AT), ask(vec![0], DB_AT));
    assert_ne!((api.direction, api.allowed), (database.direction, database.allowed));
    for (behind, alone) in [(vec![0], &api), (vec![1], &database)] {
        let told = ask(behind, VIP);
        assert_eq!(
            (told.direction, told.allowed, &told.only_with, told.mode, told.refused, &told.rule),
            (alone.direction, alone.allowed, &alone.only_with, alone.mode, alone.refused, &alone.rule)
        );
        assert!(told.steps.ends_with(&alone.steps[1..]), "{:#?}\n{:#?}", told.steps, alone.steps);
        assert!(told.steps[1].contains("one of its 1 endpoints"), "{:#?}", told.steps);
    }
    let both = ask(vec![0, 1], VIP);
    assert_eq!(both.allowed, api.allowed && database.allowed, "yes is yes at every endpoint");
    for address in [API_AT, DB_AT] {
        assert!(both.steps.contains(&format!("At {address}:")), "{:#?}", both.steps);
    }
    let none = ask(vec![], VIP);
    assert_eq!((none.allowed, none.refused), (false, Some(RefuseReason::NoEndpoint)));
}
