//! How long a session that stands may live (`ctrl/snapshot/src/living.rs`): `onChange` after a change
//! took its permission, `onPeerExpiry` after its peer's certificate ended, `maxConnectionAge`.
//!
//! All of it is one time, [`Life::next`], reckoned anew whenever something that it depends on changes: a
//! snapshot, the wall clock, a look at a connection that is too old. A step compares, and no more.
//!
//! An age is over in order where that can be had: the service is told an end of the caller's bytes when
//! nothing is on its way in either direction, finishes what it is about and ends by itself, which the
//! caller then hears. Its answer is never cut short by an end that looks like its own. Whatever has not
//! ended `ageGrace` later is reset.

use ::snapshot::{CloseReason, Living, OnChange, OnPeerExpiry, Version};

use super::{Context, Leg, Session, State, relay};
use crate::io::PacketIo;
use crate::planted::{self, Bug};
use crate::policy::{Lost, Route, What, living};
use crate::snapshot::Compiled;
use crate::stats::{Report, Total};
use crate::time::{Duration, Instant, Now};
use crate::tls::{Peer, Refusal};

#[derive(Debug, Default)]
pub struct Life {
    rules: Living,
    /// Monotonic; None until it stands.
    stood_at: Option<Instant>,
    /// Thousandths of a tenth of its age that it is spared, so that what began together does not all
    /// begin again together.
    spared: u32,
    /// A change took its permission, and it lives.
    outlived: Option<Box<Outlived>>,
    /// The last snapshot that allowed it, once one does not.
    allowed_by: Option<Version>,
    aged: Option<Aged>,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Outlived {
    refusal: Refusal,
    /// None: it is kept.
    until: Option<Instant>,
}

/// Too old, and about to end.
#[derive(Debug, Clone, Copy)]
struct Aged {
    until: Instant,
    /// Bytes that had gone either way at the last look.
    moved: [u64; 2],
    /// The service has been told that no more comes.
    told: bool,
}

/// Longest time between two looks, so that nothing overflows.
const FAR: Duration = Duration::from_secs(7 * 86_400);

/// Nothing moves for this long: a pause.
const PAUSE: Duration = Duration::from_secs(1);

impl Life {
    /// When it wants to be looked at again.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }

    /// What the views call a session in `state`.
    pub fn shown(&self, state: State) -> &'static str {
        match (&self.outlived, self.aged) {
            _ if state != State::Relaying => state.name(),
            (Some(outlived), _) if outlived.until.is_none() => "kept",
            (Some(_), _) => "draining",
            (None, Some(_)) => "aged",
            (None, None) => state.name(),
        }
    }

    pub fn allowed_by(&self) -> Option<Version> {
        self.allowed_by
    }

    /// Why it would not be allowed any more.
    pub fn detail(&self) -> Option<&str> {
        self.outlived.as_ref()?.refusal.detail.as_deref()
    }

    /// What both sides' ends in order are called.
    pub fn ended(&self) -> CloseReason {
        if self.aged.is_some_and(|aged| aged.told) { CloseReason::MaxAge } else { CloseReason::Finished }
    }

    pub fn allowed_again(&mut self) {
        self.outlived = None;
        self.allowed_by = None;
    }

    /// `version` allowed it, and the one after did not.
    pub fn lost_after(&mut self, version: Version) {
        self.allowed_by.get_or_insert(version);
    }

    /// None: no bound on its age, or it does not stand.
    fn old_at(&self) -> Option<Instant> {
        let age = Duration::from(self.rules.max_age?.min(FAR_AGE));
        let spared = age.total_micros() / 10 * u64::from(self.spared) / 1000;
        Some(self.stood_at? + (age - Duration::from_micros(spared)))
    }

    fn reckon(&mut self, now: Now, peer: Option<&Peer>) {
        let drained = self.outlived.as_ref().and_then(|outlived| outlived.until);
        let drained = drained.filter(|_| !planted::is(Bug::DrainEndless));
        let expired = peer.and_then(|peer| expiry(&self.rules, peer)).map(|at_ms| mono(now, at_ms));
        let old_at = self.old_at();
        if self.aged.is_some_and(|aged| !aged.told) && old_at.is_none_or(|at| at > now.mono) {
            self.aged = None;
        }
        let old = match self.aged {
            Some(aged) if aged.told => Some(aged.until),
            Some(aged) => Some(aged.until.min(now.mono + self.pause())),
            None => old_at,
        };
        self.due = [drained, expired, old].into_iter().flatten().min().map(|at| at.min(now.mono + FAR));
    }

    /// A quarter of a short grace, so that there is more than one look.
    fn pause(&self) -> Duration {
        PAUSE.min(Duration::from(self.rules.age_grace) / 4)
    }

    /// Which of its ends has come.
    fn over(&self, now: Now, peer: Option<&Peer>) -> Option<CloseReason> {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        if passed(self.outlived.as_ref().and_then(|outlived| outlived.until)) {
            return Some(CloseReason::PolicyChanged);
        }
        if peer.and_then(|peer| expiry(&self.rules, peer)).is_some_and(|at_ms| at_ms <= now.unix_ms) {
            return Some(CloseReason::PeerExpired);
        }
        passed(self.aged.map(|aged| aged.until)).then_some(CloseReason::MaxAge)
    }
}

impl Session {
    pub(super) fn begin_life(&mut self, now: Now) {
        self.life.stood_at = Some(now.mono);
        // SplitMix64's last steps: neighbours in number and time fall far apart.
        let mut mixed = self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.opened_at;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.life.spared = ((mixed ^ (mixed >> 31)) % 1000) as u32;
        self.reckon(now);
    }

    /// Anew, since the snapshot or the wall clock is another. The route of one that has ended is still that
    /// of the snapshot which allowed it.
    pub fn reckon(&mut self, now: Now) {
        if self.life.stood_at.is_some() && !self.has_ended() {
            self.life.rules = self.rules_by(&self.compiled, &self.route);
            self.life.reckon(now, self.peer.as_ref());
        }
    }

    /// Of a call between two workloads of the node whose new route names one of them only, the other's last
    /// word still holds.
    fn rules_by(&self, compiled: &Compiled, route: &Route) -> Living {
        let rules = living(compiled, route);
        let names_one = self.callee.is_some() && !matches!(route, Route::Local { .. });
        if names_one { rules.stricter(self.life.rules) } else { rules }
    }

    /// Whether its time was over. True: it has been closed.
    pub(super) fn check_life<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> bool {
        if self.life.due.is_none_or(|due| cx.now.mono < due) {
            return false;
        }
        self.grow_old(cx.now);
        let over = self.life.over(cx.now, self.peer.as_ref());
        match over {
            Some(reason) => {
                let detail = self.last_words(reason);
                self.close(reason, Some(&detail), cx);
            }
            None => self.life.reckon(cx.now, self.peer.as_ref()),
        }
        over.is_some()
    }

    fn last_words(&self, reason: CloseReason) -> String {
        let rules = &self.life.rules;
        let peer = self.peer.as_ref();
        match reason {
            CloseReason::PeerExpired => format!(
                "the certificate of {} ended at {} (onPeerExpiry: {})",
                peer.map_or("the peer", |peer| &*peer.spiffe_id),
                peer.map_or(0, |peer| peer.not_after),
                rules.on_peer_expiry.name()
            ),
            CloseReason::MaxAge => format!("it did not end in order within ageGrace ({:?})", rules.age_grace),
            CloseReason::PolicyChanged => {
                let why = self.life.detail().unwrap_or("a newer snapshot does not allow it");
                format!("{why}; its {:?} to drain are over", rules.drain_for)
            }
            CloseReason::Finished
            | CloseReason::ResetByClient
            | CloseReason::ResetByServer
            | CloseReason::Truncated
            | CloseReason::TlsError
            | CloseReason::ClosedByPeer
            | CloseReason::IdleTimeout
            | CloseReason::UserTimeout
            | CloseReason::HalfCloseTimeout
            | CloseReason::Drained
            | CloseReason::Unreachable => reason.meaning().to_owned(),
        }
    }

    /// Begins the end of one that is too old, or looks whether the service may be told.
    fn grow_old(&mut self, now: Now) {
        let moved = [self.request.moved, self.response.moved];
        let Some(mut aged) = self.life.aged else {
            if self.life.old_at().is_some_and(|at| at <= now.mono) {
                let until = now.mono + Duration::from(self.life.rules.age_grace);
                self.life.aged = Some(Aged { until, moved, told: false });
            }
            return;
        };
        let pauses = (aged.moved == moved && self.is_empty()) || planted::is(Bug::AgeCutsShort);
        if !aged.told && !self.request.finished && pauses {
            let up = self.up.as_mut().expect("what is relayed has two legs");
            aged.told = relay::finish(up, &mut self.request);
        }
        aged.moved = moved;
        self.life.aged = Some(aged);
    }

    /// The service has heard of the end, and has answered with its own; meanwhile the caller said more,
    /// which now nobody will: it has to hear that.
    pub(super) fn spoke_too_late(&self) -> bool {
        let told = self.life.aged.is_some_and(|aged| aged.told);
        told && self.response.finished && self.down.conn.unacked() == 0 && unread(&self.down)
    }

    /// Nothing is on its way: neither from one leg to the other nor unacknowledged.
    fn is_empty(&self) -> bool {
        let empty = |leg: &Leg| !unread(leg) && leg.conn.unacked() == 0;
        empty(&self.down) && self.up.as_ref().is_none_or(empty)
    }

    /// A newer snapshot does not allow it: cut, or what `onChange` has for one that stands.
    pub(super) fn lose<P: PacketIo>(&mut self, lost: Lost, cx: &mut Context<'_, P>) {
        let rules = self.rules_by(cx.compiled, &lost.route);
        let on_change = match (self.state, lost.what) {
            (State::Relaying, What::Permission) => rules.on_change,
            // One that is yet to stand is a new connection.
            (_, What::Permission) | (_, What::End) => OnChange::Cut,
        };
        let until = match on_change {
            OnChange::Cut => return self.take_back(lost.refusal, cx),
            OnChange::Keep => None,
            // Once it drains no later change gives it longer.
            OnChange::Drain => {
                let drained = cx.now.mono + Duration::from(rules.drain_for);
                let before = self.life.outlived.as_ref().and_then(|outlived| outlived.until);
                Some(before.map_or(drained, |before| before.min(drained)))
            }
        };
        self.outlive(Outlived { refusal: lost.refusal, until }, cx);
        self.route = lost.route;
        self.life.rules = rules;
    }

    fn outlive<P: PacketIo>(&mut self, outlived: Outlived, cx: &mut Context<'_, P>) {
        let was = self.life.outlived.as_ref().map(|before| before.until.is_some());
        let drains = outlived.until.is_some();
        self.life.lost_after(self.compiled.version);
        self.compiled = cx.compiled.clone();
        self.rule = outlived.refusal.rule;
        self.life.outlived = Some(Box::new(outlived));
        if was == Some(drains) {
            return;
        }
        if let Some(rule) = self.rule {
            self.compiled.hit(rule);
        }
        cx.counters().add(if drains { Total::LeftToDrain } else { Total::Kept }, 1);
        let report = self.report(cx.now.unix_ms, cx.core, cx.ports, None);
        cx.mailbox.report(Report::Outlived(Box::new(report)));
    }
}

fn unread(leg: &Leg) -> bool {
    leg.conn.received() > 0 || leg.tls.as_deref().is_some_and(|tls| tls.plaintext() > 0)
}

const FAR_AGE: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 86_400);

/// In milliseconds since the epoch; None: it does not matter. The last second of a certificate is one in
/// which it is valid (RFC 5280 §4.1.2.5).
fn expiry(rules: &Living, peer: &Peer) -> Option<u64> {
    let grace = match rules.on_peer_expiry {
        OnPeerExpiry::Ignore => return None,
        OnPeerExpiry::Close => 0,
        OnPeerExpiry::Grace => u64::try_from(rules.expiry_grace.as_millis()).unwrap_or(u64::MAX),
    };
    Some(peer.not_after.saturating_add(1).saturating_mul(1000).saturating_add(grace))
}

/// When a time of the wall clock comes, if nobody sets that meanwhile; a worker that sees it set has all
/// of these reckoned anew.
fn mono(now: Now, at_ms: u64) -> Instant {
    let left = Duration::from_millis(at_ms.saturating_sub(now.unix_ms).min(FAR.total_millis()));
    now.mono + left
}
