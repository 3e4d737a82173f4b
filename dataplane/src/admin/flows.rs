//! Which calls there were, each kind once: what a changed policy is tried on.
//!
//! A table of fixed size. What finds no room in it is counted, so that nobody takes a part for the whole.

use std::net::{IpAddr, SocketAddr};

use ::snapshot::{ConnectionReport, Direction, Flow};

use crate::snapshot::Map;

/// Flows, at the most.
const ROOM: usize = 16_384;

/// How long one that is seen no more keeps its place when others want it, in seconds.
const COUNTS_FOR: u64 = 86_400;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    direction: Direction,
    workload: Option<String>,
    client: IpAddr,
    server: SocketAddr,
    peer_id: Option<String>,
    tls: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    connections: u64,
    last: u64,
}

pub struct Flows {
    seen: Map<Key, Seen>,
    room: usize,
    /// When those that are too old were last looked for.
    swept: u64,
    /// Connections without a place.
    pub lost: u64,
}

impl Default for Flows {
    fn default() -> Self {
        Self::new(ROOM)
    }
}

impl Flows {
    pub fn new(room: usize) -> Self {
        Self { seen: Map::default(), room, swept: 0, lost: 0 }
    }

    /// A connection that came to stand, or was refused, at `now` in seconds since the epoch.
    pub fn note(&mut self, report: &ConnectionReport, now: u64) {
        let key = Key {
            direction: report.direction,
            workload: report.workload.clone(),
            client: report.client.ip().to_canonical(),
            server: report.server,
            peer_id: report.peer_id.clone(),
            tls: report.tls.is_some(),
        };
        if let Some(seen) = self.seen.get_mut(&key) {
            *seen = Seen { connections: seen.connections + 1, last: now };
            return;
        }
        // Not for each that finds no place: a flood of new ones would have the whole table looked at each time.
        if self.seen.len() >= self.room && self.swept != now {
            self.seen.retain(|_, seen| now.saturating_sub(seen.last) < COUNTS_FOR);
            self.swept = now;
        }
        match self.seen.len() < self.room {
            true => drop(self.seen.insert(key, Seen { connections: 1, last: now })),
            false => self.lost += 1,
        }
    }

    /// Those that were seen at `since` or later, in a fixed order.
    pub fn since(&self, since: u64) -> Vec<Flow> {
        let flow = |(key, seen): (&Key, &Seen)| Flow {
            direction: key.direction,
            workload: key.workload.clone(),
            client: key.client,
            server: key.server,
            peer_id: key.peer_id.clone(),
            tls: key.tls,
            connections: seen.connections,
            last_seen: seen.last,
        };
        let mut flows: Vec<Flow> = self.seen.iter().filter(|(_, seen)| seen.last >= since).map(flow).collect();
        flows.sort_by(|a, b| (a.server, a.client, &a.peer_id, a.tls).cmp(&(b.server, b.client, &b.peer_id, b.tls)));
        flows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::example;

    fn from(last: u8) -> ConnectionReport {
        ConnectionReport { client: format!("198.18.9.{last}:4000").parse().unwrap(), ..example::accepted() }
    }

    #[test]
    fn calls_that_a_policy_decides_alike_are_one_flow() {
        let mut flows = Flows::default();
        flows.note(&from(1), 10);
        flows.note(&ConnectionReport { client: "198.18.9.1:4999".parse().unwrap(), ..from(1) }, 20);
        flows.note(&ConnectionReport { peer_id: None, tls: None, ..from(1) }, 30);
        flows.note(&from(2), 40);
        let told = |since| flows.since(since).iter().map(|flow| (flow.connections, flow.last_seen)).collect::<Vec<_>>();
        assert_eq!(told(0), [(1, 30), (2, 20), (1, 40)]);
        assert_eq!(told(30), [(1, 30), (1, 40)]);
        assert_eq!(flows.since(40)[0].client, from(2).client.ip());
    }

    #[test]
    fn a_full_record_says_what_is_not_in_it_and_old_flows_make_room() {
        let mut flows = Flows::new(3);
        (1..=5).for_each(|last| flows.note(&from(last), 10));
        assert_eq!((flows.since(0).len(), flows.lost), (3, 2));
        flows.note(&from(1), 20);
        flows.note(&from(6), 9 + COUNTS_FOR);
        assert_eq!((flows.since(0).len(), flows.lost), (3, 3), "a second before a day is over");
        flows.note(&from(6), 10 + COUNTS_FOR);
        assert_eq!((flows.since(0).len(), flows.lost), (2, 3));
    }
}
