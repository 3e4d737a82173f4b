//! What a worker does between packets: timers, new snapshots and next hops, lists, the end.
//!
//! All of it in slices: a table of ten thousand sessions is walked some dozens a turn.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use super::{Command, HANDSHAKES_PER_TURN, Worker};
use crate::flow::{FlowKey, FlowRef};
use crate::io::{PacketIo, PortId};
use crate::planted::{self, Bug};
use crate::session::{Context, Leg, Next, Session, Which};
use crate::stats::{Report, Total};
use crate::time::{Clock, Duration, Instant};

/// Sessions that one turn decides again, or lists.
const SLICE: u32 = 64;

/// How long the keys of an ended flow stay (RFC 9293 §3.4.2 has twice the segment lifetime, which no
/// kernel waits for), and how much longer while unknown segments may still pass.
const TIME_WAIT: Duration = Duration::from_secs(10);
const TIME_WAIT_IN_GRACE: Duration = Duration::from_secs(70);

/// Milliseconds that the two clocks may come apart by: less than a certificate's grain.
const CLOCK_SET: u64 = 500;

/// Between two attempts to take up a port whose link is there.
const REOPEN_INTERVAL: Duration = Duration::from_millis(50);

/// Walks over the table that are under way.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// Sessions from here on are to be decided again, and take new MACs.
    review: Option<u32>,
    /// Queries for a list, what they ask for, and the session from which on theirs goes on; the first one is
    /// served.
    listings: VecDeque<(u64, Which, u32)>,
    /// The same for lists of endpoints.
    pub(super) endpoints: VecDeque<(u64, usize)>,
    /// Ports that are to be opened anew, and when to try.
    reopen: Vec<(PortId, Instant)>,
    /// Marked sessions of this turn; kept for its capacity.
    batch: Vec<u32>,
    /// What the wall clock was ahead of the monotonic one when that was last looked at, in milliseconds.
    ahead: Option<i64>,
}

impl Upkeep {
    pub fn is_busy(&self) -> bool {
        self.review.is_some() || !self.listings.is_empty() || !self.endpoints.is_empty()
    }

    pub fn next(&self) -> Option<Instant> {
        self.reopen.iter().map(|(_, at)| *at).min()
    }

    fn reopen_at(&mut self, port: PortId, at: Instant) {
        self.reopen.retain(|(waiting, _)| *waiting != port);
        self.reopen.push((port, at));
    }
}

impl<P: PacketIo, C: Clock> Worker<P, C> {
    pub(super) fn read_mailbox(&mut self) {
        if let Some(compiled) = self.mailbox.compiled.pop() {
            self.mailbox.counters.set(Total::SnapshotVersion, compiled.version.0);
            if self.mailbox.captures_grew.swap(false, Relaxed) {
                self.grace_until = self.now.mono + self.settings.limits.pre_existing_grace.into();
            }
            self.compiled = Some(compiled);
            self.upkeep.review = Some(0);
        }
        if let Some(paths) = self.mailbox.paths.pop() {
            self.paths = paths;
            self.upkeep.review = Some(0);
        }
        if !self.mailbox.told.is_empty() {
            self.hear();
        }
        while let Some(command) = self.mailbox.commands.pop() {
            match command {
                Command::ListLive { query, which } => self.upkeep.listings.push_back((query, which, 0)),
                Command::ListEndpoints { query } => self.upkeep.endpoints.push_back((query, 0)),
                Command::Drain => {
                    let until = self.now.mono + self.settings.timeouts.drain.into();
                    self.stopping.get_or_insert(until);
                }
                Command::Stop => self.stopping = Some(self.now.mono),
                Command::Reopen(port) => self.upkeep.reopen_at(port, self.now.mono),
            }
        }
    }

    /// Timers that are due, and flows whose time is over.
    pub(super) fn expire(&mut self) {
        let sessions = &mut self.sessions;
        self.timers.expire(self.now.mono, |index| sessions.mark(index));
        if !self.held.is_empty() {
            self.refuse_late();
        }
        // What was cut together would be forgotten together, and each costs two system calls.
        for _ in 0..SLICE {
            let Some(keys) = self.spent.expire(self.now.mono) else { break };
            self.forget(keys);
        }
    }

    /// What waits for the wall clock has timers of the monotonic one: who sets the wall clock, or wakes the
    /// machine, has all of them reckoned anew.
    fn watch_wall_clock(&mut self) {
        let ahead = i64::try_from(self.now.unix_ms).unwrap_or(i64::MAX) - self.now.mono.total_millis();
        let was = *self.upkeep.ahead.get_or_insert(ahead);
        if was.abs_diff(ahead) > CLOCK_SET && !planted::is(Bug::ClockJumpMissed) {
            self.upkeep.ahead = Some(ahead);
            self.upkeep.review = Some(0);
        }
    }

    /// A slice of each walk that is under way, and ports that wait to be taken up again.
    pub(super) fn upkeep(&mut self) {
        self.watch_wall_clock();
        if let Some(at) = self.upkeep.reopen.iter().position(|(_, at)| *at <= self.now.mono) {
            let (port, _) = self.upkeep.reopen.swap_remove(at);
            if !self.io.reopen(port) && self.paths.link(port).is_some_and(|link| link.up) {
                self.upkeep.reopen_at(port, self.now.mono + REOPEN_INTERVAL);
            }
        }
        self.pool.trim();
        if self.stopping.is_some_and(|until| self.now.mono >= until) {
            self.reset_all();
        }
        self.list_endpoints();
        let end = self.sessions.capacity() as u32;
        if let Some(from) = self.upkeep.review {
            let until = (from + SLICE).min(end);
            for index in from..until {
                self.review(index);
            }
            self.upkeep.review = (until < end).then_some(until);
        }
        // The agent reads at its own pace; a list waits for it rather than lose its end.
        let room = self.mailbox.reports.capacity() - self.mailbox.reports.len();
        if let Some((query, which, from)) = self.upkeep.listings.front().copied().filter(|_| room > 2 * SLICE as usize)
        {
            let until = (from + SLICE).min(end);
            for index in from..until {
                self.list(query, which, index);
            }
            self.upkeep.listings[0].2 = until;
            if until == end {
                self.upkeep.listings.pop_front();
                self.mailbox.report(Report::LiveEnd { query });
            }
        }
    }

    fn review(&mut self, index: u32) {
        let reviewed = self.with_session(index, &mut 0, |session, cx| {
            session.refresh_paths(cx.paths);
            if session.version() != cx.compiled.version {
                session.review(cx);
            }
            session.reckon(cx.now);
        });
        if reviewed.is_some() {
            self.sessions.mark(index);
        }
    }

    fn list(&mut self, query: u64, which: Which, index: u32) {
        let (now, core) = (self.now.unix_ms, self.settings.core);
        let Some(session) = self.sessions.find(index).filter(|session| !session.has_ended() && session.is(which))
        else {
            return;
        };
        let connection = Box::new(session.report(now, core, &self.settings.ports, None));
        self.mailbox.report(Report::Live { query, connection });
    }

    /// Steps what is marked: established sessions first, whose packets leave at once, then those that
    /// have yet to stand. Their crypto is done in the order in which it came to be due, as far as the turn's
    /// budget goes; all that costs none (acknowledgements, retransmissions, the end) is done now.
    pub(super) fn step_sessions(&mut self) -> bool {
        let mut batch = std::mem::take(&mut self.upkeep.batch);
        self.sessions.take_dirty(&mut batch);
        let any = !batch.is_empty() || self.sessions.any_queued();
        let mut budget = HANDSHAKES_PER_TURN;
        let before = batch.len();
        batch.retain(|&index| {
            let Some(state) = self.sessions.find(index).map(|session| session.state) else { return false };
            if state.is_settled() {
                self.step(index, &mut 0);
            }
            !state.is_settled()
        });
        if batch.len() < before && (!batch.is_empty() || self.sessions.any_queued()) {
            // Nothing of this turn comes after them in less time than a flight takes.
            self.io.expect_more(false);
            self.io.flush();
        }
        for index in batch.drain(..) {
            let mut none = 0;
            let spend = if self.sessions.any_queued() { &mut none } else { &mut budget };
            self.step(index, spend);
        }
        while budget > 0
            && let Some(index) = self.sessions.next_queued()
        {
            self.step(index, &mut budget);
        }
        self.upkeep.batch = batch;
        any
    }

    fn step(&mut self, index: u32, budget: &mut u32) {
        match self.with_session(index, budget, Session::step) {
            Some(Next::Again) => self.sessions.mark(index),
            Some(Next::Queue(at)) => {
                self.sessions.queue(index);
                at.into_iter().for_each(|at| self.timers.arm(index, at));
            }
            Some(Next::Wait(Some(at))) => self.timers.arm(index, at),
            Some(Next::Wait(None)) | None => {}
            Some(Next::Free) => self.free(index),
        }
    }

    /// None: there is no such session, or nothing to decide by.
    pub(super) fn with_session<R>(
        &mut self,
        index: u32,
        handshakes: &mut u32,
        act: impl FnOnce(&mut Session, &mut Context<'_, P>) -> R,
    ) -> Option<R> {
        let compiled = self.compiled.as_ref()?;
        let mut cx = Context {
            io: &mut self.io,
            stack: &mut self.stack,
            pool: &mut self.pool,
            paths: &self.paths,
            compiled,
            ports: &self.settings.ports,
            timeouts: &self.settings.timeouts,
            source_ports: self.settings.limits.source_ports,
            handoff: &self.handoff,
            mailbox: &self.mailbox,
            now: self.now,
            handshakes,
            flows: &mut self.flows,
            index,
            core: self.settings.core,
            balancer: &mut self.balancer,
        };
        self.sessions.update(index, |session| act(session, &mut cx))
    }

    /// Gives back a session's memory. Its keys stay for TIME-WAIT.
    pub(super) fn free(&mut self, index: u32) {
        let Some(session) = self.sessions.remove(index) else { return };
        self.timers.disarm(index);
        let stay = if self.now.mono < self.grace_until { TIME_WAIT_IN_GRACE } else { TIME_WAIT };
        let until = self.now.mono + stay;
        let rest =
            |leg: &Leg| (leg.key(), if leg.is_finished() { FlowRef::Spent { until } } else { FlowRef::Dead { until } });
        let (down, at_rest) = rest(&session.down);
        let (up, up_at_rest) = session.up.as_ref().map_or((down, at_rest), rest);
        for (key, at_rest) in [(down, at_rest), (up, up_at_rest)] {
            // A flow of the same name may be another session's by now.
            if matches!(self.flows.find(&key), Some(FlowRef::Live { session, .. }) if session == index) {
                self.flows.insert(key, at_rest);
            }
        }
        if let Some(oldest) = self.spent.keep(until, [down, up]) {
            self.forget(oldest);
        }
        if let Some(left) = session.balanced.as_ref().and_then(|balanced| balanced.over(&mut self.balancer)) {
            self.rest(left, until);
        }
        self.pool.give(session.down.conn);
        if let Some(up) = session.up {
            self.pool.give(up.conn);
        }
    }

    /// Flows that steering still has from the process before: their segments are answered with RST,
    /// on both legs, and never passed to the kernel, until both ends must have given up.
    pub fn adopt(&mut self, flows: impl Iterator<Item = FlowKey>) {
        let until = self.now.mono + TIME_WAIT_IN_GRACE;
        let mut pair = None;
        for key in flows {
            if !self.flows.has_room(1) {
                break;
            }
            self.flows.insert(key, FlowRef::Dead { until });
            match pair.take() {
                None => pair = Some(key),
                Some(first) => drop(self.spent.keep(until, [first, key])),
            }
        }
        if let Some(last) = pair {
            self.spent.keep(until, [last, last]);
        }
    }

    /// Takes ended flows out of the table and out of steering, unless a new session has them.
    pub(super) fn forget(&mut self, (ended, keys): (Instant, [FlowKey; 2])) {
        for key in keys {
            let found = self.flows.find(&key);
            if matches!(found, Some(FlowRef::Spent { until } | FlowRef::Dead { until }) if until == ended) {
                self.flows.remove(&key);
                self.io.unsteer(key.port(), key.source(), key.destination());
            }
        }
    }

    /// Resets every connection, so that no peer waits for one that is gone.
    fn reset_all(&mut self) {
        for index in 0..self.sessions.capacity() as u32 {
            self.with_session(index, &mut 0, |session, cx| {
                session.drain(cx);
                session.step(cx)
            });
            if index % SLICE == 0 {
                self.io.flush();
            }
        }
        self.io.flush();
    }
}
