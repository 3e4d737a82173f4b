//! Two connections with a link between them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::{Faults, Link, Packets, Random};
use crate::{Config, Connection, Instant, Stack};

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

    /// Loses all that is under way.
    pub fn forget_packets(&mut self) {
        while self.there.pop(Instant::from_micros(i64::MAX)).is_some() {}
        while self.back.pop(Instant::from_micros(i64::MAX)).is_some() {}
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
