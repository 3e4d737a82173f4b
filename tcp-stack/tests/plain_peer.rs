//! A plain smoltcp interface and socket as the peer: an engine that knows nothing of ours.

use std::collections::VecDeque;
use std::net::SocketAddr;

use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::HardwareAddress;
use tcp_stack::testing::{Faults, Link, Packets, Random};
use tcp_stack::{Config, Connection, Duration, End, Instant, Stack};

/// The peer's cable.
#[derive(Default)]
struct Cable {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

struct Peer {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    cable: Cable,
    to_send: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
}

impl Peer {
    fn new(to_send: Vec<u8>, now: Instant) -> Self {
        let mut cable = Cable::default();
        let mut interface = Interface::new(IfaceConfig::new(HardwareAddress::Ip), &mut cable, now);
        interface.set_any_ip(true);
        let ring = || tcp::SocketBuffer::new(vec![0; 40_000]);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(tcp::Socket::new(ring(), ring()));
        Self { interface, sockets, socket, cable, to_send, sent: 0, got: Vec::new() }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn turn(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
        let socket = self.sockets.get_mut::<tcp::Socket>(self.socket);
        while socket.can_recv() {
            let got = &mut self.got;
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).expect("bytes wait");
        }
        if socket.may_send() {
            self.sent += socket.send_slice(&self.to_send[self.sent..]).expect("it may send");
            if self.sent == self.to_send.len() {
                socket.close();
            }
        }
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
    }
}

/// Both ends send half a megabyte and close.
fn converse(v6: bool, we_dial: bool, faults: Faults, seed: u64) {
    let (ours, theirs): (SocketAddr, SocketAddr) = match v6 {
        false => ("198.18.0.1:4000".parse().unwrap(), "198.18.0.2:3000".parse().unwrap()),
        true => ("[2001:db8::1]:4000".parse().unwrap(), "[2001:db8::2]:3000".parse().unwrap()),
    };
    let name = format!("v6 {v6}, we dial {we_dial}, seed {seed}");
    let mut random = Random(seed);
    let mut bytes = || (0..500_000).map(|_| random.draw() as u8).collect::<Vec<u8>>();
    let (from_us, from_peer) = (bytes(), bytes());
    let mut now = Instant::from_secs(1);
    let mut peer = Peer::new(from_peer.clone(), now);
    let mut stack = Stack::new([1; 16], &[1500], now);
    let mut us = Connection::new(&Config { buffer: 50_000, user_timeout: None, ..Config::default() });
    let (mut out, mut got, mut sent) = (Packets::default(), Vec::new(), 0);
    let (mut there, mut back) = (Link::new(faults, seed), Link::new(faults, seed + 1));
    let mut open = we_dial;
    if we_dial {
        peer.socket().listen(theirs.port()).unwrap();
        us.connect(&mut stack, ours, theirs, 99, 1500, now);
    } else {
        let Peer { interface, sockets, socket, .. } = &mut peer;
        sockets.get_mut::<tcp::Socket>(*socket).connect(interface.context(), ours, theirs).unwrap();
    }
    for _ in 0..1_000_000 {
        while let Some(packet) = back.pop(now) {
            match open {
                true => us.on_segment(&mut stack, &packet, now, &mut out),
                false => open = us.accept(&mut stack, ours, theirs, 99, 1500, &packet, now, &mut out),
            }
        }
        while us.received() > 0 {
            us.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes)));
        }
        while us.room() > 0 && sent < from_us.len() {
            sent += us.send(|space| {
                let len = space.len().min(from_us.len() - sent);
                space[..len].copy_from_slice(&from_us[sent..sent + len]);
                (len, len)
            });
        }
        if sent == from_us.len() {
            us.close();
        }
        us.transmit(&mut stack, now, &mut out, usize::MAX);
        out.queue.drain(..).for_each(|packet| there.push(packet, now));
        while let Some(packet) = there.pop(now) {
            peer.cable.incoming.push_back(packet);
        }
        peer.turn(now);
        peer.cable.outgoing.drain(..).for_each(|packet| back.push(packet, now));
        if us.ended().is_some() && !peer.socket().is_open() {
            break;
        }
        let Peer { interface, sockets, .. } = &mut peer;
        let next =
            [us.poll_at(&mut stack, now), interface.poll_at(now, sockets), there.next_arrival(), back.next_arrival()];
        now = next.into_iter().flatten().min().expect("something is left to happen").max(now);
    }
    assert_eq!(us.ended(), Some(End::Finished), "{name}: {:?}, {:?}", us.state(), peer.socket().state());
    assert!(got == from_peer, "{name}: {} bytes came", got.len());
    assert!(peer.got == from_us, "{name}: {} bytes went", peer.got.len());
}

#[test]
fn a_stock_peer_and_we_understand_each_other() {
    for v6 in [false, true] {
        for we_dial in [false, true] {
            converse(v6, we_dial, Faults::NONE, 1);
        }
    }
}

#[test]
fn a_stock_peer_and_we_understand_each_other_over_bad_links() {
    for seed in 0..30 {
        let delay = Duration::from_micros(300);
        let faults = Faults { drop: seed % 6 * 2, duplicate: seed % 5 * 4, reorder: seed % 4 * 15, delay };
        converse(seed % 2 == 0, seed % 3 == 0, faults, seed);
    }
}
