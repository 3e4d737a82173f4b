//! `sluice completion`: for the shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Done};

/// Print a completion script.
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
        clap_complete::generate(self.shell, &mut Cli::command(), "sluice", &mut std::io::stdout());
        Ok(true)
    }
}
