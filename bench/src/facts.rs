//! What was in place, as it was found and not as it was asked for.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use pktgen_tests::netns::{Host, Namespace, Site};
use serde::{Deserialize, Serialize};

use crate::contender::Running;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Facts {
    pub wire: String,
    pub server_sees: String,
    /// TCP segmentation and receive offload, by interface.
    pub offload: String,
    /// The kernel's, by namespace.
    pub congestion_control: String,
    pub xdp: Option<String>,
}

impl Facts {
    pub fn read(site: &Site, running: &Running, wire: String, seen_as: SocketAddr) -> Result<Self> {
        let caller = seen_as.ip();
        let own = if caller == Host::Frontend.v4() { " (the client's own)" } else { "" };
        Ok(Self {
            wire,
            server_sees: format!("{caller}{own}"),
            offload: offload(site)?,
            congestion_control: congestion_control(site)?,
            xdp: running.xdp()?,
        })
    }
}

/// An end of a cable between client and server.
pub struct End {
    name: &'static str,
    namespace: fn(&Site) -> &Namespace,
    pub interface: &'static str,
}

impl End {
    pub fn of<'a>(&self, site: &'a Site) -> &'a Namespace {
        (self.namespace)(site)
    }
}

/// From the client to the server.
pub const ENDS: [End; 8] = [
    End { name: "client", namespace: |site| &site.frontend, interface: "eth0" },
    End { name: "A in", namespace: |site| &site.node_a, interface: "in0" },
    End { name: "A out", namespace: |site| &site.node_a, interface: "out0" },
    End { name: "wire to A", namespace: |site| &site.wire, interface: "a0" },
    End { name: "wire to B", namespace: |site| &site.wire, interface: "b0" },
    End { name: "B out", namespace: |site| &site.node_b, interface: "out0" },
    End { name: "B in", namespace: |site| &site.node_b, interface: "in0" },
    End { name: "server", namespace: |site| &site.backend, interface: "eth0" },
];

fn offload(site: &Site) -> Result<String> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for end in &ENDS {
        let output = end.of(site).run(&format!("ethtool -k {}", end.interface), SHORT)?;
        let state = |feature: &str| {
            let line = output.ok().ok()?.lines().find_map(|line| line.strip_prefix(feature)?.strip_prefix(": "))?;
            Some(line.split_whitespace().next()?.to_owned())
        };
        let features = [("TSO", "tcp-segmentation-offload"), ("GRO", "generic-receive-offload")];
        let states = features.map(|(name, feature)| Some(format!("{name} {}", state(feature)?)));
        let states: Option<Vec<String>> = states.into_iter().collect();
        let states = states.context("ethtool tells of TSO and GRO")?.join(" ");
        match found.iter_mut().find(|(known, _)| *known == states) {
            Some((_, ends)) => ends.push(end.name),
            None => found.push((states, vec![end.name])),
        }
    }
    Ok(found.iter().map(|(states, ends)| format!("{states}: {}", ends.join(", "))).collect::<Vec<_>>().join("; "))
}

fn congestion_control(site: &Site) -> Result<String> {
    let mut found = Vec::new();
    for (name, namespace) in [("client", &site.frontend), ("nodes", &site.node_a), ("server", &site.backend)] {
        let output = namespace.run("sysctl -n net.ipv4.tcp_congestion_control", SHORT)?;
        found.push(format!("{name} {}", output.ok()?.trim()));
    }
    Ok(found.join(", "))
}

/// What has left or come by an interface since it was made.
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
}

pub fn sent(namespace: &Namespace, interface: &str) -> Result<Traffic> {
    traffic(namespace, interface, "tx")
}

pub fn received(namespace: &Namespace, interface: &str) -> Result<Traffic> {
    traffic(namespace, interface, "rx")
}

fn traffic(namespace: &Namespace, interface: &str, way: &str) -> Result<Traffic> {
    let output = namespace.run(&format!("ip -s -j link show {interface}"), SHORT)?;
    let value: serde_json::Value = serde_json::from_str(output.ok()?)?;
    let counted = &value[0]["stats64"][way];
    let number = |name: &str| counted[name].as_u64().with_context(|| format!("ip tells no {name} of {interface}"));
    Ok(Traffic { bytes: number("bytes")?, packets: number("packets")? })
}

/// TCP sockets in use, of the namespace.
pub fn sockets(namespace: &Namespace) -> Result<u64> {
    let text = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/sockstat"))??;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: inuse ")).context("sockstat tells of TCP")?;
    line.split_whitespace().next().context("a number follows")?.parse().context("sockets in use")
}

pub const SHORT: Duration = Duration::from_secs(10);
