//! Streams of blocks, all of them at once, as fast as it goes or at a rate.

use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::pace::{Pace, sharp_timers};
use super::wire::{BLOCK, DOWNLOAD, Message, UPLOAD, connect, receive_blocks, send_blocks};
use super::{Job, Measured};
use crate::plan::Flow;

pub fn run(job: &Job, flow: Flow, span: Duration) -> Result<Measured> {
    // Opened before the clock starts: a handshake is no part of a stream's cost.
    let streams = (0..flow.streams).map(|_| connect(job.server)).collect::<Result<Vec<_>>>()?;
    let gate = Barrier::new(streams.len() + 1);
    let (before, moved) = std::thread::scope(|scope| {
        let one = |stream| {
            let gate = &gate;
            scope.spawn(move || {
                sharp_timers()?;
                gate.wait();
                transfer(stream, flow, span)
            })
        };
        let workers: Vec<_> = streams.iter().map(one).collect();
        let before = job.reading();
        gate.wait();
        let moved = workers.into_iter().map(|worker| worker.join().expect("a stream does not panic"));
        (before, moved.sum::<Result<u64>>())
    });
    let spent = before?.until(&job.reading()?);
    Ok(Measured::new(spent, moved?, streams.len() as u64))
}

fn transfer(stream: &TcpStream, flow: Flow, span: Duration) -> Result<u64> {
    match flow.down {
        true => download(stream, span),
        false => upload(stream, span, pace(flow)),
    }
}

/// The rate is that of all streams together.
fn pace(flow: Flow) -> Pace {
    let per_second = |megabits: u32| f64::from(megabits) * 1e6 / 8.0 / BLOCK as f64 / f64::from(flow.streams);
    flow.megabits.map_or(Pace::free(), |megabits| Pace::every(Duration::from_secs_f64(1.0 / per_second(megabits))))
}

fn upload(stream: &TcpStream, span: Duration, pace: Pace) -> Result<u64> {
    Message::new(UPLOAD, 0).send(stream)?;
    let sent = send_blocks(stream, span, pace)?;
    let received = Message::receive(stream)?.number();
    ensure!(sent == received, "{sent} bytes were sent, but not all came: the server counts {received}");
    Ok(sent)
}

fn download(stream: &TcpStream, span: Duration) -> Result<u64> {
    Message::new(DOWNLOAD, u64::try_from(span.as_millis())?).send(stream)?;
    let received = receive_blocks(stream)?;
    Message::new(DOWNLOAD, received).send(stream)?;
    let right = Message::receive(stream)?.number() == 1;
    ensure!(right, "{received} bytes came, but the server has not sent as many");
    Ok(received)
}
