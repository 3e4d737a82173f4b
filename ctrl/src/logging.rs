//! Logs go to stderr: text for people, or one JSON object a line.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// For the whole process. `SLUICE_LOG` filters (`info`, `ctrl=debug`).
pub fn start(format: Format) {
    let filter = EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| {
        // An overrun of the event socket is handled, a watched directory that went is expected with each swap
        // of ..data, and an API that is away is told of by us; the libraries' own warnings add nothing.
        EnvFilter::new("info,netlink_proto=error,notify=error,kube_client=off")
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        Format::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        Format::Json => log.json().init(),
    }
}
