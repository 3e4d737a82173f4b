//! `sluice bundle`: whose certificates are believed, by which roots, who is revoked, and by which CRLs.

use clap::Args;

use super::Done;
use super::output::{Output, red, table, until};
use super::place::Place;
use crate::bundles::{CrlRow, Row};
use crate::clock;
use crate::rotate::utc;

/// List the trust domains that peers may be of: their roots, who of them is revoked, and their CRLs.
///
/// SHA256 is the fingerprint of the root's certificate; -o wide and JSON have all of it.
///
/// Exit code 0: each trust domain has a root that is valid now. 1: one has none.
///
/// Examples:
///   sluice bundle
///   sluice bundle partner.org -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Bundle {
    /// Only this trust domain.
    #[arg(value_name = "TRUST DOMAIN")]
    trust_domain: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// Bytes of a fingerprint that a narrow table shows, in hex digits.
const SHORT: usize = 16;

impl Bundle {
    pub async fn run(self) -> Done {
        let mut rows: Vec<Row> = self.place.client()?.get("/v1/bundles").await?;
        if let Some(wanted) = &self.trust_domain {
            rows.retain(|row| row.trust_domain == *wanted);
            if rows.is_empty() {
                eprintln!("error: there is no bundle for trust domain {wanted}");
            }
        }
        self.output.show(&rows, |wide| show(&rows, wide))?;
        Ok(!rows.is_empty() && rows.iter().all(|row| row.is_usable(clock::now())))
    }
}

fn show(rows: &[Row], wide: bool) -> String {
    let name = |row: &Row| if row.own { format!("{} (own)", row.trust_domain) } else { row.trust_domain.clone() };
    let roots = rows.iter().flat_map(|row| {
        let none = row.roots.is_empty().then(|| vec![name(row), red("no root"), "-".into(), "-".into(), "-".into()]);
        let of_row = row.roots.iter().map(move |root| {
            let sha256 = if wide { root.sha256.clone() } else { root.sha256.chars().take(SHORT).collect() };
            let left = until(root.not_after);
            let left = if left == "expired" { red(&left) } else { left };
            vec![name(row), root.subject.clone(), sha256, left, root.from.clone()]
        });
        none.into_iter().chain(of_row)
    });
    let mut text = table(&["TRUST DOMAIN", "ROOT", "SHA256", "EXPIRES IN", "FROM"], roots);
    let revoked = rows.iter().flat_map(|row| {
        row.revoked.iter().map(move |entry| vec![row.trust_domain.clone(), entry.what.clone(), entry.place.clone()])
    });
    let revoked: Vec<_> = revoked.collect();
    if !revoked.is_empty() {
        text = format!("{text}\n\n{}", table(&["TRUST DOMAIN", "REVOKED", "PLACE"], revoked));
    }
    let crls: Vec<_> = rows.iter().flat_map(|row| row.crls.iter().map(|crl| of_crl(row, crl))).collect();
    if !crls.is_empty() {
        let heads = ["TRUST DOMAIN", "CRL OF", "NUMBER", "ISSUED", "NEXT IN", "ENTRIES", "ON STALE", "FROM"];
        text = format!("{text}\n\n{}", table(&heads, crls));
    }
    text
}

fn of_crl(row: &Row, crl: &CrlRow) -> Vec<String> {
    let next = if clock::now() > crl.next { red("stale") } else { until(crl.next) };
    let (domain, issuer, number) = (row.trust_domain.clone(), crl.issuer.clone(), crl.number.clone());
    let from = format!("{} ({})", crl.from, crl.place);
    vec![domain, issuer, number, utc(crl.issued), next, crl.entries.to_string(), crl.on_stale.clone(), from]
}
