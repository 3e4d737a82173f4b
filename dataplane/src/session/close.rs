//! How sessions end, and how they are decided again: refusals, closes, and a newer snapshot.
//!
//! Every end has one reason out of a closed enum, is counted once and reported once. What the peers
//! see is only the alert, FIN or RST that their protocol has for it.

use snapshot::{CloseReason, RefuseReason, RuleId};

use super::leg::Leg;
use super::relay::Broken;
use super::{Context, Ending, Session, State};
use crate::flow;
use crate::io::PacketIo;
use crate::planted::{self, Bug};
use crate::policy::{Lost, Standing, Verdict, What};
use crate::stats::Report;
use crate::time::{Duration, Instant};
use crate::tls::{Failure, Refusal};

/// How long an alert and a FIN may take to get through before the leg is just dropped.
const LINGER: Duration = Duration::from_secs(3);

impl Session {
    /// Ends a session that never stood: nothing of the caller's has reached the service.
    pub fn refuse<P: PacketIo>(&mut self, reason: RefuseReason, detail: Option<&str>, cx: &mut Context<'_, P>) {
        if self.ending.is_some() {
            return;
        }
        cx.counters().refuse(reason);
        self.end(Ending::Refused(reason), detail, cx);
        if !self.answered {
            cx.reset_caller(self.down.port, self.down.mac, self.syn.packet());
        }
        hang_up(&mut self.down);
        self.up.iter_mut().for_each(hang_up);
    }

    /// Ends a session that stood.
    pub fn close<P: PacketIo>(&mut self, reason: CloseReason, detail: Option<&str>, cx: &mut Context<'_, P>) {
        if self.ending.is_some() {
            return;
        }
        cx.counters().close(reason);
        self.end(Ending::Closed(reason), detail, cx);
        if reason == CloseReason::Finished || (reason == CloseReason::MaxAge && self.both_over()) {
            return;
        }
        hang_up(&mut self.down);
        self.up.iter_mut().for_each(hang_up);
    }

    fn end<P: PacketIo>(&mut self, ending: Ending, detail: Option<&str>, cx: &mut Context<'_, P>) {
        self.ending = Some(ending);
        let report = self.report(cx.now.unix_ms, cx.core, cx.ports, detail);
        cx.mailbox.report(Report::Ended(Box::new(report)));
        self.state = State::Closing;
        self.deadline = Some(cx.now.mono + LINGER);
    }

    pub(super) fn fail_handshake<P: PacketIo>(&mut self, failure: Failure, cx: &mut Context<'_, P>) {
        if let Failure::Refused(Refusal { rule, .. }) = &failure {
            self.rule = rule.filter(|_| self.tls_version == self.compiled.version);
        }
        self.peer = self.tls().and_then(|tls| tls.peer().cloned());
        self.note_resumption(cx);
        if let Failure::Refused(Refusal { reason, .. }) = &failure
            && self.tls_version == self.compiled.version
        {
            self.note_verdict(Verdict::Refuse(*reason, self.rule), cx);
        }
        self.refuse(failure.refuse_reason(), failure.detail(), cx);
    }

    /// After the handshake: nothing goes on without an Allow of the snapshot in force.
    pub(super) fn authorised<P: PacketIo>(&mut self, leg: flow::Leg, cx: &mut Context<'_, P>) -> bool {
        let tls = match leg {
            flow::Leg::Down => self.down.tls.as_deref(),
            flow::Leg::Up => self.up.as_ref().and_then(|up| up.tls.as_deref()),
        };
        let tls = tls.expect("a handshake is over, so there is TLS");
        self.peer = tls.peer().cloned();
        self.note_resumption(cx);
        // A rule is an index into the snapshot that the handshake began under.
        let current = self.tls_version == self.compiled.version;
        match tls.outcome().cloned() {
            Some(Ok(rule)) => {
                self.rule = rule.filter(|_| current);
                if current {
                    self.note_verdict(Verdict::Allow(rule), cx);
                }
            }
            Some(Err(Refusal { reason, rule, detail })) => {
                self.rule = rule.filter(|_| current);
                if current {
                    self.note_verdict(Verdict::Refuse(reason, rule), cx);
                }
                self.refuse(reason, detail.as_deref(), cx);
                return false;
            }
            None => {
                self.refuse(RefuseReason::TlsProtocol, Some("the peer was never decided about"), cx);
                return false;
            }
        }
        self.standing = Some(Standing::new(&self.compiled, &self.route, true, self.peer.as_ref()));
        // The verdict is of the snapshot that the handshake began under.
        if self.tls_version != cx.compiled.version && !planted::is(Bug::StaleSnapshot) {
            self.review(cx);
        }
        self.ending.is_none()
    }

    /// Decides again under the snapshot in force. Does nothing if that was done.
    pub fn review<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) {
        if self.ending.is_some() || planted::is(Bug::StaleSnapshot) {
            return;
        }
        let port = &cx.ports[usize::from(self.down.port.0)];
        let (client, server) = (self.down.remote, self.destination());
        let proof = self.witnesses.proof(server);
        let decided = match &self.standing {
            Some(standing) => standing.decide_again(cx.compiled, proof, port.side, &port.interface, client, server),
            None => {
                let now = cx.now.unix();
                let route = cx.compiled.route_of(proof, port.side, &port.interface, client, server, now);
                let same = super::Plan::of(&route, port.side) == Some(self.plan)
                    && super::local_id(cx.compiled, &route) == self.local_id;
                match same {
                    true => Ok((route, self.rule)),
                    false => {
                        let detail = "the call would now be carried in another way";
                        let refusal = Refusal::new(RefuseReason::PolicyChanged, detail);
                        Err(Box::new(Lost { refusal, what: What::Permission, route }))
                    }
                }
            }
        };
        match decided {
            Ok((route, rule)) => {
                self.route = route;
                self.rule = rule;
                self.compiled = cx.compiled.clone();
                self.life.allowed_again();
                if self.standing.is_some() {
                    self.note_shadow(Verdict::Allow(rule), cx);
                }
            }
            Err(lost) => self.lose(*lost, cx),
        }
    }

    /// What an older snapshot allowed, a newer one does not.
    pub(super) fn take_back<P: PacketIo>(&mut self, refusal: Refusal, cx: &mut Context<'_, P>) {
        self.life.lost_after(self.compiled.version);
        self.rule = refusal.rule;
        self.compiled = cx.compiled.clone();
        if let Some(rule) = refusal.rule {
            self.compiled.hit(rule);
        }
        if self.state == State::Relaying {
            self.close(CloseReason::PolicyChanged, refusal.detail.as_deref(), cx);
        } else {
            self.refuse(RefuseReason::PolicyChanged, refusal.detail.as_deref(), cx);
        }
    }

    pub(super) fn break_off<P: PacketIo>(&mut self, broken: Broken, cx: &mut Context<'_, P>) {
        match broken {
            Broken::Closed(reason) => self.close(reason, None, cx),
            // The far side decides about us after our own handshake is over (RFC 8446 §4.4.4): its
            // alert, before a first byte of its, is still a refusal.
            Broken::Tls(Failure::Alert(alert)) if self.response.moved == 0 && self.up_has_tls() => {
                self.refuse(RefuseReason::RefusedByPeer, Some(&alert), cx);
            }
            Broken::Tls(failure) => self.close(failure.close_reason(), failure.detail(), cx),
        }
    }

    fn up_has_tls(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.tls.is_some())
    }

    /// Ends it because the process ends.
    pub fn drain<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) {
        if self.state == State::Relaying {
            self.close(CloseReason::Drained, None, cx);
        } else {
            self.refuse(RefuseReason::Draining, None, cx);
        }
    }

    pub(super) fn linger_until(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.state == State::Closing)
    }

    pub(super) fn rule_text(&self, rule: Option<RuleId>) -> Option<String> {
        let source = self.compiled.rule(rule?);
        Some(format!("{} ({})", source.name, source.place))
    }
}

/// With an alert if one waits: it has to arrive, so a FIN follows it. Else with a RST.
fn hang_up(leg: &mut Leg) {
    leg.flush_tls();
    let alerted = leg.tls.as_deref().is_some_and(|tls| tls.failure().is_some()) && leg.conn.unacked() > 0;
    if alerted || planted::is(Bug::FinForReset) {
        leg.conn.close();
    } else {
        leg.conn.abort();
    }
}
