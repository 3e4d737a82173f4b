//! One call of a client to a service: what each side sends, when, and how it ends.

use std::net::SocketAddr;
use std::rc::Rc;

use super::chance::Chance;

/// Index into a simulation's list of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What one side does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Bytes that it sends.
    pub send: usize,
    pub begin: Begin,
    pub finish: Finish,
    /// Reads and writes at most so many bytes every so many microseconds.
    pub pace: Option<(usize, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    AtOnce,
    /// When so many bytes have come.
    AfterReceived(usize),
    /// When the other side has said that it sends no more.
    AfterEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// FIN behind the last byte.
    WhenSent,
    /// FIN when all is sent and so many bytes have come.
    WhenReceived(usize),
    /// FIN when all is sent and the other side has ended.
    Last,
    /// RST once so much has been sent and so much has come.
    Abort { sent: usize, received: usize },
    /// FIN without the close_notify that TLS asks for (TLS peers only).
    Truncate,
    /// Says nothing more, neither data nor FIN.
    Never,
}

impl Script {
    pub fn new(send: usize, begin: Begin, finish: Finish) -> Self {
        Self { send, begin, finish, pace: None }
    }

    pub fn paced(self, bytes: usize, every: i64) -> Self {
        Self { pace: Some((bytes, every)), ..self }
    }
}

/// What a run has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Every byte both ways, and an end without abort on both sides.
    Delivered,
    /// The side's RST, or its truncated TLS, is an abort for the other.
    AbortedBy(Side),
    /// The client does not get through, and the service gets no byte.
    Refused,
    /// It may run until a newer snapshot cuts it, which both sides see as an abort.
    Cut,
    /// The gateway gives up on it: an abort on both sides.
    GivenUp,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// Name of the client's host.
    pub from: &'static str,
    pub scripts: [Script; 2],
    pub expect: Expect,
    /// It may be in clear on the outside link.
    pub plain: bool,
}

impl Call {
    pub fn script(&self, side: Side) -> &Script {
        &self.scripts[side as usize]
    }
}

/// What one side has seen of its call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub connected: bool,
    pub sent: usize,
    pub received: usize,
    /// The other side's orderly end: FIN, for TLS after close_notify.
    pub ended: bool,
    /// TCP ended otherwise: refused, reset, timed out, or TLS was cut.
    pub aborted: bool,
    /// Our own FIN or RST is out.
    pub finished: bool,
    /// A fatal alert of the other side, or what was wrong with it.
    pub tls: Option<String>,
    /// Nothing more will happen.
    pub over: bool,
}

/// Text that no ciphertext holds by chance, and every 128th byte of payload begins one.
pub const MARKER: &[u8] = b"MARKER-IN-CLEAR!";
const MARKER_EVERY: usize = 128;
/// A prime, so that no power of two is a period.
const LENGTH: usize = 65_521;
const LARGEST_READ: usize = 1 << 16;

/// The bytes of all streams: each one starts elsewhere in one long text.
#[derive(Debug, Clone)]
pub struct Payload(Rc<[u8]>);

impl Payload {
    pub fn new(mut chance: Chance) -> Self {
        let mut text = vec![0; LENGTH];
        for chunk in text.chunks_mut(MARKER_EVERY) {
            chunk.iter_mut().for_each(|byte| *byte = chance.draw() as u8);
            let marker = MARKER.len().min(chunk.len());
            chunk[..marker].copy_from_slice(&MARKER[..marker]);
        }
        text.extend_from_within(..);
        text.extend_from_within(..LARGEST_READ.min(text.len()));
        Self(text.into())
    }

    /// Up to `most` bytes of what `side` of `call` sends, from `offset` on.
    pub fn from(&self, call: CallId, side: Side, offset: usize, most: usize) -> &[u8] {
        let stream = call.0 * 2 + side as usize;
        let start = (stream * 7_919 + offset) % LENGTH;
        &self.0[start..start + most.min(LARGEST_READ)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_hold_the_marker() {
        let payload = Payload::new(Chance::new(1));
        let a = payload.from(CallId(0), Side::Client, 0, 1000);
        assert_ne!(a, payload.from(CallId(0), Side::Server, 0, 1000));
        assert_ne!(a, payload.from(CallId(1), Side::Client, 0, 1000));
        assert_eq!(&a[100..200], payload.from(CallId(0), Side::Client, 100, 100));
        assert!(a.windows(MARKER.len()).filter(|w| *w == MARKER).count() >= 6);
        assert_eq!(payload.from(CallId(9), Side::Client, LENGTH - 1, usize::MAX).len(), LARGEST_READ);
    }
}
