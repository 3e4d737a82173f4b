//! The peer of one connection, played by hand, segment by segment.
//!
//! Sequence numbers are relative to the initial ones of either side, so a SYN is 0 and the first
//! byte 1. What the connection sends is told as `"FLAGS seq ack len"`, as in `"PA 1 1 5"`.

use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::Packets;
use crate::segment::Segment;
use crate::{Config, Connection, Duration, Instant, Stack};

/// A connection under test and its scripted peer.
pub struct Script {
    pub connection: Connection,
    pub stack: Stack,
    pub out: Packets,
    pub now: Instant,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// The peer's window, and the segment size in its SYN.
    pub window: u16,
    pub mss: Option<u16>,
    /// Whether its SYN offers window scaling, with a shift of 0.
    pub scales: bool,
    /// The initial sequence numbers: the connection's, and the peer's.
    pub isn: u32,
    pub irs: u32,
    /// The last segment that `heard` told of, for its window.
    pub last_window: u16,
}

impl Script {
    /// A closed connection. Both initial sequence numbers are close to the wrap.
    pub fn new(config: &Config, v6: bool) -> Self {
        let (local, peer) = match v6 {
            false => ("198.18.0.2:3000", "198.18.0.1:40000"),
            true => ("[2001:db8::2]:3000", "[2001:db8::1]:40000"),
        };
        Self {
            connection: Connection::new(config),
            stack: Stack::new([7; 16], &[1500, 9000, 65_535], Instant::ZERO),
            out: Packets::default(),
            now: Instant::from_secs(100),
            local: local.parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            window: 60_000,
            mss: Some(1460),
            scales: false,
            isn: u32::MAX - 2,
            irs: u32::MAX - 7,
            last_window: 0,
        }
    }

    /// A connection that the peer opened.
    pub fn accepted(config: &Config, v6: bool) -> Self {
        let mut script = Self::new(config, v6);
        assert!(script.accept(1500), "the SYN is accepted");
        assert_eq!(script.heard(), ["SA 0 1 0"]);
        script.send("A", 1, 1, b"");
        assert_eq!(script.heard(), [""; 0]);
        script
    }

    /// A connection that opened towards the peer.
    pub fn connected(config: &Config, v6: bool) -> Self {
        let mut script = Self::new(config, v6);
        script.connect(1500);
        assert_eq!(script.heard(), ["S 0 - 0"]);
        script.send("SA", 0, 1, b"");
        assert_eq!(script.heard(), ["A 1 1 0"]);
        script
    }

    pub fn accept(&mut self, mtu: usize) -> bool {
        let syn = self.packet("S", 0, 0, b"");
        let Self { connection, stack, out, now, local, peer, isn, .. } = self;
        connection.accept(stack, *local, *peer, *isn, mtu, &syn, *now, out)
    }

    pub fn connect(&mut self, mtu: usize) {
        self.connection.connect(&mut self.stack, self.local, self.peer, self.isn, mtu, self.now);
    }

    /// The peer sends a segment; `ack` counts only if `flags` has an `A`.
    pub fn send(&mut self, flags: &str, seq: u32, ack: u32, data: &[u8]) {
        let packet = self.packet(flags, seq, ack, data);
        self.connection.on_segment(&mut self.stack, &packet, self.now, &mut self.out);
    }

    /// The connection's application queues bytes.
    pub fn write(&mut self, data: &[u8]) {
        self.connection.send(|space| {
            space[..data.len()].copy_from_slice(data);
            (data.len(), ())
        });
    }

    /// The connection's application reads all there is.
    pub fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while self.connection.received() > 0 {
            self.connection.recv(|bytes| {
                all.extend_from_slice(bytes);
                (bytes.len(), ())
            });
        }
        all
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets time run to the connection's next wish to transmit, and says how long that took.
    pub fn wait(&mut self) -> Option<Duration> {
        let at = self.connection.poll_at(&mut self.stack, self.now)?;
        let waited = at - self.now;
        self.now = at;
        Some(waited)
    }

    /// What the connection has sent, and sends now.
    pub fn heard(&mut self) -> Vec<String> {
        self.connection.transmit(&mut self.stack, self.now, &mut self.out, 1000);
        self.answers()
    }

    /// What the connection has sent so far, without asking it for more.
    pub fn answers(&mut self) -> Vec<String> {
        let packets: Vec<_> = self.out.queue.drain(..).collect();
        packets.iter().map(|packet| self.tell(packet)).collect()
    }

    /// A segment of the peer, as an IP packet with zero checksums.
    pub fn packet(&self, flags: &str, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
        let has = |flag| flags.contains(flag);
        let tcp = TcpRepr {
            src_port: self.peer.port(),
            dst_port: self.local.port(),
            control: TcpControl::None,
            seq_number: TcpSeqNumber(self.irs.wrapping_add(seq) as i32),
            ack_number: has('A').then(|| TcpSeqNumber(self.isn.wrapping_add(ack) as i32)),
            window_len: self.window,
            window_scale: (has('S') && self.scales).then_some(0),
            max_seg_size: self.mss.filter(|_| has('S')),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: data,
        };
        let (from, to): (IpAddress, IpAddress) = (self.peer.ip().into(), self.local.ip().into());
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let mut packet = vec![0; ip.buffer_len()];
        ip.emit(&mut packet[..], &ChecksumCapabilities::ignored());
        let mut header = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        tcp.emit(&mut header, &from, &to, &ChecksumCapabilities::ignored());
        header.set_syn(has('S'));
        header.set_fin(has('F'));
        header.set_rst(has('R'));
        packet
    }

    fn tell(&mut self, packet: &[u8]) -> String {
        let segment = Segment::parse(packet).expect("what we send is a segment");
        assert_eq!((segment.source, segment.destination), (self.local, self.peer));
        self.last_window = segment.window;
        let flags: String = [('S', segment.syn), ('F', segment.fin), ('R', segment.rst), ('A', segment.ack.is_some())]
            .into_iter()
            .filter_map(|(name, set)| set.then_some(name))
            .collect();
        let seq = segment.seq.wrapping_sub(self.isn);
        let ack = segment.ack.map_or("-".into(), |ack| ack.wrapping_sub(self.irs).to_string());
        format!("{flags} {seq} {ack} {}", segment.len)
    }
}
