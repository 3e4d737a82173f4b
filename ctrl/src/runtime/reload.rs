//! A configuration that was read again: tried whole, and taken or refused.
//!
//! Objects of the Kubernetes API that are at fault stand aside, each by itself; a file that is keeps all files
//! as they were when they were right last.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapshot::{Network, Snapshot, Version};
use tracing::{error, info, warn};

use super::{Core, port_names, text};
use crate::at_stake::Dropped;
use crate::config::{self, Diagnostic, Known, Loaded};
use crate::resolve::Lookups;
use crate::running::Running;
use crate::services::leaving::Before;
use crate::source::{self, Reopened, Unopened};
use crate::{assemble, at_stake, bundles, clock, view};

/// How long a change waits for names that are new. Those that are late come when they come.
const PATIENCE: Duration = Duration::from_secs(1);

/// A configuration that would work.
struct Candidate {
    loaded: Loaded,
    sources: Vec<Reopened>,
}

impl Core {
    /// Reads the directory again. Only what loads, whose source opens, and which assembles is taken.
    pub(super) async fn reload(&mut self, network: &Network, lookups: &mut Lookups) {
        self.inputs.changed();
        if let Err(faults) = self.settle(network, lookups, Files::Newest).await {
            // Whoever revokes something by the API does not wait until somebody mends a file of this node.
            if self.cluster.has_news() {
                let _ = self.settle(network, lookups, Files::Good).await;
            }
            self.refuse(faults);
        }
        lookups.keep(&self.loaded);
        self.keep_fetching();
        self.learn(lookups);
    }

    /// Objects of the API that are at fault stand aside, each by itself. Err: something else is at fault.
    async fn settle(&mut self, network: &Network, lookups: &mut Lookups, files: Files) -> Result<(), Vec<Diagnostic>> {
        let mut trial = self.cluster.trial(&self.directory, &self.known);
        loop {
            match self.candidate(network, lookups, files).await {
                Ok(candidate) => {
                    self.cluster.adopt(trial);
                    if !self.take(candidate) {
                        return Ok(());
                    }
                    trial = self.cluster.trial(&self.directory, &self.known);
                }
                Err(faults) => match self.cluster.without(trial, &faults, &self.known) {
                    Some(without) => trial = without,
                    None => return Err(faults),
                },
            }
        }
    }

    fn refuse(&mut self, faults: Vec<Diagnostic>) {
        for fault in &faults {
            error!("{fault}");
        }
        error!("the configuration is refused whole; the one before stays in force");
        self.faults = faults;
    }

    async fn candidate(
        &self,
        network: &Network,
        lookups: &mut Lookups,
        files: Files,
    ) -> Result<Candidate, Vec<Diagnostic>> {
        let mut loaded = load(&self.directory, &self.known, files).await?;
        self.hold_against_what_runs(&loaded).await?;
        self.cluster.fill_after(&mut loaded, self.before());
        self.fetches.got().fill(&mut loaded);
        // Opened again in any case: its own files may be what changed.
        let sources = self
            .identities
            .reopen(&loaded.gateway)
            .map_err(|Unopened { at, error }| vec![Diagnostic::error(&at.place, at.path, error.to_string())])?;
        let now = clock::now();
        self.crls.check(&loaded, &self.identities, now)?;
        lookups.want(&loaded);
        lookups.await_first(&loaded, PATIENCE).await;
        let resolved = lookups.of(&loaded);
        assemble::assemble(&loaded, network, &resolved, &self.identities, Version(0), now)?;
        if files == Files::Newest {
            self.known.lock().expect("no holder panics").is_good();
        }
        Ok(Candidate { loaded, sources })
    }

    /// A Gateway that cannot be served does not replace one that is.
    async fn hold_against_what_runs(&self, loaded: &Loaded) -> Result<(), Vec<Diagnostic>> {
        let mut running = Running::of(&self.loaded.gateway, &self.admin);
        if !running.names_others(&loaded.gateway) {
            return Ok(());
        }
        running.look_around(&self.publisher).await.map_err(|error| {
            vec![Diagnostic::error(&loaded.gateway.place, "spec.ports", format!("interfaces are not known: {error}"))]
        })?;
        match running.faults(&loaded.gateway) {
            faults if faults.is_empty() => Ok(()),
            faults => Err(faults),
        }
    }

    /// Names that only the change has are not looked up for it.
    pub(super) fn would_be(
        &self,
        loaded: &Loaded,
        network: &Network,
        lookups: &Lookups,
    ) -> Result<Snapshot, Vec<String>> {
        let mut loaded = loaded.clone();
        self.cluster.fill_after(&mut loaded, self.before());
        self.fetches.got().fill(&mut loaded);
        let (resolved, now) = (lookups.of(&loaded), clock::now());
        let made = assemble::assemble(&loaded, network, &resolved, &self.identities, Version(0), now);
        let (mut snapshot, _, _) = made.map_err(|faults| text(&faults))?;
        snapshot.workloads.iter_mut().for_each(|workload| workload.svid = None);
        Ok(snapshot)
    }

    /// The roots that nobody would be verified by any more, by what the change's own sources have.
    pub(super) fn would_drop(&self, mut loaded: Loaded) -> Result<Vec<Dropped>, Vec<String>> {
        self.fetches.got().fill(&mut loaded);
        let now = clock::now();
        let refused = |error: source::Error| {
            vec![Diagnostic::error(&loaded.gateway.place, "spec.identity", error.to_string()).to_string()]
        };
        let then = self.identities.would_trust(&loaded.gateway, now).map_err(refused)?;
        Ok(at_stake::dropped(&self.bundle_rows(now), &bundles::rows(&loaded, &then.own, &then.federated)))
    }

    fn before(&self) -> Before<'_> {
        Before { in_force: &self.loaded, resolved: &self.resolved }
    }

    /// Takes what names stand for now.
    pub(super) fn learn(&mut self, lookups: &Lookups) {
        self.resolved = lookups.of(&self.loaded);
    }

    /// True: it has to be read once more, without what the API has.
    fn take(&mut self, Candidate { mut loaded, sources }: Candidate) -> bool {
        self.faults.clear();
        let again = self.cluster.reopen(&self.loaded.gateway, &loaded);
        // Of a Gateway that asks no API any more nobody is a pod.
        self.cluster.see(&loaded, Before { in_force: &self.loaded, resolved: &self.resolved });
        self.cluster.fill(&mut loaded);
        self.identities.replace_sources(&loaded.gateway, sources);
        if loaded == self.loaded {
            return again;
        }
        if loaded.gateway.admin != self.loaded.gateway.admin {
            warn!("spec.admin changed: that takes effect when sluice-ctrl is restarted");
        }
        self.ports.send_if_modified(|ports| {
            let now = port_names(&loaded);
            std::mem::replace(ports, now.clone()) != now
        });
        self.emptied.see(&self.loaded, &loaded);
        self.resources = Arc::new(view::Resources::of(&loaded));
        self.loaded = loaded;
        self.loaded_at = clock::now();
        info!(directory = %self.directory.display(), "the configuration was read again");
        again
    }
}

/// Which files a configuration is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    Newest,
    /// As they were when they were right last.
    Good,
}

pub(super) async fn load(directory: &Path, known: &Arc<Mutex<Known>>, files: Files) -> Result<Loaded, Vec<Diagnostic>> {
    let (directory, known) = (directory.to_owned(), known.clone());
    let load = move || {
        let known = &mut known.lock().expect("no holder panics");
        match files {
            Files::Newest => config::reload_dir(&directory, known),
            Files::Good => config::load_good(&directory, known),
        }
    };
    tokio::task::spawn_blocking(load).await.expect("loading does not panic")
}
