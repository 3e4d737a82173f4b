//! A node in a test: two workloads and what they may call, ready to be bent by the test.
//!
//! ```text
//!   frontend 198.18.1.2 on in0 ─▶ service api 198.18.2.2:3000 (elsewhere), db 198.18.1.3:5432 (here)
//!   database 198.18.1.3 on in1 ◀─ inbound: frontend, spiffe://partner.org/billing/*
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use ::snapshot::policy::Endpoint;
use ::snapshot::{
    EgressRule, IdPattern, Living, Place, Prefix, RuleId, RuleSource, SCHEMA, Service, Snapshot, SourceAddress,
    TlsMode, Unmatched, Version, Workload,
};

use super::certs::Ca;
use crate::policy::{Ends, Route};
use crate::snapshot::{Compiled, Error, Keys};
use crate::tls::{CryptoProvider, provider};

pub const FRONTEND: &str = "spiffe://example.com/myapp/frontend";
pub const DATABASE: &str = "spiffe://example.com/myapp/database";
pub const API: &str = "spiffe://example.com/other/api";
pub const API_AT: &str = "198.18.2.2:3000";
pub const DB_AT: &str = "198.18.1.3:5432";

pub struct World {
    pub ca: Ca,
    pub partner: Ca,
    pub snapshot: Snapshot,
    pub keys: Keys,
    pub provider: Arc<CryptoProvider>,
}

impl World {
    pub fn new() -> Self {
        Self::with(Ca::new("example.com"), provider::production())
    }

    pub fn with(ca: Ca, provider: Arc<CryptoProvider>) -> Self {
        let partner = Ca::new("partner.org");
        let mut keys = Keys::default();
        let mut svid = |id: &str| {
            let leaf = ca.svid(id);
            keys.insert(leaf.svid.key, leaf.key());
            Some(leaf.svid)
        };
        let frontend = Workload {
            svid: svid(FRONTEND),
            egress: vec![
                rule(4, 0, Some(TlsMode::Mutual), Some(vec![exact(API)])),
                rule(5, 1, Some(TlsMode::Mutual), None),
            ],
            mode: TlsMode::Permissive,
            ..workload("apps/frontend", FRONTEND, "in0", "198.18.1.2", 0)
        };
        let database = Workload {
            svid: svid(DATABASE),
            inbound: Some(vec![exact(FRONTEND), IdPattern::Under("spiffe://partner.org/billing/".into())]),
            ..workload("apps/database", DATABASE, "in1", "198.18.1.3", 2)
        };
        let names =
            ["frontend inbound", "frontend outbound", "database inbound", "database outbound", "to api", "to db"];
        let source =
            |(line, name): (usize, &&str)| RuleSource { name: (*name).into(), place: format!("p.yaml:{line}") };
        let snapshot = Snapshot {
            schema: SCHEMA,
            version: Version(7),
            node: "node-a".into(),
            trust_domain: "example.com".into(),
            workloads: vec![frontend, database],
            services: vec![service("apps/api", API_AT, Some("api.example.com")), service("apps/db", DB_AT, None)],
            bundles: vec![ca.bundle(), partner.bundle()],
            policies: vec![],
            revoked: vec![],
            rules: names.iter().enumerate().map(source).collect(),
            unmatched_egress: Unmatched::Pass,
            assembled_at: super::certs::NOW,
            living: Living::default(),
            audit: None,
        };
        Self { ca, partner, snapshot, keys, provider }
    }

    pub fn frontend(&mut self) -> &mut Workload {
        &mut self.snapshot.workloads[0]
    }

    pub fn database(&mut self) -> &mut Workload {
        &mut self.snapshot.workloads[1]
    }

    pub fn compile(&self) -> Arc<Compiled> {
        self.try_compile(None).unwrap()
    }

    pub fn try_compile(&self, previous: Option<&Compiled>) -> Result<Arc<Compiled>, Error> {
        ::snapshot::check::check(&self.snapshot).unwrap();
        Compiled::compile(&self.snapshot, &self.keys, &self.provider, previous).map(Arc::new)
    }
}

pub fn exact(id: &str) -> IdPattern {
    IdPattern::Exact(id.into())
}

pub fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// A call of somebody on the wire to `to`.
pub fn ends(to: &str) -> Ends {
    Ends { client: at("198.18.9.9:1").ip(), server: at(to) }
}

/// Such a call, of a port of a workload.
pub fn inbound(workload: usize, port: u16, mode: TlsMode) -> Route {
    let ends = Ends { server: (at(DB_AT).ip(), port).into(), ..ends(DB_AT) };
    Route::Inbound { workload, mode, ends, from: None, bypass: None }
}

pub fn service(name: &str, address: &str, host: Option<&str>) -> Service {
    Service {
        name: name.into(),
        endpoints: vec![Endpoint { address: at(address), host: host.map(Into::into) }],
        virtual_addresses: vec![],
    }
}

pub fn rule(id: u32, service: u32, mode: Option<TlsMode>, allowed: Option<Vec<IdPattern>>) -> EgressRule {
    EgressRule { id: RuleId(id), services: vec![service], mode, allowed, source: SourceAddress::Preserve }
}

fn workload(name: &str, id: &str, interface: &str, address: &str, first_rule: u32) -> Workload {
    Workload {
        name: name.into(),
        spiffe_id: id.into(),
        places: vec![Place {
            interface: interface.into(),
            prefix: Prefix::host(address.parse().unwrap()),
            mac: Some([2, 0, 0, 0, 0, first_rule as u8]),
            processes: vec![],
        }],
        svid: None,
        mode: TlsMode::Mutual,
        ports: vec![],
        inbound: None,
        inbound_rule: RuleId(first_rule),
        outbound: None,
        outbound_rule: RuleId(first_rule + 1),
        egress: vec![],
        policies: vec![],
        unmatched_egress: Unmatched::Pass,
        unmatched_rule: None,
        proxy: Default::default(),
        living: Living::default(),
        bypass: vec![],
        mode_rules: vec![],
        resumption: Default::default(),
    }
}
