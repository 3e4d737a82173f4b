//! A load generator on kernel sockets: one process in the client's namespace, one in the server's.
//!
//! Each connection begins with a message of [`MESSAGE`] bytes whose first byte says what it is for.
//! Nothing counts that was not checked: answers must be those of their request, blocks must come in
//! order and all of them, and both ends must agree on how many bytes that was.

pub mod client;
pub mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cpu::Spent;
use crate::plan::Task;

pub const MESSAGE: usize = 64;
pub const BLOCK: usize = 128 * 1024;
/// Stands in each request, where an eavesdropper on the wire would find it.
pub const MARKER: &[u8] = b"compare-plaintext-marker";

/// Answered with the caller's address, in words.
const PROBE: u8 = b'P';
/// Answered with the same message, its number increased by one; then the next.
const ECHO: u8 = b'E';
/// Blocks follow; answered with their count of bytes.
const UPLOAD: u8 = b'U';
/// Answered with blocks, for as many milliseconds as the number says; then the client tells the
/// count of bytes, and the server whether that is right.
const DOWNLOAD: u8 = b'D';

/// A silent peer is a failure, not a hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the client is told to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// None: one request, to see who answers.
    pub task: Option<Task>,
    pub server: SocketAddr,
    pub seconds: f64,
    /// The gateways' processes.
    pub pids: Vec<u32>,
}

/// What it says when it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub spent: Spent,
    /// Payload that crossed, both ways.
    pub bytes: u64,
    /// Connections or round trips.
    pub count: u64,
    /// Of connections: from connect to the whole answer.
    pub latency: Option<Latency>,
    /// The caller's address as the server saw it.
    pub seen_as: SocketAddr,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

struct Message([u8; MESSAGE]);

impl Message {
    fn new(kind: u8, number: u64) -> Self {
        let mut bytes = [b'.'; MESSAGE];
        bytes[0] = kind;
        bytes[8..16].copy_from_slice(&number.to_be_bytes());
        bytes[16..16 + MARKER.len()].copy_from_slice(MARKER);
        Self(bytes)
    }

    /// Words in the place of the marker's.
    fn probe(words: &str) -> Self {
        let mut message = Self::new(PROBE, words.len() as u64);
        message.0[16..16 + words.len()].copy_from_slice(words.as_bytes());
        message
    }

    fn words(&self) -> Result<&str> {
        let length = usize::try_from(self.number())?;
        let bytes = self.0.get(16..16usize.saturating_add(length)).context("words longer than the message")?;
        Ok(std::str::from_utf8(bytes)?)
    }

    fn kind(&self) -> u8 {
        self.0[0]
    }

    fn number(&self) -> u64 {
        u64::from_be_bytes(self.0[8..16].try_into().expect("eight bytes"))
    }

    fn send(&self, mut stream: &TcpStream) -> Result<()> {
        patient(stream.write_all(&self.0)).context("send a message")
    }

    fn receive(stream: &TcpStream) -> Result<Self> {
        Self::next(stream)?.context("the connection ended instead of a message")
    }

    /// None: the peer has closed between two messages.
    fn next(mut stream: &TcpStream) -> Result<Option<Self>> {
        let mut bytes = [0; MESSAGE];
        let length = patient(stream.read(&mut bytes)).context("wait for a message")?;
        if length == 0 {
            return Ok(None);
        }
        patient(stream.read_exact(&mut bytes[length..])).context("wait for the rest of a message")?;
        Ok(Some(Self(bytes)))
    }
}

/// Sends numbered blocks until the time is over, and says how many bytes these were.
fn send_blocks(mut stream: &TcpStream, span: Duration) -> Result<u64> {
    let mut block = vec![0x5a; BLOCK];
    let end = Instant::now() + span;
    let mut sent = 0;
    loop {
        let last = Instant::now() >= end;
        block[..8].copy_from_slice(&(sent / BLOCK as u64).to_be_bytes());
        block[8] = u8::from(last);
        patient(stream.write_all(&block)).with_context(|| format!("send, after {sent} bytes"))?;
        sent += BLOCK as u64;
        if last {
            return Ok(sent);
        }
    }
}

/// Reads blocks up to the last one.
fn receive_blocks(mut stream: &TcpStream) -> Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut received = 0;
    loop {
        patient(stream.read_exact(&mut block)).with_context(|| format!("receive, after {received} bytes"))?;
        let number = u64::from_be_bytes(block[..8].try_into()?);
        ensure!(number == received / BLOCK as u64, "block {number} came after {received} bytes");
        received += BLOCK as u64;
        if block[8] == 1 {
            return Ok(received);
        }
    }
}

/// A time limit that ran out is EAGAIN to the kernel, which says nothing to a reader.
fn patient<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => anyhow::anyhow!("the peer was silent for {PATIENCE:?}"),
        _ => error.into(),
    })
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn job(task: Task, server: SocketAddr) -> Job {
        Job { task: Some(task), server, seconds: 0.05, pids: vec![std::process::id()] }
    }

    #[test]
    fn every_task_runs_against_the_server_and_counts_what_crossed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        server::answer_in_background(listener).unwrap();
        for task in Task::ALL {
            let measured = client::run(&job(task, server)).unwrap();
            assert!(measured.count >= 1 && measured.bytes >= measured.count, "{task:?}: {measured:?}");
            assert!(measured.spent.seconds > 0.0, "{task:?}");
            assert_eq!(measured.latency.is_some(), matches!(task, Task::Connections | Task::RoundTrip), "{task:?}");
            assert_eq!(measured.seen_as.ip(), server.ip());
        }
    }

    /// A server that is off by one in what each task counts.
    #[test]
    fn what_does_not_add_up_is_an_error() {
        for task in Task::ALL {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let server = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || wrong(&stream));
                }
            });
            let error = client::run(&job(task, server)).expect_err("the server is wrong");
            assert!(format!("{error:#}").contains("not"), "{task:?}: {error:#}");
        }
    }

    fn wrong(stream: &TcpStream) -> Result<()> {
        let message = Message::receive(stream)?;
        match message.kind() {
            UPLOAD => Message::new(UPLOAD, receive_blocks(stream)? - BLOCK as u64).send(stream),
            DOWNLOAD => {
                send_blocks(stream, Duration::from_millis(5))?;
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
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
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
}
