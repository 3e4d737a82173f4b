//! Whose an address is: nobody's, one workload's whichever process it is, or theirs whose processes match.
//!
//! The longest prefix decides, as everywhere. If that is a place with process selectors, all workloads
//! with such a place around the address may be meant, and none other: who matches none of them is not
//! attested, whatever a wider place without selectors says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ::snapshot::{Place, Prefix, ProcessSelector};

use super::addresses::{AddressTable, Map};
use super::compiled::{Error, Workload};

/// Workloads that have an address for their processes only: several together, or one alone.
#[derive(Debug)]
pub struct Shared {
    /// Indices of workloads, each once.
    pub members: Vec<usize>,
    /// What tells them apart.
    pub selectors: Vec<(usize, ProcessSelector)>,
    /// The inside port that all of them are behind.
    pub interface: Arc<str>,
}

impl Shared {
    /// The one that has it, if no other does.
    pub fn alone(&self) -> Option<usize> {
        match self.members[..] {
            [alone] => Some(alone),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Whose<'c> {
    Nobody,
    One(usize),
    /// With its number, counted from 0.
    Shared(usize, &'c Shared),
}

impl Whose<'_> {
    pub const fn one(self) -> Option<usize> {
        match self {
            Self::One(index) => Some(index),
            Self::Nobody | Self::Shared(..) => None,
        }
    }
}

/// Tables lead to a workload's index, or past the last of them to one of `shared`.
#[derive(Debug)]
pub struct Places {
    workloads: usize,
    /// By interface: who sends from an address.
    sources: Map<String, AddressTable>,
    destinations: AddressTable,
    pub shared: Vec<Shared>,
}

impl Places {
    pub fn new(workloads: &[Workload]) -> Result<Self, Error> {
        let (sources, destinations) = (Map::default(), AddressTable::default());
        let mut places = Self { workloads: workloads.len(), sources, destinations, shared: Vec::new() };
        places.add_sources(workloads);
        places.add_destinations(workloads)?;
        Ok(places)
    }

    pub fn source(&self, interface: &str, address: IpAddr) -> Whose<'_> {
        self.whose(self.sources.get(interface).and_then(|table| table.find(address)))
    }

    /// Who has exactly this place.
    pub fn claim(&self, interface: &str, prefix: Prefix) -> Whose<'_> {
        self.whose(self.sources.get(interface).and_then(|table| table.exact(prefix)))
    }

    pub fn destination(&self, address: IpAddr) -> Whose<'_> {
        self.whose(self.destinations.find(address))
    }

    fn whose(&self, found: Option<usize>) -> Whose<'_> {
        match found {
            None => Whose::Nobody,
            Some(index) if index < self.workloads => Whose::One(index),
            Some(past) => Whose::Shared(past - self.workloads, &self.shared[past - self.workloads]),
        }
    }

    fn share(&mut self, selectors: Vec<(usize, ProcessSelector)>, interface: &str) -> usize {
        let mut members: Vec<_> = selectors.iter().map(|(index, _)| *index).collect();
        members.sort_unstable();
        members.dedup();
        self.shared.push(Shared { members, selectors, interface: interface.into() });
        self.workloads + self.shared.len() - 1
    }

    fn add_sources(&mut self, workloads: &[Workload]) {
        type Claims<'w> = BTreeMap<Prefix, Vec<(usize, &'w [ProcessSelector])>>;
        let mut interfaces: BTreeMap<&str, Claims<'_>> = BTreeMap::new();
        for (index, workload) in workloads.iter().enumerate() {
            for place in &workload.places {
                let claims = interfaces.entry(&place.interface).or_default();
                claims.entry(place.prefix).or_default().push((index, &place.processes));
            }
        }
        for (interface, claims) in interfaces {
            let mut lengths: Vec<u8> = claims.keys().map(|prefix| prefix.length).collect();
            lengths.sort_unstable();
            lengths.dedup();
            for (&prefix, here) in &claims {
                let value = match here[..] {
                    [(index, [])] => index,
                    _ => {
                        let around = lengths.iter().filter(|length| **length <= prefix.length);
                        let around = around.filter_map(|length| claims.get(&Prefix::new(prefix.address, *length)));
                        let each =
                            around.flatten().flat_map(|(index, all)| all.iter().map(|one| (*index, one.clone())));
                        self.share(each.collect(), interface)
                    }
                };
                self.sources.entry(interface.to_owned()).or_default().insert(prefix, value);
            }
        }
    }

    /// Whose calls an address is called for: theirs who call from it. A place of every address (length 0)
    /// says where packets come from, not whose an address is.
    fn add_destinations(&mut self, workloads: &[Workload]) -> Result<(), Error> {
        let mut claims: BTreeMap<Prefix, Vec<(usize, &Place)>> = BTreeMap::new();
        for (index, workload) in workloads.iter().enumerate() {
            for place in workload.places.iter().filter(|place| place.prefix.length > 0) {
                claims.entry(place.prefix).or_default().push((index, place));
            }
        }
        for (prefix, here) in claims {
            let (first, at) = here[0];
            let by_process = here.iter().all(|(_, place)| !place.processes.is_empty());
            // One address is behind one port: two that are told apart by process have to be asked about there.
            let together = |other: &Place| by_process && other.interface == at.interface;
            if let Some((second, _)) = here.iter().find(|(index, place)| *index != first && !together(place)) {
                return Err(Error::Destination {
                    address: prefix.to_string(),
                    first: workloads[first].name.to_string(),
                    second: workloads[*second].name.to_string(),
                });
            }
            let sender = self.sources.get(&at.interface).and_then(|table| table.exact(prefix));
            let value = sender.filter(|_| by_process).unwrap_or(first);
            self.destinations.insert(prefix, value);
        }
        Ok(())
    }
}
