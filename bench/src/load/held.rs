//! Connections that stand, opened once and used once, in as many processes as their descriptors take.
//!
//! ```text
//!   client ─┬─ holder 0 ── 17,000 at most ──▶ server process at port P
//!           ├─ holder 1 ── the next ────────▶ server process at port P + 1
//!           └─ …
//! ```
//! The limit of descriptors holds at either end, so each holder has a server of its own. A port of
//! its own, too: the kernel looks for a free source port among half of them first, and once that
//! half is in use for a destination, each further connect searches all of it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use super::wire::{connect, exchange};
use crate::files::ensure_enough;

/// Arguments that make this program one holder.
pub const HOLDER: &str = "--as-load-holder";

/// Of one process, within the 20,000 descriptors that many a machine gives.
const EACH: u32 = 17_000;

/// Most processes: how many ports the servers may have.
pub const PARTS: u16 = 8;

/// As many handshakes at once.
const OPENERS: usize = 8;

/// What a holder says when all its connections stand, and when it has asked on some.
const STANDS: &str = "stands";
const ANSWERED: &str = "answered";

pub enum Held {
    Here(Vec<TcpStream>),
    Elsewhere { holders: Vec<Holder>, count: u32 },
}

/// A process of ours that holds a part; it ends with this.
pub struct Holder {
    child: Child,
    /// None: it has been told to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Processes that so many connections take, at each end.
pub fn parts(connections: u32) -> u16 {
    u16::try_from(connections.div_ceil(EACH)).unwrap_or(u16::MAX)
}

/// How many each of them holds.
fn shares(connections: u32) -> Vec<u32> {
    let parts = u32::from(parts(connections));
    (0..parts).map(|part| connections / parts + u32::from(part < connections % parts)).collect()
}

impl Held {
    /// One part after the other, so that the load is the same however many there are.
    pub fn open(server: SocketAddr, connections: u32) -> Result<Self> {
        let shares = shares(connections);
        ensure!(shares.len() <= usize::from(PARTS), "{connections} connections are more than {PARTS} processes hold");
        if shares.len() <= 1 {
            ensure_enough(connections)?;
            return open(server, connections).map(Self::Here);
        }
        let part = |(part, share)| Holder::start(SocketAddr::new(server.ip(), server.port() + part), share);
        let holders = (0..).zip(shares).map(part).collect::<Result<_>>()?;
        Ok(Self::Elsewhere { holders, count: connections })
    }

    pub fn count(&self) -> u64 {
        match self {
            Self::Here(streams) => streams.len() as u64,
            Self::Elsewhere { count, .. } => u64::from(*count),
        }
    }

    /// Each still carries what it is asked to: some hundred of them show it.
    pub fn ask(&mut self) -> Result<()> {
        match self {
            Self::Here(streams) => ask(streams),
            Self::Elsewhere { holders, .. } => holders.iter_mut().try_for_each(Holder::ask),
        }
    }
}

impl Holder {
    fn start(server: SocketAddr, connections: u32) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([HOLDER, &server.to_string(), &connections.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a holder")?;
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("piped")));
        let mut holder = Self { child, input, output };
        holder.expect(STANDS)?;
        Ok(holder)
    }

    fn ask(&mut self) -> Result<()> {
        writeln!(self.input.as_mut().expect("it has not been told to end")).context("ask a holder")?;
        self.expect(ANSWERED)
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("hear a holder")?;
        ensure!(line.trim_end() == wanted, "a holder of connections has failed");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.input = None;
        if let Err(error) = self.child.wait() {
            eprintln!("load: wait for a holder: {error}");
        }
    }
}

/// A holder, until the one that started it has gone.
pub fn run(server: SocketAddr, connections: u32) -> Result<()> {
    ensure_enough(connections)?;
    let streams = open(server, connections)?;
    hold(&streams, std::io::stdin().lock(), std::io::stdout())
}

fn hold(streams: &[TcpStream], asked: impl BufRead, mut said: impl Write) -> Result<()> {
    writeln!(said, "{STANDS}")?;
    for question in asked.lines() {
        question?;
        ask(streams)?;
        writeln!(said, "{ANSWERED}")?;
    }
    Ok(())
}

fn ask(streams: &[TcpStream]) -> Result<()> {
    let mut some = streams.iter().enumerate().step_by(streams.len() / 100 + 1);
    some.try_for_each(|(number, stream)| exchange(stream, number as u64)).context("on a connection that was idle")
}

pub fn open(server: SocketAddr, connections: u32) -> Result<Vec<TcpStream>> {
    let next = AtomicU32::new(0);
    let opener = || -> Result<Vec<TcpStream>> {
        let mut held = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= connections {
                return Ok(held);
            }
            let stream = connect(server).with_context(|| format!("connection {number}"))?;
            exchange(&stream, number.into()).with_context(|| format!("connection {number}"))?;
            held.push(stream);
        }
    };
    let parts = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(opener)).collect();
        openers.into_iter().map(|o| o.join().expect("an opener does not panic")).collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::server;

    #[test]
    fn no_process_holds_more_than_its_descriptors_and_none_is_left_out() {
        for (connections, parts) in [(0, 0), (1, 1), (EACH, 1), (EACH + 1, 2), (100_000, 6)] {
            let shares = shares(connections);
            assert_eq!((shares.len(), shares.iter().sum::<u32>()), (parts, connections), "{connections}");
            assert!(shares.iter().all(|share| *share <= EACH), "{connections}: {shares:?}");
        }
    }

    #[test]
    fn a_holder_answers_each_question_and_ends_with_its_asker() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || server::answer(&listener));
        let (streams, mut said) = (open(address, 20).unwrap(), Vec::new());
        hold(&streams, &b"\n\n"[..], &mut said).unwrap();
        assert_eq!(said, b"stands\nanswered\nanswered\n");
        streams[0].shutdown(std::net::Shutdown::Both).unwrap();
        said.clear();
        assert!(hold(&streams, &b"\n"[..], &mut said).is_err(), "one of them carries nothing any more");
        assert_eq!(said, b"stands\n");
    }
}
