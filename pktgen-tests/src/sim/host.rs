//! A host of the simulation: a stock smoltcp stack with programs on it that know nothing of us.
//!
//! It fills and verifies checksums itself, as an honest network card does, and shares no code with
//! the engine under test but smoltcp's released crate.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{AnySocket, tcp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::call::{Call, CallId, Payload, Side};
use super::end::End;

/// What a client that speaks TLS itself is configured with, and the name that it calls.
pub type TlsClient = Rc<(std::sync::Arc<ClientConfig>, String)>;

/// How a host's TCP is set.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    pub mtu: usize,
    pub receive: usize,
    pub send: usize,
    pub ack_delay: Option<u64>,
    pub nagle: bool,
    /// Milliseconds.
    pub keep_alive: u64,
    pub timeout: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            mtu: 1500,
            receive: 64 << 10,
            send: 64 << 10,
            ack_delay: Some(10),
            nagle: false,
            keep_alive: 10_000,
            timeout: 60_000,
        }
    }
}

/// What a service of a host speaks.
#[derive(Clone)]
pub enum Service {
    Plain,
    /// Plain behind a PROXY header, without which it does nothing.
    Proxied,
    Tls(std::sync::Arc<ServerConfig>),
    /// TCP stands, and nothing reads or writes.
    Mute,
}

/// Callers that may come at once.
const BACKLOG: usize = 4;

struct Listener {
    port: u16,
    service: Service,
    /// Sockets that wait for a caller, or for the last step of its handshake: until then a reset
    /// sends them back to waiting.
    handles: Vec<SocketHandle>,
}

pub struct Host {
    pub name: &'static str,
    pub mac: [u8; 6],
    pub addresses: Vec<IpAddr>,
    /// First matching one: where packets for an address go. Prefix bits are the caller's to know.
    next_hops: Vec<(snapshot::Prefix, [u8; 6])>,
    tuning: Tuning,
    interface: Interface,
    queues: Queues,
    sockets: SocketSet<'static>,
    listeners: Vec<Listener>,
    pub ends: Vec<End>,
    payload: Payload,
    /// Nodes that call on behalf of their workloads (`source: node`): whose call it is shows in its
    /// first bytes, or else it is the first that still waits for its service.
    pub nodes: Vec<IpAddr>,
    /// Virtual addresses that its services are endpoints of.
    pub stands_for: Vec<SocketAddr>,
    /// Calls of `nodes` that have said nothing yet, by listener.
    unnamed: Vec<(usize, SocketHandle)>,
    /// Callers that reached a service and are in no list of calls.
    pub strangers: Vec<(SocketAddr, SocketAddr)>,
    /// It vanished: hears nothing and says nothing.
    pub unplugged: bool,
}

impl Host {
    pub fn new(
        name: &'static str,
        mac: [u8; 6],
        addresses: Vec<IpAddr>,
        next_hops: Vec<(snapshot::Prefix, [u8; 6])>,
        tuning: Tuning,
        seed: u64,
        payload: Payload,
    ) -> Self {
        let mut queues = Queues { mtu: tuning.mtu, ..Queues::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            for &address in &addresses {
                let prefix = if address.is_ipv4() { 24 } else { 64 };
                list.push(IpCidr::new(address.into(), prefix)).expect("one address a family");
            }
        });
        let routes = interface.routes_mut();
        routes.add_default_ipv4_route([198, 18, 0, 1].into()).expect("room for a route");
        let gateway = "2001:db8::1".parse::<std::net::Ipv6Addr>().expect("an address");
        routes.add_default_ipv6_route(gateway).expect("room for a route");
        Self {
            name,
            mac,
            addresses,
            next_hops,
            tuning,
            interface,
            queues,
            sockets: SocketSet::new(Vec::new()),
            listeners: Vec::new(),
            ends: Vec::new(),
            payload,
            nodes: Vec::new(),
            stands_for: Vec::new(),
            unnamed: Vec::new(),
            strangers: Vec::new(),
            unplugged: false,
        }
    }

    pub fn listen(&mut self, port: u16, service: Service) {
        let handles = (0..BACKLOG).map(|_| self.listening(port)).collect();
        self.listeners.push(Listener { port, service, handles });
    }

    /// How many connections to `port` stand, whatever is said in them.
    pub fn standing(&self, port: u16) -> usize {
        let sockets = self.sockets.iter().filter_map(|(_, socket)| tcp::Socket::downcast(socket));
        let there = sockets.filter(|socket| socket.local_endpoint().is_some_and(|at| at.port == port));
        there.filter(|socket| matches!(socket.state(), tcp::State::Established | tcp::State::CloseWait)).count()
    }

    /// Has what listens on `port` speak something else from the next caller on.
    pub fn speak(&mut self, port: u16, service: Service) {
        self.listeners.iter_mut().filter(|listener| listener.port == port).for_each(|at| at.service = service.clone());
    }

    pub fn connect(&mut self, id: CallId, call: &Call, tls: Option<TlsClient>) {
        let mut socket = self.socket();
        socket.connect(self.interface.context(), call.server, call.client.port()).expect("addresses that can connect");
        let handle = self.sockets.add(socket);
        let tls = tls.map(|config| {
            let name = config.1.clone().try_into().expect("a host name");
            ClientConnection::new(config.0.clone(), name).expect("a client configuration that works").into()
        });
        self.ends.push(End::new(id, Side::Client, handle, call.server, tls));
    }

    /// A frame for us, if it is: the network card looks at the address, TCP at the rest.
    pub fn deliver(&mut self, frame: Vec<u8>) {
        if !self.unplugged
            && frame.len() > 14
            && frame[..6] == self.mac
            && matches!(&frame[12..14], [8, 0] | [0x86, 0xdd])
        {
            self.queues.received.push_back(frame);
        }
    }

    /// Runs the stack and all programs until nothing moves. Frames that leave go to `send`.
    pub fn run(&mut self, now: i64, calls: &[Call], mut send: impl FnMut(Vec<u8>)) -> Result<(), String> {
        if self.unplugged {
            return Ok(());
        }
        let at = Instant::from_micros(now);
        for _ in 0..64 {
            self.interface.poll(at, &mut self.queues, &mut self.sockets);
            self.greet_callers(calls);
            for end in &mut self.ends {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(end.handle);
                end.pump(socket, &calls[end.call.0], &self.payload, now)?;
            }
            self.interface.poll(at, &mut self.queues, &mut self.sockets);
            let idle = self.queues.sent.is_empty();
            while let Some(packet) = self.queues.sent.pop_front() {
                if let Some(frame) = self.frame(&packet) {
                    send(frame);
                }
            }
            if idle {
                break;
            }
        }
        Ok(())
    }

    /// When it wants to run next. None: never by itself.
    pub fn next(&mut self, now: i64) -> Option<i64> {
        if self.unplugged {
            return None;
        }
        let at = Instant::from_micros(now);
        let stack = self.interface.poll_at(at, &self.sockets).map(|at| at.total_micros().max(now + 1));
        let paced = self.ends.iter().filter(|end| !end.progress.over).filter_map(|end| end.next);
        stack.into_iter().chain(paced.map(|at| at.max(now + 1))).min()
    }

    fn socket(&self) -> tcp::Socket<'static> {
        let Tuning { receive, send, ack_delay, nagle, keep_alive, timeout, .. } = self.tuning;
        let ring = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(ring(receive), ring(send));
        socket.set_ack_delay(ack_delay.map(Duration::from_millis));
        socket.set_nagle_enabled(nagle);
        socket.set_keep_alive(Some(Duration::from_millis(keep_alive)));
        socket.set_timeout(Some(Duration::from_millis(timeout)));
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        socket
    }

    fn listening(&mut self, port: u16) -> SocketHandle {
        let mut socket = self.socket();
        socket.listen(port).expect("a port to listen on");
        self.sockets.add(socket)
    }

    /// Sockets that have a caller get a program; another one listens in their place.
    fn greet_callers(&mut self, calls: &[Call]) {
        for at in 0..self.listeners.len() {
            let state = |host: &Self, handle| host.sockets.get::<tcp::Socket<'_>>(handle).state();
            let handles = std::mem::take(&mut self.listeners[at].handles);
            let (mut waiting, greeted): (Vec<_>, Vec<_>) = handles
                .into_iter()
                .partition(|&handle| matches!(state(self, handle), tcp::State::Listen | tcp::State::SynReceived));
            let free = waiting.iter().filter(|&&handle| state(self, handle) == tcp::State::Listen).count();
            waiting.extend((free..BACKLOG).map(|_| self.listening(self.listeners[at].port)));
            self.listeners[at].handles = waiting;
            greeted.into_iter().for_each(|handle| self.greet(at, handle, calls));
        }
        for (at, handle) in std::mem::take(&mut self.unnamed) {
            self.greet(at, handle, calls);
        }
    }

    fn greet(&mut self, listener: usize, handle: SocketHandle, calls: &[Call]) {
        let socket = self.sockets.get::<tcp::Socket<'_>>(handle);
        let (Some(local), Some(remote)) = (socket.local_endpoint(), socket.remote_endpoint()) else {
            self.sockets.remove(handle);
            return;
        };
        let (client, server) = (address(remote), address(local));
        let exactly = calls.iter().rposition(|call| call.client == client && call.server == server);
        let behind = |call: &Call| call.client == client && self.stands_for.contains(&call.server);
        let exactly = exactly.or_else(|| calls.iter().rposition(behind));
        let call = match exactly {
            None if self.nodes.contains(&client.ip()) => match self.call_behind(listener, handle, server, calls) {
                Some(call) => Some(call),
                None => return self.unnamed.push((listener, handle)),
            },
            call => call,
        };
        let tls = match &self.listeners[listener].service {
            Service::Mute => return,
            Service::Plain | Service::Proxied => None,
            Service::Tls(config) => {
                Some(ServerConnection::new(config.clone()).expect("a server configuration that works").into())
            }
        };
        let proxied = matches!(self.listeners[listener].service, Service::Proxied);
        match call {
            Some(call) => {
                let end = End::new(CallId(call), Side::Server, handle, client, tls);
                self.ends.push(if proxied { end.behind_header() } else { end });
            }
            None => self.strangers.push((client, server)),
        }
    }

    /// The call to `server` that a node makes in its own name. None: its first bytes have yet to come.
    fn call_behind(
        &mut self,
        listener: usize,
        handle: SocketHandle,
        server: SocketAddr,
        calls: &[Call],
    ) -> Option<usize> {
        const ENOUGH: usize = 64;
        let is = |call: &Call| call.server == server || self.stands_for.contains(&call.server);
        let served = |call: usize| self.ends.iter().any(|end| end.call.0 == call && end.side == Side::Server);
        let mut waiting = (0..calls.len()).filter(|&call| is(&calls[call]) && !served(call));
        match self.listeners[listener].service {
            Service::Plain => {
                let first = self.sockets.get_mut::<tcp::Socket<'_>>(handle).peek(ENOUGH).unwrap_or_default();
                let said = |call: &usize| self.payload.from(CallId(*call), Side::Client, 0, ENOUGH) == first;
                waiting.find(|call| first.len() == ENOUGH && said(call))
            }
            Service::Tls(_) | Service::Mute | Service::Proxied => waiting.next(),
        }
    }

    fn frame(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (kind, destination): ([u8; 2], IpAddr) = match packet.first()? >> 4 {
            4 => ([8, 0], <[u8; 4]>::try_from(&packet[16..20]).ok()?.into()),
            _ => ([0x86, 0xdd], <[u8; 16]>::try_from(&packet[24..40]).ok()?.into()),
        };
        let (_, mac) = self.next_hops.iter().find(|(prefix, _)| prefix.contains(destination))?;
        let mut frame = Vec::with_capacity(14 + packet.len());
        frame.extend_from_slice(mac);
        frame.extend_from_slice(&self.mac);
        frame.extend_from_slice(&kind);
        frame.extend_from_slice(packet);
        Some(frame)
    }
}

fn address(end: IpEndpoint) -> SocketAddr {
    let ip = match end.addr {
        IpAddress::Ipv4(v4) => IpAddr::V4(v4),
        IpAddress::Ipv6(v6) => IpAddr::V6(v6),
    };
    SocketAddr::new(ip, end.port)
}

/// What the stack has received and not looked at, and sent and nobody taken yet: IP packets.
#[derive(Default)]
struct Queues {
    mtu: usize,
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[14..])
    }
}

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
