//! `sluice bundle`: whose certificates are believed, by which roots, who is revoked, by which CRLs, and what of it
//! is fetched.

use clap::Args;

use super::output::{Output, age_ms, or_dash, red, span, table, until};
use super::place::Place;
use super::{Done, complete};
use crate::bundles::{CrlRow, Row};
use crate::rotate::utc;
use crate::{clock, fetch};

/// List the trust domains that peers may be of: their roots, who of them is revoked, their CRLs, and what of it is
/// fetched from where.
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
    #[arg(value_name = "TRUST DOMAIN", add = complete::trust_domains())]
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
    let fetched: Vec<_> = rows.iter().flat_map(|row| row.fetched.iter().map(|source| of_source(row, source))).collect();
    if !fetched.is_empty() {
        let heads = ["TRUST DOMAIN", "FETCHED", "BY", "GOT", "AGAIN IN", "SEQUENCE", "FROM", "FAULT"];
        text = format!("{text}\n\n{}", table(&heads, fetched));
    }
    text
}

fn of_source(row: &Row, source: &fetch::Row) -> Vec<String> {
    let got = source.got_at.map_or_else(|| red("not yet"), |at| format!("{} ago", age_ms(at * 1000)));
    let again = source.next_in.map_or_else(|| "now".into(), span);
    let (domain, field, kind) = (row.trust_domain.clone(), source.field.clone(), source.kind.clone());
    let fault = source.fault.as_ref().map_or_else(|| "-".into(), |fault| red(fault));
    vec![domain, field, kind, got, again, or_dash(source.sequence), source.url.clone(), fault]
}

fn of_crl(row: &Row, crl: &CrlRow) -> Vec<String> {
    let next = if clock::now() > crl.next { red("stale") } else { until(crl.next) };
    let (domain, issuer, number) = (row.trust_domain.clone(), crl.issuer.clone(), crl.number.clone());
    let from = format!("{} ({})", crl.from, crl.place);
    vec![domain, issuer, number, utc(crl.issued), next, crl.entries.to_string(), crl.on_stale.clone(), from]
}
