//! `sluice describe trustbundle`: the roots of a trust domain, where each is from and who lives by it, and whom of
//! it nobody speaks to.

use clap::Args;

use super::{fact, last_facts, section};
use crate::cli::Done;
use crate::cli::complete;
use crate::cli::output::{Output, Rows, age_ms, or_dash, red, span, until, yellow};
use crate::cli::place::Place;
use crate::client::escape;
use crate::describe::bundle::{self as described, Validity};
use crate::rotate::utc;

/// Describe a trust domain: its roots with where each is from and how many connections chain to it, whom it
/// revokes, its CRLs, and what is fetched of it.
///
/// LIVE counts living connections whose peer's chain leads to the root: those are cut if it is taken out.
///
/// Exit code 0: there is such a trust domain. 1: there is none of that name here, or several.
///
/// Examples:
///   sluice describe trustbundle default/partner
///   sluice describe bundle partner.org -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, visible_alias = "bundle")]
pub struct Trustbundle {
    /// A trust domain, or a TrustBundle by its namespace/name.
    #[arg(value_name = "TRUST DOMAIN|NAME", add = complete::trust_domains())]
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// Characters of a fingerprint that a narrow table shows.
const SHORT: usize = 16;

impl Trustbundle {
    pub async fn run(self) -> Done {
        let path = format!("/v1/describe/bundle?name={}", escape(&self.name));
        let bundle: described::Bundle = self.place.client()?.get(&path).await?;
        self.output.show(&bundle, |wide| show(&bundle, wide))?;
        Ok(true)
    }
}

fn show(bundle: &described::Bundle, wide: bool) -> String {
    let own = if bundle.own { " (own)" } else { "" };
    let mut lines = vec![fact("domain", format!("{}{own}", bundle.trust_domain))];
    lines.push(fact("resource", bundle.resource.as_deref().unwrap_or("none: an identity source brings it")));
    lines.extend(last_facts(&bundle.revision, &bundle.problems, bundle.not_counted.as_ref()));
    if let Some(count) = bundle.live_elsewhere.filter(|count| *count > 0) {
        lines.push(fact("elsewhere", yellow(&format!("living connections by none of these roots: {count}"))));
    }
    lines.extend(section("roots", roots(bundle, wide)));
    lines.extend(section("revoked", revoked(bundle)));
    lines.extend(section("CRLs", crls(bundle)));
    lines.extend(section("fetched", fetched(bundle)));
    lines.join("\n")
}

fn roots(bundle: &described::Bundle, wide: bool) -> Rows {
    let row = |of: &described::RootRow| {
        let sha256 = if wide { of.root.sha256.clone() } else { of.root.sha256.chars().take(SHORT).collect() };
        let ends = match of.validity {
            Validity::Valid => until(of.root.not_after),
            Validity::NotYet => yellow(&format!("not valid before {}", utc(of.root.not_before))),
            Validity::Over => red("expired"),
        };
        let from = match of.sources.is_empty() {
            true => of.root.from.clone(),
            false => format!("{} {}", of.root.from, of.sources.join(", ")),
        };
        vec![of.root.subject.clone(), sha256, utc(of.root.not_after), ends, or_dash(of.live), from]
    };
    let header = &["ROOT", "SHA256", "NOT AFTER", "EXPIRES IN", "LIVE", "FROM"];
    (header, bundle.roots.iter().map(row).collect())
}

fn revoked(bundle: &described::Bundle) -> Rows {
    let row = |entry: &crate::bundles::RevokedRow| vec![entry.what.clone(), entry.place.clone()];
    (&["REVOKED", "PLACE"], bundle.revoked.iter().map(row).collect())
}

fn crls(bundle: &described::Bundle) -> Rows {
    let row = |of: &described::CrlRow| {
        let crl = &of.crl;
        let next = if of.is_stale { red("stale") } else { until(crl.next) };
        let age = format!("{} ago", age_ms(crl.issued * 1000));
        let from = format!("{} ({})", crl.from, crl.place);
        [
            vec![crl.issuer.clone(), crl.number.clone(), age, next],
            vec![crl.entries.to_string(), crl.on_stale.clone(), from],
        ]
        .concat()
    };
    let header = &["CRL OF", "NUMBER", "ISSUED", "NEXT IN", "ENTRIES", "ON STALE", "FROM"];
    (header, bundle.crls.iter().map(row).collect())
}

fn fetched(bundle: &described::Bundle) -> Rows {
    let row = |source: &crate::fetch::Row| {
        let got = source.got_at.map_or_else(|| red("not yet"), |at| format!("{} ago", age_ms(at * 1000)));
        let again = source.next_in.map_or_else(|| "now".into(), span);
        let fault = source.fault.as_ref().map(|fault| red(fault));
        let counts = [source.counts.fetched, source.counts.failed].map(|count| count.to_string());
        let mut row = vec![source.field.clone(), source.kind.clone(), got, again, or_dash(source.sequence)];
        row.extend(counts);
        row.extend([source.url.clone(), or_dash(fault)]);
        row
    };
    let header = &["FETCHED", "BY", "GOT", "AGAIN IN", "SEQUENCE", "TIMES", "FAILED", "FROM", "FAULT"];
    (header, bundle.fetched.iter().map(row).collect())
}
