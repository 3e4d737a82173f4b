//! Moves bytes from one leg to the other, straight from ring to ring or through TLS.
//!
//! There is no queue in between: what the one leg's send ring has no room for stays in the other's
//! receive ring, whose window closes, so back-pressure reaches the sender by itself. An end of data
//! (FIN or close_notify) goes over when everything before it did.

use snapshot::CloseReason;

use super::leg::Leg;
use crate::planted::{self, Bug};
use crate::tls::Failure;

/// Bytes that one direction of one session moves in one turn before others have theirs.
const BYTES_PER_TURN: usize = 256 * 1024;

/// One direction of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of payload that went over.
    pub moved: u64,
    /// The end of data has been passed on.
    pub finished: bool,
}

/// What came of one round.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    Nothing,
    Some,
    /// There is more, but others are due.
    More,
}

#[derive(Debug)]
pub enum Broken {
    Tls(Failure),
    Closed(CloseReason),
}

pub fn relay(from: &mut Leg, to: &mut Leg, flow: &mut Flow) -> Result<Moved, Broken> {
    // An end that we have told ourselves may come before the sender's own, which is still heard.
    if flow.finished {
        to.flush_tls();
        from.feed_tls().map_err(Broken::Tls)?;
        return Ok(Moved::Nothing);
    }
    let mut total = 0;
    while total < BYTES_PER_TURN {
        let flushed = to.flush_tls();
        let moved = move_once(from, to).map_err(Broken::Tls)?;
        // What TLS still held has left: there is room for more.
        if moved == 0 && !(flushed && from.conn.received() > 0) {
            break;
        }
        total += moved;
    }
    flow.moved += total as u64;
    let ended = pass_end(from, to, flow)?;
    Ok(match total {
        BYTES_PER_TURN.. => Moved::More,
        0 if !ended => Moved::Nothing,
        _ => Moved::Some,
    })
}

fn move_once(from: &mut Leg, to: &mut Leg) -> Result<usize, Failure> {
    Ok(match (from.tls.is_some(), to.tls.is_some()) {
        (false, false) => from.conn.recv(|bytes| {
            let moved = to.conn.send(|room| copy(bytes, room));
            (moved, moved)
        }),
        (false, true) => seal(from, to),
        (true, true) => unreachable!("no plan has TLS on both legs"),
        (true, false) => {
            from.feed_tls()?;
            let tls = from.tls.as_deref_mut().expect("matched above");
            to.conn.send(|room| {
                let count = tls.read(room);
                (count, count)
            })
        }
    })
}

fn copy(bytes: &[u8], room: &mut [u8]) -> (usize, usize) {
    let count = bytes.len().min(room.len());
    room[..count].copy_from_slice(&bytes[..count]);
    (count, count)
}

/// Only when what was sealed before has left for the ring: TLS buffers one write at the most.
fn seal(from: &mut Leg, to: &mut Leg) -> usize {
    if to.tls_pending() {
        return 0;
    }
    let tls = to.tls.as_deref_mut().expect("the caller matched it");
    if planted::is(Bug::PlaintextOut) {
        return from.conn.recv(|bytes| {
            let moved = to.conn.send(|room| copy(bytes, room));
            (moved, moved)
        });
    }
    let moved = from.conn.recv(|bytes| {
        let count = tls.write(bytes);
        (count, count)
    });
    to.flush_tls();
    moved
}

/// Whether everything that `leg` will ever deliver has been taken from it. `delivered`: the other side
/// has acknowledged all that was.
fn at_end(leg: &Leg, delivered: bool) -> Result<bool, Broken> {
    match leg.tls.as_deref() {
        None => Ok(leg.conn.fin_received() && leg.conn.received() == 0),
        Some(tls) if tls.closed_by_peer() => Ok(tls.plaintext() == 0),
        // FIN without close_notify: somebody may have cut the stream (RFC 8446 §6.1).
        Some(tls) if leg.conn.fin_received() && leg.conn.received() == 0 && tls.plaintext() == 0 => {
            // What came before is authentic, and arrives before the RST does.
            if delivered { Err(Broken::Closed(CloseReason::Truncated)) } else { Ok(false) }
        }
        Some(_) => Ok(false),
    }
}

fn pass_end(from: &mut Leg, to: &mut Leg, flow: &mut Flow) -> Result<bool, Broken> {
    let early = planted::is(Bug::LastBytesLost) && from.conn.fin_received();
    if !early && !at_end(from, to.conn.unacked() == 0)? {
        return Ok(false);
    }
    Ok(finish(to, flow))
}

/// Tells `to` that nothing more comes. False: there was no room to.
pub fn finish(to: &mut Leg, flow: &mut Flow) -> bool {
    if let Some(tls) = to.tls.as_deref_mut() {
        tls.close_notify();
        to.flush_tls();
        if to.tls_pending() {
            return false;
        }
    }
    to.conn.close();
    flow.finished = true;
    true
}
