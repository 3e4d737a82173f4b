//! The agent's answer about a snapshot that is not taken: what recorded calls would come to under it.

use std::os::fd::OwnedFd;

use snapshot::channel::TURNED_PER_REPLY;
use snapshot::{Recorded, Reply, Snapshot, ToCtrl, Turned};

use super::{Agent, Keys};
use crate::policy;
use crate::snapshot::Compiled;
use crate::snapshot::receive::read_state;
use crate::time::Clock;

impl<C: Clock> Agent<C> {
    pub(super) fn reply_replayed(&mut self, id: u64, since: u64, descriptor: Option<OwnedFd>) {
        let replies = match self.replayed(since, descriptor) {
            Ok((recorded, turned)) => parts(recorded, turned),
            Err(why) => vec![Reply::Failed(why)],
        };
        replies.into_iter().for_each(|reply| self.send(ToCtrl::Reply { id, reply }));
    }

    fn replayed(&self, since: u64, descriptor: Option<OwnedFd>) -> Result<(Recorded, Vec<Turned>), String> {
        let now = self.compiled.as_ref().ok_or("no snapshot is in force yet")?;
        let other: Snapshot = read_state(descriptor).map_err(|error| error.to_string())?;
        ::snapshot::check::check(&other).map_err(|error| error.to_string())?;
        // Nothing is taken over from the one in force, whose rules count what they decide.
        let then = Compiled::compile(&other, &Keys::default(), &self.provider, None).map_err(|e| e.to_string())?;
        let mut flows = self.flows.since(since);
        flows.extend(self.refusals.since(since));
        let recorded = Recorded {
            flows: flows.len() as u64,
            connections: flows.iter().map(|flow| flow.connections).sum(),
            since: self.started_at,
            lost: self.flows.lost + self.refusals.lost + self.decisions_lost(),
        };
        let turned = flows.into_iter().filter_map(|flow| {
            let (now, then) = (policy::replay(now, &flow), policy::replay(&then, &flow));
            (!now.is_like(&then)).then_some(Turned { flow, now, then })
        });
        Ok((recorded, turned.collect()))
    }
}

fn parts(recorded: Recorded, turned: Vec<Turned>) -> Vec<Reply> {
    let mut parts: Vec<_> = turned.chunks(TURNED_PER_REPLY).map(<[_]>::to_vec).collect();
    let last = parts.pop().unwrap_or_default();
    let reply = |part, more| Reply::Replayed { recorded, part, more };
    let mut replies: Vec<_> = parts.into_iter().map(|part| reply(part, true)).collect();
    replies.push(reply(last, false));
    replies
}

#[cfg(test)]
mod tests {
    use snapshot::channel::MAX_MESSAGE;
    use snapshot::{Direction, Flow, Outcome, RefuseReason};

    use super::*;

    #[test]
    fn a_part_fits_a_message_however_long_its_names_are_and_none_is_lost() {
        let long = |length| Some("x".repeat(length));
        let flow = Flow {
            direction: Direction::Inbound,
            workload: long(317),
            client: std::net::Ipv6Addr::LOCALHOST.into(),
            server: "[2001:db8::1]:65535".parse().unwrap(),
            peer_id: long(2_048),
            tls: true,
            connections: u64::MAX,
            last_seen: u64::MAX,
        };
        let refused =
            Outcome::Refused { reason: RefuseReason::NotAllowedInbound, rule: long(600), detail: long(2_300) };
        let turned = Turned { flow, now: refused.clone(), then: refused };
        let all = parts(Recorded::default(), vec![turned; TURNED_PER_REPLY + 1]);
        let counts = all.iter().map(|reply| match reply {
            Reply::Replayed { part, more, .. } => (part.len(), *more),
            other => panic!("{other:?}"),
        });
        assert_eq!(counts.collect::<Vec<_>>(), [(TURNED_PER_REPLY, true), (1, false)]);
        for reply in all {
            let bytes = ::snapshot::codec::to_message(&ToCtrl::Reply { id: u64::MAX, reply }).expect("it fits");
            assert!(bytes.len() < MAX_MESSAGE, "{}", bytes.len());
        }
        assert_eq!(parts(Recorded::default(), vec![]).len(), 1);
    }
}
