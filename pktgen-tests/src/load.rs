//! Bytes over kernel sockets, both ways at once, each one checked at the far end.
//!
//! Each connection opens with a header that says what will come in each direction. The bytes are
//! those of a small generator seeded by the connection's number and direction: the receiver makes
//! its own copy and compares the SHA-256 of both, so that a byte lost, doubled, swapped with
//! another connection's or delivered twice is found, and nothing large is kept.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{Context as Sha, SHA256};

use crate::netns::Namespace;

/// A silent peer is a failure, not a hang.
const PATIENCE: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 * 1024;

/// Answers exchanges in a namespace until it is dropped.
pub struct Server {
    address: SocketAddr,
    namespace: Namespace,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
    accepted: Arc<AtomicU64>,
    closing: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Server {
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let listener =
            namespace.enter(|| TcpListener::bind(address))?.with_context(|| format!("listen on {address}"))?;
        let failures = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let accepted = Arc::<AtomicU64>::default();
        let closing = Arc::<std::sync::atomic::AtomicBool>::default();
        let thread = std::thread::spawn({
            let (failures, accepted, closing) = (Arc::clone(&failures), Arc::clone(&accepted), Arc::clone(&closing));
            move || {
                for stream in listener.incoming() {
                    if closing.load(Ordering::SeqCst) {
                        break;
                    }
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let (stream, failures) = (stream?, Arc::clone(&failures));
                    // Small stacks: thousands of these may wait for a byte.
                    std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
                        if let Err(error) = answer(&stream) {
                            failures.lock().expect("no holder panics").push(format!("{error:#}"));
                        }
                    })?;
                }
                Ok(())
            }
        });
        Ok(Self { address, namespace: namespace.clone(), failures, accepted, closing, thread: Some(thread) })
    }

    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// What went wrong on the server's side so far.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("no holder panics").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let address = self.address;
        let _ = self.namespace.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What each of several connections at once exchanges.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    pub connections: u64,
    /// Bytes of each connection, each way.
    pub bytes: u64,
}

/// Runs all of an exchange's connections at once; the error is that of the first that failed.
pub fn exchange(namespace: &Namespace, server: SocketAddr, what: Exchange) -> Result<()> {
    let (sender, results) = mpsc::channel();
    for number in 0..what.connections {
        let sender = sender.clone();
        namespace.enter_detached(move || {
            let _ = sender.send(call(server, number, what.bytes).with_context(|| format!("connection {number}")));
        });
    }
    drop(sender);
    results.iter().take(what.connections as usize).collect()
}

/// One exchange on a connection of its own.
pub fn call(server: SocketAddr, number: u64, bytes: u64) -> Result<()> {
    complete(&open(server, number)?, number, bytes)
}

/// A connection whose exchange has begun and goes on with [`complete`], whenever that is.
pub fn open(server: SocketAddr, number: u64) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).context("connect")?;
    set_patience(&stream)?;
    (&stream).write_all(&number.to_be_bytes()).context("send the header's first half")?;
    Ok(stream)
}

pub fn complete(mut stream: &TcpStream, number: u64, bytes: u64) -> Result<()> {
    stream.write_all(&bytes.to_be_bytes()).context("send the header's second half")?;
    both_ways(stream, seed(number, 0), seed(number, 1), bytes)
}

fn answer(stream: &TcpStream) -> Result<()> {
    set_patience(stream)?;
    let mut header = [0; 16];
    let mut reader = stream;
    match reader.read_exact(&mut header) {
        // Opened and closed again: not an exchange.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
        result => result.context("read the header")?,
    }
    let (number, bytes) = header.split_at(8);
    let number = u64::from_be_bytes(number.try_into()?);
    let bytes = u64::from_be_bytes(bytes.try_into()?);
    both_ways(stream, seed(number, 1), seed(number, 0), bytes).with_context(|| format!("server of connection {number}"))
}

/// Sends `bytes` of one generator and reads as many of the other; then both sides close.
fn both_ways(stream: &TcpStream, ours: u64, theirs: u64, bytes: u64) -> Result<()> {
    std::thread::scope(|scope| {
        let sent =
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, || send(stream, ours, bytes))?;
        let received = receive(stream, theirs, bytes);
        let sent = sent.join().expect("a sender does not panic");
        received.and(sent)
    })
}

fn send(mut stream: &TcpStream, seed: u64, bytes: u64) -> Result<()> {
    let mut generator = Generator(seed);
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(CHUNK as u64) as usize;
        generator.fill(&mut chunk);
        stream.write_all(&chunk[..length]).with_context(|| format!("send, {left} bytes before the end"))?;
        left -= length as u64;
    }
    stream.shutdown(Shutdown::Write).context("close")
}

fn receive(mut stream: &TcpStream, seed: u64, bytes: u64) -> Result<()> {
    let (mut came, mut count) = (Sha::new(&SHA256), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).with_context(|| format!("receive, after {count} of {bytes} bytes"))? {
            0 => break,
            length => {
                came.update(&chunk[..length]);
                count += length as u64;
            }
        }
    }
    ensure!(count == bytes, "{count} bytes came, not {bytes}");
    ensure!(
        came.finish().as_ref() == expected(seed, bytes).as_ref(),
        "{bytes} bytes came, but not those that were sent"
    );
    Ok(())
}

fn expected(seed: u64, bytes: u64) -> aws_lc_rs::digest::Digest {
    let (mut generator, mut sha) = (Generator(seed), Sha::new(&SHA256));
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(CHUNK as u64) as usize;
        generator.fill(&mut chunk);
        sha.update(&chunk[..length]);
        left -= length as u64;
    }
    sha.finish()
}

fn set_patience(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

fn seed(number: u64, direction: u64) -> u64 {
    (number << 1 | direction).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// xorshift64*: fast, and no two seeds give the same stream.
struct Generator(u64);

impl Generator {
    fn fill(&mut self, chunk: &mut [u8]) {
        for word in chunk.chunks_exact_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            word.copy_from_slice(&self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_changed_byte_fails_the_exchange() {
        for (flip, want) in [(false, true), (true, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut bytes = vec![0; 100_000];
                Generator(seed(3, 0)).fill(&mut bytes);
                bytes[70_000] ^= u8::from(flip);
                (&stream).write_all(&bytes).unwrap();
            });
            let result = receive(&TcpStream::connect(address).unwrap(), seed(3, 0), 100_000);
            server.join().unwrap();
            assert_eq!(result.is_ok(), want, "{result:?}");
        }
    }
}
