//! `sluice get`: the resources of a configuration.

use clap::{Args, ValueEnum};

use super::output::{Format, Output, or_dash, table};
use super::place::{self, Place};
use super::{Done, Failure, policies};
use crate::describe::{self, Unknown, find};
use crate::view::{GatewayRow, IdentityRow, Resources, ServiceRow};

/// List resources: of a running gateway, or of a directory with --config.
///
/// Examples:
///   sluice get identities
///   sluice get services --config /etc/sluice -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Get {
    /// What to list.
    #[arg(value_enum)]
    kind: Kind,
    /// Only this one, by `namespace/name` or name.
    name: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "gateway")]
    Gateways,
    #[value(aliases = ["identity", "workloads", "workload"])]
    Identities,
    #[value(alias = "service")]
    Services,
    #[value(alias = "policy")]
    Policies,
}

impl Kind {
    const fn described(self) -> describe::Kind {
        match self {
            Self::Gateways => describe::Kind::Gateway,
            Self::Identities => describe::Kind::Workload,
            Self::Services => describe::Kind::Service,
            Self::Policies => describe::Kind::Policy,
        }
    }
}

impl Get {
    pub async fn run(self) -> Done {
        let resources = match &self.place.config {
            Some(directory) => Resources::of(&place::load(directory)?),
            None => self.place.client()?.get("/v1/config").await?,
        };
        match self.kind {
            Kind::Gateways => self.rows(resources.gateways, |row| &row.name, gateways),
            Kind::Identities => self.rows(resources.identities, |row| &row.name, identities),
            Kind::Services => self.rows(resources.services, |row| &row.name, services),
            Kind::Policies => self.rows(resources.policies, |row| &row.name, policies::show),
        }
    }

    /// Those that are meant. Of a name that is none's there is nothing to show, and it is said what is near.
    fn rows<T: serde::Serialize>(
        &self,
        mut rows: Vec<T>,
        name: fn(&T) -> &String,
        show: fn(&[T], bool) -> String,
    ) -> Result<bool, Failure> {
        if let Some(wanted) = &self.name {
            let found = find(self.kind.described(), wanted, rows.iter().map(|row| name(row).as_str()));
            if let Err(unknown @ Unknown::Name { .. }) = found {
                eprintln!("error: {unknown}");
            }
            rows.retain(|row| name(row) == wanted || name(row).rsplit('/').next() == Some(wanted));
        }
        let found = !rows.is_empty() || self.name.is_none();
        if found || matches!(self.output.output, Format::Json | Format::Yaml) {
            self.output.show(&rows, |wide| show(&rows, wide))?;
        }
        Ok(found)
    }
}

fn gateways(rows: &[GatewayRow], _: bool) -> String {
    let row = |r: &GatewayRow| {
        let cores: Vec<_> = r.cores.iter().map(ToString::to_string).collect();
        let metrics = or_dash(r.metrics.as_ref());
        vec![r.name.clone(), r.trust_domain.clone(), r.ports.join(", "), cores.join(","), r.socket.clone(), metrics]
    };
    table(&["NAME", "TRUST DOMAIN", "PORTS", "CORES", "SOCKET", "METRICS"], rows.iter().map(row))
}

fn identities(rows: &[IdentityRow], wide: bool) -> String {
    let list = |list: &Option<Vec<String>>| match list {
        None => "-".to_owned(),
        Some(ids) if ids.is_empty() => "nobody".into(),
        Some(ids) => ids.join(", "),
    };
    let row = |r: &IdentityRow| {
        let mut row = vec![r.name.clone(), r.spiffe_id.clone(), r.mode.clone(), r.selectors.join(" | ")];
        if wide {
            row.extend([list(&r.inbound), list(&r.outbound), r.egress.join(" | "), r.place.clone()]);
        }
        row
    };
    let header: &[&str] = &["NAME", "SPIFFE ID", "MODE", "SELECTORS", "INBOUND", "OUTBOUND", "EGRESS", "PLACE"];
    table(if wide { header } else { &header[..4] }, rows.iter().map(row))
}

fn services(rows: &[ServiceRow], wide: bool) -> String {
    let row = |r: &ServiceRow| {
        let mut row = vec![r.name.clone(), r.addresses.join(", "), r.labels.join(",")];
        if wide {
            row.push(r.place.clone());
        }
        row
    };
    let header: &[&str] = &["NAME", "ADDRESSES", "LABELS", "PLACE"];
    table(if wide { header } else { &header[..3] }, rows.iter().map(row))
}
