//! What there is by name, for a shell that completes them.

use serde::{Deserialize, Serialize};

use super::Resources;
use crate::bundles;

/// `GET /v1/names`: each in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Names {
    /// `namespace/name`, as those of Services and Policies.
    pub workloads: Vec<String>,
    pub services: Vec<String>,
    pub policies: Vec<String>,
    pub trust_domains: Vec<String>,
}

impl Names {
    pub fn of(resources: &Resources, bundles: &[bundles::Row]) -> Self {
        let mut policies: Vec<_> = resources.policies.iter().map(|rule| rule.name.clone()).collect();
        // A row a rule, those of one Policy together.
        policies.dedup();
        Self {
            workloads: resources.identities.iter().map(|row| row.name.clone()).collect(),
            services: resources.services.iter().map(|row| row.name.clone()).collect(),
            policies,
            trust_domains: bundles.iter().map(|row| row.trust_domain.clone()).collect(),
        }
    }
}
