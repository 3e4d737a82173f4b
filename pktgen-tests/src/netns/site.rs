//! Two nodes with a workload each, and the wire between them: what the demo and the tests stand on.
//!
//! ```text
//!   frontend ── in0 ┐                                  ┌ in0 ── backend
//!   intruder ── in1 ├ node-a ─ out0 ── wire ── out0 ─ node-b
//!   stranger ── in2 ┘                   │
//!                                     legacy
//! ```
//! All nodes and the wire are routers of the kernel's: without gateways, everything reaches
//! everything in clear. Each cable has the subnets 198.18.N.0/24 and 2001:db8:N::/64; routers are
//! .1 in them (on cables between two routers the wire is .254), hosts are .2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use std::time::Duration;

use anyhow::Result;

use super::{End, Namespace, Rig};

/// What the cables are like: MTU of those to the workloads, MTU of those between the nodes, and how
/// many queues each end has.
#[derive(Debug, Clone, Copy)]
pub struct Cables {
    pub inside: u32,
    pub outside: u32,
    pub queues: u32,
}

impl Cables {
    /// One MTU everywhere, one queue.
    pub const fn mtu(mtu: u32) -> Self {
        Self { inside: mtu, outside: mtu, queues: 1 }
    }
}

pub struct Site {
    pub frontend: Namespace,
    /// Has an identity and an egress rule of its own; the backend does not list it.
    pub intruder: Namespace,
    /// Has no identity.
    pub stranger: Namespace,
    pub node_a: Namespace,
    pub wire: Namespace,
    pub node_b: Namespace,
    pub backend: Namespace,
    /// On the wire's side, without a gateway.
    pub legacy: Namespace,
    /// Last, so that it is dropped after the handles.
    pub rig: Rig,
}

/// The N of a host's subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Frontend = 1,
    Backend = 2,
    Intruder = 3,
    Stranger = 4,
    Legacy = 30,
}

impl Host {
    pub fn v4(self) -> IpAddr {
        Ipv4Addr::new(198, 18, self as u8, 2).into()
    }

    /// The subnet is the decimal number read as hex, so that both families look alike.
    pub fn v6(self) -> IpAddr {
        format!("2001:db8:{}::2", self as u8).parse::<Ipv6Addr>().expect("an address").into()
    }

    pub fn address(self, v6: bool) -> IpAddr {
        if v6 { self.v6() } else { self.v4() }
    }
}

impl Site {
    /// Drops each `n`-th TCP packet on the wire, as packets of a real wire: with offload on, what
    /// crosses the wire's namespace is what a NIC would yet cut up.
    pub fn lose_one_in(&self, n: u32) -> Result<()> {
        for node in [&self.node_a, &self.node_b] {
            node.run("ethtool -K out0 tso off gso off", SHORT)?.ok()?;
        }
        self.wire.lose_one_in(n)
    }

    /// Lays everything, with the kernel forwarding plainly.
    pub fn lay(cables: Cables) -> Result<Self> {
        let rig = Rig::new()?;
        let site = Self {
            frontend: rig.namespace("frontend")?,
            intruder: rig.namespace("intruder")?,
            stranger: rig.namespace("stranger")?,
            node_a: rig.namespace("node-a")?,
            wire: rig.namespace("wire")?,
            node_b: rig.namespace("node-b")?,
            backend: rig.namespace("backend")?,
            legacy: rig.namespace("legacy")?,
            rig,
        };
        for router in [&site.node_a, &site.wire, &site.node_b] {
            router.forward()?;
        }
        site.host(&site.node_a, "in0", &site.frontend, Host::Frontend, (cables.inside, cables.queues))?;
        site.host(&site.node_a, "in1", &site.intruder, Host::Intruder, (cables.inside, cables.queues))?;
        site.host(&site.node_a, "in2", &site.stranger, Host::Stranger, (cables.inside, cables.queues))?;
        site.host(&site.node_b, "in0", &site.backend, Host::Backend, (cables.inside, cables.queues))?;
        site.host(&site.wire, "l0", &site.legacy, Host::Legacy, (cables.outside, cables.queues))?;
        site.uplink(
            &site.node_a,
            "a0",
            10,
            &[Host::Frontend, Host::Intruder, Host::Stranger],
            (cables.outside, cables.queues),
        )?;
        site.uplink(&site.node_b, "b0", 20, &[Host::Backend], (cables.outside, cables.queues))?;
        Ok(site)
    }

    /// A host with one cable to its router.
    fn host(
        &self,
        router: &Namespace,
        port: &str,
        host: &Namespace,
        place: Host,
        (mtu, queues): (u32, u32),
    ) -> Result<()> {
        let n = place as u8;
        let (router_v4, router_v6) = (format!("198.18.{n}.1"), format!("2001:db8:{n}::1"));
        self.rig.cable(
            &End::new(router, port, &[&format!("{router_v4}/24"), &format!("{router_v6}/64")]),
            &End::new(host, "eth0", &[&format!("198.18.{n}.2/24"), &format!("2001:db8:{n}::2/64")]),
            mtu,
            queues,
        )?;
        host.ip(&format!("route add default via {router_v4}"))?;
        host.ip(&format!("route add default via {router_v6}"))
    }

    /// A node's cable to the wire, which then knows the way to the node's hosts.
    fn uplink(&self, node: &Namespace, port: &str, n: u8, hosts: &[Host], (mtu, queues): (u32, u32)) -> Result<()> {
        self.rig.cable(
            &End::new(node, "out0", &[&format!("198.18.{n}.1/24"), &format!("2001:db8:{n}::1/64")]),
            &End::new(&self.wire, port, &[&format!("198.18.{n}.254/24"), &format!("2001:db8:{n}::254/64")]),
            mtu,
            queues,
        )?;
        node.ip(&format!("route add default via 198.18.{n}.254"))?;
        node.ip(&format!("route add default via 2001:db8:{n}::254"))?;
        for host in hosts.iter().map(|host| *host as u8) {
            self.wire.ip(&format!("route add 198.18.{host}.0/24 via 198.18.{n}.1"))?;
            self.wire.ip(&format!("route add 2001:db8:{host}::/64 via 2001:db8:{n}::1"))?;
        }
        Ok(())
    }
}

const SHORT: Duration = Duration::from_secs(10);
