//! The server's end: answers whatever the clients ask for, until it is stopped.
//!
//! One thread waits for all connections and answers their messages; a stream of blocks gets a
//! thread of its own.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll;

use super::pace::Pace;
use super::wire::{DOWNLOAD, ECHO, MESSAGE, Message, PROBE, UPLOAD, prepare, receive_blocks, send_blocks};

/// What it prints when it can be called.
pub const READY: &str = "listening";

/// Runs for ever.
pub fn run(address: SocketAddr) -> Result<()> {
    crate::files::take_all()?;
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    // More callers at once than the standard library lets wait.
    rustix::net::listen(&listener, 4096)?;
    println!("{READY}");
    answer(&listener)
}

pub fn answer(listener: &TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut server = Server { epoll, callers: HashMap::new(), count: 0 };
    loop {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
        let count = epoll::wait(&server.epoll, &mut events, None)?;
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => server.accept(listener)?,
                caller => server.serve(caller),
            }
        }
    }
}

struct Server {
    epoll: OwnedFd,
    callers: HashMap<u64, Caller>,
    count: u64,
}

struct Caller {
    stream: TcpStream,
    peer: SocketAddr,
    message: [u8; MESSAGE],
    length: usize,
}

/// What a caller wants next.
enum Wish {
    Nothing,
    Stream(Message),
    Leave,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    prepare(&stream)?;
                    stream.set_nonblocking(true)?;
                    let data = epoll::EventData::new_u64(self.count);
                    epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
                    self.callers.insert(self.count, Caller { stream, peer, message: [0; MESSAGE], length: 0 });
                    self.count += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The caller has gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error).context("accept"),
            }
        }
    }

    fn serve(&mut self, number: u64) {
        let Some(caller) = self.callers.get_mut(&number) else { return };
        let wish = caller.answer().unwrap_or_else(|error| {
            // The client sees its connection end, and says so where it counts.
            eprintln!("server: {error:#}");
            Wish::Leave
        });
        match wish {
            Wish::Nothing => {}
            Wish::Leave => drop(self.callers.remove(&number)),
            Wish::Stream(message) => {
                let caller = self.callers.remove(&number).expect("it is there");
                if let Err(error) = epoll::delete(&self.epoll, &caller.stream) {
                    eprintln!("server: {error}");
                }
                std::thread::spawn(move || {
                    if let Err(error) = stream_blocks(&caller.stream, message) {
                        eprintln!("server: {error:#}");
                    }
                });
            }
        }
    }
}

impl Caller {
    /// Answers every whole message that is there.
    fn answer(&mut self) -> Result<Wish> {
        loop {
            match self.stream.read(&mut self.message[self.length..]) {
                Ok(0) => {
                    ensure!(self.length == 0, "a message was cut short");
                    return Ok(Wish::Leave);
                }
                Ok(more) => self.length += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Wish::Nothing),
                Err(error) => return Err(error).context("wait for a message"),
            }
            if self.length < MESSAGE {
                continue;
            }
            self.length = 0;
            let message = Message(self.message);
            let answer = match message.kind() {
                PROBE => Message::probe(&self.peer.to_string()),
                ECHO => Message::new(ECHO, message.number() + 1),
                UPLOAD | DOWNLOAD => return Ok(Wish::Stream(message)),
                other => bail!("a message of kind {other} is not expected"),
            };
            self.stream.write_all(&answer.0).context("answer")?;
        }
    }
}

/// The rest of the connection: streams, one after the other.
fn stream_blocks(stream: &TcpStream, first: Message) -> Result<()> {
    stream.set_nonblocking(false)?;
    let mut next = Some(first);
    while let Some(message) = next {
        match message.kind() {
            UPLOAD => Message::new(UPLOAD, receive_blocks(stream)?).send(stream)?,
            DOWNLOAD => {
                let sent = send_blocks(stream, Duration::from_millis(message.number()), Pace::free())?;
                // What the client has counted.
                let told = Message::receive(stream)?;
                ensure!(told.kind() == DOWNLOAD, "the count of a download is expected");
                Message::new(DOWNLOAD, u64::from(sent == told.number())).send(stream)?;
            }
            other => bail!("a message of kind {other} is not expected among streams"),
        }
        next = Message::next(stream)?;
    }
    Ok(())
}

const LISTENER: u64 = u64::MAX;
