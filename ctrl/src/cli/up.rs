//! `sluice up`: both processes of a gateway, in the foreground.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use tokio::time::{Instant, sleep};

use super::{Done, Failure, place};
use crate::publish::socket::{self, Lock, LockError};
use crate::supervise::{self, Process};
use crate::{logging, signals};

/// Run a gateway: sluice-ctrl and sluice-dataplane, until SIGTERM or Ctrl-C.
///
/// One that dies is started again (100 ms after its death, then backing off to 10 s). The
/// dataplane stops first, after its drain (timeouts.drain as it was at the start); after a second
/// signal it resets what lives and ends. If `sluice up` itself is killed, both end at once.
///
/// Exit code 0: stopped by a signal. 1: it cannot run, or the gateway is running already.
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

/// A control process whose supervisor was killed is on its way out, and may take this long.
const LEAVING: Duration = Duration::from_secs(3);

impl Up {
    pub async fn run(self) -> Done {
        logging::start(self.log);
        let gateway = place::load(&self.config)?.gateway;
        let _lock = alone(&gateway.admin.socket).await?;
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

/// The right to run this gateway: nobody else does, neither by `sluice up` nor the control process
/// by itself. Two supervisors would each start again what the other's success keeps from running.
async fn alone(admin: &Path) -> Result<Lock, Failure> {
    let lock = socket::lock_up(admin).map_err(|error| refusal(error, "sluice up"))?;
    let deadline = Instant::now() + LEAVING;
    loop {
        match socket::lock(admin) {
            Err(LockError::Held { .. }) if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(refusal(error, "sluice-ctrl")),
            // Given back for the control process that is about to start.
            Ok(_) => return Ok(lock),
        }
    }
}

fn refusal(error: LockError, by: &str) -> Failure {
    Failure::Other(match error {
        LockError::Held { admin, pid } => anyhow::anyhow!(
            "already running: {by} (pid {pid}) serves {socket}. `sluice status --socket {socket}` shows it; stop it \
             first to start it anew",
            socket = admin.display()
        ),
        LockError::Io { .. } => anyhow::Error::from(error),
    })
}
