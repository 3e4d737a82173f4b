//! Who stands between client and server, and how each is started.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use pktgen_tests::netns::gateway::{Gateway, Settings, binary};
use pktgen_tests::netns::{Host, pair, run};
use serde::{Deserialize, Serialize};

use crate::load::PARTS;
use crate::peers::{self, Proxy, Setting, envoy, haproxy, nginx};
use crate::plan::{Cores, Cpus, Layout, PROXY_IDLE, Tls, Work};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// The kernel forwards, in clear.
    None,
    Haproxy,
    Nginx,
    Envoy,
    Sluice,
}

/// A contender at work; dropping it stops it.
pub enum Running {
    None,
    Peer(Contender, [Proxy; 2]),
    Sluice([Gateway; 2]),
}

impl Contender {
    pub const ALL: [Self; 5] = [Self::None, Self::Haproxy, Self::Nginx, Self::Envoy, Self::Sluice];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Sluice => "sluice",
        }
    }

    /// Whether it is what a user could install in Sluice's place.
    pub fn is_peer(self) -> bool {
        match self {
            Self::None | Self::Sluice => false,
            Self::Haproxy | Self::Nginx | Self::Envoy => true,
        }
    }

    /// Whether it can stand there.
    pub fn fits(self, layout: &Layout) -> bool {
        // The peers have one worker, so that one core is what all are compared on.
        let alone = layout.cores == Cores::One;
        match self {
            // Ends no TCP: the MTU inside has to be the one outside. And knows no TLS.
            Self::None => alone && layout.inside == layout.outside && layout.tls == Tls::Full,
            // Their OpenSSL knows no ML-KEM.
            Self::Haproxy | Self::Nginx => alone && layout.tls != Tls::PostQuantum,
            Self::Envoy => alone,
            // Takes no session up again: policy is asked for each connection.
            Self::Sluice => layout.tls != Tls::Resumed,
        }
    }

    pub fn does(self, work: Work) -> bool {
        match (self, work) {
            // Does no handshakes that a storm could be of.
            (Self::None, Work::Isolation(_)) => false,
            // The others are no part of a way that leads past them.
            (Self::Haproxy | Self::Nginx | Self::Envoy, Work::Bystander { .. }) => false,
            // A proxy has not the descriptors, and the client of none not the ports.
            (_, Work::Idle { connections }) => self == Self::Sluice || connections <= PROXY_IDLE,
            (
                _,
                Work::Bulk(_)
                | Work::Connections { .. }
                | Work::RoundTrip { .. }
                | Work::Isolation(_)
                | Work::Bystander { .. },
            ) => true,
        }
    }

    /// What the client calls, to reach the server.
    pub fn target(self, server: SocketAddr) -> Result<SocketAddr> {
        Ok(if self.is_peer() { peers::PLAIN.parse()? } else { server })
    }

    /// Where gateway B hears TLS.
    pub fn sealed(self, server: SocketAddr) -> Result<SocketAddr> {
        Ok(if self.is_peer() { peers::SEALED.parse()? } else { server })
    }

    pub fn start(self, setting: &Setting<'_>, layout: &Layout) -> Result<Running> {
        let proxies = match self {
            Self::None => return Ok(Running::None),
            Self::Sluice => return sluice(setting, layout),
            Self::Haproxy => haproxy::start(setting)?,
            Self::Nginx => nginx::start(setting)?,
            Self::Envoy => envoy::start(setting)?,
        };
        Ok(Running::Peer(self, proxies))
    }

    pub fn version(self) -> Result<Option<String>> {
        Ok(Some(match self {
            Self::None => return Ok(None),
            Self::Haproxy => haproxy::version()?,
            Self::Nginx => nginx::version()?,
            Self::Envoy => envoy::version()?,
            Self::Sluice => {
                let mut command = std::process::Command::new(binary("sluice")?);
                command.arg("--version");
                run(command, std::time::Duration::from_secs(10))?.ok()?.trim().to_owned()
            }
        }))
    }
}

/// One worker each, on the first and on the last CPU, or both on the first; or two each on the first two.
fn sluice(setting: &Setting<'_>, layout: &Layout) -> Result<Running> {
    let last = u32::try_from(std::thread::available_parallelism()?.get() - 1)?;
    let [a, b]: [&[u32]; 2] = match (layout.cpus, layout.cores) {
        (Cpus::Free, Cores::One) => [&[0], &[last]],
        (Cpus::One, Cores::One) => [&[0], &[0]],
        (_, Cores::Two) => [&[0, 1], &[0, 1]],
    };
    let site = setting.site;
    let policy = policy()?;
    let files = [("policy.yaml", policy.as_str())];
    // What one sets on a veth whose workloads have no CAP_NET_ADMIN (see `XdpMode`). A word that is none
    // is for the gateway to refuse.
    let xdp = std::env::var("BENCH_XDP").unwrap_or_else(|_| "generic".into());
    let configure = |namespace, name, cores: &[u32]| -> Result<Gateway> {
        let settings = Settings {
            name,
            inside: &["in0"],
            cores,
            ttl: "1h",
            unmatched_egress: "refuse",
            // Room for the cases with many connections that all come at once.
            limits: "{ sessions: 131072, flows: 524288 }",
            xdp: &xdp,
        };
        let gateway = Gateway::configure(&site.rig, namespace, setting.authority, &settings, &files)?;
        let group = if layout.tls == Tls::PostQuantum { "X25519MLKEM768" } else { "X25519" };
        append(&gateway.directory().join("gateway.yaml"), &format!("  tls: {{ groups: [{group}] }}\n"))?;
        Ok(gateway)
    };
    let mut gateways = [configure(&site.node_a, "node-a", a)?, configure(&site.node_b, "node-b", b)?];
    for gateway in &mut gateways {
        gateway.launch()?;
    }
    for gateway in &gateways {
        gateway.wait_ready()?;
    }
    Ok(Running::Sluice(gateways))
}

/// The service at all the ports that servers may listen on.
fn policy() -> Result<String> {
    let policy = pair::policy();
    let (head, tail) = policy.split_once("      port: 3000\n").context("the policy has a service at port 3000")?;
    let address = head.lines().next_back().context("an address stands before its port")?;
    let more = (1..PARTS).map(|part| format!("{address}\n      port: {}\n", PORT + part));
    Ok(format!("{head}      port: {PORT}\n{}{tail}", more.collect::<String>()))
}

fn append(file: &Path, text: &str) -> Result<()> {
    let before = std::fs::read_to_string(file)?;
    std::fs::write(file, before + text).with_context(|| format!("write {}", file.display()))
}

impl Running {
    /// Why it cannot be at work, if a process of it has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Peer(contender, proxies) => {
                for proxy in proxies {
                    if let Some(status) = proxy.process.ended()? {
                        bail!("{contender} has ended ({status}):\n{}", tail(&proxy.log));
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
            Self::Peer(_, proxies) => proxies.iter().map(|proxy| tail(&proxy.log)).collect::<Vec<_>>().join("\n"),
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

    /// No call of the client's refused: that is an error of the rig, not a figure. The probes come
    /// from elsewhere, and one of them is refused on purpose.
    pub fn ensure_nothing_refused(&self) -> Result<()> {
        let Self::Sluice(gateways) = self else { return Ok(()) };
        for gateway in gateways {
            let mut refused = gateway.refused()?.into_iter().filter(|call| call.client.ip() == Host::Frontend.v4());
            if let Some(last) = refused.next_back() {
                bail!("{} refused calls, the last: {last:?}", gateway.name());
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
    SocketAddr::new(Host::Backend.v4(), PORT)
}

const PORT: u16 = 3000;

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
