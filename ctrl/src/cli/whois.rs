//! `sluice whois`: who is at the other end of a live connection.

use std::net::SocketAddr;

use clap::Args;

use super::output::{Output, age_ms, green, or_dash, until, yellow};
use super::place::Place;
use super::{Done, connections};
use crate::client::escape;
use crate::whois::{self, KnownBy, Row};

/// Say who is at the other end of a live connection: ADDR:PORT is the peer as a program of this node sees it,
/// in its log or by getpeername.
///
/// Several connections may have that peer; each is shown, and --local picks one.
///
/// Exit code 0: whoever is there was verified, on each connection shown. 1: there is no such connection, or
/// nobody was verified on one of them (it is plain, or shows no certificate).
///
/// Examples:
///   sluice whois 198.18.1.2:41326
///   sluice whois 198.18.1.2:41326 --local 198.18.2.2:3000 -o json
///   sluice whois '[2001:db8:1::2]:41326'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Whois {
    /// The peer's end of the connection.
    #[arg(value_name = "ADDR:PORT", value_parser = peer)]
    peer: SocketAddr,
    /// The own end of it.
    #[arg(long, value_name = "ADDR:PORT", value_parser = local)]
    local: Option<SocketAddr>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

fn peer(text: &str) -> Result<SocketAddr, String> {
    whois::end("peer", text)
}

fn local(text: &str) -> Result<SocketAddr, String> {
    whois::end("local", text)
}

impl Whois {
    pub async fn run(self) -> Done {
        let client = self.place.client()?;
        let mut path = format!("/v1/whois?peer={}", escape(&self.peer.to_string()));
        if let Some(local) = self.local {
            path.push_str(&format!("&local={}", escape(&local.to_string())));
        }
        let rows: Vec<Row> = client.get(&path).await?;
        self.output.show(&rows, |_| match rows.is_empty() {
            true => nobody(self.peer, self.local),
            false => rows.iter().map(show).collect::<Vec<_>>().join("\n"),
        })?;
        Ok(!rows.is_empty() && rows.iter().all(|row| row.spiffe_id.is_some()))
    }
}

fn nobody(peer: SocketAddr, local: Option<SocketAddr>) -> String {
    let with = local.map(|local| format!(" with {local}")).unwrap_or_default();
    format!("no live connection of {peer}{with}: see `sluice connections` and `sluice connections --closed`")
}

fn show(row: &Row) -> String {
    let who = match &row.spiffe_id {
        Some(id) => green(id),
        None => yellow("nobody who was verified"),
    };
    let expiry = row.not_after.map(|at| format!(", {} left", until(at))).unwrap_or_default();
    let known_by = match row.known_by {
        KnownBy::Certificate => format!("its certificate (serial {}{expiry})", or_dash(row.serial.as_ref())),
        KnownBy::Attestation => "attestation: it is a workload of this node".into(),
        KnownBy::Nothing => "nothing: it speaks plain, or shows no certificate".into(),
    };
    let mode = or_dash(row.mode.map(|mode| mode.name()));
    let lines = [
        format!("{} is {who}", row.peer),
        format!("  known by    {known_by}"),
        format!(
            "  with        {} at {} ({})",
            or_dash(row.workload.as_ref()),
            row.local,
            or_dash(row.local_id.as_ref())
        ),
        format!(
            "  connection  {}, {mode}, {}",
            connections::direction(row.direction),
            row.tls.as_deref().unwrap_or("plain")
        ),
        format!("  since       {} ({})", age_ms((row.since * 1000.0) as u64), row.state),
        format!("  allowed by  {}, revision {}", or_dash(row.rule.as_ref()), row.revision),
    ];
    lines.join("\n")
}
