//! Has the kernel resolve the next hops in use, and keep them so.
//!
//! `RTM_NEWNEIGH` with `NTF_USE` is what `ip neigh … use` sends: the kernel makes the entry if it
//! is missing and solicits (ARP, NDP); an entry that went stale is probed. We repeat it while an
//! entry is missing, backing off, and now and then for all, since the kernel never sees the traffic
//! that would otherwise keep them fresh.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::Handle;
use snapshot::Network;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::table::{missing, next_hop};
use crate::publish::Resolve;

/// Entries in use are probed this often: under the 60 s after which the kernel forgets stale ones.
const REFRESH: Duration = Duration::from_secs(20);
/// The kernel itself solicits three times, a second apart, for each request.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(8);
/// What the dataplane asked for is kept resolved this long after it asked.
const ASKED: Duration = Duration::from_secs(120);
/// Neighbours on behalf of the dataplane: hostile packets may make it ask for any address.
const ASKED_MOST: usize = 1024;

/// Asks once. An entry that is missing comes about and is solicited, a stale one is probed, all
/// else stays.
pub async fn solicit(handle: &Handle, interface: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    let request = handle.neighbours().add(interface, address);
    request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace().execute().await
}

/// Keeps the next hops of `destinations`, all gateways, and what the dataplane asks for resolved,
/// until a channel closes.
pub async fn keep(
    handle: Handle,
    mut network: watch::Receiver<Arc<Network>>,
    mut destinations: watch::Receiver<BTreeSet<IpAddr>>,
    mut asked: mpsc::Receiver<Resolve>,
) {
    let mut wishes = Wishes::default();
    let mut refresh = Instant::now();
    loop {
        let now = Instant::now();
        let known = network.borrow_and_update().clone();
        let hops = wishes.hops(&known, &destinations.borrow_and_update(), now);
        let due = if now >= refresh {
            refresh = now + REFRESH;
            hops.clone()
        } else {
            wishes.due(&known, &hops, now)
        };
        for (interface, address) in due {
            if let Err(error) = solicit(&handle, interface, address).await {
                debug!(interface, %address, %error, "cannot be resolved now");
            }
        }
        let wake = wishes.retries.values().map(|retry| retry.at).min().unwrap_or(refresh).min(refresh);
        tokio::select! {
            changed = network.changed() => if changed.is_err() { return },
            changed = destinations.changed() => if changed.is_err() { return },
            wish = asked.recv() => match wish {
                Some(wish) => wishes.ask(wish, Instant::now()),
                None => return,
            },
            () = sleep_until(wake) => {}
        }
    }
}

#[derive(Debug, Default)]
struct Wishes {
    /// By interface name, since indices change when an interface comes back.
    asked: HashMap<(String, IpAddr), Instant>,
    retries: HashMap<(u32, IpAddr), Retry>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Wishes {
    fn ask(&mut self, wish: Resolve, now: Instant) {
        if self.asked.len() < ASKED_MOST || self.asked.contains_key(&(wish.interface.clone(), wish.address)) {
            self.asked.insert((wish.interface, wish.address), now + ASKED);
        }
    }

    fn hops(&mut self, network: &Network, destinations: &BTreeSet<IpAddr>, now: Instant) -> BTreeSet<(u32, IpAddr)> {
        self.asked.retain(|_, until| *until > now);
        let up: HashMap<&str, u32> =
            network.links.iter().filter(|l| l.up).map(|l| (l.name.as_str(), l.index)).collect();
        let asked = self.asked.keys().filter_map(|(name, address)| Some((*up.get(name.as_str())?, *address)));
        let gateways = network.routes.iter().filter_map(|route| Some((route.interface, route.gateway?)));
        let used = destinations.iter().filter_map(|&to| next_hop(network, to));
        let indices: BTreeSet<u32> = up.values().copied().collect();
        asked.chain(gateways).chain(used).filter(|(interface, _)| indices.contains(interface)).collect()
    }

    /// Those that are missing and whose turn it is.
    fn due(&mut self, network: &Network, hops: &BTreeSet<(u32, IpAddr)>, now: Instant) -> BTreeSet<(u32, IpAddr)> {
        let missing: BTreeSet<_> = missing(network, hops.iter().copied()).into_iter().collect();
        self.retries.retain(|hop, _| missing.contains(hop));
        let mut due = BTreeSet::new();
        for hop in missing {
            let retry = self.retries.entry(hop).or_insert(Retry { at: now, pause: FIRST_RETRY });
            if retry.at <= now {
                *retry = Retry { at: now + retry.pause, pause: (retry.pause * 2).min(LAST_RETRY) };
                due.insert(hop);
            }
        }
        due
    }
}
