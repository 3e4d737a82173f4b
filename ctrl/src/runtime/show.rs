//! What the control process shows of itself: its problems, and the view that admin and metrics read.

use std::sync::Arc;

use snapshot::Network;

use super::{Core, View, text};
use crate::rotate::utc;
use crate::running::Running;
use crate::{attest, bundles, clock, config, named, services, view};

impl Core {
    pub(super) fn known_problems(&self, now: u64) -> Vec<String> {
        let names = self
            .resolved
            .failures()
            .into_iter()
            .map(|f| format!("{} does not resolve: {} ({} older addresses still serve)", f.name, f.reason, f.kept));
        let names = names.chain(
            self.resolved
                .left_out()
                .map(|(name, count)| format!("{name} has more addresses than are taken: {count} are left out")),
        );
        let failures = self.identities.errors().into_iter().filter(|failure| !failure.waiting);
        let svids = failures.map(|f| format!("no new SVID for {}: {}", f.id, f.reason));
        let crls = config::crls::expiry(&self.loaded.bundles, now).map(|warning| warning.message);
        let more = self
            .identities
            .warnings(now)
            .into_iter()
            .chain(crls)
            .chain(self.emptied.problems())
            .chain(self.fetches.problems())
            .chain(self.unassembled.clone())
            .chain(self.remembered.problems().iter().cloned())
            .chain(self.cluster.problems(&self.loaded));
        names.chain(svids).chain(self.left_out(now).map(|(_, said)| said)).chain(more).collect()
    }

    /// Trust domains of which an identity source brings a bundle that is not asked, and what is said of that.
    pub(super) fn left_out(&self, now: u64) -> impl Iterator<Item = (String, String)> {
        self.identities.federated(now).into_iter().filter_map(|brought| {
            let by = self.loaded.bundles.iter().find(|bundle| bundle.decides(&brought.trust_domain))?;
            let (domain, name) = (brought.trust_domain, &by.name);
            let said =
                format!("the bundle of {domain} of an identity source is left out: TrustBundle {name} has its roots");
            Some((domain, said))
        })
    }

    /// SVIDs that somebody else will give in time.
    pub(super) fn waiting(&self) -> Vec<String> {
        let waits = self.identities.errors().into_iter().filter(|failure| failure.waiting);
        waits.map(|wait| format!("the SVID of {}, since {}: {}", wait.id, utc(wait.since), wait.reason)).collect()
    }

    pub(super) fn bundle_rows(&self, now: u64) -> Vec<bundles::Row> {
        let mut rows = bundles::rows(&self.loaded, &self.identities.bundle(now), &self.identities.federated(now));
        rows.iter_mut().for_each(|row| row.fetched = self.fetches.rows(&row.trust_domain));
        rows
    }

    pub(super) fn show(&self, network: &Network) {
        let workloads = self.last.iter().flat_map(|s| &s.workloads);
        let attestation = |name: &str| {
            let at = self.loaded.identities.binary_search_by(|identity| identity.name.as_str().cmp(name)).ok()?;
            attest::attest(&self.loaded.identities[at], &self.loaded.gateway, network).ok()
        };
        let status = view::Status {
            node: self.loaded.gateway.name.clone(),
            trust_domain: self.loaded.gateway.trust_domain.to_string(),
            build: crate::BUILD.into(),
            pid: std::process::id(),
            started_at: self.started_at,
            version: self.last.as_ref().map(|s| s.version),
            config: view::Config {
                directory: self.directory.display().to_string(),
                loaded_at: self.loaded_at,
                errors: text(&self.faults),
                warnings: text(self.loaded.warnings.iter().chain(&self.warnings)),
            },
            problems: self.problems.clone(),
            waiting: self.waiting(),
            identities: workloads
                .map(|w| view::Identity::of(w, attestation(&w.name).as_ref(), &self.identities))
                .collect(),
            ..view::Status::default()
        };
        let now = clock::now();
        let bundles = self.bundle_rows(now);
        let kubernetes = self.cluster.live();
        let services = self.last.as_ref().map(|last| services::shown(&self.loaded, &last.services)).unwrap_or_default();
        let (resources, services) = (self.resources.clone(), Arc::new(services));
        let running = Some(Running::of(&self.loaded.gateway, &self.admin));
        let named = named::of(&self.loaded, self.last.as_ref().map_or(&[], |last| &last.workloads));
        let view = View { status, resources, bundles, kubernetes, services, named, running };
        self.view.send_replace(Arc::new(view));
    }
}
