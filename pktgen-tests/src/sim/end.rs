//! One end of one call: a program that follows its script on a stock TCP socket, in clear or on
//! stock rustls, and notes what it sees.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use rustls::Connection;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, Socket, State};

use super::call::{Begin, Call, CallId, Finish, Payload, Progress, Side};

/// Sealed bytes that may wait for the socket.
const TLS_BACKLOG: usize = 64 << 10;

pub struct End {
    pub call: CallId,
    pub side: Side,
    pub handle: SocketHandle,
    /// The other end, as this one sees it.
    pub peer: SocketAddr,
    pub tls: Option<Box<Connection>>,
    pub progress: Progress,
    /// What has come of the PROXY header that its service waits for, if it does.
    pub header: Option<Vec<u8>>,
    /// When a paced script may go on.
    pub next: Option<i64>,
    tls_closed: bool,
    said_goodbye: bool,
}

impl End {
    pub fn new(call: CallId, side: Side, handle: SocketHandle, peer: SocketAddr, tls: Option<Connection>) -> Self {
        Self {
            call,
            side,
            handle,
            peer,
            tls: tls.map(Box::new),
            progress: Progress::default(),
            header: None,
            next: None,
            tls_closed: false,
            said_goodbye: false,
        }
    }

    /// Takes nothing, and says nothing, before a whole PROXY header.
    pub fn behind_header(self) -> Self {
        Self { header: Some(Vec::new()), ..self }
    }

    /// Does what can be done now. An error is a broken promise: other bytes than were sent came.
    pub fn pump(&mut self, socket: &mut Socket<'_>, call: &Call, payload: &Payload, now: i64) -> Result<(), String> {
        if self.progress.over {
            return Ok(());
        }
        self.progress.connected |= socket.may_send();
        let quota = self.quota(call, now);
        self.read_header(socket)?;
        self.read(socket, call, payload, quota)?;
        self.write(socket, call, payload, quota);
        self.finish(socket, call);
        self.progress.over |= match socket.state() {
            // What came before the end may still be unread.
            State::Closed | State::TimeWait => self.progress.ended || self.progress.aborted,
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.progress.finished && self.progress.aborted,
        };
        Ok(())
    }

    /// Bytes that may be read and written now.
    fn quota(&mut self, call: &Call, now: i64) -> usize {
        let Some((bytes, every)) = call.script(self.side).pace else { return usize::MAX };
        if self.next.is_some_and(|next| now < next) {
            return 0;
        }
        self.next = Some(now + every);
        bytes
    }

    fn read(&mut self, socket: &mut Socket<'_>, call: &Call, payload: &Payload, quota: usize) -> Result<(), String> {
        match self.tls.is_some() {
            true => self.read_tls(socket, call, payload)?,
            false => {
                let mut left = if self.lacks_header() { 0 } else { quota };
                while left > 0 && socket.can_recv() {
                    let (taken, verdict) = socket
                        .recv(|bytes| {
                            let taken = bytes.len().min(left);
                            (taken, (taken, self.check(&bytes[..taken], call, payload)))
                        })
                        .expect("there is something to receive");
                    left -= taken;
                    verdict?;
                }
            }
        }
        match socket.recv(|_| (0, ())) {
            Ok(()) => {}
            Err(RecvError::Finished) if self.tls.is_none() || self.tls_closed => self.progress.ended = true,
            Err(RecvError::Finished) => {
                self.progress.aborted = true;
                self.progress.tls.get_or_insert_with(|| "FIN without close_notify".into());
            }
            // Not connected yet, or not any more.
            Err(RecvError::InvalidState) => {
                let orderly = self.progress.ended && self.progress.finished;
                self.progress.aborted |= socket.state() == State::Closed && !orderly;
            }
        }
        Ok(())
    }

    fn lacks_header(&self) -> bool {
        self.header.as_ref().is_some_and(|header| missing(header) > 0)
    }

    fn read_header(&mut self, socket: &mut Socket<'_>) -> Result<(), String> {
        let Some(header) = &mut self.header else { return Ok(()) };
        while missing(header) > 0 && socket.can_recv() {
            let take = missing(header);
            let taken = socket.recv(|bytes| {
                let part = &bytes[..bytes.len().min(take)];
                header.extend_from_slice(part);
                (part.len(), ())
            });
            taken.expect("there is something to receive");
            let same = header.len().min(SIGNATURE.len());
            if header[..same] != SIGNATURE[..same] {
                return Err(format!("{:?}: the service got {header:?} where a PROXY header has to stand", self.call));
            }
        }
        Ok(())
    }

    fn read_tls(&mut self, socket: &mut Socket<'_>, call: &Call, payload: &Payload) -> Result<(), String> {
        let mut plain = [0; 16 << 10];
        while socket.can_recv() {
            let tls = self.tls.as_mut().expect("the caller asked");
            let fed = socket.recv(|bytes| {
                let mut rest = &*bytes;
                let result = feed(tls, &mut rest);
                (bytes.len() - rest.len(), result)
            });
            if let Err(broken) = fed.expect("there is something to receive") {
                self.progress.tls.get_or_insert(broken);
                self.progress.aborted = true;
            }
            loop {
                let read = self.tls.as_mut().expect("the caller asked").reader().read(&mut plain);
                match read {
                    Ok(0) => {
                        self.tls_closed = true;
                        self.progress.ended = true;
                        break;
                    }
                    Ok(n) => self.check(&plain[..n], call, payload)?,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(format!("reading plaintext failed: {e}")),
                }
            }
        }
        Ok(())
    }

    /// What came has to be what the other side sends at this place.
    fn check(&mut self, bytes: &[u8], call: &Call, payload: &Payload) -> Result<(), String> {
        let other = self.side.other();
        let mut rest = bytes;
        while !rest.is_empty() {
            let want = payload.from(self.call, other, self.progress.received, rest.len());
            if *want != rest[..want.len()] {
                let at = self.progress.received;
                return Err(format!("the stream of {:?} {other:?} is another one after byte {at}", self.call));
            }
            self.progress.received += want.len();
            rest = &rest[want.len()..];
        }
        if self.progress.received > call.script(other).send {
            return Err(format!("{:?} {other:?}: more bytes came than were sent", self.call));
        }
        Ok(())
    }

    fn begun(&self, call: &Call) -> bool {
        match call.script(self.side).begin {
            _ if self.lacks_header() => false,
            Begin::AtOnce => true,
            Begin::AfterReceived(bytes) => self.progress.received >= bytes,
            Begin::AfterEnd => self.progress.ended,
        }
    }

    fn write(&mut self, socket: &mut Socket<'_>, call: &Call, payload: &Payload, quota: usize) {
        let (script, mut left) = (call.script(self.side), quota);
        let total = match script.finish {
            Finish::Abort { sent, .. } => sent.min(script.send),
            Finish::WhenSent | Finish::WhenReceived(_) | Finish::Last | Finish::Truncate | Finish::Never => script.send,
        };
        while left > 0 && self.begun(call) && self.progress.sent < total && !self.progress.finished {
            let part = payload.from(self.call, self.side, self.progress.sent, (total - self.progress.sent).min(left));
            let taken = match self.tls.as_mut() {
                None if socket.can_send() => socket.send_slice(part).unwrap_or(0),
                None => 0,
                Some(tls) => match tls.is_handshaking() || pending(tls) > TLS_BACKLOG {
                    true => 0,
                    false => tls.writer().write(part).unwrap_or(0),
                },
            };
            self.flush_tls(socket);
            if taken == 0 {
                break;
            }
            self.progress.sent += taken;
            left -= taken;
        }
        self.flush_tls(socket);
    }

    fn flush_tls(&mut self, socket: &mut Socket<'_>) {
        let Some(tls) = self.tls.as_mut() else { return };
        while tls.wants_write() && socket.can_send() {
            let sent = socket.send(|mut room| {
                let size = room.len();
                let _ = tls.write_tls(&mut room);
                (size - room.len(), size - room.len())
            });
            if !matches!(sent, Ok(1..)) {
                break;
            }
        }
    }

    fn finish(&mut self, socket: &mut Socket<'_>, call: &Call) {
        let script = call.script(self.side);
        if self.progress.finished {
            return;
        }
        if self.progress.tls.is_some() && self.tls.as_mut().is_none_or(|tls| !tls.wants_write()) {
            socket.close();
            self.progress.finished = true;
            return;
        }
        let all = self.progress.sent == script.send && self.begun(call) && socket.may_send();
        let due = match script.finish {
            Finish::WhenSent | Finish::Truncate => all,
            Finish::WhenReceived(bytes) => all && self.progress.received >= bytes,
            Finish::Last => all && self.progress.ended,
            Finish::Abort { sent, received } => {
                if self.progress.sent >= sent && self.progress.received >= received && socket.may_send() {
                    socket.abort();
                    self.progress.finished = true;
                }
                return;
            }
            Finish::Never => false,
        };
        if !due || self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return;
        }
        if let Some(tls) = self.tls.as_mut()
            && script.finish != Finish::Truncate
            && !std::mem::replace(&mut self.said_goodbye, true)
        {
            tls.send_close_notify();
        }
        self.flush_tls(socket);
        if self.tls.as_ref().is_none_or(|tls| !tls.wants_write()) {
            socket.close();
            self.progress.finished = true;
        }
    }
}

/// Of a PROXY header of version 2, of which so much has come: first what says how long it is.
fn missing(header: &[u8]) -> usize {
    match header.get(14..16) {
        Some(length) => 16 + usize::from(u16::from_be_bytes([length[0], length[1]])) - header.len(),
        None => 16 - header.len(),
    }
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Some of `bytes` into TLS. An error in words: the alert that came, or what we found wrong.
fn feed(tls: &mut Connection, bytes: &mut &[u8]) -> Result<(), String> {
    let read = tls.read_tls(bytes).map_err(|e| e.to_string());
    let processed = read.and_then(|_| {
        tls.process_new_packets().map_err(|error| match error {
            rustls::Error::AlertReceived(alert) => format!("{alert:?}"),
            other => other.to_string(),
        })
    });
    if processed.is_err() {
        // A broken connection reads on, and looks at nothing.
        *bytes = &[];
    }
    processed.map(drop)
}

fn pending(tls: &mut Connection) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(0)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    if tls.wants_write() {
        let _ = tls.write_tls(&mut count);
    }
    count.0
}
