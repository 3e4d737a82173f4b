//! Real cables for the tests of `io`: veth pairs in a network namespace of the test's own thread.
//!
//! The namespace and all in it disappear with the thread and its sockets, also when a test fails.
//! A six-instruction XDP program sends every packet to the socket of its queue, so that nothing
//! but the kernel stands between a test and the rings.
#![allow(dead_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;

use dataplane::io::xsk::{OpenError, OpenOptions, PortSpec, RingSize, SteerMap, XskPorts};
use dataplane::io::{PacketIo, PortId};

/// Moves this thread into a new, empty network namespace.
pub fn namespace() {
    // SAFETY: only changes the namespace in which this thread makes sockets.
    let made = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(made, 0, "these tests need root (CAP_SYS_ADMIN, CAP_NET_ADMIN): {}", io::Error::last_os_error());
    // Nothing but the tests' own packets on the cables.
    for scope in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
    }
}

pub fn ip(command: &str) {
    let output = Command::new("ip").args(command.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A veth pair, both ends up.
pub fn cable(one: &str, other: &str, mtu: usize) {
    ip(&format!("link add {one} mtu {mtu} type veth peer name {other} mtu {mtu}"));
    ip(&format!("link set {one} up"));
    ip(&format!("link set {other} up"));
}

/// A steering map with room for everything.
pub struct Anything;

impl SteerMap for Anything {
    fn insert(&mut self, _: PortId, _: SocketAddr, _: SocketAddr) -> bool {
        true
    }

    fn remove(&mut self, _: PortId, _: SocketAddr, _: SocketAddr) {}

    fn register(&mut self, _: PortId, _: u32, _: std::os::fd::BorrowedFd<'_>) -> bool {
        true
    }
}

pub const FRAMES: u32 = 8192;

pub fn try_open(interfaces: &[&str]) -> Result<XskPorts, OpenError> {
    let ports: Vec<_> = interfaces
        .iter()
        .enumerate()
        .map(|(i, name)| PortSpec { interface: name.to_string(), index: PortId(i as u16), queues: 1 })
        .collect();
    let steer = Box::new(Anything);
    XskPorts::open(OpenOptions {
        ports: &ports,
        core_index: 0,
        cores: 1,
        frames: FRAMES,
        ring: RingSize::default(),
        steer,
    })
}

/// Opens one core's ports and attaches a program to each that sends it every packet.
pub fn open(interfaces: &[&str]) -> (XskPorts, Vec<Program>) {
    open_in(Mode::Native, interfaces)
}

/// Where a program runs, as the kernel has it in `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Mode {
    Generic = 1 << 1,
    Native = 1 << 2,
}

pub fn open_in(mode: Mode, interfaces: &[&str]) -> (XskPorts, Vec<Program>) {
    let ports = try_open(interfaces).unwrap();
    let programs: Vec<_> = interfaces.iter().map(|name| Program::attach_in(mode, name)).collect();
    for (port, queue, fd) in ports.sockets() {
        programs[usize::from(port.0)].register(queue, fd);
    }
    (ports, programs)
}

/// Every frame is accounted for.
pub fn assert_conserved(ports: &XskPorts) {
    let (accounted, all) = ports.frames();
    assert_eq!(accounted, all, "frames leaked");
}

/// One turn of a worker that sends on `to` what comes from `from`; returns how many packets.
pub fn forward(ports: &mut XskPorts, from: PortId, to: PortId, copy: &mut Vec<u8>) -> usize {
    let received = ports.rx_burst(from);
    for packet in 0..received {
        copy.clear();
        copy.extend_from_slice(ports.bytes(dataplane::io::Packet(packet)));
        ports.send(to, copy.len(), &mut |bytes| bytes.copy_from_slice(copy)).unwrap();
    }
    ports.release();
    ports.flush();
    received
}

/// An attached XDP program and its socket map. Detached when dropped.
pub struct Program {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Program {
    pub fn attach(interface: &str) -> Self {
        Self::attach_in(Mode::Native, interface)
    }

    fn attach_in(mode: Mode, interface: &str) -> Self {
        const XSKMAP: u32 = 17;
        const XDP: u32 = 6;
        const BPF_XDP: u32 = 37;
        const HAS_FRAGS: u32 = 1 << 5;
        let map = bpf(0, &[XSKMAP, 4, 4, 64, 0]);
        let program: [u64; 6] = [
            instruction(0x61, 2, 1, 16, 0),              // r2 = ctx->rx_queue_index
            instruction(0x18, 1, 1, 0, map.as_raw_fd()), // r1 = map
            0,
            instruction(0xb7, 3, 0, 0, 2),  // r3 = XDP_PASS, where the queue has no socket
            instruction(0x85, 0, 0, 0, 51), // bpf_redirect_map
            instruction(0x95, 0, 0, 0, 0),
        ];
        let (insns, license) = (program.as_ptr() as u64, c"GPL".as_ptr() as u64);
        let mut load = [0; 18];
        load[..6].copy_from_slice(&[
            XDP,
            6,
            insns as u32,
            (insns >> 32) as u32,
            license as u32,
            (license >> 32) as u32,
        ]);
        load[11] = HAS_FRAGS;
        load[17] = BPF_XDP;
        let program = bpf(5, &load);
        let index = dataplane::io::link::index(interface).unwrap();
        let link = bpf(28, &[program.as_raw_fd() as u32, index, BPF_XDP, mode as u32]);
        Self { map, _program: program, _link: link }
    }

    pub fn register(&self, queue: u32, socket: BorrowedFd<'_>) {
        let value = socket.as_raw_fd() as u32;
        let (key, value) = (&raw const queue as u64, &raw const value as u64);
        let update =
            [self.map.as_raw_fd() as u32, 0, key as u32, (key >> 32) as u32, value as u32, (value >> 32) as u32, 0, 0];
        assert!(bpf_call(2, &update) >= 0, "XSKMAP: {}", io::Error::last_os_error());
    }
}

fn instruction(code: u8, dst: u64, src: u64, offset: i16, immediate: i32) -> u64 {
    u64::from(code) | (dst | src << 4) << 8 | u64::from(offset as u16) << 16 | u64::from(immediate as u32) << 32
}

fn bpf(command: i32, attributes: &[u32]) -> OwnedFd {
    let fd = bpf_call(command, attributes);
    assert!(fd >= 0, "bpf({command}): {}", io::Error::last_os_error());
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn bpf_call(command: i32, attributes: &[u32]) -> i64 {
    // SAFETY: the attributes are read for the length given; pointers in them are to live data of
    // the caller that the kernel only reads.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) }
}

/// The kernel's end of a cable: a packet socket.
pub struct Wire(File);

impl Wire {
    pub fn open(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: plain system calls; every pointer is to a live value of the length given.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
            assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
            let wire = Self(File::from_raw_fd(fd));
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = dataplane::io::link::index(interface).unwrap() as i32;
            let bound = libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32);
            assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
            let deadline = libc::timeval { tv_sec: 5, tv_usec: 0 };
            wire.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &deadline);
            wire.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(64 << 20));
            const PACKET_IGNORE_OUTGOING: i32 = 23;
            wire.set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1);
            wire
        }
    }

    /// # Safety
    /// `T` must be what the option takes.
    unsafe fn set<T>(&self, level: i32, option: i32, value: &T) {
        // SAFETY: the value is alive and of the length given.
        let set = unsafe {
            libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const *value).cast(), size_of::<T>() as u32)
        };
        assert_eq!(set, 0, "option {option}: {}", io::Error::last_os_error());
    }

    pub fn send(&self, packet: &[u8]) {
        let sent =
            (&self.0).write(packet).unwrap_or_else(|error| panic!("{} bytes on the wire: {error}", packet.len()));
        assert_eq!(sent, packet.len());
    }

    /// The next packet; panics after five seconds without one.
    pub fn receive(&self) -> Vec<u8> {
        let mut packet = vec![0; 70_000];
        let len = (&self.0).read(&mut packet).expect("a packet arrives on the wire");
        packet.truncate(len);
        packet
    }
}

/// A packet of an experimental EtherType whose bytes depend on its number.
pub fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    write_packet(number, &mut bytes);
    bytes
}

pub fn write_packet(number: u32, bytes: &mut [u8]) {
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mut state = number.wrapping_mul(0x9e37_79b9) | 1;
    let (number_at, rest) = bytes[14..].split_at_mut(4);
    number_at.copy_from_slice(&number.to_be_bytes());
    for word in rest.chunks_mut(4) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        word.copy_from_slice(&state.to_ne_bytes()[..word.len()]);
    }
}

pub fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[14..18].try_into().unwrap())
}

/// Turns that spin until `done`, or for so long that it cannot be expected any more.
pub fn until(what: &str, done: impl FnMut() -> bool) {
    within(200_000, what, done);
}

/// Turns that wait for a second at most each.
pub fn awaited(what: &str, done: impl FnMut() -> bool) {
    within(10, what, done);
}

fn within(turns: usize, what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..turns {
        if done() {
            return;
        }
    }
    panic!("in vain: {what}");
}
