//! Two gateways and two callers of which one can be taken back: by its ID, by its SVID's serial, by the
//! root that it alone chains to, by its entry in the server's list.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pktgen_tests::netns::gateway::{self, Gateway, Settings};
use pktgen_tests::netns::{Cables, Namespace, Process, Site, pair, wait_until};

use crate::contender::server;
use crate::peers::certificate::Certificate;
use crate::stage::{ports, serve};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Id,
    Serial,
    Root,
    Rule,
}

impl Change {
    pub const ALL: [Self; 4] = [Self::Id, Self::Serial, Self::Root, Self::Rule];

    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "an ID is revoked",
            Self::Serial => "a serial is revoked",
            Self::Root => "a root is dropped",
            Self::Rule => "a rule is taken out",
        }
    }
}

pub struct Cutting {
    pub node_b: Gateway,
    _node_a: Gateway,
    policy: String,
    /// Of the second root, which intruder's SVID chains to.
    root: String,
    serial: String,
    _server: Process,
    /// Programs are stopped before their namespaces go.
    site: Site,
}

/// When a change was in force on node-b.
#[derive(Debug, Clone, Copy)]
pub struct Forced {
    /// It was asked at this time, and said that it was not yet.
    pub asked: Instant,
    /// It said that it was.
    pub said: Instant,
}

const INTRUDER: &str = "spiffe://example.com/myapp/app/intruder";
const LISTED: &str = "      - spiffe://example.com/myapp/app/intruder\n";
const LIMITS: &str = "{ history: 64 }";

impl Cutting {
    pub fn lay() -> Result<Self> {
        let site = Site::lay(Cables::mtu(1500))?;
        for namespace in [&site.frontend, &site.intruder, &site.node_a, &site.node_b, &site.backend] {
            ports(namespace)?;
        }
        let directory = site.rig.directory();
        let (authority, second) = (directory.join("root-ca"), directory.join("second-ca"));
        gateway::authority(&authority)?;
        gateway::authority(&second)?;
        let shown = Certificate::issue(&second, &directory.join("intruder-svid"), "intruder", INTRUDER)?;
        let root = fs::read_to_string(&shown.root)?;
        let policy = policy()?;
        let server = serve(&site, &site.backend, server())?;
        let xdp = std::env::var("BENCH_XDP").unwrap_or_else(|_| "generic".into());
        let last = u32::try_from(std::thread::available_parallelism()?.get() - 1)?;
        let settings = |name, inside, cores| Settings {
            name,
            inside,
            cores,
            ttl: "24h",
            unmatched_egress: "refuse",
            limits: LIMITS,
            xdp: &xdp,
        };
        let own = trust(&root, "");
        let a = settings("node-a", &["in0", "in1"], &[0]);
        let cores = [last];
        let b = settings("node-b", &["in0"], &cores);
        let mut node_a =
            Gateway::configure(&site.rig, &site.node_a, &authority, &a, &[("policy.yaml", policy.as_str())])?;
        let files = [("policy.yaml", policy.as_str()), ("trust.yaml", own.as_str())];
        let mut node_b = Gateway::configure(&site.rig, &site.node_b, &authority, &b, &files)?;
        by_files(&node_a, &shown)?;
        node_a.launch()?;
        node_b.launch()?;
        node_a.wait_ready()?;
        node_b.wait_ready()?;
        let serial = "01".to_owned();
        Ok(Self { node_b, _node_a: node_a, policy, root, serial, _server: server, site })
    }

    /// The gateways' processes.
    pub fn gateways(&self) -> Vec<u32> {
        let pids = [&self.site.node_a, &self.site.node_b].into_iter().flat_map(Namespace::pids);
        pids.map(|pid| pid.as_raw_nonzero().get().cast_unsigned()).collect()
    }

    pub fn in_frontend<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.site.frontend.enter(work)
    }

    pub fn in_intruder<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.site.intruder.enter(work)
    }

    /// Puts the changed file in its place; what is returned waits until it is in force.
    pub fn make(&self, change: Change) -> Result<JoinHandle<Result<Forced>>> {
        let (name, content) = match change {
            Change::Id => ("trust.yaml", trust(&self.root, &format!("    spiffeIDs: [{INTRUDER}]\n"))),
            Change::Serial => ("trust.yaml", trust(&self.root, &format!("    serials: [\"{}\"]\n", self.serial))),
            Change::Root => ("trust.yaml", trust("", "    serials: [\"ffff\"]\n")),
            Change::Rule => ("policy.yaml", self.policy.replacen(LISTED, "", 1)),
        };
        let before = in_force(&self.node_b.socket())?;
        let socket = self.node_b.socket();
        let asking = std::thread::spawn(move || forced(&socket, before));
        replace(&self.node_b.directory().join(name), &content)?;
        Ok(asking)
    }

    /// All as it was, in force.
    pub fn undo(&self, change: Change) -> Result<()> {
        match change {
            Change::Id | Change::Serial | Change::Root => self.node_b.apply("trust.yaml", &trust(&self.root, "")),
            Change::Rule => self.node_b.apply("policy.yaml", &self.policy),
        }
        .map(drop)
    }
}

/// The demo's policy, with a second caller that is as welcome as the first.
fn policy() -> Result<String> {
    let policy = pair::policy();
    let listed = "    inbound:\n      - spiffe://example.com/myapp/app/frontend\n";
    ensure!(policy.contains(listed), "the backend lists the frontend");
    let policy = policy.replacen(listed, &format!("{listed}{LISTED}"), 1);
    Ok(policy
        + "---\napiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\n\
           metadata: { name: intruder, namespace: riptides-system }\nspec:\n  workloadID: myapp/app/intruder\n  \
           selectors: [{ net:ip: 198.18.3.2 }]\n  egress:\n    - selectors: [{ app: myapp, service: backend-api }]\n      \
           connection: { tls: { mode: MUTUAL } }\n")
}

/// A TrustBundle with this further root (none: it is dropped) and these entries that are revoked.
fn trust(root: &str, revoked: &str) -> String {
    let lines: String = root.lines().map(|line| format!("        {line}\n")).collect();
    let roots = if root.is_empty() { String::new() } else { format!("  roots:\n    - pem: |\n{lines}") };
    let revoked = if revoked.is_empty() { String::new() } else { format!("  revoked:\n{revoked}") };
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: {{ name: own }}\nspec:\n  \
         trustDomain: example.com\n{roots}{revoked}"
    )
}

/// Gives intruder its SVID out of files, under the second root; everybody else has the embedded CA's.
fn by_files(node: &Gateway, shown: &Certificate) -> Result<()> {
    let volume = node.directory().join("svid");
    fs::create_dir(&volume)?;
    for (from, to) in [(&shown.chain, "tls.crt"), (&shown.key, "tls.key"), (&shown.root, "ca.crt")] {
        fs::copy(from, volume.join(to)).with_context(|| format!("copy {}", from.display()))?;
    }
    let file = node.directory().join("gateway.yaml");
    let text = fs::read_to_string(&file)?;
    let embedded = text.lines().find(|line| line.starts_with("  identity: {")).context("the Gateway has a source")?;
    let sources = "  identity:\n    sources:\n      \
                   - { name: svid, source: files, files: { directory: svid }, workloads: [riptides-system/intruder] }\n      \
                   - { name: ca, source: embedded, embedded: { directory: ca, ttl: 24h } }";
    replace(&file, &text.replacen(embedded, sources, 1))
}

/// Whole or not at all.
fn replace(file: &Path, content: &str) -> Result<()> {
    let beside: PathBuf = file.with_extension("new");
    fs::write(&beside, content)?;
    fs::rename(&beside, file).with_context(|| format!("write {}", file.display()))
}

/// Asks until a newer version is in force.
fn forced(socket: &Path, before: u64) -> Result<Forced> {
    let mut asked = Instant::now();
    wait_until("a newer version is in force", Duration::from_secs(20), || {
        let now = Instant::now();
        match in_force(socket) {
            Ok(version) if version > before => Some(Ok(Forced { asked, said: Instant::now() })),
            Ok(_) => {
                asked = now;
                None
            }
            Err(error) => Some(Err(error)),
        }
    })?
}

/// One request over the admin socket: the CLI's process would take longer than what is measured.
fn in_force(socket: &Path) -> Result<u64> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connect {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer has a body")?;
    let status: serde_json::Value = serde_json::from_str(body).with_context(|| format!("the status is {body}"))?;
    status["dataplane"]["in_force"].as_u64().with_context(|| format!("the status has no version in force: {body}"))
}
