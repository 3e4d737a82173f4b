//! `sluice completion`: for the shell.

use clap::Args;
use clap_complete::Shell;
use clap_complete::env::Shells;

use super::Done;
use super::complete::VARIABLE;
use super::output::put;

/// Print a completion script.
///
/// It has `sluice` asked for what may follow, so that names of Services and workloads are those of the running
/// gateway. Write it anew after an update.
///
/// Example:
///   sluice completion bash > /etc/bash_completion.d/sluice
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Completion {
    /// Which shell it is for.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Done {
        let (name, shells) = (self.shell.to_string(), Shells::builtins());
        let shell = shells.completer(&name).expect("what may be asked for is known");
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "sluice", "sluice", "sluice", &mut script).map_err(anyhow::Error::from)?;
        put(String::from_utf8_lossy(&script).trim_end());
        Ok(true)
    }
}
