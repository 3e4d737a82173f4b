//! One segment of the network: it carries frames to the station that they are addressed to, late,
//! and not always well.

use super::faults::{Counters, Fault, Faults};

/// Index into a simulation's list of stations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station(pub usize);

/// A frame on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Microseconds.
    pub at: i64,
    pub station: Station,
    pub frame: Vec<u8>,
}

#[derive(Debug)]
pub struct Link {
    /// Microseconds from one end to the other.
    delay: i64,
    faults: Faults,
    pub counters: Counters,
    /// Carries nothing at all.
    pub is_cut: bool,
    stations: Vec<([u8; 6], Station)>,
}

impl Link {
    pub fn new(delay: i64, faults: Faults) -> Self {
        Self { delay, faults, counters: Counters::default(), is_cut: false, stations: Vec::new() }
    }

    pub fn attach(&mut self, mac: [u8; 6], station: Station) {
        self.stations.push((mac, station));
    }

    /// Takes a frame at `now`. What nobody is addressed by is nobody's, as behind a switch.
    pub fn carry(&mut self, now: i64, mut frame: Vec<u8>, mut arrive: impl FnMut(Arrival)) {
        if self.is_cut {
            return;
        }
        let mut at = now + self.delay;
        let fault = self.faults.strike();
        if let Some(fault) = fault {
            self.counters.count(fault);
        }
        match fault {
            None => {}
            Some(Fault::Lost) => return,
            Some(Fault::Duplicated) => {
                let copy = frame.clone();
                if let Some(station) = self.addressed(&copy) {
                    let at = at + self.faults.chance().below(2 * self.delay as u64 + 10) as i64;
                    arrive(Arrival { at, station, frame: copy });
                }
            }
            Some(Fault::Reordered) => at += self.faults.chance().between(1, 4 * self.delay as u64 + 200) as i64,
            Some(Fault::Corrupted) => self.faults.corrupt(&mut frame),
        }
        if let Some(station) = self.addressed(&frame) {
            arrive(Arrival { at, station, frame });
        }
    }

    fn addressed(&self, frame: &[u8]) -> Option<Station> {
        let to = frame.get(..6)?;
        self.stations.iter().find(|(mac, _)| mac == to).map(|(_, station)| *station)
    }
}
