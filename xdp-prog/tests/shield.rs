//! Real packets past the steering program: what a tc program redirected into a port in generic mode, or
//! to the ingress of one in native mode, does not meet it, and meets the shield.

mod rig;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use libbpf_rs::{TC_EGRESS, TcHookBuilder, libbpf_sys};
use rig::frame::{ACK, SYN, tcp, udp};
use rig::{IN0, run};
use xdp_prog::{Action, Capture, CaptureKind, Mode, Steering, Verdict};

/// For `bpf_redirect`: out of the interface, or in as if it had been received there.
const OUT: i32 = 0;
const IN: i32 = 1;

/// Loads `return bpf_redirect(interface, way)` for tc.
fn redirect_to(interface: u32, way: i32) -> OwnedFd {
    let instruction = |code: u8, register: u8, immediate: i32| {
        let mut instruction = libbpf_sys::bpf_insn { code, imm: immediate, ..Default::default() };
        instruction.set_dst_reg(register);
        instruction
    };
    const MOVE: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const BPF_REDIRECT: i32 = 23;
    let program = [
        instruction(MOVE, 1, interface as i32),
        instruction(MOVE, 2, way),
        instruction(CALL, 0, BPF_REDIRECT),
        instruction(EXIT, 0, 0),
    ];
    // SAFETY: name and license are C strings, and the instructions outlive the call that copies them.
    let loaded = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"redirect".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as u64,
            std::ptr::null_mut(),
        )
    };
    assert!(loaded >= 0, "loading the redirect: {}", std::io::Error::from_raw_os_error(-loaded));
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(loaded) }
}

fn index(interface: &str) -> u32 {
    let name = std::ffi::CString::new(interface).unwrap();
    // SAFETY: a C string that outlives the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// A packet socket that sends whole frames out of an interface, through its qdisc and tc.
fn sender(interface: &str) -> File {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it has just been made for us.
    let socket = unsafe { File::from_raw_fd(socket) };
    // SAFETY: all zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index(interface) as i32;
    // SAFETY: `address` is valid for its size, and the socket is open.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    socket
}

fn counter(steering: &Steering, name: &str) -> u64 {
    steering.counters().into_iter().find(|(counter, _)| *counter == name).unwrap().1
}

/// Sends a frame and says which counters it raised, once it raised one.
fn raised(steering: &Steering, socket: &File, frame: &[u8]) -> Vec<&'static str> {
    let before = steering.counters();
    let mut socket = socket;
    socket.write_all(frame).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let after = steering.counters();
        let raised: Vec<_> = before.iter().zip(&after).filter(|(b, a)| a.1 > b.1).map(|(b, _)| b.0).collect();
        if !raised.is_empty() || Instant::now() > deadline {
            return raised;
        }
        std::thread::yield_now();
    }
}

/// in0 in a mode, with a captured service and a worker; `red` redirects all that it sends.
fn rig_in(mode: Mode, to: &str, way: i32) -> (Steering, Vec<OwnedFd>, OwnedFd) {
    rig::enter();
    rig::add("red");
    let mut options = rig::options();
    options.ports[0].mode = mode;
    let mut steering = Steering::attach(&options).unwrap();
    let workers = rig::workers(&steering);
    let destination = Some("198.18.1.2".parse().unwrap());
    let kind = CaptureKind::Inbound;
    steering.set_captures(&[Capture { kind, destination, port: 3000, action: Action::Take, protected: true }]).unwrap();
    let program = redirect_to(index(to), way);
    let mut hook = TcHookBuilder::new(program.as_fd())
        .ifindex(index("red") as i32)
        .replace(true)
        .handle(1)
        .priority(1)
        .hook(TC_EGRESS);
    hook.create().unwrap();
    hook.attach().unwrap();
    (steering, workers, program)
}

#[test]
fn what_was_redirected_around_steering_is_dropped_if_steering_would_have_had_it() {
    let (steering, _workers, _program) = rig_in(Mode::Generic, "in0p", OUT);
    let (straight, around) = (sender("in0p"), sender("red"));
    let captured = tcp("198.18.9.9:40000", "198.18.1.2:3000", SYN).bytes();
    let segment = tcp("198.18.9.9:40000", "198.18.1.2:3000", ACK).bytes();
    assert_eq!(raised(&steering, &straight, &captured), ["to_worker_syn"], "the rig works");
    assert_eq!(raised(&steering, &around, &captured), ["shield_drop"]);
    assert_eq!(raised(&steering, &around, &segment), ["shield_drop"]);
    // What steering lets by is let by here too, and counts once.
    let other = udp("198.18.9.9:40000", "198.18.1.2:3000").bytes();
    assert_eq!(raised(&steering, &straight, &other), ["pass"]);
    let drops = counter(&steering, "shield_drop");
    around.try_clone().unwrap().write_all(&other).unwrap();
    assert_eq!(raised(&steering, &straight, &other), ["pass"], "the one before has been dealt with");
    assert_eq!(counter(&steering, "shield_drop"), drops);
}

#[test]
fn the_native_mode_sees_what_was_redirected_out_of_the_peer_and_not_what_was_put_in_behind_the_driver() {
    let captured = tcp("198.18.9.9:40000", "198.18.1.2:3000", SYN).bytes();
    let (steering, _workers, _program) = rig_in(Mode::Native, "in0p", OUT);
    assert_eq!(raised(&steering, &sender("red"), &captured), ["to_worker_syn"]);
    rig::leave();
    drop(steering);
    let (steering, _workers, _program) = rig_in(Mode::Native, "in0", IN);
    assert_eq!(raised(&steering, &sender("in0p"), &captured), ["to_worker_syn"], "the rig works");
    assert_eq!(raised(&steering, &sender("red"), &captured), ["shield_drop"]);
}

#[test]
fn the_shield_stands_on_each_port_until_it_is_detached() {
    rig::enter();
    let shields = || {
        ["in0", "in1", "out0"]
            .map(|port| run(&format!("tc filter show dev {port} ingress")).matches("name shield").count())
    };
    let mut options = rig::options();
    options.ports[0].mode = Mode::Generic;
    let mut steering = Steering::attach(&options).unwrap();
    assert_eq!(shields(), [1; 3]);
    // The port comes back while captures are in force.
    run("ip link del in0");
    rig::add("in0");
    steering.reattach(IN0).unwrap();
    assert_eq!(shields(), [1; 3]);
    drop(steering);
    assert_eq!(shields(), [1; 3]);
    let removed = xdp_prog::detach("/mnt/bpf/node".as_ref()).unwrap();
    assert!(removed.iter().any(|line| line == "shield on tc ingress of interface in0"), "{removed:?}");
    assert_eq!(shields(), [0; 3]);
}

/// Of those that onAbsent lets by, none may come around a worker that is there.
#[test]
fn only_without_a_worker_may_what_is_not_protected_pass_the_shield() {
    rig::enter();
    let mut options = rig::options();
    options.on_absent_pass = true;
    options.ports[0].mode = Mode::Generic;
    let mut steering = Steering::attach(&options).unwrap();
    let destination = Some("198.18.1.2".parse().unwrap());
    let kind = CaptureKind::Inbound;
    steering
        .set_captures(&[Capture { kind, destination, port: 3000, action: Action::Take, protected: false }])
        .unwrap();
    let frame = tcp("198.18.9.9:40000", "198.18.1.2:3000", SYN).bytes();
    assert_eq!(steering.try_shield(IN0, &frame).unwrap(), Verdict::Pass, "nobody is there, and that is allowed");
    let _workers = rig::workers(&steering);
    assert_eq!(steering.try_shield(IN0, &frame).unwrap(), Verdict::Drop);
}
