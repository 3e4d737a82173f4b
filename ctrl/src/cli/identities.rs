//! `sluice identities`: who runs here, where, and how long their SVIDs last.

use clap::Args;

use super::Done;
use super::output::{Output, or_dash, red, table, until, yellow};
use super::place::Place;
use crate::view::Identity;

/// List the identities of this node: places, SVIDs, and why one is missing.
///
/// Exit code 0: each workload that is here has an SVID. 1: one has none.
///
/// Examples:
///   sluice identities
///   sluice identities -o wide
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Identities {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Identities {
    pub async fn run(self) -> Done {
        let identities: Vec<Identity> = self.place.client()?.get("/v1/identities").await?;
        self.output.show(&identities, |wide| show(&identities, wide))?;
        Ok(identities.iter().all(|i| i.places.is_empty() || i.serial.is_some()))
    }
}

pub fn show(identities: &[Identity], wide: bool) -> String {
    let row = |i: &Identity| {
        let places = if i.places.is_empty() { "not on this node".into() } else { i.places.join(", ") };
        let left = match (i.not_after, &i.error) {
            (Some(at), None) => until(at),
            (Some(at), Some(_)) => format!("{} {}", until(at), red("not renewed")),
            (None, _) if i.places.is_empty() => "-".into(),
            (None, _) if i.waiting => yellow("waiting"),
            (None, _) => red("no SVID"),
        };
        let mut row = vec![i.workload.clone(), i.spiffe_id.clone(), i.mode.clone(), places, left];
        if wide {
            let source = i.source.as_ref();
            row.extend([or_dash(i.serial.as_ref()), or_dash(source), i.evidence.join("; "), or_dash(i.error.as_ref())]);
        }
        row
    };
    let header: &[&str] =
        &["WORKLOAD", "SPIFFE ID", "MODE", "PLACES", "EXPIRES IN", "SERIAL", "SOURCE", "EVIDENCE", "ERROR"];
    table(if wide { header } else { &header[..5] }, identities.iter().map(row))
}
