//! `sluice-dataplane`: the process that moves packets. It gets all it knows from `sluice-ctrl`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use dataplane::runtime::{self, Ended, Signals};

/// Exit code that asks the supervisor for an immediate new start.
const RESTART: u8 = 75;

/// The dataplane of Sluice: AF_XDP, TCP, TLS and policy on pinned cores.
#[derive(Debug, Parser)]
#[command(
    version,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  sluice-dataplane --admin /run/sluice/node-a.sock\n  sluice-dataplane detach --pin-directory /run/sluice/bpf/node-a\n\nNeeds CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, CAP_NET_RAW and CAP_IPC_LOCK, or root.\nSIGTERM lets connections end for timeouts.drain; SIGINT resets them at once.\nExit codes: 0 stopped by a signal, 1 failed, 75 wants to be started anew."
)]
struct Arguments {
    /// The Gateway's admin socket (spec.admin.socket); the channel to sluice-ctrl stands beside it.
    #[arg(long, value_name = "SOCKET", required = true)]
    admin: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = Log::Text)]
    log: Log,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Log {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes the steering programs, their maps and the egress guard off every port.
    Detach {
        /// Where they are pinned (spec.pinDirectory).
        #[arg(long, value_name = "DIR")]
        pin_directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log);
    let result = match (arguments.command, arguments.admin) {
        (Some(Command::Detach { pin_directory }), _) => detach(&pin_directory),
        (None, Some(admin)) => serve(&admin),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn start_log(log: Log) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| "info".into());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log {
        Log::Text => lines.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        Log::Json => lines.json().init(),
    }
}

fn serve(admin: &std::path::Path) -> anyhow::Result<ExitCode> {
    let signals = Signals::default();
    signal_hook::flag::register(signal_hook::consts::SIGTERM, signals.stop.clone())?;
    signal_hook::flag::register(signal_hook::consts::SIGINT, signals.hurry.clone())?;
    Ok(match runtime::run(admin, &signals)? {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::Restart => ExitCode::from(RESTART),
    })
}

fn detach(pin_directory: &std::path::Path) -> anyhow::Result<ExitCode> {
    let _lock = dataplane::steering::PinLock::take(pin_directory)?;
    let removed = xdp_prog::detach(pin_directory)?;
    for what in &removed {
        println!("removed {what}");
    }
    if removed.is_empty() {
        println!("nothing is attached from {}", pin_directory.display());
    }
    Ok(ExitCode::SUCCESS)
}
