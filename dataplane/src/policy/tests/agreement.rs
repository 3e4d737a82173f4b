//! The tables that decide and the words that they are made from agree, on policies and calls drawn at
//! random; and a bug in the tables does not go unnoticed.

use std::net::SocketAddr;
use std::sync::Arc;

use ::snapshot::{
    Action, EgressRule, Enforcement, IdPattern, Place, Policy, PolicyRule, PortRange, Prefix, RuleDirection, RuleId,
    RuleSource, Side, Snapshot, SourceAddress, TlsMode, Unmatched,
};

use super::views;
use super::words::{Call, Reading, Said};
use crate::policy::captures::{Captures, captures};
use crate::policy::{Route, Verdict, Would, decide, shadow};
use crate::snapshot::Compiled;
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{DATABASE, FRONTEND, World, at, service};

const IDS: [&str; 9] = [
    FRONTEND,
    DATABASE,
    "spiffe://example.com/a",
    "spiffe://example.com/a/b",
    "spiffe://example.com/a/b/c",
    "spiffe://example.com/ab",
    "spiffe://partner.org/a",
    "spiffe://partner.org/a/b",
    "spiffe://partner.org/b/a/b",
];
const UNDER: [&str; 7] = [
    "spiffe://example.com/myapp/",
    "spiffe://example.com/",
    "spiffe://example.com/a/",
    "spiffe://example.com/a/b/",
    "spiffe://partner.org/",
    "spiffe://partner.org/a/",
    "spiffe://other.org/",
];
const CIDRS: [(&str, u8); 10] = [
    ("0.0.0.0", 0),
    ("::", 0),
    ("198.18.0.0", 16),
    ("198.18.1.0", 24),
    ("198.18.9.9", 32),
    ("203.0.113.0", 25),
    ("2001:db8::", 32),
    ("2001:db8:1::", 63),
    ("2001:db8:9::9", 128),
    ("c000::", 2),
];
const PORTS: [u16; 9] = [1, 80, 443, 3000, 3001, 5432, 8000, 8080, 65_535];
/// Two of one node, one place on each of two interfaces and in each family; and who is elsewhere.
const HERE: [(&str, &str); 6] = [
    ("in0", "198.18.1.2"),
    ("in0", "2001:db8:1::2"),
    ("in1", "198.18.1.3"),
    ("in1", "2001:db8:1::3"),
    ("in0", "198.18.1.4"),
    ("in0", "2001:db8:1::4"),
];
const ELSEWHERE: [&str; 6] =
    ["198.18.9.9", "203.0.113.1", "203.0.113.200", "2001:db8:9::9", "2001:db8:2::2", "::ffff:198.18.9.9"];

const SERVICES: [&str; 5] =
    ["203.0.113.1:443", "[2001:db8:2::2]:3000", "198.18.1.3:5432", "[2001:db8:1::2]:80", "198.18.9.9:8080"];

/// Numbers that look random, the same every time.
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Up to `most`.
    fn some<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| draw(self)).collect()
    }

    /// A condition: half of the rules have none.
    fn condition<T>(&mut self, draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        if self.one_in(2) { self.some(2, draw) } else { vec![] }
    }

    fn mode(&mut self) -> TlsMode {
        use TlsMode::{Disable, Mutual, Permissive, Simple};
        self.of(&[Mutual, Mutual, Mutual, Mutual, Permissive, Simple, Disable])
    }

    fn pattern(&mut self) -> IdPattern {
        match self.below(2) {
            0 => IdPattern::Exact(self.of(&IDS).into()),
            _ => IdPattern::Under(self.of(&UNDER).into()),
        }
    }

    fn list(&mut self) -> Option<Vec<IdPattern>> {
        (!self.one_in(3)).then(|| self.some(2, Self::pattern))
    }

    fn range(&mut self) -> PortRange {
        let (a, b) = (self.of(&PORTS), self.of(&PORTS));
        let end = if self.one_in(2) { a } else { a.max(b) };
        PortRange::new(a.min(end), end).unwrap()
    }

    fn rule(&mut self) -> PolicyRule {
        let action = self.of(&[Action::Allow, Action::Deny]);
        let mut peers = self.some(3, Self::pattern);
        if action == Action::Allow && peers.is_empty() {
            peers.push(self.pattern());
        }
        let cidrs = self.condition(|drawn| {
            let (address, length) = drawn.of(&CIDRS);
            Prefix::new(at(&host(address, 1)).ip(), length)
        });
        PolicyRule {
            action,
            direction: self.of(&[RuleDirection::Inbound, RuleDirection::Outbound]),
            enforcement: self.of(&[Enforcement::Enforce, Enforcement::Enforce, Enforcement::Shadow]),
            peers,
            cidrs,
            ports: self.condition(Self::range),
        }
    }

    fn policies(&mut self, snapshot: &mut Snapshot) {
        snapshot.rules = (0..8).map(|n| RuleSource { name: format!("r{n}"), place: "p:1".into() }).collect();
        snapshot.policies.clear();
        for nth in 0..self.below(4) {
            let rules = self.some(8, Self::rule);
            let first = RuleId(snapshot.rules.len() as u32);
            let source = |n| RuleSource { name: format!("policy {nth} rule {n}"), place: "p:1".into() };
            snapshot.rules.extend((0..rules.len()).map(source));
            snapshot.policies.push(Policy { name: format!("p{nth}"), first, rules });
        }
        let count = snapshot.policies.len() as u32;
        for workload in &mut snapshot.workloads {
            workload.policies = (0..count).filter(|_| !self.one_in(4)).collect();
        }
    }

    fn workloads(&mut self, snapshot: &mut Snapshot) {
        for (nth, workload) in snapshot.workloads.iter_mut().enumerate() {
            let place = |(interface, address): &(&str, &str)| Place {
                interface: (*interface).into(),
                prefix: Prefix::host(address.parse().unwrap()),
                mac: None,
                processes: vec![],
            };
            workload.places = HERE[nth * 2..nth * 2 + 2].iter().map(place).collect();
            workload.mode = self.mode();
            workload.ports.clear();
            for port in PORTS {
                if self.one_in(5) {
                    workload.ports.push((port, self.mode()));
                }
            }
            (workload.inbound, workload.outbound) = (self.list(), self.list());
            workload.unmatched_egress = self.of(&[Unmatched::Pass, Unmatched::Refuse]);
            let services = snapshot.services.len() as u32;
            workload.egress = self.some(3, |drawn| EgressRule {
                id: RuleId(4),
                services: drawn.some(2, |drawn| drawn.below(services as usize) as u32),
                mode: (!drawn.one_in(3)).then(|| drawn.mode()),
                allowed: drawn.list(),
                source: SourceAddress::Preserve,
            });
        }
        snapshot.unmatched_egress = self.of(&[Unmatched::Pass, Unmatched::Refuse]);
    }

    fn call(&mut self) -> Call {
        let side = self.of(&[Side::Inside, Side::Inside, Side::Outside]);
        let (interface, client) = match side {
            Side::Outside => ("out0", self.of(&ELSEWHERE)),
            // Also at an interface that is not its own, and who is nobody.
            Side::Inside if self.one_in(6) => ("in1", self.of(&HERE).1),
            Side::Inside => self.of(&HERE),
        };
        let to = if self.one_in(2) { self.of(&HERE).1 } else { self.of(&ELSEWHERE) };
        let port = self.of(&PORTS).saturating_add(self.of(&[0, 0, 0, 1])).max(1);
        // Lists speak about calls to services only.
        let server = if self.one_in(2) { self.of(&SERVICES).into() } else { host(to, port) };
        let shown = (!self.one_in(6)).then(|| self.of(&IDS).to_owned());
        Call { side, interface, client: at(&host(client, 40_000)), server: at(&server), shown }
    }
}

fn host(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Two workloads of one node, so that calls within it are there too.
fn world() -> World {
    let mut world = World::new();
    let number = |(nth, address): (usize, &&str)| service(&format!("s/{nth}"), address, None);
    world.snapshot.services = SERVICES.iter().enumerate().map(number).collect();
    world
}

/// What the far side shows to whoever asks for it on such a route.
fn asked<'c>(route: &Route, call: &'c Call) -> Option<&'c str> {
    match route {
        Route::Inbound { mode: TlsMode::Mutual | TlsMode::Permissive, .. } | Route::Egress { .. } => {
            call.shown.as_deref()
        }
        Route::Inbound { mode: TlsMode::Simple | TlsMode::Disable, .. }
        | Route::Local { .. }
        | Route::Plain { .. }
        | Route::Refuse { .. } => None,
    }
}

/// None: they agree.
fn difference(compiled: &Compiled, snapshot: &Snapshot, call: &Call) -> Option<String> {
    let read = |with_shadow| Reading { snapshot, with_shadow }.of(call);
    let (now, then) = (read(false), read(true));
    let route = compiled.route(call.side, call.interface, call.client, call.server, NOW);
    let peer = asked(&route, call).map(super::peer);
    let verdict = decide(compiled, &route, peer.as_ref());
    let tried = shadow(compiled, &route, peer.as_ref(), verdict);
    let agrees = agree(verdict, &now, compiled) && agree_in_shadow(tried, &now, &then);
    (!agrees).then(|| format!("{verdict:?}, {tried:?} on {route:?}; the words say {now:?}, and with shadow {then:?}"))
}

fn agree(verdict: Verdict, now: &Said, compiled: &Compiled) -> bool {
    let rule = verdict.rule().filter(|rule| compiled.policy_rule(*rule).is_some());
    match verdict {
        Verdict::Allow(_) => now.against.is_empty() && rule.is_none_or(|rule| now.allows.contains(&rule)),
        Verdict::Refuse(reason, _) => {
            now.against.contains(&reason) && rule.is_none_or(|rule| now.denies.contains(&rule))
        }
    }
}

fn agree_in_shadow(tried: Option<crate::policy::Shadow>, now: &Said, then: &Said) -> bool {
    let fresh = |then: &[RuleId], now: &[RuleId], rule| then.contains(&rule) && !now.contains(&rule);
    match (tried, now.against.is_empty(), then.against.is_empty()) {
        (None, true, true) | (None, false, false) => true,
        (Some(found), true, false) => found.would == Would::Refuse && fresh(&then.denies, &now.denies, found.rule),
        (Some(found), false, true) => found.would == Would::Admit && fresh(&then.allows, &now.allows, found.rule),
        (Some(_), true, true) | (Some(_), false, false) | (None, true, false) | (None, false, true) => false,
    }
}

/// Whether steering hands the call to us.
fn taken(made: &Captures, compiled: &Compiled, call: &Call) -> bool {
    let to = SocketAddr::new(call.server.ip().to_canonical(), call.server.port());
    let exact = made.inbound.iter().find(|i| (i.address, i.port) == (to.ip(), to.port()));
    let any = made.inbound.iter().find(|i| (i.address, i.port) == (to.ip(), 0));
    let inbound = exact.or(any).is_some_and(|inbound| inbound.take);
    let set = compiled.source(call.interface, call.client.ip()).map_or(0, |index| index as u32 + 1);
    inbound || (call.side == Side::Inside && views::caught(made, set, to).is_some())
}

/// Draws a policy and calls from each seed; how many calls were refused by a deny, admitted by an allow,
/// and told about in shadow, so that nobody tests nothing.
fn run(seeds: std::ops::Range<u64>) -> Result<[usize; 3], String> {
    let mut world = world();
    let mut before: Option<Arc<Compiled>> = None;
    let mut seen = [0; 3];
    for seed in seeds {
        let mut drawn = Drawn(seed);
        drawn.workloads(&mut world.snapshot);
        drawn.policies(&mut world.snapshot);
        let compiled = world.try_compile(before.as_deref()).unwrap();
        let made = captures(&compiled, &views::PORTS);
        for _ in 0..40 {
            let call = drawn.call();
            if let Some(difference) = difference(&compiled, &world.snapshot, &call) {
                let (policies, workloads) = (&world.snapshot.policies, &world.snapshot.workloads);
                return Err(format!("seed {seed}: {call:?}: {difference}\n{policies:#?}\n{workloads:#?}"));
            }
            let route = compiled.route(call.side, call.interface, call.client, call.server, NOW);
            if !matches!(route, Route::Plain { .. }) && !taken(&made, &compiled, &call) {
                return Err(format!("seed {seed}: {call:?} is not captured: {route:?}\n{made:#?}"));
            }
            let said = Reading { snapshot: &world.snapshot, with_shadow: false }.of(&call);
            let then = Reading { snapshot: &world.snapshot, with_shadow: true }.of(&call);
            seen[0] += usize::from(!said.denies.is_empty());
            seen[1] += usize::from(said.against.is_empty() && !said.allows.is_empty());
            seen[2] += usize::from(said.against.is_empty() != then.against.is_empty());
        }
        before = Some(compiled);
    }
    Ok(seen)
}

const SEEDS: u64 = 3_000;

#[test]
fn the_tables_decide_what_the_words_say() {
    let seen = run(0..SEEDS).unwrap_or_else(|difference| panic!("{difference}"));
    assert!(seen.iter().all(|&count| count > 1_000), "hardly anything was decided by rules: {seen:?}");
}

#[cfg(feature = "planted")]
#[test]
fn a_bug_in_the_tables_is_noticed() {
    use crate::planted::{Bug, plant};
    for bug in Bug::OF_RULES {
        plant(Some(bug));
        let run = run(0..SEEDS);
        plant(None);
        assert!(run.is_err(), "{bug:?} went unnoticed");
    }
}
