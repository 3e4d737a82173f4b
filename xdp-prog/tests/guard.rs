//! Frames through the guard: what the kernel itself may send to a workload.

mod rig;

use std::net::IpAddr;
use std::time::Duration;

use rig::frame::{ACK, Frame, MAC, OTHER_MAC, SYN, SYN_ACK, icmp, tcp, udp};
use rig::{IN0, OUT0, guard, steer};
use xdp_prog::Verdict::{Drop, Pass, ToWorker};
use xdp_prog::{Action, Bypass, Capture, CaptureKind, Options, Source, Steering};

#[test]
fn the_kernel_opens_no_connection_to_what_mutual_protects() {
    rig::enter();
    let mut steering = Steering::attach(&rig::options()).unwrap();
    let service = "198.18.1.2".parse().unwrap();
    let left = Capture {
        kind: CaptureKind::Inbound,
        destination: Some(service),
        port: 9000,
        action: Action::Leave,
        protected: false,
    };
    steering.set_guarded(&[(service, 0), ("2001:db8:1::2".parse().unwrap(), 3000)]).unwrap();
    steering.set_captures(&[left]).unwrap();
    let v4 = tcp("198.18.9.9:40000", "198.18.1.2:3000", SYN);
    let v6 = tcp("[2001:db8:9::9]:40000", "[2001:db8:1::2]:3000", SYN);
    let piece = |frame: &Frame, offset, more| Frame { fragment: Some((offset, more)), ..frame.clone() }.bytes();
    let tags = |tags| Frame { tags, ..v4.clone() }.bytes();
    for (name, frame, want) in [
        ("SYN", v4.bytes(), (Drop, "guard_drop")),
        ("SYN, IPv6", v6.bytes(), (Drop, "guard_drop")),
        ("SYN, one tag", tags(1), (Drop, "guard_drop")),
        ("SYN, two tags", tags(2), (Drop, "guard_drop")),
        ("SYN behind options", Frame { options: vec![1; 40], ..v4.clone() }.bytes(), (Drop, "guard_drop")),
        ("first fragment", piece(&v4, 0, true), (Drop, "guard_drop")),
        ("later fragment", piece(&v4, 9, false), (Drop, "guard_drop")),
        ("later fragment, IPv6", piece(&v6, 9, false), (Drop, "guard_drop")),
        ("unreadable TCP header", v4.with(46, 0x40), (Drop, "guard_drop")),
        ("another port, IPv6", tcp("[2001:db8:9::9]:1", "[2001:db8:1::2]:3001", SYN).bytes(), (Pass, "none")),
        ("a port under DISABLE", tcp("198.18.9.9:1", "198.18.1.2:9000", SYN).bytes(), (Pass, "none")),
        ("answer to the workload's own call", tcp("198.18.9.9:1", "198.18.1.2:3000", SYN_ACK).bytes(), (Pass, "none")),
        ("segment", tcp("198.18.9.9:1", "198.18.1.2:3000", ACK).bytes(), (Pass, "none")),
        ("another address", tcp("198.18.9.9:1", "198.18.1.3:3000", SYN).bytes(), (Pass, "none")),
        ("fragment to another address", piece(&tcp("198.18.9.9:1", "198.18.1.3:3000", SYN), 9, false), (Pass, "none")),
        ("UDP", udp("198.18.9.9:1", "198.18.1.2:3000").bytes(), (Pass, "none")),
        ("fragment of UDP", piece(&udp("198.18.9.9:1", "198.18.1.2:3000"), 9, false), (Pass, "none")),
        ("echo request", icmp("198.18.9.9", "198.18.1.2", 8, &[0; 8]).bytes(), (Pass, "none")),
        ("ARP", v4.with(13, 0x06), (Pass, "none")),
    ] {
        assert_eq!(guard(&steering, &frame), want, "{name}");
    }
}

/// A probe of the node never comes by the steering program, its answers do.
#[test]
fn a_call_of_the_node_itself_to_what_is_not_protected_keeps_its_answers() {
    rig::enter();
    let mut steering = Steering::attach(&rig::options()).unwrap();
    let _workers = rig::workers(&steering);
    let service = "198.18.1.2".parse().unwrap();
    let kind = CaptureKind::Inbound;
    steering.set_sources(&[Source { port: IN0, prefix: (service, 32), mac: Some(MAC), set: 7 }]).unwrap();
    steering
        .set_captures(&[Capture { kind, destination: Some(service), port: 0, action: Action::Take, protected: false }])
        .unwrap();
    let answer = tcp("198.18.1.2:3000", "198.18.1.1:40000", SYN_ACK).bytes();
    assert_eq!(steer(&steering, IN0, &answer).1, "to_worker_unknown");
    assert_eq!(guard(&steering, &tcp("198.18.1.1:40000", "198.18.1.2:3000", SYN).bytes()), (Pass, "none"));
    assert_eq!(steer(&steering, IN0, &answer), (Pass, "pass"));
}

fn protected(steering: &mut Steering, service: IpAddr) {
    let kind = CaptureKind::Inbound;
    steering.set_sources(&[Source { port: IN0, prefix: (service, 32), mac: Some(MAC), set: 7 }]).unwrap();
    steering
        .set_captures(&[Capture { kind, destination: Some(service), port: 0, action: Action::Take, protected: true }])
        .unwrap();
    steering.set_guarded(&[(service, 0)]).unwrap();
}

fn bypass(source: &str, destination: &str) -> Bypass {
    Bypass { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

#[test]
fn a_probe_of_the_node_itself_passes_from_exactly_there_to_exactly_there() {
    rig::enter();
    let mut steering = Steering::attach(&rig::options()).unwrap();
    let _workers = rig::workers(&steering);
    protected(&mut steering, "198.18.1.2".parse().unwrap());
    let probe = bypass("198.18.1.1", "198.18.1.2:3000");
    steering.set_bypasses(&[probe, bypass("2001:db8:1::1", "[2001:db8:1::2]:3000")]).unwrap();
    let syn = |from: &str, to: &str| tcp(from, to, SYN);
    let cut = Frame { fragment: Some((0, true)), ..syn("198.18.1.1:40000", "198.18.1.2:3000") };
    for (name, frame, want) in [
        ("listed", syn("198.18.1.1:40000", "198.18.1.2:3000").bytes(), (Pass, "guard_bypass")),
        ("another of its ports", syn("198.18.1.1:40001", "198.18.1.2:3000").bytes(), (Pass, "guard_bypass")),
        ("another port", syn("198.18.1.1:40000", "198.18.1.2:3001").bytes(), (Drop, "guard_drop")),
        ("another source", syn("198.18.1.3:40000", "198.18.1.2:3000").bytes(), (Drop, "guard_drop")),
        ("in fragments", cut.bytes(), (Drop, "guard_drop")),
    ] {
        assert_eq!(guard(&steering, &frame), want, "{name}");
    }
    // Forwarded from another interface: whoever sent it chose the address.
    let forwarded = syn("198.18.1.1:40002", "198.18.1.2:3000").bytes();
    assert_eq!(steering.try_guard_from(1, &forwarded).unwrap(), Drop);
    let counted = steering.bypasses();
    assert_eq!(counted.iter().find(|(of, _)| *of == probe), Some(&(probe, 2)), "{counted:?}");

    // Whoever stays goes on counting.
    steering.set_bypasses(&[probe]).unwrap();
    assert_eq!(steering.bypasses(), [(probe, 2)]);
    steering.set_bypasses(&[]).unwrap();
    assert_eq!(guard(&steering, &syn("198.18.1.1:40003", "198.18.1.2:3000").bytes()), (Drop, "guard_drop"));
}

/// Its answers come by the steering program, and nothing else does by its leave. In the grace too, what is
/// known to have begun after its capture loses its leave with the entry.
#[test]
fn answers_pass_to_a_probe_that_the_guard_let_by_as_long_as_its_entry_stands() {
    for grace in [Duration::ZERO, Duration::from_secs(3600)] {
        rig::enter();
        let mut steering = Steering::attach(&Options { grace, ..rig::options() }).unwrap();
        let _workers = rig::workers(&steering);
        protected(&mut steering, "198.18.1.2".parse().unwrap());
        steering.set_bypasses(&[bypass("198.18.1.1", "198.18.1.2:3000")]).unwrap();
        let answer = |port: u16, flags| tcp("198.18.1.2:3000", &format!("198.18.1.1:{port}"), flags).bytes();
        let unknown = if grace.is_zero() { (ToWorker, "to_worker_unknown") } else { (Pass, "pre_existing") };
        assert_eq!(steer(&steering, IN0, &answer(40_000, SYN_ACK)), unknown, "nobody has asked");

        assert_eq!(guard(&steering, &tcp("198.18.1.1:40000", "198.18.1.2:3000", SYN).bytes()), (Pass, "guard_bypass"));
        assert_eq!(steer(&steering, IN0, &answer(40_000, SYN_ACK)), (Pass, "passed_bypass"));
        assert_eq!(steer(&steering, IN0, &answer(40_000, ACK)), (Pass, "passed_bypass"));
        assert_eq!(steer(&steering, IN0, &answer(40_001, ACK)), unknown, "another connection");
        for (name, frame, want) in [
            ("its SYN from the wire", tcp("198.18.1.1:40000", "198.18.1.2:3000", SYN), (ToWorker, "to_worker_syn")),
            ("another's answer", tcp("198.18.1.2:3001", "198.18.1.1:40000", ACK), unknown),
        ] {
            let port = if name.starts_with("its") { OUT0 } else { IN0 };
            assert_eq!(steer(&steering, port, &frame.bytes()), want, "{name}");
        }
        let forged = Frame { mac: OTHER_MAC, ..tcp("198.18.1.2:3000", "198.18.1.1:40000", ACK) };
        assert_eq!(steer(&steering, IN0, &forged.bytes()), (Drop, "drop_spoofed"), "another's MAC");

        steering.set_bypasses(&[]).unwrap();
        assert_eq!(steer(&steering, IN0, &answer(40_000, ACK)), (ToWorker, "to_worker_unknown"));
    }
}
