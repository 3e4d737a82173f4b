//! `sluice apply`: changes the configuration of a gateway, if it is right with the change.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::file::File;
use super::output::Output;
use super::place::Place;
use super::status::duration;
use super::{Done, Failure};
use crate::client::{self, Client};
use crate::config::Known;
use crate::running::Running;
use crate::{apply, view};

/// Put a file into a gateway's configuration directory, if the whole is right with it.
///
/// The file replaces the one of the same name, or is added. Nothing changes if anything is wrong.
/// With --config the directory is written here; otherwise the running gateway writes its own. A
/// gateway that runs has it in force when this returns, with 0, on all its cores. If the change
/// restarts the dataplane, or waits for a restart of sluice-ctrl, this says so.
///
/// Exit code 0: applied and in force; or not waited for, or nobody runs there. 1: not right, not
/// done without --force, or not in force within --wait. 2: wrong usage. 3: not reachable.
///
/// Examples:
///   sluice apply -f policy.yaml
///   sluice apply -f policy.yaml --config /etc/sluice --dry-run
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Apply {
    #[command(flatten)]
    file: File,
    /// Say what would be, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also if living connections chain to a root that this drops: they are cut. If it restarts the dataplane
    /// while connections live: they are reset. And if it makes a workload MUTUAL that was called plain in the
    /// last 24 hours: such callers are refused.
    #[arg(long)]
    force: bool,
    /// Wait until it is in force, for so long at most; 0s does not wait.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    wait: Duration,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Apply {
    pub async fn run(self) -> Done {
        let (file, text) = (self.file.name()?, self.file.text()?);
        let change = view::Apply { file, text, dry_run: self.dry_run, force: self.force };
        // Of the Gateway as it is before the change, which may name another socket.
        let before = self.place.client();
        let (mut applied, client): (view::Applied, _) = match &self.place.config {
            Some(directory) => match self.apply_here(directory, &change, before.ok()).await? {
                Ok(applied) => applied,
                Err(failure) => {
                    eprintln!("error: {}", failure.error);
                    failure.details.iter().for_each(|d| eprintln!("{d}"));
                    return Ok(false);
                }
            },
            None => {
                let client = before?;
                (client.post("/v1/apply", &change).await?, client)
            }
        };
        applied.warnings.iter().for_each(|w| eprintln!("{w}"));
        applied.in_force = self.in_force(&client).await?;
        self.output.show(&applied, |_| self.sentence(&applied))?;
        Ok(applied.in_force.is_none_or(|now| now.in_force))
    }

    fn sentence(&self, applied: &view::Applied) -> String {
        let what = match (applied.changed, self.dry_run) {
            (true, _) => "applied",
            (false, true) => "would be right (dry run)",
            (false, false) => "unchanged",
        };
        let then = match &applied.in_force {
            None => String::new(),
            Some(now) if now.in_force => format!(", in force as version {}", now.version),
            Some(now) => format!(", not in force: waiting for {}", now.waiting_for.as_deref().unwrap_or("nothing")),
        };
        let notes: String = applied.notes.iter().map(|note| format!("\n{note}")).collect();
        format!("{} {what}{then}{notes}", applied.path)
    }

    /// None: nobody was waited for, or nobody runs there.
    async fn in_force(&self, client: &Client) -> Result<Option<view::InForce>, Failure> {
        if self.dry_run || self.wait.is_zero() {
            return Ok(None);
        }
        let reload = view::Reload { wait_ms: u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX) };
        match client.post("/v1/reload", &reload).await {
            Err(client::Error::Unreachable { .. }) if self.place.config.is_some() => Ok(None),
            answered => Ok(Some(answered?)),
        }
    }

    /// Into the directory itself. A gateway that runs on it is asked what the change would do to it.
    async fn apply_here(
        &self,
        directory: &Path,
        change: &view::Apply,
        before: Option<Client>,
    ) -> Result<Result<(view::Applied, Client), view::Failure>, Failure> {
        let mut plan = match apply::plan(directory, change, &mut Known::default()) {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error.into())),
        };
        let client = before.unwrap_or_else(|| Client::new(&plan.loaded.gateway.admin.socket));
        let running = match client.get::<Running>("/v1/running").await {
            Err(client::Error::Unreachable { .. }) => None,
            answered => Some(answered?),
        };
        if let Some(running) = running {
            if let Err(error) = plan.hold_against(&running) {
                return Ok(Err(error.into()));
            }
            if !self.force
                && let Some(failure) = would_cut(&client, change).await?
            {
                return Ok(Err(failure));
            }
        }
        Ok(plan.carry_out().map(|applied| (applied, client)).map_err(Into::into))
    }
}

/// None: nothing, or nobody runs there. What is trusted by the sources of the change, only the gateway knows.
async fn would_cut(client: &Client, change: &view::Apply) -> Result<Option<view::Failure>, Failure> {
    let change = view::Apply { dry_run: true, ..change.clone() };
    match client.post::<view::Applied>("/v1/apply", &change).await {
        Ok(_) | Err(client::Error::Unreachable { .. }) => Ok(None),
        Err(client::Error::Refused(failure)) => Ok(Some(failure)),
        Err(error) => Err(error.into()),
    }
}
