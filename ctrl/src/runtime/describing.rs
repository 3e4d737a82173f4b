//! What the control process tells of one Service, Policy or trust domain, when somebody asks.

use super::Core;
use crate::clock;
use crate::describe::bundle::Trust;
use crate::describe::{Asked, Bundle, Facts, Policy, Service};
use crate::resolve::Lookups;

impl Core {
    pub(super) fn describe(&self, asked: Asked, lookups: &Lookups) {
        let state = self.publisher.state().borrow().clone();
        let facts = Facts {
            loaded: &self.loaded,
            snapshot: self.last.as_ref(),
            since: &self.since,
            warnings: &self.warnings,
            in_force: state.acked.filter(|_| state.dataplane.is_some()),
            now: clock::now(),
        };
        // Who asked may have gone.
        match asked {
            Asked::Service(name, answer) => {
                let told = |name: &str| lookups.told(&self.loaded.gateway, name);
                let described = Service::of(&facts, &name, told, self.cluster.followed());
                let _ = answer.send(described.map(Box::new));
            }
            Asked::Policy(name, answer) => {
                let _ = answer.send(Policy::of(&facts, &name).map(Box::new));
            }
            Asked::Bundle(name, answer) => {
                let trust = Trust {
                    rows: self.bundle_rows(facts.now),
                    sources: self.identities.trusted(),
                    problems: &|domain| self.problems_of(domain, facts.now),
                };
                let _ = answer.send(Bundle::of(&facts, &name, &trust).map(Box::new));
            }
        }
    }

    /// Of a trust domain: what is fetched of it, and what its identity sources say.
    fn problems_of(&self, domain: &str, now: u64) -> Vec<String> {
        let fetched = self.fetches.problems_of(|of| of.as_str() == domain);
        let left_out = self.left_out(now).filter(|(of, _)| of == domain).map(|(_, said)| said);
        let own = self.loaded.gateway.trust_domain.as_str() == domain;
        let sources = own.then(|| self.identities.warnings(now)).into_iter().flatten();
        fetched.chain(left_out).chain(sources).collect()
    }
}
