//! One turn's place: namespaces laid, a contender in its place, the server up, and all of it checked.
//!
//! Every turn is laid anew, so that no socket in TIME-WAIT, route cache or pool of one contender is
//! met by the next. Before anything is timed, a call goes through while the wire is captured, and a
//! caller without a certificate has to be refused: a contender that does not seal as the case says,
//! does not verify, or does not carry, is an error and no figure.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pktgen_tests::netns::{Cables, Capture, Namespace, Process, Site, gateway, run, wait_until};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::contender::{Contender, Running, server};
use crate::facts::{self, Facts};
use crate::load::{Job, MARKER, Measured, server::READY};
use crate::peers::{Setting, certificate::Certificate};
use crate::plan::{Cpus, Layout, Tls, Work};
use crate::probe;
use crate::storm::Reached;
use crate::wire::{Seen, seen};

/// Arguments that make this program one end of the load.
pub const CLIENT: &str = "--as-load-client";
pub const SERVER: &str = "--as-load-server";

pub struct Stage {
    running: Running,
    layout: Layout,
    target: SocketAddr,
    /// Where gateway B hears TLS.
    pub(crate) sealed: SocketAddr,
    /// Handshakes that it begins in a second, once that is measured.
    pub(crate) capacity: Option<f64>,
    pub facts: Facts,
    _server: Process,
    /// Programs are stopped before their namespaces go.
    pub(crate) site: Site,
    /// Last: until here, this thread and all it starts stay where they were put.
    _pinned: Option<Pinned>,
}

/// What may be broken on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy)]
pub struct Sabotage {
    pub verify_clients: bool,
}

pub const NO_SABOTAGE: Sabotage = Sabotage { verify_clients: true };

/// What a piece of work came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub measured: Measured,
    /// Mean length of the frames that went over the wire towards gateway B.
    pub frame: f64,
    /// Calls of a storm in a second, and how many of these got a server's flight.
    pub storm: Option<Reached>,
}

impl Stage {
    pub fn set(layout: Layout, contender: Contender, sabotage: Sabotage) -> Result<Self> {
        let pinned = (layout.cpus == Cpus::One).then(Pinned::to_the_first).transpose()?;
        // A worker needs a queue of its own on each port.
        let queues = layout.cores.count();
        let site = Site::lay(Cables { inside: layout.inside, outside: layout.outside, queues })?;
        for namespace in [&site.frontend, &site.node_a, &site.node_b, &site.backend] {
            ports(namespace)?;
        }
        if !layout.offload {
            facts::ENDS.iter().try_for_each(|end| end.of(&site).offload(end.interface, "tso off gso off gro off"))?;
        }
        let authority = site.rig.directory().join("root-ca");
        gateway::authority(&authority)?;
        let server_process = serve(&site, &site.backend, server())?;
        let verify_clients = sabotage.verify_clients;
        let setting = Setting { site: &site, authority: &authority, server: server(), tls: layout.tls, verify_clients };
        let running = contender.start(&setting, &layout)?;
        let target = contender.target(server())?;
        let mut stage = Self {
            running,
            layout,
            target,
            sealed: contender.sealed(server())?,
            capacity: None,
            facts: Facts::default(),
            _server: server_process,
            site,
            _pinned: pinned,
        };
        let checked = stage.check(contender, &authority);
        checked.with_context(|| format!("{contender} does not come up as it should; its log:\n{}", stage.logs()))?;
        Ok(stage)
    }

    /// Also an error: what it carried does not add up, the contender ended, something was refused.
    pub fn measure(&mut self, work: Work, seconds: f64) -> Result<Outcome> {
        self.running.ensure_alive()?;
        let before = facts::sent(&self.site.wire, "b0")?;
        let done = match work {
            Work::Isolation(noise) => self.beside(noise, work.seconds(seconds)),
            Work::Bystander { megabits } => self.past(megabits, seconds).map(|measured| (measured, None)),
            Work::Idle { connections } => {
                let job = Job { work: Some(work), seconds: work.seconds(seconds), ..self.job() };
                self.standing(connections, &job).map(|measured| (measured, None))
            }
            Work::Bulk(_) | Work::Connections { .. } | Work::RoundTrip { .. } => {
                let job = Job { work: Some(work), seconds: work.seconds(seconds), ..self.job() };
                call(&self.site.frontend, &job).map(|measured| (measured, None))
            }
        };
        let (measured, storm) = done.map_err(|error| match self.running.ensure_alive() {
            Ok(()) => error,
            Err(why) => error.context(format!("{why:#}")),
        })?;
        let after = facts::sent(&self.site.wire, "b0")?;
        self.running.ensure_alive()?;
        self.running.ensure_nothing_refused()?;
        let frame = (after.bytes - before.bytes) as f64 / (after.packets - before.packets).max(1) as f64;
        let limit = f64::from(self.layout.outside + ETHERNET);
        ensure!(
            self.layout.offload || frame <= limit,
            "frames on the wire have {frame:.0} bytes in the mean: segments longer than the MTU cross it"
        );
        Ok(Outcome { measured, frame, storm })
    }

    /// The gateways' processes.
    pub fn gateways(&self) -> Vec<u32> {
        let pids = [&self.site.node_a, &self.site.node_b].into_iter().flat_map(Namespace::pids);
        pids.map(|pid| pid.as_raw_nonzero().get().cast_unsigned()).collect()
    }

    pub fn logs(&self) -> String {
        self.running.logs()
    }

    pub(crate) fn job(&self) -> Job {
        let root = std::process::id();
        Job { work: None, server: self.target, seconds: 0.0, ready: None, gateways: self.gateways(), root }
    }

    fn check(&mut self, contender: Contender, authority: &std::path::Path) -> Result<()> {
        self.first_call()?;
        if contender != Contender::None {
            let frontend = self.site.rig.directory().join("probe");
            let id = "spiffe://example.com/myapp/app/frontend";
            let certificate = Certificate::issue(authority, &frontend, "probe", id)?;
            probe::verifies_clients(&self.site.legacy, self.sealed, &certificate)?;
        }
        let capture = Capture::start(&self.site.wire, "b0")?;
        let probed = call(&self.site.frontend, &self.job())?;
        let wire = seen(&capture.finish()?, MARKER)?;
        let wire = self.as_agreed(contender, &wire)?;
        self.facts = Facts::read(&self.site, &self.running, wire, probed.seen_as.context("the server tells it")?)?;
        Ok(())
    }

    /// A contender may still be starting.
    fn first_call(&mut self) -> Result<()> {
        let (job, site, running) = (self.job(), &self.site, &mut self.running);
        let mut last = None;
        let first = wait_until("the first call is answered", Duration::from_secs(15), || {
            if let Err(error) = running.ensure_alive() {
                return Some(Err(error));
            }
            call(&site.frontend, &job).map_err(|error| last = Some(error)).ok().map(Ok)
        });
        match first {
            Ok(answered) => answered.map(drop),
            Err(error) => bail!("{error:#}; the last try: {:#}", last.unwrap_or_else(|| anyhow::anyhow!("none"))),
        }
    }

    /// What the layout says is what an eavesdropper sees.
    fn as_agreed(&self, contender: Contender, wire: &Seen) -> Result<String> {
        let wanted = match (contender, self.layout.tls) {
            (Contender::None, _) => Seen::Plain,
            (_, tls) => Seen::Sealed {
                cipher: "TLS_AES_128_GCM_SHA256".into(),
                group: if tls == Tls::PostQuantum { "X25519MLKEM768".into() } else { "X25519".into() },
                resumed: tls == Tls::Resumed,
            },
        };
        ensure!(*wire == wanted, "on the wire is {wire:?}, and not {wanted:?} as with the others");
        Ok(wire.to_string())
    }
}

/// A thread that stays on one CPU, and with it all that it starts.
struct Pinned(CpuSet);

impl Pinned {
    fn to_the_first() -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut first = CpuSet::new();
        first.set(0);
        sched_setaffinity(None, &first).context("stay on the first CPU")?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.0) {
            eprintln!("bench: leave the first CPU: {error}");
        }
    }
}

/// Room for tens of thousands of connections, one after the other from one address to one port.
pub(crate) fn ports(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    namespace.sysctl("net.core.somaxconn", "4096")?;
    let mut command = namespace.command("sysctl");
    command.args(["-qw", "net.ipv4.ip_local_port_range=10000 65535"]);
    run(command, facts::SHORT)?.ok().map(drop)
}

pub(crate) fn serve(site: &Site, namespace: &Namespace, address: SocketAddr) -> Result<Process> {
    let log = site.rig.directory().join(format!("server-{address}.log"));
    // Its predecessor there may have said that it was ready.
    let _ = fs::remove_file(&log);
    let mut command = namespace.command(program()?);
    command.arg(SERVER).arg(address.to_string());
    let mut process = Process::start(command, &log)?;
    let text = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the server listens", facts::SHORT, || {
        (text().contains(READY) || process.ended().ok().flatten().is_some()).then_some(())
    })?;
    ensure!(text().contains(READY), "the server does not start: {}", text());
    Ok(process)
}

/// A job for the client's process.
pub(crate) fn call(from: &Namespace, job: &Job) -> Result<Measured> {
    let mut command = from.command(program()?);
    command.arg(CLIENT).arg(serde_json::to_string(job)?);
    let output = run(command, Duration::from_secs_f64(job.seconds * 2.0 + 40.0))?;
    ensure!(output.status.success(), "the load: {}", output.stderr.trim());
    serde_json::from_str(&output.stdout).with_context(|| format!("the load printed: {}", output.stdout))
}

/// The bench's own: tests stand beside it and are not it.
fn program() -> Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    if own.file_name().is_some_and(|name| name == "bench") { Ok(own) } else { gateway::binary("bench") }
}

const ETHERNET: u32 = 14;
