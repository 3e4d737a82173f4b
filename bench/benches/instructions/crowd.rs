//! Two whole gateways with a crowd of connections through both, all of them kept by name.
//!
//! The simulation's hosts are stock TCP stacks, which look at each of their sockets for each
//! packet: ten thousand connections would take hours under valgrind, in the hosts. The ends here
//! know two sequence numbers each, and nothing is lost between them and the gateways, which are
//! the simulation's own.
//!
//! ```text
//!   clients ── in0 [node-a] out0 ── out0 [node-b] in0 ── servers
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::stats::Total;
use dataplane::tls::provider;
use pktgen_tests::packet::{ACK, FIN, PSH, Packet, RST, SYN, Segment};
use pktgen_tests::sim::Setup;
use pktgen_tests::sim::chance::Chance;
use pktgen_tests::sim::clock::SimClock;
use pktgen_tests::sim::gateway::{Gateway, INSIDE, OUTSIDE, Sizes};
use pktgen_tests::sim::pki::{Authority, TRUST_DOMAIN};
use pktgen_tests::sim::topology::{self, PORT, address, gateway_mac, host, mac};
use snapshot::{Limits, Timeouts};

/// Who calls, in turn: one address has too few ports for a hundred thousand.
const CLIENTS: [&str; 2] = ["frontend", "batch"];
const SERVER: &str = "backend";
const FIRST_PORT: u16 = 10_000;

/// Connections that begin at once.
const AT_ONCE: usize = 4;
/// Bytes of a write. Rings hold a whole number of them: one that is cut where a ring begins anew
/// makes two records, and would do so more often where fewer connections write more.
const WRITE: usize = 1 << 10;
const RING: u32 = 4 << 10;
/// Microseconds between two writes: longer than an acknowledgement waits.
const EVERY: i64 = 20_000;

pub struct Crowd {
    clock: SimClock,
    pub gateways: [Gateway; 2],
    /// By node: clients, then servers.
    ends: [Vec<End>; 2],
    /// TLS records that crossed the wire.
    pub records: u64,
}

#[derive(Clone, Default)]
struct End {
    next: u32,
    heard: u32,
    received: usize,
}

impl Crowd {
    /// So many connections that stand, and have carried their first bytes.
    pub fn standing(flows: usize) -> Self {
        let mut crowd = Self::empty(flows);
        for first in (0..flows).step_by(AT_ONCE) {
            let batch = first..flows.min(first + AT_ONCE);
            batch.clone().for_each(|flow| crowd.send(0, flow, SYN, 0));
            crowd.settle(1_000);
            batch.for_each(|flow| assert_eq!(crowd.ends[1][flow].received, WRITE, "{flow} stands"));
        }
        crowd
    }

    fn empty(flows: usize) -> Self {
        let setup = Setup::new(1);
        let room = u32::try_from(flows + 64).expect("not so many");
        // With the usual rings a hundred thousand connections need more memory than there is.
        let limits = Limits { sessions: room, handshakes: room, flows: 4 * room, buffer: RING, ..setup.limits };
        // Nobody is asked whether it is still there: only what talks is to cost anything.
        let timeouts = Timeouts { keep_alive: Duration::from_secs(86_400), ..setup.timeouts };
        let sizes = Sizes { mtus: setup.mtus, limits, timeouts };
        let mut chance = Chance::new(setup.seed);
        provider::seed(chance.draw());
        let provider = provider::seeded();
        let clock = SimClock::default();
        let mut authority = Authority::new(chance.fork(), TRUST_DOMAIN);
        let gateways = [(0, "node-a"), (1, "node-b")].map(|(node, name)| {
            let identities = topology::identities(node, &mut authority);
            let first = topology::snapshot(node, &authority, &identities);
            let network = topology::network(node, setup.mtus);
            Gateway::new(name, &sizes, clock.clone(), chance.bytes(), provider.clone(), first, &identities, &network)
        });
        Self { clock, gateways, ends: [vec![End::default(); flows], vec![End::default(); flows]], records: 0 }
    }

    /// So many writes, one after the other, each by another connection as far as there are others.
    pub fn talk(&mut self, writes: usize) {
        let flows = self.ends[0].len();
        for number in 0..writes {
            // Not in the order in which they came.
            self.send(0, number * 7_919 % flows, ACK | PSH, WRITE);
            self.settle(EVERY);
        }
    }

    /// What both gateways received.
    pub fn packets(&self) -> u64 {
        self.gateways.iter().map(|gateway| gateway.mailbox().counters.total(Total::PacketsReceived)).sum()
    }

    pub fn received(&self) -> usize {
        self.ends[1].iter().map(|end| end.received - WRITE).sum()
    }

    /// All that happens in the next so many microseconds.
    fn settle(&mut self, micros: i64) {
        let until = self.clock.micros() + micros;
        loop {
            while self.turn() {}
            let now = self.clock.micros();
            match self.gateways.iter().filter_map(|gateway| gateway.next(now)).min() {
                Some(due) if due <= until => self.clock.advance_to(due),
                Some(_) | None => return self.clock.advance_to(until),
            }
        }
    }

    /// A turn of both. False: nothing left either.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for node in 0..2 {
            let mut sent = Vec::new();
            self.gateways[node].turn(|port, frame| sent.push((port, frame))).expect("no frame is lost");
            moved |= !sent.is_empty();
            for (port, frame) in sent {
                if port == OUTSIDE {
                    self.records += records(&frame);
                    self.gateways[1 - node].deliver(OUTSIDE, frame);
                } else {
                    self.answer(node, &frame);
                }
            }
        }
        moved
    }

    /// What the end behind `node` says to a segment.
    fn answer(&mut self, node: usize, frame: &[u8]) {
        let seen = Segment::parse(frame).expect("TCP");
        assert_eq!(seen.flags & (RST | FIN), 0, "nothing ends here: {seen:?}");
        let flow = number(if node == 0 { seen.destination } else { seen.source });
        let end = &mut self.ends[node][flow];
        let syn = seen.flags & SYN != 0;
        if syn {
            end.heard = seen.seq.wrapping_add(1);
        } else if seen.payload.is_empty() {
            return;
        } else {
            assert_eq!(seen.seq, end.heard, "nothing is lost or sent twice");
            end.heard = end.heard.wrapping_add(seen.payload.len() as u32);
            end.received += seen.payload.len();
        }
        self.send(node, flow, if syn && node == 1 { SYN | ACK } else { ACK }, 0);
        if syn && node == 0 {
            self.send(node, flow, ACK | PSH, WRITE);
        }
    }

    fn send(&mut self, node: usize, flow: usize, flags: u8, bytes: usize) {
        let (client, server) = (client(flow), SocketAddr::new(address(SERVER, false), PORT));
        let (name, [source, destination]) = match node {
            0 => (CLIENTS[flow % CLIENTS.len()], [client, server]),
            _ => (SERVER, [server, client]),
        };
        let (segment, last) = host(name);
        let end = &mut self.ends[node][flow];
        let syn = flags & SYN != 0;
        let packet = Packet {
            source_mac: mac(segment, last),
            destination_mac: gateway_mac(node, true),
            seq: end.next,
            ack: end.heard,
            flags,
            tcp_options: if syn { vec![2, 4, 5, 180] } else { vec![] },
            payload: vec![7; bytes],
            ..Packet::syn(source, destination)
        };
        end.next = end.next.wrapping_add(bytes as u32 + u32::from(syn));
        self.gateways[node].deliver(INSIDE, packet.frame());
    }
}

fn client(flow: usize) -> SocketAddr {
    let port = FIRST_PORT + u16::try_from(flow / CLIENTS.len()).expect("two addresses have ports for it");
    SocketAddr::new(address(CLIENTS[flow % CLIENTS.len()], false), port)
}

fn number(client: SocketAddr) -> usize {
    let which = CLIENTS.iter().position(|name| address(name, false) == client.ip()).expect("one of ours");
    usize::from(client.port() - FIRST_PORT) * CLIENTS.len() + which
}

/// TLS records that begin in a frame. One write is one segment on the wire, so each begins there
/// and ends there; those of the handshake may not, and nobody counts them.
fn records(frame: &[u8]) -> u64 {
    let seen = Segment::parse(frame).expect("TCP");
    let mut rest = &seen.payload[..];
    let mut count = 0;
    while let [_, _, _, high, low, ..] = rest {
        count += 1;
        rest = rest.get(5 + usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
    }
    count
}
