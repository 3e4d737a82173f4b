//! The other gateways: pairs of TCP proxies with mutual TLS between them.
//!
//! ```text
//!   client ──▶ A: 198.18.1.1:3000, plain ──▶ B: 198.18.20.1:3443, mTLS ──▶ the server
//! ```
//! None of them is transparent: the client calls gateway A's own address, A calls B's, and B the
//! server, which sees B's address. All verify the chain of the other side and nothing beyond it.

pub mod certificate;
pub mod envoy;
pub mod haproxy;
pub mod nginx;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use pktgen_tests::netns::{Process, Site, run};

use crate::plan::Tls;
use certificate::Certificate;

/// Where the client finds gateway A, and A finds B.
pub const PLAIN: &str = "198.18.1.1:3000";
pub const SEALED: &str = "198.18.20.1:3443";

/// What a pair is made of.
pub struct Setting<'a> {
    pub site: &'a Site,
    /// Directory of the root CA.
    pub authority: &'a Path,
    pub server: SocketAddr,
    pub tls: Tls,
    /// False only to see that the bench notices it.
    pub verify_clients: bool,
}

/// One side's process and its log.
pub struct Proxy {
    pub process: Process,
    pub log: PathBuf,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    A,
    B,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// Starts both ends of a pair. `write` gives an end's configuration, `command` the words that run
/// the file with it.
pub fn start(
    setting: &Setting<'_>,
    program: &str,
    write: impl Fn(End, &Certificate) -> String,
    command: impl Fn(&Path) -> String,
) -> Result<[Proxy; 2]> {
    let directory = setting.site.rig.directory();
    let one = |end: End| -> Result<Proxy> {
        let name = format!("{program}-{}", end.name());
        let certificate = Certificate::issue(setting.authority, &directory.join(&name), end.name(), &id(end))?;
        let (file, log) = (directory.join(format!("{name}.conf")), directory.join(format!("{name}.log")));
        fs::write(&file, write(end, &certificate))?;
        let namespace = match end {
            End::A => &setting.site.node_a,
            End::B => &setting.site.node_b,
        };
        Ok(Proxy { process: namespace.spawn(&command(&file), &log)?, log })
    };
    Ok([one(End::A)?, one(End::B)?])
}

fn id(end: End) -> String {
    format!("spiffe://example.com/peer/{}", end.name())
}

/// What a program says of its version, on either output.
fn said(program: &str, argument: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.arg(argument);
    let output = run(command, Duration::from_secs(20))
        .with_context(|| format!("{program} is not installed: run deploy/setup.sh bench"))?;
    Ok(output.stdout + &output.stderr)
}
