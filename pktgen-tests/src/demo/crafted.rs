//! Packets that a steering program might not understand must not slip past it through the kernel.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use pktgen_tests::netns::{Capture, Host, PacketSocket, wait_until};
use pktgen_tests::packet::{ACK, Packet, SYN, Segment};

use crate::stage::{SECONDS, Stage};

pub fn syns(stage: &Stage) -> Result<String> {
    let wire = &stage.site.wire;
    let sender = PacketSocket::sender(wire, "b0")?;
    let backend = SocketAddr::new(Host::Backend.v4(), 3000);
    let mut syn = Packet::syn(SocketAddr::new(Host::Legacy.v4(), 45_000), backend);
    syn.source_mac = wire.mac("b0")?;
    syn.destination_mac = stage.site.node_b.mac("out0")?;
    let accepted = stage.service.accepted()?;
    let capture = Capture::start(wire, "b0")?;
    let inside = Capture::start(&stage.site.backend, "eth0")?;

    for frame in syn.fragments(16) {
        sender.send(&frame)?;
    }
    syn.source.set_port(45_001);
    sender.send(&Packet { vlans: vec![7, 8], ..syn.clone() }.frame())?;
    // The control, last: a whole SYN under no tag, sent by the same socket, is answered.
    syn.source.set_port(45_002);
    sender.send(&syn.frame())?;
    let answered = |port: u16| {
        move |frame: &[u8]| {
            Segment::parse(frame).is_some_and(|s| s.destination.port() == port && s.flags & (SYN | ACK) == SYN | ACK)
        }
    };
    wait_until("the whole SYN is answered", SECONDS(5), || capture.any(answered(45_002)).then_some(()))?;

    let outside = capture.finish()?;
    ensure!(!outside.iter().any(|f| answered(45_000)(f)), "the SYN in fragments was answered");
    ensure!(!outside.iter().any(|f| answered(45_001)(f)), "the SYN under two tags was answered");
    let frames = inside.finish()?;
    let legacy = |frame: &Vec<u8>| frame.windows(4).any(|bytes| bytes == [198, 18, Host::Legacy as u8, 2]);
    ensure!(!frames.iter().any(legacy), "a packet of it crossed to the backend's cable");
    ensure!(stage.service.accepted()? == accepted, "the service saw a connection");
    Ok("both unanswered, no packet of them on the backend's cable, no connection seen; a whole SYN was answered".into())
}
