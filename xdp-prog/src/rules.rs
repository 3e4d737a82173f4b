//! What the agent decides about whole classes of packets: captures, sources, denied and guarded.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustix::time::{ClockId, clock_gettime};

use crate::maps::{self, SCOPE_GUARDED};
use crate::{Action, Bypass, Capture, CaptureKind, Change, Error, Result, Source, Steering, tables};

impl Steering {
    /// Brings the captures to these. Unchanged ones keep their age, also those of a process before;
    /// one that starts to take what it left alone begins anew.
    pub fn set_captures(&mut self, captures: &[Capture]) -> Result<Change> {
        let now = boot_time();
        let mut wanted = Vec::with_capacity(captures.len());
        let mut addresses = Vec::new();
        // Exceptions first, so that a capture of all ports never takes them for a moment.
        for action in [Action::Leave, Action::Take] {
            for capture in captures.iter().filter(|capture| capture.action == action) {
                check_capture(capture)?;
                let key = maps::capture_key(capture);
                addresses.push((maps::capture_address_key(&key), vec![1, 0, 0, 0]));
                wanted.push((key, maps::capture(capture, now)));
            }
        }
        let is_capture = |key: &[u8]| key[..4] != SCOPE_GUARDED.to_ne_bytes();
        let addresses = tables::add(&self.addresses, &addresses, is_capture, |old, _| old.to_vec())?;
        let update = tables::add(&self.captures, &wanted, |_| true, keep_since)?;
        let change = tables::remove(&self.captures, update)?;
        tables::remove(&self.addresses, addresses)?;
        Ok(change)
    }

    pub fn set_sources(&mut self, sources: &[Source]) -> Result<Change> {
        let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
        let mut claimed = BTreeMap::new();
        for source in sources {
            check_set(source.set)?;
            if let Some(key) = maps::source_prefix_key(source) {
                prefixes.push((key, maps::source(source)));
                continue;
            }
            if let Some(first) = claimed.insert(source.prefix.0, source.port)
                && first != source.port
            {
                return Err(Error::Claimed { address: source.prefix.0, first, second: source.port });
            }
            exact.push((maps::address(source.prefix.0).to_vec(), maps::source(source)));
        }
        let exact = tables::replace(&self.sources, &exact)?;
        let prefixes = tables::replace(&self.source_prefixes, &prefixes)?;
        Ok(Change {
            added: exact.added + prefixes.added,
            changed: exact.changed + prefixes.changed,
            removed: exact.removed + prefixes.removed,
            kept: exact.kept + prefixes.kept,
        })
    }

    /// Sources whose SYNs are refused before any work is spent on them.
    pub fn set_denied(&mut self, denied: &[(IpAddr, u8)]) -> Result<Change> {
        let wanted: Vec<_> = denied.iter().map(|prefix| (maps::prefix_key(*prefix), vec![0; 4])).collect();
        tables::replace(&self.denied, &wanted)
    }

    /// Destinations behind inside ports, with a port or 0 for any, to which the kernel itself may
    /// open no connection. Call it before [`Self::set_captures`] when captures are added.
    pub fn set_guarded(&mut self, guarded: &[(IpAddr, u16)]) -> Result<Change> {
        let keys: Vec<_> = guarded.iter().map(|(ip, port)| (maps::guarded_key(*ip, *port), vec![0; 4])).collect();
        let addresses: Vec<_> =
            guarded.iter().map(|(ip, _)| (maps::guarded_address_key(*ip), vec![1, 0, 0, 0])).collect();
        let is_guarded = |key: &[u8]| key[..4] == SCOPE_GUARDED.to_ne_bytes();
        let addresses = tables::add(&self.addresses, &addresses, is_guarded, |old, _| old.to_vec())?;
        let change = tables::replace(&self.guarded, &keys)?;
        tables::remove(&self.addresses, addresses)?;
        Ok(change)
    }

    /// Calls of the node's own processes to what is guarded that may be made all the same. Those that
    /// stay go on counting.
    pub fn set_bypasses(&mut self, bypasses: &[Bypass]) -> Result<Change> {
        let wanted: Vec<_> = bypasses.iter().map(|bypass| (maps::bypass_key(bypass), vec![0; 8])).collect();
        let update = tables::add(&self.bypasses, &wanted, |_| true, |old, _| old.to_vec())?;
        tables::remove(&self.bypasses, update)
    }

    /// Each with how many SYNs of the node's own it has let by. What cannot be read is not there.
    pub fn bypasses(&self) -> Vec<(Bypass, u64)> {
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            Some((maps::read_bypass(&key)?, u64::from_ne_bytes(value.try_into().ok()?)))
        };
        self.bypasses.entries().unwrap_or_default().into_iter().filter_map(read).collect()
    }
}

/// A capture that goes on taking keeps its age, and so do the connections that are older than it.
fn keep_since(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut value = new.to_vec();
    let action = |value: &[u8]| value.get(8).copied();
    if action(old) == action(new) {
        value[..8].copy_from_slice(&old[..8]);
    }
    value
}

fn check_capture(capture: &Capture) -> Result<()> {
    match (capture.kind, capture.destination) {
        (CaptureKind::Inbound, None) => {
            Err(Error::Invalid { what: "an inbound capture needs a destination: a workload's address".into() })
        }
        (CaptureKind::Inbound, Some(_)) => Ok(()),
        (CaptureKind::Outbound { set }, _) => check_set(set),
    }
}

fn check_set(set: u32) -> Result<()> {
    if set < SCOPE_GUARDED {
        return Ok(());
    }
    Err(Error::Invalid { what: format!("set {set} is reserved: use 0 to {}", SCOPE_GUARDED - 1) })
}

/// Nanoseconds of CLOCK_BOOTTIME, the clock that the programs compare with.
fn boot_time() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
