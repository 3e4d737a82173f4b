//! `sluice up`: both processes of a gateway, in the foreground.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Done, place};
use crate::supervise::{self, Process};
use crate::{logging, signals};

/// Run a gateway: sluice-ctrl and sluice-dataplane, until SIGTERM or Ctrl-C.
///
/// One that dies is started again (100 ms after its death, then backing off to 10 s). The
/// dataplane stops first, after its drain; a second signal does not wait. If `sluice up` itself is
/// killed, both get SIGTERM from the kernel.
///
/// Example:
///   sluice up --config /etc/sluice
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Up {
    /// Directory with the configuration.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Format of the logs on stderr.
    #[arg(long, value_enum, default_value_t)]
    log: logging::Format,
}

/// For the rest of a stop, after the drain.
const GRACE: Duration = Duration::from_secs(5);

impl Up {
    pub async fn run(self) -> Done {
        logging::start(self.log);
        let gateway = place::load(&self.config)?.gateway;
        let stop = signals::stop().map_err(anyhow::Error::from)?;
        let hurry = signals::second().map_err(anyhow::Error::from)?;
        let format = if self.log == logging::Format::Json { "json" } else { "text" };
        let ctrl = Process {
            program: supervise::find("sluice-ctrl"),
            arguments: vec!["--config".into(), self.config.into(), "--log".into(), format.into()],
            deadline: GRACE,
        };
        let dataplane = Process {
            program: supervise::find("sluice-dataplane"),
            arguments: vec!["--admin".into(), gateway.admin.socket.into(), "--log".into(), format.into()],
            deadline: gateway.timeouts.drain + GRACE,
        };
        supervise::run(vec![ctrl, dataplane], stop, hurry).await;
        Ok(true)
    }
}
