//! The client's end: does one job, and measures it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::wire::{Message, PROBE, connect};
use super::{Job, Measured, bulk, connections, idle, round_trip};
use crate::plan::Work;

pub fn run(job: &Job) -> Result<Measured> {
    let seen_as = Some(probe(job.server)?);
    let span = Duration::from_secs_f64(job.seconds);
    let measured = match job.work {
        None => Measured::default(),
        Some(work) => work_for(job, work, span)?,
    };
    Ok(Measured { seen_as, ..measured })
}

/// Before the clock starts, a short run of the same kind fills pools, caches and tables.
fn work_for(job: &Job, work: Work, span: Duration) -> Result<Measured> {
    let short = span.min(Duration::from_millis(500));
    match work {
        Work::Bulk(flow) => {
            bulk::run(job, flow, short).context("while warming up")?;
            bulk::run(job, flow, span)
        }
        Work::Connections { rate } => {
            connections::run(job, rate, short).context("while warming up")?;
            connections::run(job, rate, span)
        }
        Work::RoundTrip { connections, rate } => round_trip::run(job, connections, rate, span),
        Work::Idle { connections } => idle::run(job, connections),
        Work::Isolation(_) | Work::Bystander { .. } => bail!("{work} is put together of other work"),
    }
}

/// As whom the server sees us.
fn probe(server: SocketAddr) -> Result<SocketAddr> {
    let stream = connect(server)?;
    Message::new(PROBE, 0).send(&stream)?;
    let answer = Message::receive(&stream)?;
    ensure!(answer.kind() == PROBE, "the probe was not answered as one");
    answer.words()?.parse().context("the server tells an address")
}
