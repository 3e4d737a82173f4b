//! Both gateways of a site at work, with a policy for both families: what the netns tests start from.

use std::path::PathBuf;

use anyhow::Result;

use super::gateway::{self, Gateway, Settings};
use super::{Cables, Site};

pub struct Pair {
    pub node_a: Gateway,
    pub node_b: Gateway,
    /// Directory of the root CA.
    pub authority: PathBuf,
    /// Last: programs are stopped before their namespaces go.
    pub site: Site,
}

/// What differs between tests.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    pub cables: Cables,
    pub ttl: &'a str,
    pub cores: &'a [u32],
    /// `ports[].xdp` of all ports.
    pub xdp: &'a str,
    /// `spec.limits`, as a YAML map on one line.
    pub limits: &'a str,
    /// Files of both configurations.
    pub files: &'a [(&'a str, &'a str)],
}

/// The demo's policy, with the selectors of both families.
pub fn policy() -> String {
    let mut policy = include_str!("../../../deploy/demo/frontend-backend.yaml").to_owned();
    for (v4, v6) in [("198.18.1.2", "2001:db8:1::2"), ("198.18.2.2", "2001:db8:2::2")] {
        let entry = format!("    - net:ip: {v4}\n");
        assert!(policy.contains(&entry), "the demo's policy selects {v4}");
        policy = policy.replace(&entry, &format!("{entry}    - net:ip: \"{v6}\"\n"));
    }
    policy
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { cables: Cables::mtu(1500), ttl: "1h", cores: &[0], xdp: "auto", limits: "{}", files: &[] }
    }
}

impl Pair {
    /// Lays the site, configures both gateways, and waits until both are ready.
    pub fn start(setup: &Setup<'_>) -> Result<Self> {
        let mut pair = Self::configure(setup)?;
        pair.node_a.launch()?;
        pair.node_b.launch()?;
        pair.node_a.wait_ready()?;
        pair.node_b.wait_ready()?;
        Ok(pair)
    }

    /// Everything but starting them.
    pub fn configure(setup: &Setup<'_>) -> Result<Self> {
        let site = Site::lay(setup.cables)?;
        let authority = site.rig.directory().join("root-ca");
        gateway::authority(&authority)?;
        let policy = policy();
        let files = [&[("policy.yaml", policy.as_str())][..], setup.files].concat();
        let settings = |name, inside| Settings {
            name,
            inside,
            cores: setup.cores,
            ttl: setup.ttl,
            unmatched_egress: "refuse",
            xdp: setup.xdp,
            limits: setup.limits,
        };
        let a = settings("node-a", &["in0", "in1", "in2"]);
        // Two nodes would not share a CPU: where each has one core, they get different ones.
        let b = Settings { cores: if setup.cores == [0] { &[1] } else { setup.cores }, ..settings("node-b", &["in0"]) };
        let node_a = Gateway::configure(&site.rig, &site.node_a, &authority, &a, &files)?;
        let node_b = Gateway::configure(&site.rig, &site.node_b, &authority, &b, &files)?;
        Ok(Self { node_a, node_b, authority, site })
    }

    /// Nothing refused on either node; for the end of a test in which all is allowed.
    pub fn ensure_nothing_refused(&self) -> Result<()> {
        for gateway in [&self.node_a, &self.node_b] {
            let refused = gateway.refused()?;
            anyhow::ensure!(refused.is_empty(), "{} refused {refused:#?}", gateway.name());
        }
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for gateway in [&self.node_a, &self.node_b] {
                eprintln!("\nthe log of {} ended with:\n{}", gateway.name(), gateway.tail());
            }
        }
    }
}
