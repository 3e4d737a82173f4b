//! Two connections, a bad link between them, and a clock that jumps from event to event.
//!
//! Everything comes from the seed: the same seed gives the same run. A [`Pair`] is driven by
//! [`Pair::step`], or by [`Pair::exchange`], which pushes bytes both ways until all have arrived.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::{Config, Connection, Duration, Instant, Output, Stack};

/// Packets that a connection wrote.
#[derive(Debug, Default)]
pub struct Packets {
    pub queue: VecDeque<Vec<u8>>,
    /// How many more are taken; `None` for any number.
    pub room: Option<usize>,
}

impl Output for Packets {
    fn ready(&mut self, _: usize) -> bool {
        self.room.is_none_or(|room| self.queue.len() < room)
    }

    fn packet(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let mut packet = vec![0xa5; len];
        fill(&mut packet);
        self.queue.push_back(packet);
    }
}

/// A small generator for tests (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

/// What a link does to packets, each in a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub drop: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub delay: Duration,
}

impl Faults {
    pub const NONE: Self = Self { drop: 0, duplicate: 0, reorder: 0, delay: Duration::from_micros(100) };
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    faults: Faults,
    random: Random,
    flying: BTreeMap<(Instant, u64), Vec<u8>>,
    serial: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub carried: u64,
}

impl Link {
    pub fn new(faults: Faults, seed: u64) -> Self {
        let random = Random(seed);
        Self { faults, random, flying: BTreeMap::new(), serial: 0, dropped: 0, duplicated: 0, reordered: 0, carried: 0 }
    }

    /// Puts a packet on its way.
    pub fn push(&mut self, packet: Vec<u8>, now: Instant) {
        if self.random.below(1000) < self.faults.drop {
            self.dropped += 1;
            return;
        }
        if self.random.below(1000) < self.faults.duplicate {
            self.duplicated += 1;
            self.launch(packet.clone(), now + self.faults.delay);
        }
        let mut arrival = now + self.faults.delay;
        if self.random.below(1000) < self.faults.reorder {
            self.reordered += 1;
            arrival += Duration::from_micros(self.random.below(self.faults.delay.total_micros() * 3));
        }
        self.launch(packet, arrival);
    }

    /// The next packet that has arrived.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.next_arrival().filter(|&at| at <= now)?;
        self.carried += 1;
        self.flying.pop_first().map(|(_, packet)| packet)
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.flying.keys().next().map(|&(at, _)| at)
    }

    fn launch(&mut self, packet: Vec<u8>, arrival: Instant) {
        self.serial += 1;
        self.flying.insert((arrival, self.serial), packet);
    }
}

/// One end: a connection, its stack, and the bytes still to push and already pulled.
pub struct Side {
    pub connection: Connection,
    pub stack: Stack,
    pub address: SocketAddr,
    pub out: Packets,
    pub to_send: VecDeque<u8>,
    pub got: Vec<u8>,
    /// Reads what comes; a side that does not lets its window fill.
    pub reads: bool,
    /// Closes when all is queued.
    pub closes: bool,
}

impl Side {
    pub fn new(address: SocketAddr, config: &Config, mtus: &[usize]) -> Self {
        Self {
            connection: Connection::new(config),
            stack: Stack::new([7; 16], mtus, Instant::ZERO),
            address,
            out: Packets::default(),
            to_send: VecDeque::new(),
            got: Vec::new(),
            reads: true,
            closes: false,
        }
    }

    /// The application's turn: reads and writes what it can.
    pub fn work(&mut self) {
        while self.reads && self.connection.received() > 0 {
            let got = &mut self.got;
            self.connection.recv(|bytes| {
                got.extend_from_slice(bytes);
                (bytes.len(), ())
            });
        }
        while !self.to_send.is_empty() && self.connection.room() > 0 {
            let to_send = &mut self.to_send;
            self.connection.send(|space| {
                let len = space.len().min(to_send.len());
                space.iter_mut().zip(to_send.drain(..len)).for_each(|(slot, byte)| *slot = byte);
                (len, ())
            });
        }
        if self.closes && self.to_send.is_empty() {
            self.connection.close();
        }
    }
}

/// A caller and a callee, and the link between them.
pub struct Pair {
    pub caller: Side,
    pub callee: Side,
    pub there: Link,
    pub back: Link,
    pub now: Instant,
    pub mtu: usize,
}

impl Pair {
    /// Neither end is open yet: see [`Pair::connect`].
    pub fn new(config: &Config, mtu: usize, v6: bool, faults: Faults, seed: u64) -> Self {
        let (caller, callee) = match v6 {
            false => ("198.18.0.1:40000", "198.18.0.2:3000"),
            true => ("[2001:db8::1]:40000", "[2001:db8::2]:3000"),
        };
        let side = |address: &str| Side::new(address.parse().expect("an address"), config, &[mtu]);
        Self {
            caller: side(caller),
            callee: side(callee),
            there: Link::new(faults, seed),
            back: Link::new(faults, seed ^ 0x5555),
            now: Instant::from_millis(1000),
            mtu,
        }
    }

    /// The caller dials; the callee accepts the first SYN that arrives.
    pub fn connect(&mut self, isn: u32) {
        let (local, remote) = (self.caller.address, self.callee.address);
        self.caller.connection.connect(&mut self.caller.stack, local, remote, isn, self.mtu, self.now);
    }

    /// One event: time moves to it, packets are delivered, both ends work and transmit. `false` when
    /// nothing is left to happen.
    pub fn step(&mut self) -> bool {
        let Self { caller, callee, there, back, now, mtu } = self;
        while let Some(packet) = there.pop(*now) {
            if callee.connection.life.tuple.is_none() {
                let isn = callee.stack.isn(callee.address, caller.address, *now);
                let (local, remote) = (callee.address, caller.address);
                let side = &mut *callee;
                side.connection.accept(&mut side.stack, local, remote, isn, *mtu, &packet, *now, &mut side.out);
            } else {
                callee.connection.on_segment(&mut callee.stack, &packet, *now, &mut callee.out);
            }
        }
        while let Some(packet) = back.pop(*now) {
            caller.connection.on_segment(&mut caller.stack, &packet, *now, &mut caller.out);
        }
        for (side, link) in [(&mut *caller, &mut *there), (&mut *callee, &mut *back)] {
            side.work();
            side.connection.transmit(&mut side.stack, *now, &mut side.out, usize::MAX);
            side.out.queue.drain(..).for_each(|packet| link.push(packet, *now));
        }
        let next = [
            there.next_arrival(),
            back.next_arrival(),
            caller.connection.poll_at(&mut caller.stack, *now),
            callee.connection.poll_at(&mut callee.stack, *now),
        ];
        match next.into_iter().flatten().min() {
            Some(at) => {
                *now = at.max(*now);
                true
            }
            None => false,
        }
    }

    /// Steps until `done`, and panics with both states if that takes more than `limit` events.
    pub fn run(&mut self, limit: usize, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..limit {
            if done(self) {
                return;
            }
            if !self.step() {
                break;
            }
        }
        let (a, b) = (&self.caller.connection, &self.callee.connection);
        assert!(done(self), "{what}: stuck in {:?} and {:?} at {}", a.state(), b.state(), self.now);
    }

    /// Connects, sends `len` bytes each way, closes both sides and compares.
    pub fn exchange(&mut self, len: usize, seed: u64) {
        let mut random = Random(seed);
        let mut bytes = |len: usize| -> Vec<u8> { (0..len).map(|_| random.draw() as u8).collect() };
        let (there, back) = (bytes(len), bytes(len));
        self.caller.to_send = there.iter().copied().collect();
        self.callee.to_send = back.iter().copied().collect();
        self.caller.closes = true;
        self.callee.closes = true;
        self.connect(seed as u32);
        self.run(2_000_000, "exchange", |pair| {
            pair.caller.connection.ended().is_some() && pair.callee.connection.ended().is_some()
        });
        assert!(self.callee.got == there, "caller to callee: {} of {len} bytes", self.callee.got.len());
        assert!(self.caller.got == back, "callee to caller: {} of {len} bytes", self.caller.got.len());
    }
}
