//! The command line: what there is, and how a result becomes an exit code. One file a command.

mod apply;
mod bundle;
mod ca;
mod check;
mod complete;
mod completion;
mod connections;
mod crds;
mod describe;
mod detach;
mod diff;
mod ends;
mod explain;
mod file;
mod get;
mod identities;
mod migrate;
mod output;
mod place;
mod policies;
mod policy;
mod services;
mod status;
mod up;
mod validate;
mod whois;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::client;

/// Sluice: every service behind this node speaks SPIFFE mutual TLS, and none of them knows.
///
/// Exit codes: 0 yes or done, 1 no or failed, 2 wrong usage, 3 the control process is not reachable.
///
/// Commands that ask a running gateway find its socket by --socket, by --config (the Gateway in
/// that directory names it), by the variable SLUICE_SOCKET, or in /run/sluice if one is there.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    #[command(subcommand)]
    Ca(ca::Ca),
    Validate(validate::Validate),
    Apply(apply::Apply),
    Diff(diff::Diff),
    Get(get::Get),
    Status(status::Status),
    Check(check::Check),
    #[command(alias = "workloads")]
    Identities(identities::Identities),
    #[command(alias = "bundles")]
    Bundle(bundle::Bundle),
    Connections(connections::Connections),
    Policies(policies::Policies),
    #[command(subcommand)]
    Policy(policy::Policy),
    Services(services::Services),
    Explain(explain::Explain),
    Whois(whois::Whois),
    #[command(subcommand)]
    Describe(describe::Describe),
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    Detach(detach::Detach),
    Crds(crds::Crds),
    Completion(completion::Completion),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// True: yes or done. False: no, and everything was said already.
type Done = Result<bool, Failure>;

pub fn main() -> ExitCode {
    complete::answer();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(e) => Err(Failure::Other(e.into())),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("error: {failure}");
            if let Failure::Client(client::Error::Refused(refused)) = &failure {
                refused.details.iter().for_each(|detail| eprintln!("{detail}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

/// What would not be right is told with its details, and is no answer to the question.
fn as_usage(failure: crate::view::Failure) -> Failure {
    failure.details.iter().for_each(|detail| eprintln!("{detail}"));
    Failure::Usage(failure.error)
}

impl Failure {
    /// For commands whose 1 is an answer.
    fn refused_is_usage(error: client::Error) -> Self {
        match error {
            client::Error::Refused(refused) => as_usage(refused),
            other => Self::Client(other),
        }
    }

    /// The same of what this side could not even read.
    fn other_is_usage(self) -> Self {
        match self {
            Self::Other(error) => Self::Usage(format!("{error:#}")),
            Self::Usage(_) | Self::Client(_) => self,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Client(client::Error::Unreachable { .. }) => 3,
            Self::Client(client::Error::Http { .. } | client::Error::Body(_) | client::Error::Refused(_))
            | Self::Other(_) => 1,
        }
    }
}

impl Cli {
    async fn run(self) -> Done {
        match self.command {
            Command::Up(command) => command.run().await,
            Command::Ca(command) => command.run(),
            Command::Validate(command) => command.run(),
            Command::Apply(command) => command.run().await,
            Command::Diff(command) => command.run().await,
            Command::Get(command) => command.run().await,
            Command::Status(command) => command.run().await,
            Command::Check(command) => command.run().await,
            Command::Identities(command) => command.run().await,
            Command::Bundle(command) => command.run().await,
            Command::Connections(command) => command.run().await,
            Command::Policies(command) => command.run().await,
            Command::Policy(command) => command.run().await,
            Command::Services(command) => command.run().await,
            Command::Explain(command) => command.run().await,
            Command::Whois(command) => command.run().await,
            Command::Describe(command) => command.run().await,
            Command::Migrate(command) => command.run().await,
            Command::Detach(command) => command.run(),
            Command::Crds(command) => command.run(),
            Command::Completion(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command, with the names that lead to it.
    fn all(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        found.push((path.to_owned(), command.clone()));
        for sub in command.get_subcommands() {
            all(sub, &format!("{path} {}", sub.get_name()), found);
        }
    }

    #[test]
    fn every_command_and_every_argument_says_what_it_is() {
        let mut commands = vec![];
        all(&Cli::command(), "sluice", &mut commands);
        for (path, command) in commands {
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
            }
        }
    }

    #[test]
    fn usage_shows_either_way_where_there_are_two() {
        for (name, ways) in
            [("validate", ["--config <DIR>", "<FILE>..."]), ("detach", ["--config <DIR>", "--pin-directory <DIR>"])]
        {
            let mut cli = Cli::command();
            let usage = cli.find_subcommand_mut(name).expect("a command").render_usage().to_string();
            let lines: Vec<_> = usage.lines().collect();
            assert_eq!(lines.len(), 2, "{usage}");
            assert!(lines.iter().zip(ways).all(|(line, way)| line.ends_with(way)), "{usage}");
        }
    }
}
