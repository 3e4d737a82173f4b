//! The server's end: answers whatever the clients ask for, until it is stopped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{DOWNLOAD, ECHO, Message, PROBE, UPLOAD, prepare, receive_blocks, send_blocks};

/// More than there are clients, so that none waits for a thread.
const THREADS: usize = 24;

/// What it prints when it can be called.
pub const READY: &str = "listening";

/// Runs for ever.
pub fn run(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    answer_in_background(listener)?;
    println!("{READY}");
    loop {
        std::thread::park();
    }
}

pub fn answer_in_background(listener: TcpListener) -> Result<()> {
    let listener = Arc::new(listener);
    for _ in 0..THREADS {
        let listener = Arc::clone(&listener);
        std::thread::Builder::new().name("answer".into()).spawn(move || {
            loop {
                let answered = listener.accept().context("accept").and_then(|(stream, peer)| answer(&stream, peer));
                if let Err(error) = answered {
                    // The client sees its connection end, and says so where it counts.
                    eprintln!("server: {error:#}");
                }
            }
        })?;
    }
    Ok(())
}

fn answer(stream: &TcpStream, peer: SocketAddr) -> Result<()> {
    prepare(stream)?;
    let mut sent = None;
    while let Some(message) = Message::next(stream)? {
        match (message.kind(), sent.take()) {
            (PROBE, None) => Message::probe(&peer.to_string()).send(stream)?,
            (ECHO, None) => Message::new(ECHO, message.number() + 1).send(stream)?,
            (UPLOAD, None) => Message::new(UPLOAD, receive_blocks(stream)?).send(stream)?,
            (DOWNLOAD, None) => sent = Some(send_blocks(stream, Duration::from_millis(message.number()))?),
            // What the client has counted.
            (DOWNLOAD, Some(sent)) => Message::new(DOWNLOAD, u64::from(sent == message.number())).send(stream)?,
            (kind, sent) => bail!("a message of kind {kind} is not expected after {sent:?} bytes were sent"),
        }
    }
    Ok(())
}
