//! `sluice-ctrl`: the control process of one Gateway.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ctrl::logging;
use rustix::mm::MlockAllFlags;
use rustix::process::DumpableBehavior;
use tracing::{error, warn};

/// The control process of a Sluice gateway: identities, policy and the kernel's routes go from here
/// to the dataplane.
///
/// It reads all *.yaml files of a directory (one Gateway, any number of WorkloadIdentity and
/// Service), watches it, and listens at the Gateway's admin.socket for the dataplane and for the
/// `sluice` command. Start the dataplane beside it:
///
///   sluice-ctrl --config /etc/sluice
///   sluice-dataplane --admin /run/sluice/node-a.sock
///
/// or both with `sluice up --config /etc/sluice`. SIGTERM and SIGINT stop it; the dataplane goes on
/// with the last snapshot. Exit codes: 0 stopped, 1 failed, 2 usage. SLUICE_LOG filters the log.
#[derive(Debug, Parser)]
#[command(name = "sluice-ctrl", version, verbatim_doc_comment)]
struct Arguments {
    /// Directory with the configuration.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Format of the log on stderr.
    #[arg(long, value_enum, default_value_t)]
    log: logging::Format,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(arguments.log);
    protect_keys();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            error!("cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        let stop = ctrl::signals::stop()?;
        ctrl::runtime::run(&arguments.config, stop).await
    });
    // A file system that hangs under an identity's files must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Private keys pass through this process: no core dumps, no ptrace by others, no swap.
fn protect_keys() {
    if let Err(e) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!("core dumps cannot be turned off: {e}");
    }
    // Beyond the limit a locked process cannot allocate any more, so only without one.
    let unlimited = rustix::process::getrlimit(rustix::process::Resource::Memlock).current.is_none();
    if unlimited || may_lock() {
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(e) = rustix::mm::mlockall(flags) {
            warn!("memory cannot be locked, keys may be swapped out: {e}");
        }
    } else {
        warn!("memory is not locked, keys may be swapped out: raise RLIMIT_MEMLOCK or grant CAP_IPC_LOCK");
    }
}

fn may_lock() -> bool {
    use rustix::thread::CapabilitySet;
    rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(CapabilitySet::IPC_LOCK))
}
