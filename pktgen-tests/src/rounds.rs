//! A connection that is busy for as long as a test changes things under it.
//!
//! It sends a chunk, has it echoed, compares every byte, and begins again. How many rounds are over
//! says that it goes on; nothing is asked of the clock.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::{Namespace, wait_until};

/// A silent peer is a failure, not a hang.
const PATIENCE: Duration = Duration::from_secs(30);
const CHUNK: usize = 400_000;

/// Sends back what it gets, on every connection to `address`, while the process lives.
pub fn echo(namespace: &Namespace, address: SocketAddr) -> Result<()> {
    let listener = namespace.enter(|| TcpListener::bind(address))?.with_context(|| format!("listen on {address}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // What goes wrong here is seen at the other end.
                let _ = std::io::copy(&mut &stream, &mut &stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    Ok(())
}

pub struct Rounds {
    over: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
    pub client: SocketAddr,
}

impl Rounds {
    pub fn start(namespace: &Namespace, server: SocketAddr) -> Result<Self> {
        let stream = namespace.enter(|| TcpStream::connect_timeout(&server, PATIENCE))?.context("connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (over, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let client = stream.local_addr()?;
        let thread = std::thread::spawn({
            let (over, stop) = (Arc::clone(&over), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::SeqCst) {
                    let number = over.load(Ordering::SeqCst);
                    round(&stream, number).with_context(|| format!("round {number}"))?;
                    over.store(number + 1, Ordering::SeqCst);
                }
                stream.shutdown(Shutdown::Write)?;
                ensure!((&stream).read(&mut [0])? == 0, "more came than was sent");
                Ok(())
            }
        });
        Ok(Self { over, stop, thread, client })
    }

    /// Waits until `rounds` more are over that began after this was called.
    pub fn go_on(&self, rounds: u64) -> Result<()> {
        let goal = self.over.load(Ordering::SeqCst) + 1 + rounds;
        let over = wait_until("the connection goes on", PATIENCE, || {
            let over = self.over.load(Ordering::SeqCst) >= goal;
            (over || self.thread.is_finished()).then_some(over)
        })?;
        if over { Ok(()) } else { bail!("the connection broke") }
    }

    /// Ends it in order. An error is that of the round that failed.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn round(stream: &TcpStream, number: u64) -> Result<()> {
    // Longer than any segment before it repeats, and another in each round.
    let chunk: Vec<u8> = (0..CHUNK as u64).map(|at| ((at * 0x9e37 + number * 0x79b9) >> 8) as u8).collect();
    let mut back = vec![0; CHUNK];
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&chunk)
        });
        let mut stream = stream;
        let received = stream.read_exact(&mut back);
        sent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("send")?;
        received.context("receive")
    })?;
    ensure!(back == chunk, "other bytes came back than were sent");
    Ok(())
}
