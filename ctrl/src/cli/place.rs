//! Where a command finds the gateway that it is about.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::client::Client;
use crate::config::{self, Loaded};

#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The Gateway's admin socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Directory with the configuration; its Gateway names the socket.
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
}

impl Place {
    /// What a line says that is not whole yet, and so is not parsed.
    pub fn of_line(line: &[String]) -> Self {
        let value = |option: &str| {
            let next = line.iter().skip_while(|word| *word != option).nth(1).map(String::as_str);
            let joined = || line.iter().find_map(|word| word.strip_prefix(option)?.strip_prefix('='));
            next.or_else(joined).map(PathBuf::from)
        };
        Self { socket: value("--socket"), config: value("--config") }
    }

    pub fn client(&self) -> Result<Client, Failure> {
        self.path().map(|path| Client::new(&path))
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        if let Some(directory) = &self.config {
            // A fault elsewhere in the files is what one may be here to see.
            return match config::gateway_of(directory) {
                Some(gateway) => Ok(gateway.admin.socket),
                None => Ok(load(directory)?.gateway.admin.socket),
            };
        }
        if let Some(socket) = std::env::var_os("SLUICE_SOCKET") {
            return Ok(socket.into());
        }
        let mut sockets = std::fs::read_dir("/run/sluice")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "sock"));
        match (sockets.next(), sockets.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(Failure::Usage("which gateway? Use --socket PATH, --config DIR or SLUICE_SOCKET".into())),
            (Some(_), Some(_)) => {
                Err(Failure::Usage("several gateways are in /run/sluice: use --socket PATH or --config DIR".into()))
            }
        }
    }
}

/// The configuration of a directory, or all that is wrong with it.
pub fn load(directory: &Path) -> Result<Loaded, Failure> {
    config::load_dir(directory).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        Failure::Other(anyhow::anyhow!(
            "the configuration in {} is not right:\n{}",
            directory.display(),
            faults.join("\n")
        ))
    })
}
