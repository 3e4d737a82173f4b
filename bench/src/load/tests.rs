//! The load against its own server, and against one that is wrong.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;

use super::pace::Pace;
use super::wire::{BLOCK, DOWNLOAD, Message, PROBE, UPLOAD, receive_blocks, send_blocks};
use super::{Job, client, server};
use crate::plan::{Flow, Work};

fn works() -> Vec<(&'static str, Work)> {
    let flow = |streams, down, megabits| Work::Bulk(Flow { streams, down, megabits });
    vec![
        ("a stream", flow(1, false, None)),
        ("three streams down", flow(3, true, None)),
        ("two streams at a rate", flow(2, false, Some(800))),
        ("connections", Work::Connections { rate: None }),
        ("connections at a rate", Work::Connections { rate: Some(400) }),
        ("round trips", Work::RoundTrip { connections: 3, rate: None }),
        ("round trips at a rate", Work::RoundTrip { connections: 5, rate: Some(2000) }),
        ("idle connections", Work::Idle { connections: 50 }),
    ]
}

fn job(work: Work, server: SocketAddr) -> Job {
    Job {
        work: Some(work),
        server,
        seconds: 0.1,
        ready: None,
        gateways: vec![std::process::id()],
        root: std::process::id(),
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn every_work_runs_against_the_server_and_counts_what_crossed() {
    let (listener, server) = listener();
    std::thread::spawn(move || server::answer(&listener));
    for (name, work) in works() {
        let measured = client::run(&job(work, server)).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(measured.count >= 1 && measured.bytes >= measured.count, "{name}: {measured:?}");
        assert!(measured.spent.seconds > 0.0, "{name}");
        let timed = matches!(work, Work::Connections { .. } | Work::RoundTrip { .. });
        assert_eq!(measured.latency.is_some(), timed, "{name}");
        assert_eq!(measured.memory.is_some(), matches!(work, Work::Idle { .. }), "{name}");
        assert_eq!(measured.seen_as.unwrap().ip(), server.ip());
    }
}

#[test]
fn an_open_loop_asks_as_often_as_it_is_told() {
    let (listener, server) = listener();
    std::thread::spawn(move || server::answer(&listener));
    for (work, wanted) in
        [(Work::RoundTrip { connections: 4, rate: Some(1000) }, 100), (Work::Connections { rate: Some(300) }, 30)]
    {
        assert_eq!(client::run(&job(work, server)).unwrap().count, wanted, "{work:?}");
    }
}

/// A server that stands still for 50 ms: requests that were due meanwhile say so.
#[test]
fn a_stall_counts_for_every_request_that_was_due_in_it() {
    let (listener, server) = listener();
    std::thread::spawn(move || -> Result<()> {
        let (probe, _) = listener.accept()?;
        Message::receive(&probe)?;
        Message::probe("127.0.0.1:1").send(&probe)?;
        let (stream, _) = listener.accept()?;
        let mut count = 0;
        while let Some(message) = Message::next(&stream)? {
            count += 1;
            if count == 150 {
                super::pace::sleep_until(std::time::Instant::now() + Duration::from_millis(50));
            }
            Message::new(message.kind(), message.number() + 1).send(&stream)?;
        }
        Ok(())
    });
    let work = Work::RoundTrip { connections: 1, rate: Some(1000) };
    let measured = client::run(&Job { seconds: 0.1, ..job(work, server) }).unwrap();
    // 100 requests; 50 of them were due in the stall, the first of these waited all of it.
    let latency = measured.latency.unwrap();
    assert!(latency.at(1.0).unwrap() >= 45_000.0, "{latency:?}");
    assert!(latency.at(0.75).unwrap() >= 15_000.0, "a closed loop would have shown one slow request: {latency:?}");
}

/// A server that is off by one in what each work counts.
#[test]
fn what_does_not_add_up_is_an_error() {
    for (name, work) in works() {
        let (listener, server) = listener();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || wrong(&stream));
            }
        });
        let error = client::run(&job(work, server)).expect_err("the server is wrong");
        assert!(format!("{error:#}").contains("not"), "{name}: {error:#}");
    }
}

fn wrong(stream: &TcpStream) -> Result<()> {
    let message = Message::receive(stream)?;
    match message.kind() {
        UPLOAD => Message::new(UPLOAD, receive_blocks(stream)? - BLOCK as u64).send(stream),
        DOWNLOAD => {
            send_blocks(stream, Duration::from_millis(5), Pace::free())?;
            Message::receive(stream)?;
            Message::new(DOWNLOAD, 0).send(stream)
        }
        PROBE => Message::probe("127.0.0.1:1").send(stream),
        _ => message.send(stream),
    }
}

#[test]
fn a_block_twice_or_left_out_is_an_error() {
    for numbers in [[0, 0], [0, 2], [1, 2]] {
        let (listener, address) = listener();
        let mut sender = TcpStream::connect(address).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        let sending = std::thread::spawn(move || {
            for number in numbers {
                let mut block = vec![0; BLOCK];
                block[..8].copy_from_slice(&u64::to_be_bytes(number));
                // The receiver may have hung up at the first.
                let _ = sender.write_all(&block);
            }
        });
        let error = receive_blocks(&receiver).unwrap_err();
        assert!(error.to_string().contains("came after"), "{numbers:?}: {error:#}");
        drop(receiver);
        sending.join().unwrap();
    }
}
