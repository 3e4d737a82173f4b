//! Whose addresses are whose on this node, asked of many addresses at once.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use snapshot::{Prefix, Snapshot, TlsMode, Workload};

#[derive(Debug, Default)]
pub struct Here<'s> {
    by_prefix: HashMap<Prefix, Vec<&'s Workload>>,
    lengths: BTreeSet<u8>,
}

impl<'s> Here<'s> {
    pub fn of(snapshot: Option<&'s Snapshot>) -> Self {
        let mut here = Self::default();
        for workload in snapshot.into_iter().flat_map(|snapshot| &snapshot.workloads) {
            for place in &workload.places {
                here.lengths.insert(place.prefix.length);
                here.by_prefix.entry(place.prefix).or_default().push(workload);
            }
        }
        here
    }

    /// Of several places the narrowest counts, and it may be several workloads' that processes tell apart.
    pub fn at(&self, ip: IpAddr) -> &[&'s Workload] {
        let ip = ip.to_canonical();
        let mut narrowest_first = self.lengths.iter().rev().map(|length| Prefix::new(ip, *length));
        narrowest_first.find_map(|prefix| self.by_prefix.get(&prefix)).map_or(&[], Vec::as_slice)
    }
}

/// The mode in which a port of the workload is called.
pub fn mode_of(workload: &Workload, port: u16) -> TlsMode {
    workload.ports.iter().find(|(of, _)| *of == port).map_or(workload.mode, |(_, mode)| *mode)
}
