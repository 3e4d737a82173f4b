//! When the control process makes a snapshot, and what it does with it.
//!
//! What it is made of is compared first: most turns bring nothing new, and assembling 10,000 workloads
//! takes a while. Renewals alone are in no hurry, since they are due at half of a life: they go out
//! together, the less often the more it costs, so that they never take more than a fortieth of a core.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use snapshot::{Bundle, Network, Snapshot, Version};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Core, text};
use crate::publish::Published;
use crate::remembered::Memory;
use crate::resolve::Resolved;
use crate::rotate::{Refreshed, Wanted};
use crate::{assemble, clock, config};

/// Renewals that fall due within this go out together, however little they cost.
const COALESCE: Duration = Duration::from_secs(1);

/// Of the time between two snapshots that only renew, the part that making them takes: one of so many.
const SHARE: u32 = 40;

/// Of an SVID's life, how long its renewal waits at the most: one of so many.
const PATIENCE: u32 = 10;

/// What the last snapshot was made of, apart from identities.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// None: it has to be made anew in any case.
    of: Option<Of>,
    /// Whom an SVID is needed for.
    pub wanted: Vec<Wanted>,
    /// When something in it is over, in seconds since the epoch: a root, whose end changes the bundle.
    ends: Option<u64>,
}

#[derive(Debug)]
struct Of {
    network: Network,
    resolved: Resolved,
    /// The roots of the identity sources, and those of other trust domains that they bring.
    bundles: Vec<Bundle>,
}

impl Inputs {
    /// The files were read again.
    pub fn changed(&mut self) {
        self.of = None;
    }

    fn are(&self, network: &Network, resolved: &Resolved, bundles: &[Bundle], now: u64) -> bool {
        let same = |of: &Of| of.network.is_like(network) && of.resolved.leads_where(resolved) && of.bundles == bundles;
        self.of.as_ref().is_some_and(same) && self.ends.is_none_or(|end| now < end)
    }
}

/// How often renewals may go out.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The last snapshot that was sent, when its making began, and what it cost so far.
    last: Option<(Version, Instant, Duration)>,
    acked: Option<Version>,
    /// Renewals that have been made and have not gone out.
    waiting: bool,
}

impl Pace {
    fn published(&mut self, version: Version, began: Instant, now: Instant) {
        (self.last, self.waiting) = (Some((version, began, now - began)), false);
    }

    /// Until a dataplane has it in force, the time is the dataplane's.
    pub fn acked(&mut self, version: Option<Version>, now: Instant) {
        if let Some((last, began, cost)) = &mut self.last
            && version == Some(*last)
            && self.acked != version
        {
            *cost = now - *began;
            self.acked = version;
        }
    }

    /// How long after the last one renewals go out. `shortest`: the life of the SVID that lives shortest.
    fn interval(&self, shortest: Option<Duration>) -> Duration {
        let cost = self.last.map_or(Duration::ZERO, |(_, _, cost)| cost);
        let most = shortest.map_or(COALESCE, |life| life / PATIENCE);
        COALESCE.max(cost * SHARE).min(most)
    }

    fn due(&self, shortest: Option<Duration>) -> Option<Instant> {
        self.waiting.then(|| self.last.map_or_else(Instant::now, |(_, began, _)| began + self.interval(shortest)))
    }
}

impl Core {
    /// Until there is something to do by the clock alone.
    pub(super) fn until_due(&self) -> Duration {
        let shortest = self.identities.shortest_life();
        // A root that ends is taken out of the bundle then.
        let due = self.identities.next_due().into_iter().chain(self.inputs.ends).min();
        let by_clock = due.map(|due| {
            let wait = Duration::from_millis((due * 1000).saturating_sub(clock::now_ms()));
            wait + self.pace.interval(shortest).min(COALESCE)
        });
        let others = self.fetches.next_due().into_iter().chain(self.cluster.next_end());
        let waiting = self.pace.due(shortest).into_iter().chain(others).min();
        let waiting = waiting.map(|at| at.saturating_duration_since(Instant::now()));
        by_clock.into_iter().chain(waiting).min().unwrap_or(Duration::from_secs(3600))
    }

    /// Renews what is due, and publishes what differs from the last snapshot.
    pub(super) fn renew_and_publish(&mut self, network: &Network) {
        let (now, began) = (clock::now(), Instant::now());
        let bundles = self.bundles(now);
        let same = self.last.is_some() && self.inputs.are(network, &self.resolved, &bundles, now);
        if !same {
            self.inputs.wanted = assemble::wanted(&self.loaded, network, &self.resolved);
        }
        let refreshed = self.identities.refresh(&self.inputs.wanted, now);
        let same = same && self.bundles(now) == bundles;
        self.pace.waiting |= refreshed == Refreshed::Renewed;
        let due = self.pace.due(self.identities.shortest_life()).is_some_and(|at| at <= began);
        let make = !same || refreshed == Refreshed::Changed || due;
        if make {
            self.make(network, now, began);
        }
        let problems = self.look_for_problems(now);
        if problems || make || refreshed != Refreshed::Nothing {
            self.show(network);
        }
    }

    /// What the identity sources say is to be trusted.
    fn bundles(&self, now: u64) -> Vec<Bundle> {
        let mut bundles = self.identities.federated(now);
        bundles.push(self.identities.bundle(now));
        bundles
    }

    fn make(&mut self, network: &Network, now: u64, began: Instant) {
        if let Some(waits) = self.cluster.waits_for() {
            self.unassembled = Some(waits);
            return self.inputs.changed();
        }
        match self.publish(network, now, began) {
            Ok(()) => {
                self.unassembled = None;
                let (resolved, bundles) = (self.resolved.clone(), self.bundles(now));
                self.inputs.of = Some(Of { network: network.clone(), resolved, bundles });
                self.inputs.ends = config::trust::next_end(&self.loaded.bundles, now).map(|end| end + 1);
            }
            Err(fault) => {
                error!(error = %fault, "no new snapshot; the last one stays in force");
                self.unassembled = Some(fault.to_string());
                self.inputs.changed();
            }
        }
        self.pace.waiting = false;
    }

    /// True: they, or what is waited for, are others than before.
    fn look_for_problems(&mut self, now: u64) -> bool {
        let known = self.known_problems(now);
        let before = std::mem::replace(&mut self.problems, known);
        for new in self.problems.iter().filter(|problem| !before.contains(problem)) {
            warn!(problem = new, "something is not as it should be");
        }
        self.problems != before || self.waiting() != self.view.borrow().status.waiting
    }

    fn publish(&mut self, network: &Network, now: u64, began: Instant) -> anyhow::Result<()> {
        let before = self.last.as_ref().map_or(Version(0), |s| s.version);
        let in_words = |faults: Vec<config::Diagnostic>| anyhow::anyhow!(text(&faults).join("\n"));
        self.crls.check(&self.loaded, &self.identities, now).map_err(in_words)?;
        let (mut snapshot, keys, warnings) =
            assemble::assemble(&self.loaded, network, &self.resolved, &self.identities, before, now)
                .map_err(in_words)?;
        self.crls.take(&self.loaded);
        self.remembered.keep(Memory {
            trusted: self.identities.trusted(),
            crls: self.crls.known(),
            pods: self.cluster.pods().clone(),
            services: self.cluster.services(&self.loaded),
            fetched: self.fetches.got().known(),
        });
        self.warnings = warnings;
        self.publisher.set(|desired| {
            desired.namespaces = self.loaded.gateway.namespaces.clone();
            let boot = assemble::boot(&self.loaded.gateway);
            if desired.boot.as_deref() != Some(&boot) {
                desired.boot = Some(Arc::new(boot));
            }
        });
        if self.last.as_ref().is_some_and(|last| same(last, &mut snapshot)) {
            return Ok(());
        }
        snapshot.version = self
            .versions
            .advance()
            .context("cannot write the version (beside admin.socket, or in admin.stateDirectory)")?;
        let published = Arc::new(Published::new(&snapshot, keys)?);
        info!(version = snapshot.version.0, workloads = snapshot.workloads.len(), "publishing");
        self.destinations.send_if_modified(|known| {
            let now = destinations(&snapshot);
            std::mem::replace(known, now.clone()) != now
        });
        self.publisher.set(|desired| desired.state = Some(published));
        self.pace.published(snapshot.version, began, Instant::now());
        self.since.note(self.last.as_ref(), &snapshot);
        self.last = Some(snapshot);
        Ok(())
    }
}

/// Equal but for the number and the time.
fn same(last: &Snapshot, now: &mut Snapshot) -> bool {
    let at = std::mem::replace(&mut now.assembled_at, last.assembled_at);
    now.version = last.version;
    let same = *last == *now;
    now.assembled_at = at;
    same
}

/// The addresses that packets will go to: endpoints of services and workloads of this node.
fn destinations(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let services = snapshot.services.iter().flat_map(|s| &s.endpoints).map(|e| e.address.ip());
    let places = snapshot.workloads.iter().flat_map(|w| &w.places).map(|p| p.prefix);
    let hosts = places.filter(|p| *p == snapshot::Prefix::host(p.address)).map(|p| p.address);
    services.chain(hosts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_go_out_the_less_often_the_more_they_cost_and_never_late() {
        let (hour, began) = (Some(Duration::from_secs(3600)), Instant::now());
        let after = |ms| began + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert_eq!((pace.due(hour), pace.interval(hour)), (None, COALESCE));
        pace.published(Version(7), began, after(300));
        assert_eq!(pace.interval(hour), Duration::from_secs(12));
        pace.acked(Some(Version(6)), after(700));
        assert_eq!(pace.interval(hour), Duration::from_secs(12));
        pace.acked(Some(Version(7)), after(700));
        assert_eq!(pace.interval(hour), Duration::from_secs(28));
        // The acknowledgement is told again with everything else that the dataplane says.
        pace.acked(Some(Version(7)), after(9_700));
        assert_eq!(pace.interval(hour), Duration::from_secs(28));
        // An SVID that lives 20 s is renewed after 10, and its renewal waits no longer than 2.
        assert_eq!(pace.interval(Some(Duration::from_secs(20))), Duration::from_secs(2));
        assert_eq!(pace.due(hour), None);
        pace.waiting = true;
        assert_eq!(pace.due(hour), Some(after(28_000)));
    }
}
