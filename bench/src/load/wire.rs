//! What goes over a connection of the load: messages of one size, and numbered blocks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::pace::Pace;

pub const MESSAGE: usize = 64;
pub const BLOCK: usize = 128 * 1024;
/// Stands in each request, where an eavesdropper on the wire would find it.
pub const MARKER: &[u8] = b"bench-plaintext-marker";

/// Answered with the caller's address, in words.
pub const PROBE: u8 = b'P';
/// Answered with the same message, its number increased by one; then the next.
pub const ECHO: u8 = b'E';
/// Blocks follow; answered with their count of bytes.
pub const UPLOAD: u8 = b'U';
/// Answered with blocks, for as many milliseconds as the number says; then the client tells the
/// count of bytes, and the server whether that is right.
pub const DOWNLOAD: u8 = b'D';

/// A silent peer is a failure, not a hang.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub struct Message(pub [u8; MESSAGE]);

/// An ECHO request, for those who bring their own transport.
pub fn echo(number: u64) -> [u8; MESSAGE] {
    Message::new(ECHO, number).0
}

impl Message {
    pub fn new(kind: u8, number: u64) -> Self {
        let mut bytes = [b'.'; MESSAGE];
        bytes[0] = kind;
        bytes[8..16].copy_from_slice(&number.to_be_bytes());
        bytes[16..16 + MARKER.len()].copy_from_slice(MARKER);
        Self(bytes)
    }

    /// Words in the place of the marker's.
    pub fn probe(words: &str) -> Self {
        let mut message = Self::new(PROBE, words.len() as u64);
        message.0[16..16 + words.len()].copy_from_slice(words.as_bytes());
        message
    }

    pub fn words(&self) -> Result<&str> {
        let length = usize::try_from(self.number())?;
        let bytes = self.0.get(16..16usize.saturating_add(length)).context("words longer than the message")?;
        Ok(std::str::from_utf8(bytes)?)
    }

    pub fn kind(&self) -> u8 {
        self.0[0]
    }

    pub fn number(&self) -> u64 {
        u64::from_be_bytes(self.0[8..16].try_into().expect("eight bytes"))
    }

    pub fn send(&self, mut stream: &TcpStream) -> Result<()> {
        patient(stream.write_all(&self.0)).context("send a message")
    }

    pub fn receive(stream: &TcpStream) -> Result<Self> {
        Self::next(stream)?.context("the connection ended instead of a message")
    }

    /// None: the peer has closed between two messages.
    pub fn next(mut stream: &TcpStream) -> Result<Option<Self>> {
        let mut bytes = [0; MESSAGE];
        let length = patient(stream.read(&mut bytes)).context("wait for a message")?;
        if length == 0 {
            return Ok(None);
        }
        patient(stream.read_exact(&mut bytes[length..])).context("wait for the rest of a message")?;
        Ok(Some(Self(bytes)))
    }
}

/// Connected, and with the time limits that [`patient`] explains.
pub fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("connect to {server}"))?;
    prepare(&stream)?;
    Ok(stream)
}

pub fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

/// One request and its answer.
pub fn exchange(stream: &TcpStream, number: u64) -> Result<()> {
    Message::new(ECHO, number).send(stream)?;
    let answer = Message::receive(stream)?.number();
    ensure!(answer == number + 1, "the answer to {number} is {answer}, not that of this request");
    Ok(())
}

/// Sends numbered blocks until the time is over, and says how many bytes these were.
pub fn send_blocks(mut stream: &TcpStream, span: Duration, mut pace: Pace) -> Result<u64> {
    let mut block = vec![0x5a; BLOCK];
    let end = Instant::now() + span;
    let mut sent = 0;
    loop {
        pace.wait();
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
pub fn receive_blocks(mut stream: &TcpStream) -> Result<u64> {
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
