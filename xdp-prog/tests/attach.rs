//! The programs on real interfaces: attached, adopted, refused, detached.

mod rig;

use std::path::Path;

use rig::frame::{ACK, SYN, tcp};
use rig::{IN0, OUT0, run, steer};
use xdp_prog::Verdict::{Drop, Pass, ToWorker};
use xdp_prog::{Action, Capture, CaptureKind, Change, Error, FlowTuple, Mode, Steering};

const PINNED: &str = "/mnt/bpf/node";

fn program_on(interface: &str) -> String {
    let text = run(&format!("ip -details link show dev {interface}"));
    text.lines().find(|line| line.contains("prog/xdp")).unwrap_or_default().trim().to_owned()
}

fn capture(port: u16) -> Capture {
    let destination = Some("198.18.1.2".parse().unwrap());
    Capture { kind: CaptureKind::Inbound, destination, port, action: Action::Take, protected: true }
}

fn flow(port: u16) -> FlowTuple {
    let (source, destination) = ("198.18.9.9:5000".parse().unwrap(), "198.18.1.2:3000".parse().unwrap());
    FlowTuple { port, source, destination }
}

#[test]
fn a_restart_adopts_programs_captures_and_flows() {
    rig::enter();
    let mut steering = Steering::attach(&rig::options()).unwrap();
    assert_eq!(steering.mode(OUT0), Some(Mode::Native));
    for port in ["in0", "in1", "out0"] {
        assert!(!program_on(port).is_empty(), "{port} has no program");
    }
    let guards = |port: &str| run(&format!("tc filter show dev {port} egress")).matches("direct-action").count();
    assert_eq!((guards("in0"), guards("in1")), (1, 1));
    steering.set_captures(&[capture(3000), capture(3001)]).unwrap();
    assert!(steering.flows().insert(&flow(OUT0)).unwrap());
    drop(steering);

    // Nobody is there, and nothing has changed.
    let before = program_on("out0");
    assert!(!before.is_empty());
    let mut steering = Steering::attach(&rig::options()).unwrap();
    assert_ne!(program_on("out0"), before, "the program is the new process's");
    assert_eq!((guards("in0"), guards("in1")), (1, 1));
    assert_eq!(steering.flows().list().unwrap(), [flow(OUT0)]);
    assert_eq!(steer(&steering, OUT0, &tcp("198.18.9.9:5000", "198.18.1.2:3000", ACK).bytes()), (Drop, "drop_absent"));
    let change = steering.set_captures(&[capture(3000), capture(3002)]).unwrap();
    assert_eq!(change, Change { added: 1, changed: 0, removed: 1, kept: 1 });
    let syn = |port: u16| tcp("198.18.9.9:1", &format!("198.18.1.2:{port}"), SYN).bytes();
    assert_eq!(steer(&steering, OUT0, &syn(3002)), (Drop, "drop_absent"));
    assert_eq!(steer(&steering, OUT0, &syn(3001)), (Pass, "pass"));
}

#[test]
fn a_port_runs_in_the_mode_it_was_first_attached_in_until_it_is_detached() {
    rig::enter();
    let mut generic = rig::options();
    generic.ports[2].mode = Mode::Generic;
    let steering = Steering::attach(&generic).unwrap();
    assert_eq!((steering.mode(IN0), steering.mode(OUT0)), (Some(Mode::Native), Some(Mode::Generic)));
    assert!(program_on("out0").contains("prog/xdp"), "{}", program_on("out0"));
    drop(steering);
    // The other mode would take a moment without any program.
    let steering = Steering::attach(&rig::options()).unwrap();
    assert_eq!(steering.mode(OUT0), Some(Mode::Generic));
    drop(steering);
    xdp_prog::detach(PINNED.as_ref()).unwrap();
    let steering = Steering::attach(&rig::options()).unwrap();
    assert_eq!(steering.mode(OUT0), Some(Mode::Native));
}

#[test]
fn adopted_flows_follow_a_port_that_has_another_index_now() {
    rig::enter();
    let steering = Steering::attach(&rig::options()).unwrap();
    assert!(steering.flows().insert(&flow(OUT0)).unwrap());
    assert!(steering.flows().insert(&flow(IN0)).unwrap());
    drop(steering);
    let mut options = rig::options();
    options.ports[0].index = OUT0;
    options.ports[2].index = 9;
    let steering = Steering::attach(&options).unwrap();
    let mut flows = steering.flows().list().unwrap();
    flows.sort();
    assert_eq!(flows, [flow(OUT0), flow(9)]);
}

#[test]
fn a_full_flows_map_refuses_the_next_one_and_keeps_the_others() {
    rig::enter();
    let steering = Steering::attach(&rig::options()).unwrap();
    let flows = steering.flows();
    let numbered = |port: usize| {
        let source = format!("198.18.9.9:{}", 1000 + port).parse().unwrap();
        FlowTuple { source, ..flow(OUT0) }
    };
    let room = (0..1000).take_while(|&port| flows.insert(&numbered(port)).unwrap()).count();
    assert_eq!((room, flows.capacity()), (64, 64));
    assert_eq!(flows.list().unwrap().len(), 64);
    assert!(flows.insert(&numbered(3)).unwrap(), "what is in may be put in again");
    flows.remove(&numbered(3)).unwrap();
    flows.remove(&numbered(3)).unwrap();
    assert!(flows.insert(&numbered(999)).unwrap());
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() {
    rig::enter();
    let first = Steering::attach(&rig::options()).unwrap();
    let theirs = program_on("out0");
    let mut options = rig::options();
    options.pin_directory = "/mnt/bpf/other".into();
    options.ports.remove(0);
    let error = Steering::attach(&options).unwrap_err();
    let Error::Busy { interface, program } = &error else { panic!("{error}") };
    assert_eq!(interface, "in1");
    assert!(program_on("in1").contains(&format!("id {program}")), "{error}");
    assert!(!Path::new("/mnt/bpf/other").exists(), "a failed attach leaves nothing behind");
    assert_eq!(program_on("out0"), theirs);
    assert!(run("tc filter show dev in1 egress").contains("direct-action"), "their guard is gone");
    drop(first);
}

#[test]
fn what_cannot_be_attached_says_what_to_do() {
    rig::enter();
    let attach = |change: &dyn Fn(&mut xdp_prog::Options)| {
        let mut options = rig::options();
        change(&mut options);
        let error = Steering::attach(&options).unwrap_err().to_string();
        assert!(!Path::new(PINNED).exists(), "{error}: left something behind");
        error
    };
    let error = attach(&|options| options.ports[1].interface = "nosuch0".into());
    assert!(error.contains("no interface nosuch0"), "{error}");
    let error = attach(&|options| options.ports[1].interface = "lo".into());
    assert!(error.starts_with("lo: its driver has no native XDP"), "{error}");
    rig::add("wide");
    run("ethtool -L widep tx 2");
    let error = attach(&|options| options.ports[1].interface = "wide".into());
    assert!(error.starts_with("wide: it has 1 receive queues"), "{error}");
    assert!(error.contains("ethtool -L"), "{error}");

    let mut options = rig::options();
    options.pin_directory = "/mnt/plain".into();
    assert!(matches!(Steering::attach(&options), Err(Error::NotBpffs { .. })));
    options = rig::options();
    options.ports[1].index = options.ports[0].index;
    assert!(matches!(Steering::attach(&options), Err(Error::Ports { .. })));
}

#[test]
fn maps_of_another_size_are_not_adopted() {
    rig::enter();
    let steering = Steering::attach(&rig::options()).unwrap();
    drop(steering);
    let mut options = rig::options();
    options.flows = 128;
    let error = Steering::attach(&options).unwrap_err();
    assert!(matches!(&error, Error::Layout { map, .. } if map == "flows"), "{error}");
    assert!(error.to_string().contains("sluice detach"), "{error}");
    assert!(!program_on("out0").is_empty(), "what was in force stays in force");
}

#[test]
fn an_interface_that_comes_back_is_taken_up_again() {
    rig::enter();
    let mut steering = Steering::attach(&rig::options()).unwrap();
    steering.set_captures(&[capture(3000)]).unwrap();
    let _workers = rig::workers(&steering);
    run("ip link del in0");
    assert!(matches!(steering.reattach(IN0), Err(Error::NoInterface { .. })));
    rig::add("in0");
    assert!(program_on("in0").is_empty());
    steering.reattach(IN0).unwrap();
    assert!(!program_on("in0").is_empty());
    steering.reattach(IN0).unwrap();
    let syn = tcp("198.18.1.99:1", "198.18.1.2:3000", SYN).bytes();
    assert_eq!(steer(&steering, IN0, &syn), (ToWorker, "to_worker_syn"));
    // Nor may a restart stumble over it.
    run("ip link del out0");
    rig::add("out0");
    drop(steering);
    Steering::attach(&rig::options()).unwrap();
    assert!(!program_on("out0").is_empty());
}

#[test]
fn a_port_that_is_none_any_more_is_left() {
    rig::enter();
    drop(Steering::attach(&rig::options()).unwrap());
    let mut options = rig::options();
    options.ports.remove(1);
    Steering::attach(&options).unwrap();
    assert!(program_on("in1").is_empty());
    assert!(!run("tc filter show dev in1 egress").contains("direct-action"));
    assert!(!program_on("in0").is_empty());
}

#[test]
fn detach_removes_all_and_says_so() {
    rig::enter();
    run("ip link add link.5 type veth peer name link.5p");
    run("ip link set link.5 up");
    let mut options = rig::options();
    options.ports[0].interface = "link.5".into();
    let steering = Steering::attach(&options).unwrap();
    drop(steering);
    let removed = xdp_prog::detach(PINNED.as_ref()).unwrap();
    for what in ["steering program on interface link.5", "guard on tc egress of interface in1", "flows"] {
        assert!(removed.iter().any(|line| line.contains(what)), "{what} is not in {removed:?}");
    }
    for port in ["link.5", "in1", "out0"] {
        assert!(program_on(port).is_empty(), "{port} still has a program");
        assert!(!run(&format!("tc filter show dev {port} egress")).contains("direct-action"));
    }
    assert!(!Path::new(PINNED).exists());
    assert_eq!(xdp_prog::detach(PINNED.as_ref()).unwrap(), Vec::<String>::new());
    Steering::attach(&options).unwrap();
}

#[test]
fn another_network_namespace_is_refused_and_one_that_is_gone_is_not() {
    rig::enter();
    drop(Steering::attach(&rig::options()).unwrap());
    let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let guards = || run("tc filter show dev in1 egress").matches("direct-action").count();
    // The same names and numbers in the next namespace, with a guard of another gateway's.
    rig::leave();
    let other = xdp_prog::Options { pin_directory: "/mnt/bpf/other".into(), ..rig::options() };
    drop(Steering::attach(&other).unwrap());
    for error in [xdp_prog::detach(PINNED.as_ref()).unwrap_err(), Steering::attach(&rig::options()).unwrap_err()] {
        assert!(matches!(error, Error::OtherNamespace { .. }), "{error}");
        assert!(error.to_string().contains("nsenter --net"), "{error}");
    }
    assert_eq!(guards(), 1, "theirs was taken");
    // The first one goes, and with it whatever stood in the way.
    drop(here);
    let removed = (0..1000).find_map(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
        xdp_prog::detach(PINNED.as_ref()).ok()
    });
    let removed = removed.expect("the namespace is gone");
    assert!(removed.iter().all(|line| !line.contains("guard on")), "{removed:?}");
    assert!(!Path::new(PINNED).exists() && guards() == 1);
}

#[test]
fn rules_that_contradict_themselves_are_refused() {
    rig::enter();
    let mut steering = Steering::attach(&rig::options()).unwrap();
    let source = |port| xdp_prog::Source { port, prefix: ("198.18.1.2".parse().unwrap(), 32), mac: None, set: 1 };
    assert!(matches!(steering.set_sources(&[source(1), source(2)]), Err(Error::Claimed { first: 1, second: 2, .. })));
    let anywhere = Capture { destination: None, ..capture(80) };
    assert!(matches!(steering.set_captures(&[anywhere]), Err(Error::Invalid { .. })));
    let reserved = Capture { kind: CaptureKind::Outbound { set: u32::MAX }, ..capture(80) };
    assert!(matches!(steering.set_captures(&[reserved]), Err(Error::Invalid { .. })));
    assert!(steering.set_xsk(OUT0, 64, std::os::fd::AsFd::as_fd(&std::io::stdin())).is_err());
    assert!(matches!(steering.clear_xsk(77, 0), Err(Error::NoPort { port: 77, .. })));
}
