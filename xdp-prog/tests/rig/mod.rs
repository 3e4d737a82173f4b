//! A network and mount namespace of the test's own thread, with veth ports and a bpffs in it.
//!
//! Both namespaces, and all that is in them, go when the thread ends, however the test ends.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod frame;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use xdp_prog::{Mode, Options, Port, Side, Steering, Verdict};

pub const IN0: u16 = 1;
pub const IN1: u16 = 2;
pub const OUT0: u16 = 3;

/// Enters namespaces of this thread's own and makes three veth pairs: in0, in1, out0, with peers
/// in0p, in1p, out0p.
pub fn enter() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests load BPF programs and make namespaces: run them as root"
    );
    // SAFETY: both flags concern this thread alone; no descriptor becomes invalid by them.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    run("mount --make-rprivate /");
    run("mount -t tmpfs tmpfs /mnt");
    xdp_prog::ensure_bpffs("/mnt/bpf".as_ref()).expect("a bpffs");
    xdp_prog::ensure_bpffs("/mnt/bpf".as_ref()).expect("it is there already");
    ports();
}

/// Goes on in another network namespace, with the same ports and the same mounts.
pub fn leave() {
    // SAFETY: it concerns this thread alone; no descriptor becomes invalid by it.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    ports();
}

fn ports() {
    for port in ["in0", "in1", "out0"] {
        add(port);
    }
}

/// Makes a veth pair: `name` and `name`p.
pub fn add(name: &str) {
    run(&format!("ip link add {name} type veth peer name {name}p"));
    // What the kernel says of addresses by itself, when it likes, would be counted as a test's own frames.
    run(&format!("ip link set {name} addrgenmode none"));
    run(&format!("ip link set {name}p addrgenmode none"));
    run(&format!("ip link set {name} up"));
    run(&format!("ip link set {name}p up"));
}

/// Runs a command in this thread's namespaces.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn options() -> Options {
    let port = |interface: &str, index, side| Port { interface: interface.into(), index, side, mode: Mode::Native };
    Options {
        pin_directory: PathBuf::from("/mnt/bpf/node"),
        flows: 64,
        ports: vec![port("in0", IN0, Side::Inside), port("in1", IN1, Side::Inside), port("out0", OUT0, Side::Outside)],
        on_absent_pass: false,
        grace: Duration::ZERO,
    }
}

/// A socket for every port. The program redirects to it; nobody reads it.
pub fn workers(steering: &Steering) -> Vec<OwnedFd> {
    [IN0, IN1, OUT0]
        .into_iter()
        .map(|port| {
            let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
            steering.set_xsk(port, 0, socket.as_fd()).unwrap();
            socket
        })
        .collect()
}

/// Closes the workers' sockets, and waits until the kernel has emptied their slots: a process that
/// another test is just starting may hold a copy of the descriptors until it runs.
pub fn stop(steering: &Steering, workers: Vec<OwnedFd>, captured: &[u8]) {
    drop(workers);
    for _ in 0..10_000_000 {
        if steering.try_frame(OUT0, 0, captured).unwrap() == Verdict::Drop {
            return;
        }
        std::thread::yield_now();
    }
    panic!("a closed socket is still in the map");
}

/// What the steering program does with a frame, and the one counter that it raises. The shield has to
/// be of the same mind about each: what steering passes it passes, all else it drops.
pub fn steer(steering: &Steering, port: u16, frame: &[u8]) -> (Verdict, &'static str) {
    let steered = counted(steering, || steering.try_frame(port, 0, frame).unwrap());
    if !fits_an_skb(frame) {
        return steered;
    }
    let shielded = counted(steering, || steering.try_shield(port, frame).unwrap());
    let want = if steered.0 == Verdict::Pass { (Verdict::Pass, "none") } else { (Verdict::Drop, "shield_drop") };
    assert_eq!(shielded, want, "the shield, where steering says {steered:?}");
    steered
}

/// BPF_PROG_TEST_RUN makes an skb only of what fits a page and has a whole network header
/// (`bpf_prog_test_run_skb` in net/bpf/test_run.c).
fn fits_an_skb(frame: &[u8]) -> bool {
    let header = match frame[12..14] {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => 0,
    };
    (14 + header..3_000).contains(&frame.len())
}

/// What the guard does, with `none` if it counts nothing.
pub fn guard(steering: &Steering, frame: &[u8]) -> (Verdict, &'static str) {
    counted(steering, || steering.try_guard(frame).unwrap())
}

fn counted(steering: &Steering, act: impl FnOnce() -> Verdict) -> (Verdict, &'static str) {
    let before = steering.counters();
    let verdict = act();
    let after = steering.counters();
    let raised: Vec<_> = before.iter().zip(&after).filter(|(b, a)| a.1 != b.1).map(|(b, a)| (a.0, a.1 - b.1)).collect();
    match raised[..] {
        [] => (verdict, "none"),
        [(name, 1)] => (verdict, name),
        _ => panic!("one frame raised {raised:?}"),
    }
}
