//! `sluice detach`: takes the steering programs off the ports.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Done, place};
use crate::supervise;

/// Remove the pinned steering programs and maps of a gateway: traffic is the kernel's again.
///
/// Run it in the gateway's network namespace, after the gateway was stopped: it refuses while one runs,
/// and from any other namespace. Until then, captured connections are dropped rather than sent in clear.
///
/// Exit code 0: nothing is attached any more. 1: refused, nothing was changed.
///
/// Examples:
///   sluice detach --config /etc/sluice
///   sluice detach --pin-directory /sys/fs/bpf/sluice/node-a
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    override_usage = "sluice detach --config <DIR>\n       sluice detach --pin-directory <DIR>"
)]
pub struct Detach {
    /// Directory with the configuration; its Gateway names the pin directory.
    #[arg(long, value_name = "DIR", conflicts_with = "pin_directory", required_unless_present = "pin_directory")]
    config: Option<PathBuf>,
    /// The Gateway's spec.pinDirectory.
    #[arg(long, value_name = "DIR")]
    pin_directory: Option<PathBuf>,
}

impl Detach {
    pub fn run(self) -> Done {
        let pins = match (self.pin_directory, self.config) {
            (Some(pins), _) => pins,
            (None, Some(directory)) => place::load(&directory)?.gateway.pin_directory.into(),
            (None, None) => unreachable!("clap asks for one of the two"),
        };
        let program = supervise::find("sluice-dataplane");
        let status = std::process::Command::new(&program)
            .arg("detach")
            .arg("--pin-directory")
            .arg(pins)
            .status()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(status.success())
    }
}
