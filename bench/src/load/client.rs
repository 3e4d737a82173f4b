//! The client's end: does one job, and measures it.
//!
//! Before the clock starts, a short run of the same kind fills pools, caches and tables.

use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::{
    DOWNLOAD, ECHO, Job, Latency, MESSAGE, Measured, Message, PATIENCE, PROBE, UPLOAD, prepare, receive_blocks,
    send_blocks,
};
use crate::cpu::Reading;
use crate::plan::Task;

const CLIENTS: usize = 16;

/// What one pass of a task has moved.
struct Done {
    bytes: u64,
    count: u64,
    latency: Option<Histogram<u64>>,
}

pub fn run(job: &Job) -> Result<Measured> {
    let seen_as = probe(job.server)?;
    let span = Duration::from_secs_f64(job.seconds);
    if job.task.is_some() {
        pass(job, span.min(Duration::from_millis(500))).context("while warming up")?;
    }
    let before = Reading::take(&job.pids)?;
    let done = pass(job, span)?;
    let spent = before.until(&Reading::take(&job.pids)?);
    Ok(Measured { spent, bytes: done.bytes, count: done.count, latency: done.latency.as_ref().map(latency), seen_as })
}

fn pass(job: &Job, span: Duration) -> Result<Done> {
    match job.task {
        None => Ok(Done { bytes: 0, count: 0, latency: None }),
        Some(Task::Upload) => upload(job.server, span),
        Some(Task::Download) => download(job.server, span),
        Some(Task::Connections) => connections(job.server, span),
        Some(Task::RoundTrip) => round_trips(job.server, span),
    }
}

/// As whom the server sees us.
fn probe(server: SocketAddr) -> Result<SocketAddr> {
    let stream = connect(server)?;
    Message::new(PROBE, 0).send(&stream)?;
    let answer = Message::receive(&stream)?;
    ensure!(answer.kind() == PROBE, "the probe was not answered as one");
    answer.words()?.parse().context("the server tells an address")
}

fn upload(server: SocketAddr, span: Duration) -> Result<Done> {
    let stream = connect(server)?;
    Message::new(UPLOAD, 0).send(&stream)?;
    let sent = send_blocks(&stream, span)?;
    let received = Message::receive(&stream)?.number();
    ensure!(sent == received, "{sent} bytes were sent, but not all came: the server counts {received}");
    Ok(Done { bytes: sent, count: 1, latency: None })
}

fn download(server: SocketAddr, span: Duration) -> Result<Done> {
    let stream = connect(server)?;
    Message::new(DOWNLOAD, u64::try_from(span.as_millis())?).send(&stream)?;
    let received = receive_blocks(&stream)?;
    Message::new(DOWNLOAD, received).send(&stream)?;
    let right = Message::receive(&stream)?.number() == 1;
    ensure!(right, "{received} bytes came, but the server has not sent as many");
    Ok(Done { bytes: received, count: 1, latency: None })
}

/// All clients begin together, and each ends with the connection in which the time runs out.
fn connections(server: SocketAddr, span: Duration) -> Result<Done> {
    let gate = Barrier::new(CLIENTS);
    let one = |client: usize| -> Result<Histogram<u64>> {
        let mut times = histogram()?;
        gate.wait();
        let end = Instant::now() + span;
        let mut number = (client as u64) << 32;
        while Instant::now() < end {
            let began = Instant::now();
            let stream = connect(server).with_context(|| format!("after {} connections", times.len()))?;
            echo(&stream, number).with_context(|| format!("after {} connections", times.len()))?;
            record(&mut times, began)?;
            number += 1;
        }
        Ok(times)
    };
    let all = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || one(client))).collect();
        clients.into_iter().map(|c| c.join().expect("a client does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let mut times = histogram()?;
    for part in all {
        times.add(part)?;
    }
    Ok(Done { bytes: times.len() * 2 * MESSAGE as u64, count: times.len(), latency: Some(times) })
}

fn round_trips(server: SocketAddr, span: Duration) -> Result<Done> {
    let stream = connect(server)?;
    let mut times = histogram()?;
    let end = Instant::now() + span;
    while Instant::now() < end {
        let began = Instant::now();
        echo(&stream, times.len())?;
        record(&mut times, began)?;
    }
    Ok(Done { bytes: times.len() * 2 * MESSAGE as u64, count: times.len(), latency: Some(times) })
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("connect to {server}"))?;
    prepare(&stream)?;
    Ok(stream)
}

fn echo(stream: &TcpStream, number: u64) -> Result<()> {
    Message::new(ECHO, number).send(stream)?;
    let answer = Message::receive(stream)?.number();
    ensure!(answer == number + 1, "the answer to {number} is {answer}, not that of this request");
    Ok(())
}

/// Nanoseconds up to a minute, with three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

fn record(times: &mut Histogram<u64>, began: Instant) -> Result<()> {
    Ok(times.record(u64::try_from(began.elapsed().as_nanos())?)?)
}

fn latency(times: &Histogram<u64>) -> Latency {
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}
