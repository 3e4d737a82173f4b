//! The `WorkloadIdentity` kind: who a workload is, how it is found, whom it may call and serve.

use std::collections::BTreeMap;
use std::net::IpAddr;

use snapshot::{IdPattern, Prefix, TlsMode, Unmatched};

use super::{Place, SpiffeId};

#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadIdentity {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
    /// `spec.workloadID`, a path: `myapp/app/frontend`.
    pub workload_id: String,
    pub selectors: Vec<Selector>,
    /// `spec.scope.daemonGroup.id`.
    pub daemon_group: Option<String>,
    pub mode: TlsMode,
    /// `spec.connection.tls.ports`.
    pub ports: BTreeMap<u16, TlsMode>,
    pub inbound: Option<AllowList>,
    pub outbound: Option<AllowList>,
    pub egress: Vec<Egress>,
    pub unmatched_egress: Option<Unmatched>,
}

impl WorkloadIdentity {
    pub fn spiffe_id(&self, trust_domain: &super::TrustDomain) -> SpiffeId {
        SpiffeId::of(trust_domain, &self.workload_id)
    }
}

/// One entry of `spec.selectors`: all its keys must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    pub place: Place,
    pub interface: Option<String>,
    pub ip: Option<IpAddr>,
    pub cidr: Option<Prefix>,
    /// Keys that parse and that nothing here attests (`k8s:*`, `process:*`), with their values.
    pub unattested: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AllowList {
    pub place: Place,
    pub patterns: Vec<IdPattern>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Egress {
    pub place: Place,
    /// Label selectors of services: entries are ORed, the labels within one ANDed.
    pub selectors: Vec<BTreeMap<String, String>>,
    pub mode: Option<TlsMode>,
    pub allowed: Option<AllowList>,
}
