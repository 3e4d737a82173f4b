//! The trust domains that a peer may be of, as people see them: their roots, and who is revoked.

use serde::{Deserialize, Serialize};
use snapshot::Bundle;

use crate::config::crls::Crl;
use crate::config::roots::Certificate;
use crate::config::{Loaded, TrustBundle};
use crate::fetch;

/// Where roots come from that no file of policy gives.
pub const SOURCE: &str = "identity source";

/// One entry of `GET /v1/bundles`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub trust_domain: String,
    /// Whether this node gives out its identities.
    pub own: bool,
    /// `default/partner (trust.yaml:1)`. None: the identity source's roots are all there is.
    pub resource: Option<String>,
    pub roots: Vec<RootRow>,
    pub revoked: Vec<RevokedRow>,
    #[serde(default)]
    pub crls: Vec<CrlRow>,
    /// Where its bundle and CRLs are fetched from.
    #[serde(default)]
    pub fetched: Vec<fetch::Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootRow {
    pub subject: String,
    pub sha256: String,
    /// The same for every certificate of one root: what `peer_root` of a connection names.
    pub id: String,
    /// Seconds since the epoch.
    pub not_before: u64,
    pub not_after: u64,
    /// Its file, as the configuration names it, or the place of its text; `identity source`.
    pub from: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevokedRow {
    /// `spiffe://partner.org/billing/*`, or `serial 4f3a01`.
    pub what: String,
    /// `trust.yaml:12`.
    pub place: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrlRow {
    pub issuer: String,
    /// Decimal.
    pub number: String,
    /// thisUpdate and nextUpdate, in seconds since the epoch.
    pub issued: u64,
    pub next: u64,
    pub entries: usize,
    /// `warn` or `fail`.
    pub on_stale: String,
    /// Its file, as the configuration names it.
    pub from: String,
    /// `trust.yaml:12`.
    pub place: String,
}

/// All of them, this node's own first. `source` is what the identity sources give, `federated` what they bring
/// of other trust domains.
pub fn rows(loaded: &Loaded, source: &Bundle, federated: &[Bundle]) -> Vec<Row> {
    let own = loaded.gateway.trust_domain.to_string();
    let roots =
        |bundle: &Bundle| bundle.roots.iter().map(|der| RootRow::of(&Certificate::shown(der), SOURCE)).collect();
    let mut rows = vec![Row { roots: roots(source), ..Row::empty(&own, true) }];
    for brought in federated.iter().filter(|one| !loaded.bundles.iter().any(|b| b.decides(&one.trust_domain))) {
        rows.push(Row { roots: roots(brought), ..Row::empty(&brought.trust_domain, false) });
    }
    for bundle in &loaded.bundles {
        let known = rows.iter().position(|row| row.trust_domain == bundle.trust_domain.as_str());
        let at = known.unwrap_or_else(|| {
            rows.push(Row::empty(bundle.trust_domain.as_str(), false));
            rows.len() - 1
        });
        rows[at].add(bundle);
    }
    rows
}

impl Row {
    fn empty(trust_domain: &str, own: bool) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            own,
            resource: None,
            roots: vec![],
            revoked: vec![],
            crls: vec![],
            fetched: vec![],
        }
    }

    fn add(&mut self, bundle: &TrustBundle) {
        self.resource = Some(format!("{} ({})", bundle.name, bundle.place));
        for root in &bundle.roots {
            // A root that the identity source has too is shown once, as its.
            if self.roots.iter().all(|earlier| earlier.sha256 != root.certificate.sha256) {
                self.roots.push(RootRow::of(&root.certificate, &root.from));
            }
        }
        let ids = bundle.revoked_ids.iter().map(|id| (id.what.to_string(), &id.place));
        let serials = bundle.revoked_serials.iter().map(|serial| (format!("serial {}", serial.what), &serial.place));
        let row = |(what, place): (String, &crate::config::Place)| RevokedRow { what, place: place.to_string() };
        self.revoked.extend(ids.chain(serials).map(row));
        self.crls.extend(bundle.crls.iter().map(CrlRow::of));
    }

    /// Whether somebody of it could be verified at `now`.
    pub fn is_usable(&self, now: u64) -> bool {
        self.roots.iter().any(|root| (root.not_before..=root.not_after).contains(&now))
    }
}

impl CrlRow {
    fn of(crl: &Crl) -> Self {
        let list = &crl.list;
        Self {
            issuer: list.issuer.clone(),
            number: list.number.clone(),
            issued: list.issued,
            next: list.next,
            entries: list.serials.len(),
            on_stale: crl.on_stale.name().into(),
            from: crl.from.clone(),
            place: crl.place.to_string(),
        }
    }
}

impl RootRow {
    fn of(certificate: &Certificate, from: &str) -> Self {
        Self {
            subject: certificate.subject.clone(),
            sha256: certificate.sha256.clone(),
            id: certificate.id.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            from: from.to_owned(),
        }
    }
}
