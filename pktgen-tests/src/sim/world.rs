//! Everything there is in a simulation, and the loop that takes it from event to event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use dataplane::io::PortId;
use dataplane::tls::{CryptoProvider, provider};
use rcgen::ExtendedKeyUsagePurpose;
use snapshot::Snapshot;

use super::call::{Call, CallId, Payload};
use super::chance::Chance;
use super::clock::{EPOCH, SimClock};
use super::faults::{Fault, Faults};
use super::gateway::{Gateway, INSIDE, OUTSIDE, Sizes};
use super::host::{Host, Service, TlsClient, Tuning};
use super::link::{Arrival, Link, Station};
use super::oracle::Oracle;
use super::peer;
use super::pki::{Authority, Identity, TRUST_DOMAIN};
use super::setup::{Setup, Shown};
use super::topology::{self, HOSTS, Segment};
use super::trace::Trace;
use super::wire::see;

/// A frame on its way: when it arrives, a number that keeps equals in order, the station, its bytes.
type Pending = (i64, u64, usize, Vec<u8>);

pub struct World {
    pub clock: SimClock,
    pub gateways: [Gateway; 2],
    pub hosts: Vec<Host>,
    pub calls: Vec<Call>,
    pub authority: Authority,
    pub provider: Arc<CryptoProvider>,
    pub oracle: Oracle,
    pub chance: Chance,
    /// Whose segments with payload are lost on every link, handshakes and acknowledgements are not.
    pub hushed: Option<SocketAddr>,
    links: [Link; 3],
    trace: Trace,
    queue: BinaryHeap<Reverse<Pending>>,
    queued: u64,
    starts: BinaryHeap<Reverse<(i64, usize)>>,
    tls: Vec<(CallId, TlsClient)>,
    gateway_due: [Option<i64>; 2],
    host_due: Vec<Option<i64>>,
    next_port: u16,
    pub events: u64,
    /// Segments from or to this port are printed, to see what a failing seed does.
    show: Option<u16>,
}

/// What a run's loop broke off with: when, and which promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub at: i64,
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {} µs: {}", self.at, self.what)
    }
}

/// Stations: two ports of each gateway, then the hosts.
const FIRST_HOST: usize = 4;

impl World {
    pub fn new(setup: &Setup) -> Self {
        let mut chance = Chance::new(setup.seed);
        provider::seed(chance.draw());
        let provider = if setup.real_crypto { provider::production() } else { provider::seeded() };
        let clock = SimClock::default();
        let mut authority = Authority::new(chance.fork(), TRUST_DOMAIN);
        let payload = Payload::new(chance.fork());
        let sizes = Sizes { mtus: setup.mtus, limits: setup.limits.clone(), timeouts: setup.timeouts.clone() };
        let gateways = [(0, "node-a"), (1, "node-b")].map(|(node, name)| {
            let identities = topology::identities(node, &mut authority);
            let first = topology::snapshot(node, &authority, &identities);
            let network = topology::network(node, setup.mtus);
            Gateway::new(name, &sizes, clock.clone(), chance.bytes(), provider.clone(), first, &identities, &network)
        });
        let mut links = setup.delays.map(|delay| Link::new(delay, Faults::new(chance.fork(), setup.faults)));
        for node in 0..2 {
            let inside = if node == 0 { Segment::InsideA } else { Segment::InsideB };
            links[inside.index()].attach(topology::gateway_mac(node, true), Station(2 * node));
            links[Segment::Wire.index()].attach(topology::gateway_mac(node, false), Station(2 * node + 1));
        }
        let mut hosts = Vec::new();
        for (at, (name, segment, number)) in HOSTS.into_iter().enumerate() {
            let mac = topology::mac(segment, number);
            links[segment.index()].attach(mac, Station(FIRST_HOST + at));
            let addresses = [false, true].map(|v6| topology::address(name, v6)).into();
            let mtu = setup.mtus[usize::from(segment == Segment::Wire)];
            let tuning = Tuning { mtu, ..setup.tuning };
            let hops = topology::next_hops(segment);
            hosts.push(Host::new(name, mac, addresses, hops, tuning, chance.draw(), payload.clone()));
        }
        let mut world = Self {
            host_due: vec![None; hosts.len()],
            clock,
            gateways,
            hosts,
            calls: Vec::new(),
            authority,
            provider,
            oracle: Oracle::default(),
            chance,
            hushed: None,
            links,
            trace: Trace::default(),
            queue: BinaryHeap::new(),
            queued: 0,
            starts: BinaryHeap::new(),
            tls: Vec::new(),
            gateway_due: [Some(0); 2],
            next_port: 20_000,
            events: 0,
            show: std::env::var("SLUICE_SHOW").ok().and_then(|port| port.parse().ok()),
        };
        world.open_services();
        world
    }

    fn open_services(&mut self) {
        let identity = self.issue(Shown::Own).expect("the peer has an identity");
        for name in ["backend", "open", "simple", "raw", "local"] {
            self.host(name).listen(topology::PORT, Service::Plain);
        }
        self.host("open").listen(topology::GREETING_PORT, Service::Plain);
        let mutual = peer::server(&self.provider, Some(self.authority.root()), &identity);
        self.host("peer").listen(topology::TLS_PORT, Service::Tls(mutual));
        let simple = peer::server(&self.provider, None, &identity);
        self.host("peer").listen(topology::SIMPLE_PORT, Service::Tls(simple));
    }

    pub fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.iter_mut().find(|host| host.name == name).expect("a host of the topology")
    }

    /// A certificate for the direct peer.
    pub fn issue(&mut self, shown: Shown) -> Option<Identity> {
        let (from, to) = (EPOCH - 3_600, EPOCH + 86_400);
        let peer = topology::id("peer");
        Some(match shown {
            Shown::Own | Shown::OldTls => self.authority.issue(&peer, from, to),
            Shown::Stranger => self.authority.issue(&topology::id("stranger"), from, to),
            Shown::CaLeaf => self.authority.issue_ca(&peer, from, to),
            Shown::NoKeyUsage => self.authority.issue_bent(&[&peer], from, to, |leaf| leaf.key_usages.clear()),
            Shown::ServerOnly => self.authority.issue_bent(&[&peer], from, to, |leaf| {
                leaf.extended_key_usages.retain(|usage| *usage == ExtendedKeyUsagePurpose::ServerAuth);
            }),
            Shown::ByALeaf => self.authority.issue_by_a_leaf(&peer, from, to),
            Shown::WrongKey => {
                let other = self.authority.issue(&peer, from, to);
                Identity { key: other.key, ..self.authority.issue(&peer, from, to) }
            }
            Shown::TwoNames => self.authority.issue_with(&[&peer, "spiffe://example.com/another"], from, to),
            Shown::Nothing => return None,
            Shown::Expired => self.authority.issue(&peer, from, EPOCH - 60),
            Shown::OtherRoot => Authority::new(self.chance.fork(), TRUST_DOMAIN).issue(&peer, from, to),
            Shown::OtherDomain => {
                Authority::new(self.chance.fork(), "other.org").issue("spiffe://other.org/peer", from, to)
            }
            Shown::NoSpiffeId => self.authority.issue_with(&[], from, to),
        })
    }

    /// A client port that no other call has.
    pub fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// Has a host make a call at `at` microseconds, or now if that is over.
    pub fn call(&mut self, at: i64, call: Call) -> CallId {
        let id = CallId(self.calls.len());
        self.oracle.know(id, &call);
        self.calls.push(call);
        self.starts.push(Reverse((at.max(self.clock.micros()), id.0)));
        id
    }

    /// The same, by a client that speaks TLS itself.
    pub fn call_tls(&mut self, at: i64, call: Call, shown: Shown) -> CallId {
        let identity = self.issue(shown);
        self.call_with(at, call, identity.as_ref(), shown == Shown::OldTls)
    }

    /// The same, by a client that shows this certificate.
    pub fn call_as(&mut self, at: i64, call: Call, identity: &Identity) -> CallId {
        self.call_with(at, call, Some(identity), false)
    }

    fn call_with(&mut self, at: i64, call: Call, identity: Option<&Identity>, old: bool) -> CallId {
        let config = peer::client(&self.provider, self.authority.root(), identity, old);
        let id = self.call(at, call);
        self.tls.push((id, Rc::new((config, "service.default.svc".into()))));
        id
    }

    /// Pushes a newer snapshot to a gateway, as its agent does.
    pub fn push(&mut self, node: usize, identities: &[Identity], edit: impl FnOnce(&mut Snapshot)) {
        self.gateways[node].push(identities, edit).expect("the snapshot compiles");
        self.gateway_due[node] = Some(self.clock.micros());
    }

    /// Puts a frame on a link as if a host had sent it.
    pub fn inject(&mut self, segment: Segment, frame: Vec<u8>) {
        self.carry(segment, frame);
    }

    /// Cuts a link, or mends it.
    pub fn cut_link(&mut self, segment: Segment, cut: bool) {
        self.links[segment.index()].is_cut = cut;
    }

    /// Wakes a gateway, for commands that were put into its mailbox.
    pub fn wake(&mut self, node: usize) {
        self.gateway_due[node] = Some(self.clock.micros());
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub fn faults(&self, fault: Fault) -> u64 {
        self.links.iter().map(|link: &Link| link.counters.of(fault)).sum()
    }

    /// When the next thing happens. None: never again.
    pub fn next(&self) -> Option<i64> {
        let arrivals = self.queue.peek().map(|Reverse((at, ..))| *at);
        let starts = self.starts.peek().map(|Reverse((at, _))| *at);
        let gateways = self.gateway_due.iter().flatten().min().copied();
        let hosts = self.host_due.iter().flatten().min().copied();
        [arrivals, starts, gateways, hosts].into_iter().flatten().min()
    }

    /// Goes on until `done` says so or `until` microseconds are reached. True: it was done.
    pub fn run(&mut self, until: i64, mut done: impl FnMut(&mut Self) -> bool) -> Result<bool, Broken> {
        loop {
            if done(self) {
                return Ok(true);
            }
            match self.next() {
                Some(at) if at <= until => self.step(at.max(self.clock.micros())).map_err(|what| self.broken(what))?,
                Some(_) | None => {
                    self.clock.advance_to(until.max(self.clock.micros()));
                    return Ok(false);
                }
            }
        }
    }

    /// Until every call is over, or `limit` microseconds have passed, which is then an error.
    pub fn run_until_over(&mut self, limit: i64) -> Result<(), Broken> {
        let until = self.clock.micros() + limit;
        if self.run(until, |world| world.starts.is_empty() && world.unfinished().is_none())? {
            return Ok(());
        }
        let id = self.unfinished().expect("it is not done");
        let ends = self.hosts.iter().flat_map(|host| &host.ends).filter(|end| end.call == id);
        let seen: Vec<_> = ends.map(|end| format!("{:?} {:?}", end.side, end.progress)).collect();
        Err(self.broken(format!("{id:?} never ended: {:?}: {seen:?}", self.calls[id.0])))
    }

    fn unfinished(&self) -> Option<CallId> {
        (0..self.calls.len()).map(CallId).find(|id| !Oracle::is_over(*id, &self.hosts))
    }

    pub fn broken(&self, what: String) -> Broken {
        Broken { at: self.clock.micros(), what }
    }

    fn step(&mut self, at: i64) -> Result<(), String> {
        self.clock.advance_to(at);
        self.events += 1;
        while let Some(Reverse((due, ..))) = self.queue.peek()
            && *due <= at
        {
            let Reverse((.., station, frame)) = self.queue.pop().expect("it was there");
            self.arrive(station, frame, at);
        }
        while let Some(Reverse((due, _))) = self.starts.peek()
            && *due <= at
        {
            let Reverse((_, call)) = self.starts.pop().expect("it was there");
            self.begin(CallId(call), at);
        }
        for node in 0..2 {
            if self.gateway_due[node].is_some_and(|due| due <= at) {
                self.turn(node, at)?;
            }
        }
        for host in 0..self.hosts.len() {
            if self.host_due[host].is_some_and(|due| due <= at) {
                self.run_host(host, at)?;
            }
        }
        Ok(())
    }

    fn show(&self, what: &str, frame: &[u8]) {
        let Some(port) = self.show else { return };
        if let Some(seen) = see(frame).filter(|seen| [seen.source.port(), seen.destination.port()].contains(&port)) {
            println!("{:>10} {what} {seen}", self.clock.micros());
        }
    }

    fn arrive(&mut self, station: usize, frame: Vec<u8>, at: i64) {
        self.show(&format!("    -> station {station}"), &frame);
        match station {
            0..FIRST_HOST => {
                let port = if station.is_multiple_of(2) { INSIDE } else { OUTSIDE };
                self.gateways[station / 2].deliver(port, frame);
                self.gateway_due[station / 2] = Some(at);
            }
            _ => {
                self.hosts[station - FIRST_HOST].deliver(frame);
                self.host_due[station - FIRST_HOST] = Some(at);
            }
        }
    }

    fn begin(&mut self, id: CallId, at: i64) {
        let call = &self.calls[id.0];
        let host = self.hosts.iter().position(|host| host.name == call.from).expect("a host of the topology");
        let tls = self.tls.iter().find(|(call, _)| *call == id).map(|(_, config)| config.clone());
        self.hosts[host].connect(id, call, tls);
        self.host_due[host] = Some(at);
    }

    fn turn(&mut self, node: usize, at: i64) -> Result<(), String> {
        let mut sent: Vec<(PortId, Vec<u8>)> = Vec::new();
        self.gateways[node].turn(|port, frame| sent.push((port, frame)))?;
        self.gateway_due[node] = self.gateways[node].next(at);
        for (port, frame) in sent {
            let segment = match (node, port) {
                (_, OUTSIDE) => Segment::Wire,
                (0, _) => Segment::InsideA,
                (_, _) => Segment::InsideB,
            };
            self.oracle.sent(segment, true, &frame, &self.calls)?;
            self.carry(segment, frame);
        }
        Ok(())
    }

    fn run_host(&mut self, host: usize, at: i64) -> Result<(), String> {
        let mut sent = Vec::new();
        self.hosts[host].run(at, &self.calls, |frame| sent.push(frame))?;
        self.host_due[host] = self.hosts[host].next(at);
        let segment = HOSTS[host].1;
        for frame in sent {
            self.oracle.sent(segment, false, &frame, &self.calls)?;
            self.carry(segment, frame);
        }
        Ok(())
    }

    fn carry(&mut self, segment: Segment, frame: Vec<u8>) {
        let now = self.clock.micros();
        self.show(&format!("{segment:?} <-"), &frame);
        self.trace.number(now as u64);
        self.trace.bytes(&frame);
        let lost = |host| see(&frame).is_some_and(|seen| seen.source == host && !seen.payload.is_empty());
        if self.hushed.is_some_and(lost) {
            return;
        }
        let (queue, queued) = (&mut self.queue, &mut self.queued);
        self.links[segment.index()].carry(now, frame, |Arrival { at, station, frame }| {
            *queued += 1;
            queue.push(Reverse((at, *queued, station.0, frame)));
        });
    }
}
