//! Who stands between client and server, and how each is started.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use pktgen_tests::netns::gateway::{Gateway, Settings};
use pktgen_tests::netns::{Host, Site, pair};
use serde::Serialize;

use crate::haproxy::{self, Proxy};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// The kernel forwards, in clear.
    None,
    Haproxy,
    Sluice,
}

/// A contender at work; dropping it stops it.
pub enum Running {
    None,
    Haproxy([Proxy; 2]),
    Sluice([Gateway; 2]),
}

impl Contender {
    pub const ALL: [Self; 3] = [Self::None, Self::Haproxy, Self::Sluice];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Haproxy => "haproxy",
            Self::Sluice => "sluice",
        }
    }

    /// Whether it ends TCP, so that the MTU inside need not be the one outside.
    pub fn ends_tcp(self) -> bool {
        match self {
            Self::None => false,
            Self::Haproxy | Self::Sluice => true,
        }
    }

    /// What the client calls, to reach the server.
    pub fn target(self, server: SocketAddr) -> Result<SocketAddr> {
        match self {
            Self::None | Self::Sluice => Ok(server),
            Self::Haproxy => Ok(haproxy::PLAIN.parse()?),
        }
    }

    pub fn start(self, site: &Site, authority: &Path, server: SocketAddr) -> Result<Running> {
        match self {
            Self::None => Ok(Running::None),
            Self::Haproxy => Ok(Running::Haproxy(haproxy::start(site, authority, server)?)),
            Self::Sluice => sluice(site, authority),
        }
    }
}

/// One worker each, on the first and on the last CPU.
fn sluice(site: &Site, authority: &Path) -> Result<Running> {
    let last = u32::try_from(std::thread::available_parallelism()?.get() - 1)?;
    let policy = pair::policy();
    let files = [("policy.yaml", policy.as_str())];
    let configure = |namespace, name, core: &[u32]| {
        let settings =
            Settings { name, inside: &["in0"], cores: core, ttl: "1h", unmatched_egress: "refuse", limits: "{}" };
        Gateway::configure(&site.rig, namespace, authority, &settings, &files)
    };
    let mut gateways = [configure(&site.node_a, "node-a", &[0])?, configure(&site.node_b, "node-b", &[last])?];
    for gateway in &mut gateways {
        gateway.launch()?;
    }
    for gateway in &gateways {
        gateway.wait_ready()?;
    }
    Ok(Running::Sluice(gateways))
}

impl Running {
    /// Why it cannot be at work, if a process of it has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Haproxy(proxies) => {
                for proxy in proxies {
                    if let Some(status) = proxy.process.ended()? {
                        bail!("haproxy has ended ({status}):\n{}", tail(&proxy.log));
                    }
                }
                Ok(())
            }
            Self::Sluice(gateways) => gateways.iter().try_for_each(|gateway| gateway.status().map(drop)),
        }
    }

    /// What its logs say last, for errors.
    pub fn logs(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Haproxy(proxies) => proxies.iter().map(|proxy| tail(&proxy.log)).collect::<Vec<_>>().join("\n"),
            Self::Sluice(gateways) => gateways.iter().map(|g| g.tail() + &live(g)).collect::<Vec<_>>().join("\n"),
        }
    }

    /// XDP mode of each port, as `sluice status` tells it.
    pub fn xdp(&self) -> Result<Option<String>> {
        let Self::Sluice(gateways) = self else { return Ok(None) };
        let mut modes = Vec::new();
        for gateway in gateways {
            for port in gateway.status().with_context(|| gateway.name().to_owned())?.ports {
                modes.push(format!("{} {}: {}", gateway.name(), port.interface, port.xdp));
            }
        }
        Ok(Some(modes.join("; ")))
    }

    /// Nothing refused: a refused call is an error of the rig, not a figure.
    pub fn ensure_nothing_refused(&self) -> Result<()> {
        let Self::Sluice(gateways) = self else { return Ok(()) };
        for gateway in gateways {
            let refused = gateway.refused()?;
            if let Some(last) = refused.last() {
                bail!("{} refused {} connections, the last: {last:?}", gateway.name(), refused.len());
            }
        }
        Ok(())
    }
}

/// How far the connections are that have not ended: where a stream stands still, and on which leg.
fn live(gateway: &Gateway) -> String {
    let connections = match gateway.connections() {
        Ok(connections) => connections,
        Err(error) => return format!("\n{}: {error:#}", gateway.name()),
    };
    let live = connections.iter().filter(|connection| connection.ended_at.is_none()).take(20);
    let line = |c: &snapshot::ConnectionReport| {
        let (name, client, state) = (gateway.name(), c.client, &c.state);
        format!("\n{name}: {client} {state}: {} bytes to the server, {} back", c.sent, c.received)
    };
    live.map(line).collect()
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// The service that the policy names.
pub fn server() -> SocketAddr {
    SocketAddr::new(Host::Backend.v4(), 3000)
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
