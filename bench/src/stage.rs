//! The namespaces of one turn, with a contender in its place, the server up, and the call checked.
//!
//! Every turn is laid anew, so that no socket in TIME-WAIT, route cache or pool of one contender is
//! met by the next. Before anything is timed, a probe goes through while the wire is captured: a
//! contender that does not seal what it should, or does not carry it, is an error.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pktgen_tests::netns::{Cables, Capture, Namespace, Process, Site, gateway, run, wait_until};
use serde::Serialize;

use crate::contender::{Contender, Running, server};
use crate::cpu::Reading;
use crate::load::{Job, MARKER, Measured, server::READY};
use crate::plan::{Task, Turn};
use crate::wire::{Seen, seen};

/// Arguments that make this program one end of the load.
pub const CLIENT: &str = "--as-load-client";
pub const SERVER: &str = "--as-load-server";

pub struct Stage {
    running: Running,
    target: std::net::SocketAddr,
    /// CPUs that were busy with nothing in place.
    pub idle: f64,
    pub facts: Facts,
    _server: Process,
    /// Last: programs are stopped before their namespaces go.
    site: Site,
}

/// What was in place, as it was found and not as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    pub wire: String,
    pub server_sees: String,
    /// TCP segmentation offload, by interface.
    pub tso: String,
    /// The kernel's, by namespace.
    pub congestion_control: String,
    pub xdp: Option<String>,
}

impl Stage {
    pub fn set(turn: &Turn) -> Result<Self> {
        let cables = Cables { inside: turn.layout.inside, outside: turn.layout.outside, queues: 1 };
        let site = Site::lay(cables)?;
        for namespace in [&site.frontend, &site.node_a, &site.node_b, &site.backend] {
            ports(namespace)?;
        }
        let authority = site.rig.directory().join("root-ca");
        gateway::authority(&authority)?;
        let server_process = serve(&site)?;
        let idle = idle()?;
        let mut running = turn.contender.start(&site, &authority, server())?;
        let target = turn.contender.target(server())?;
        let facts = check(&site, &mut running, turn.contender, target)
            .with_context(|| format!("{} does not come up; its log:\n{}", turn.contender, running.logs()))?;
        Ok(Self { running, target, idle, facts, _server: server_process, site })
    }

    pub fn measure(&mut self, task: Task, seconds: f64) -> Result<Measured> {
        self.running.ensure_alive()?;
        let pids = [&self.site.node_a, &self.site.node_b].into_iter().flat_map(Namespace::pids);
        let pids = pids.map(|pid| pid.as_raw_nonzero().get().cast_unsigned()).collect();
        let job = Job { task: Some(task), server: self.target, seconds, pids };
        let measured = call(&self.site, &job).map_err(|error| match self.running.ensure_alive() {
            Ok(()) => error,
            Err(why) => error.context(format!("{why:#}")),
        })?;
        self.running.ensure_alive()?;
        self.running.ensure_nothing_refused()?;
        Ok(measured)
    }

    pub fn logs(&self) -> String {
        self.running.logs()
    }
}

/// Room for tens of thousands of connections, one after the other from one address to one port.
fn ports(namespace: &Namespace) -> Result<()> {
    let mut command = namespace.command("sysctl");
    command.args(["-qw", "net.ipv4.ip_local_port_range=10000 65535", "net.ipv4.tcp_tw_reuse=1"]);
    run(command, SHORT)?.ok().map(drop)
}

fn serve(site: &Site) -> Result<Process> {
    let log = site.rig.directory().join("server.log");
    let mut command = site.backend.command(std::env::current_exe()?);
    command.arg(SERVER).arg(server().to_string());
    let mut process = Process::start(command, &log)?;
    let text = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the server listens", SHORT, || {
        (text().contains(READY) || process.ended().ok().flatten().is_some()).then_some(())
    })?;
    ensure!(text().contains(READY), "the server does not start: {}", text());
    Ok(process)
}

/// How many CPUs are busy while nothing of ours runs.
fn idle() -> Result<f64> {
    let before = Reading::take(&[])?;
    #[expect(clippy::disallowed_methods, reason = "a rate needs a stretch of time")]
    std::thread::sleep(Duration::from_millis(1500));
    let spent = before.until(&Reading::take(&[])?);
    Ok(spent.machine / spent.seconds)
}

/// A job for the client's process.
fn call(site: &Site, job: &Job) -> Result<Measured> {
    let mut command = site.frontend.command(std::env::current_exe()?);
    command.arg(CLIENT).arg(serde_json::to_string(job)?);
    let output = run(command, Duration::from_secs_f64(job.seconds * 2.0 + 30.0))?;
    ensure!(output.status.success(), "the load: {}", output.stderr.trim());
    serde_json::from_str(&output.stdout).with_context(|| format!("the load printed: {}", output.stdout))
}

fn check(site: &Site, running: &mut Running, contender: Contender, target: std::net::SocketAddr) -> Result<Facts> {
    let probe = Job { task: None, server: target, seconds: 0.0, pids: vec![] };
    let mut last = None;
    let first = wait_until("the first call is answered", Duration::from_secs(15), || {
        if let Err(error) = running.ensure_alive() {
            return Some(Err(error));
        }
        call(site, &probe).map_err(|error| last = Some(error)).ok().map(Ok)
    });
    match first {
        Ok(answered) => answered.map(drop)?,
        Err(error) => bail!("{error:#}; the last try: {:#}", last.unwrap_or_else(|| anyhow::anyhow!("none"))),
    }
    let capture = Capture::start(&site.wire, "b0")?;
    let probed = call(site, &probe)?;
    let wire = seen(&capture.finish()?, MARKER)?;
    let wire = match (contender, wire) {
        (Contender::None, Seen::Plain) => "in clear".into(),
        (Contender::Haproxy | Contender::Sluice, Seen::Sealed { cipher, group }) => {
            format!("TLS 1.3, {cipher}, {group}")
        }
        (Contender::None | Contender::Haproxy | Contender::Sluice, other) => bail!("on the wire is {other:?}"),
    };
    let caller = probed.seen_as.ip();
    Ok(Facts {
        wire,
        server_sees: format!("{caller}{}", if caller == client() { " (the client's own)" } else { "" }),
        tso: tso(site)?,
        congestion_control: congestion_control(site)?,
        xdp: running.xdp()?,
    })
}

fn client() -> std::net::IpAddr {
    pktgen_tests::netns::Host::Frontend.v4()
}

fn tso(site: &Site) -> Result<String> {
    let ends = [
        ("client", &site.frontend, "eth0"),
        ("node A in", &site.node_a, "in0"),
        ("node A out", &site.node_a, "out0"),
        ("wire to B", &site.wire, "b0"),
        ("node B in", &site.node_b, "in0"),
        ("server", &site.backend, "eth0"),
    ];
    let mut found = Vec::new();
    for (name, namespace, interface) in ends {
        let output = namespace.run(&format!("ethtool -k {interface}"), SHORT)?;
        let line = output.ok()?.lines().find_map(|line| line.strip_prefix("tcp-segmentation-offload: "));
        let state = line.and_then(|line| line.split_whitespace().next()).context("ethtool tells of TSO")?;
        found.push(format!("{name} {state}"));
    }
    Ok(found.join(", "))
}

fn congestion_control(site: &Site) -> Result<String> {
    let mut found = Vec::new();
    for (name, namespace) in [("client", &site.frontend), ("nodes", &site.node_a), ("server", &site.backend)] {
        let output = namespace.run("sysctl -n net.ipv4.tcp_congestion_control", SHORT)?;
        found.push(format!("{name} {}", output.ok()?.trim()));
    }
    Ok(found.join(", "))
}

const SHORT: Duration = Duration::from_secs(10);
