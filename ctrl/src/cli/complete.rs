//! Names of a running gateway, for a shell that completes them.
//!
//! The shell runs `sluice` itself, with a variable set, for what may follow; nothing is written to stdout but that.
//! A gateway that is not there, or takes long, has no names: a key that is pressed waits for nobody.

use std::time::Duration;

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use tokio::time::timeout;

use super::Cli;
use super::place::Place;
use crate::view::Names;

/// By which a shell asks.
pub const VARIABLE: &str = "SLUICE_COMPLETE";

const PATIENCE: Duration = Duration::from_secs(1);

/// Answers a shell that asks, and ends then.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

pub fn workloads() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|names| names.workloads))
}

pub fn services() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|names| names.services))
}

pub fn policies() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|names| names.policies))
}

pub fn trust_domains() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|names| names.trust_domains))
}

fn candidates(wanted: fn(Names) -> Vec<String>) -> Vec<CompletionCandidate> {
    let names = known().map(wanted).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn known() -> Option<Names> {
    let client = Place::of_line(&std::env::args().collect::<Vec<_>>()).client().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let names = async { timeout(PATIENCE, client.get("/v1/names")).await.ok()?.ok() };
    runtime.block_on(names)
}
