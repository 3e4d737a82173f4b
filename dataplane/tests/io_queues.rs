//! Interfaces with several queues, and which core has which. Needs root.

mod io_rig;

use std::time::Duration;

use dataplane::io::link::{ensure_queues, queues};
use dataplane::io::xsk::{OpenError, OpenOptions, PortSpec, RingSize, XskPorts};
use dataplane::io::{Packet, PacketIo, PortId};
use io_rig::*;

const LEFT: PortId = PortId(0);
const SECOND: Option<Duration> = Some(Duration::from_secs(1));

#[test]
fn queues_are_raised_to_the_number_of_cores_and_each_core_has_its_own() {
    namespace();
    ip("link add h0 numrxqueues 4 numtxqueues 4 type veth peer name p0 numrxqueues 4 numtxqueues 4");
    ip("link set h0 up");
    ip("link set p0 up");
    assert_eq!(ensure_queues("p0", 4).unwrap(), 4);
    assert_eq!((queues("p0").unwrap().rx, queues("p0").unwrap().tx), (4, 4));
    assert_eq!(ensure_queues("p0", 64).unwrap(), 4, "no more than the driver has");
    let spec = [PortSpec { interface: "p0".into(), index: LEFT, queues: 4 }];
    let open = |core_index, cores| {
        let steer = Box::new(Anything);
        let ring = RingSize::default();
        XskPorts::open(OpenOptions { ports: &spec, core_index, cores, frames: FRAMES, ring, steer })
    };
    let (even, odd) = (open(0, 2).unwrap(), open(1, 2).unwrap());
    assert_eq!(even.sockets().map(|(_, queue, _)| queue).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(odd.sockets().map(|(_, queue, _)| queue).collect::<Vec<_>>(), [1, 3]);
    assert!(matches!(open(5, 6), Err(OpenError::Queues { queues: 4, cores: 6, .. })));
}

#[test]
fn a_core_sends_on_its_own_queue_and_a_core_with_several_hears_them_all() {
    namespace();
    ip("link add a0 numrxqueues 2 numtxqueues 2 type veth peer name b0 numrxqueues 2 numtxqueues 2");
    ip("link set a0 up");
    ip("link set b0 up");
    let open = |name: &str, core_index, cores| {
        let spec = [PortSpec { interface: name.into(), index: LEFT, queues: 2 }];
        let (steer, ring) = (Box::new(Anything), RingSize::default());
        XskPorts::open(OpenOptions { ports: &spec, core_index, cores, frames: FRAMES, ring, steer }).unwrap()
    };
    let mut senders = [open("a0", 0, 2), open("a0", 1, 2)];
    let mut reader = open("b0", 0, 1);
    let program = Program::attach("b0");
    // Only what arrives on queue 1 is for the reader's second socket: the other goes to the kernel.
    let (_, queue, fd) = reader.sockets().nth(1).unwrap();
    program.register(queue, fd);
    for (i, sender) in senders.iter_mut().enumerate() {
        sender.send(LEFT, 100, &mut |bytes| write_packet(i as u32, bytes)).unwrap();
        assert_eq!(sender.flush(), 0);
    }
    awaited("the packet of core 1", || {
        reader.wait(SECOND);
        reader.rx_burst(LEFT) == 1 || {
            reader.release();
            false
        }
    });
    assert!(reader.bytes(Packet(0)) == packet(1, 100));
    reader.release();
    let (_, queue, fd) = reader.sockets().next().unwrap();
    program.register(queue, fd);
    for (i, sender) in senders.iter_mut().enumerate() {
        for _ in 0..50 {
            sender.send(LEFT, 100, &mut |bytes| write_packet(i as u32, bytes)).unwrap();
        }
        sender.flush();
    }
    let mut heard = [0; 2];
    until("fifty of each", || {
        for i in 0..reader.rx_burst(LEFT) {
            heard[number(reader.bytes(Packet(i))) as usize] += 1;
        }
        reader.release();
        heard == [50, 50]
    });
    assert_conserved(&reader);
}
