//! A node's gateway as an operator runs it: a configuration directory, `sluice up`, and the CLI.
//!
//! Nothing here reaches into the gateway: what the demo and the tests know of it is what `sluice`
//! prints, and what they change, they change in its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use snapshot::{ConnectionReport, Explanation, Status, Version};

use super::{Container, Namespace, Output, Process, Rig, run, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

pub struct Gateway {
    name: String,
    namespace: Namespace,
    /// The configuration; socket and log stand beside it.
    directory: PathBuf,
    pins: String,
    /// `sluice up`, or the control process and the dataplane by themselves.
    processes: Vec<Process>,
}

/// What the `Gateway` resource says beyond the rig's own paths.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    pub name: &'a str,
    /// Each with a workload behind it; `out0` is the outside port.
    pub inside: &'a [&'a str],
    pub cores: &'a [u32],
    /// Of SVIDs, as the configuration writes it: `1h`, `6s`.
    pub ttl: &'a str,
    /// What a caller without identity gets: `pass` or `refuse`.
    pub unmatched_egress: &'a str,
    /// `spec.limits`, as a YAML map on one line.
    pub limits: &'a str,
    /// Of every port: `auto`, `native` or `generic`.
    pub xdp: &'a str,
}

/// What `sluice status` tells, as far as it is looked at here.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// Of the control process.
    pub pid: u32,
    /// The snapshot that it has made last.
    pub version: Option<Version>,
    pub config: Config,
    pub identities: Vec<Identity>,
    /// What is to be mended elsewhere than in the configuration.
    pub problems: Vec<String>,
    pub dataplane: Option<Status>,
    pub dataplane_error: Option<String>,
}

/// What `sluice apply` tells of the version that it waited for.
#[derive(Debug, Deserialize)]
struct InForce {
    version: Version,
    in_force: bool,
}

#[derive(Debug, Deserialize)]
pub struct Config {
    /// Why the files as they are now were refused.
    pub errors: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Identity {
    pub spiffe_id: String,
    pub serial: Option<String>,
    /// Seconds since the epoch.
    pub not_before: Option<u64>,
    pub not_after: Option<u64>,
    /// The name of the identity source.
    pub source: Option<String>,
    pub error: Option<String>,
}

/// The backend's name in the demo's configuration; each gateway's `hosts` knows it.
pub const BACKEND: &str = "backend-api.myapp.svc.cluster.local";

impl Gateway {
    /// Writes its configuration directory: the `Gateway` and the files given by name and content.
    /// `authority` is a directory that [`authority`] made.
    pub fn configure(
        rig: &Rig,
        namespace: &Namespace,
        authority: &Path,
        settings: &Settings<'_>,
        files: &[(&str, &str)],
    ) -> Result<Self> {
        let name = settings.name.to_owned();
        let directory = rig.directory().join(&name);
        fs::create_dir(&directory)?;
        let pins = rig.pins(&name);
        let gateway = Self { name, namespace: namespace.clone(), directory, pins, processes: vec![] };
        issue_node(authority, &gateway.name, &gateway.directory.join("ca"))?;
        gateway.write("gateway.yaml", &gateway.resource(settings))?;
        for (name, content) in files {
            gateway.write(name, content)?;
        }
        Ok(gateway)
    }

    fn resource(&self, settings: &Settings<'_>) -> String {
        let xdp = settings.xdp;
        let inside =
            settings.inside.iter().map(|port| format!("    - {{ interface: {port}, side: inside, xdp: {xdp} }}\n"));
        let cores = settings.cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        format!(
            "apiVersion: sluice.dev/v1alpha1\n\
             kind: Gateway\n\
             metadata: {{ name: {name} }}\n\
             spec:\n  \
               trustDomain: example.com\n  \
               ports:\n{inside}    - {{ interface: out0, side: outside, xdp: {xdp} }}\n  \
               cores: [{cores}]\n  \
               hosts: {{ {BACKEND}: [198.18.2.2, \"2001:db8:2::2\"] }}\n  \
               identity: {{ source: embedded, embedded: {{ directory: ca, ttl: {ttl} }} }}\n  \
               admin: {{ socket: {socket}, metrics: 127.0.0.1:15020 }}\n  \
               unmatchedEgress: {unmatched}\n  \
               limits: {limits}\n  \
               pinDirectory: {pins}\n",
            name = self.name,
            inside = inside.collect::<String>(),
            ttl = settings.ttl,
            unmatched = settings.unmatched_egress,
            limits = settings.limits,
            socket = self.socket().display(),
            pins = self.pins,
        )
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of what is pinned.
    pub fn pins(&self) -> &str {
        &self.pins
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.with_extension("sock")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.with_extension("log")
    }

    /// `sluice up`; [`Self::wait_ready`] says when it is.
    pub fn launch(&mut self) -> Result<()> {
        let directory = text(&self.directory);
        self.spawn("sluice", &["up", "--config", &directory])
    }

    /// `sluice` in a container, with these arguments.
    pub fn launch_in(&mut self, container: &Container, arguments: &[String]) -> Result<()> {
        let mut command = container.command(&self.namespace, &binary("sluice")?);
        command.args(arguments);
        self.processes.push(Process::start(command, &self.log())?);
        Ok(())
    }

    /// Both processes without a supervisor: one that is killed stays dead.
    pub fn launch_apart(&mut self) -> Result<()> {
        self.launch_control()?;
        let socket = text(&self.socket());
        self.spawn("sluice-dataplane", &["--admin", &socket])
    }

    pub fn launch_control(&mut self) -> Result<()> {
        let directory = text(&self.directory);
        self.spawn("sluice-ctrl", &["--config", &directory])
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.namespace.command(binary(program)?);
        command.args(arguments);
        self.processes.push(Process::start(command, &self.log())?);
        Ok(())
    }

    /// Ends what was launched, in order, and waits until it has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.processes.drain(..).try_for_each(|mut process| process.stop().map(drop))
    }

    /// SIGKILL to the control process.
    pub fn kill_control(&self) -> Result<()> {
        let pid = self.report()?.pid;
        kill_process(Pid::from_raw(pid.cast_signed()).context("it has a PID")?, Signal::KILL).context("kill ctrl")
    }

    /// `sluice status --wait`: ready means that every core has adopted a snapshot.
    pub fn wait_ready(&self) -> Result<()> {
        let output = self.sluice(&["status", "--wait", "30s"])?;
        output.ok().map(drop).with_context(|| format!("{} does not become ready; its log:\n{}", self.name, self.tail()))
    }

    /// Lets it run on after the demo.
    pub fn leave(self) {
        self.processes.into_iter().for_each(Process::leave);
    }

    /// One command of the CLI, against this gateway.
    pub fn sluice(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(binary("sluice")?);
        command.args(arguments).arg("--socket").arg(self.socket());
        run(command, PATIENCE)
    }

    /// A command that is about the configuration directory, run from a namespace that need not be ours.
    pub fn at(&self, namespace: &Namespace, command: &str) -> Result<Output> {
        let mut program = namespace.command(binary("sluice")?);
        program.arg(command).arg("--config").arg(&self.directory);
        run(program, PATIENCE)
    }

    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let output = self.sluice(&[arguments, &["-o", "json"]].concat())?;
        // `explain` and `status` answer "no" by their exit code, and print it all the same.
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("`sluice {}` printed: {}{}", arguments.join(" "), output.stdout, output.stderr))
    }

    pub fn report(&self) -> Result<Report> {
        self.json(&["status"])
    }

    /// The dataplane's own.
    pub fn status(&self) -> Result<Status> {
        let report = self.report()?;
        report.dataplane.with_context(|| format!("{}: no dataplane: {:?}", self.name, report.dataplane_error))
    }

    /// Live ones and those that ended in order or not, in the order of their beginning.
    pub fn connections(&self) -> Result<Vec<ConnectionReport>> {
        let mut all: Vec<ConnectionReport> = self.json(&["connections"])?;
        all.extend(self.json::<Vec<ConnectionReport>>(&["connections", "--closed"])?);
        all.sort_by_key(|connection| connection.id);
        Ok(all)
    }

    pub fn refused(&self) -> Result<Vec<ConnectionReport>> {
        let mut all: Vec<ConnectionReport> = self.json(&["connections", "--refused"])?;
        all.sort_by_key(|connection| connection.id);
        Ok(all)
    }

    pub fn explain(&self, from: &str, to: &str) -> Result<Explanation> {
        self.json(&["explain", "--from", from, "--to", to])
    }

    /// A counter of `/metrics`, its series summed whose labels contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let output = self.namespace.run("curl -sf --max-time 5 http://127.0.0.1:15020/metrics", PATIENCE)?;
        let lines = output.ok()?.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Replaces one file of the configuration, and waits until what the directory then holds is in force,
    /// as a version of its own.
    pub fn apply(&self, name: &str, content: &str) -> Result<Version> {
        let before = self.status()?.in_force;
        self.write(name, content)?;
        // Of a file that says the same: what else has changed is read with it, and is there already, whatever
        // it cuts. Not all files that count are resources.
        let same = text(&self.directory.join("gateway.yaml"));
        let output = self.sluice(&["apply", "-f", &same, "--force", "--wait", "30s", "-o", "json"])?;
        let refused = || format!("{} refuses {name}; its log:\n{}", self.name, self.tail());
        let now: InForce = serde_json::from_str(output.ok().with_context(refused)?)?;
        ensure!(now.in_force && Some(now.version) > before, "{name}: {now:?} after {before:?}");
        Ok(now.version)
    }

    /// Makes SVIDs live for `ttl`, beginning with new ones: its control process starts again, the
    /// dataplane goes on.
    pub fn renew_every(&self, ttl: &str) -> Result<()> {
        let text = fs::read_to_string(self.directory.join("gateway.yaml"))?;
        let (head, tail) = text.split_once("ttl: ").context("the Gateway says ttl")?;
        let (_, tail) = tail.split_once(' ').context("more follows")?;
        self.write("gateway.yaml", &format!("{head}ttl: {ttl} {tail}"))?;
        let before = self.report()?;
        let serials = |report: &Report| report.identities.iter().filter_map(|i| i.serial.clone()).collect::<Vec<_>>();
        let old = serials(&before);
        kill_process(Pid::from_raw(before.pid.cast_signed()).context("it has a PID")?, Signal::TERM)?;
        wait_until(&format!("{} has new SVIDs; its log:\n{}", self.name, self.tail()), PATIENCE, || {
            let now = self.report().ok()?;
            let new = serials(&now);
            (new.len() == old.len() && new.iter().all(|serial| !old.contains(serial))).then_some(())
        })?;
        self.wait_ready()
    }

    /// Whole or not at all: written beside, then renamed.
    fn write(&self, name: &str, content: &str) -> Result<()> {
        let beside = self.directory.join(format!(".{name}.new"));
        fs::write(&beside, content)?;
        fs::rename(&beside, self.directory.join(name)).with_context(|| format!("write {name}"))
    }

    /// The log's last lines, for errors.
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Makes the root CA of `example.com` in `directory`.
pub fn authority(directory: &Path) -> Result<()> {
    host_sluice(&["ca", "init", "--trust-domain", "example.com", "--directory", &text(directory)])?.ok().map(drop)
}

/// A node's intermediate of that root CA, in a directory that is made.
pub fn issue_node(authority: &Path, node: &str, directory: &Path) -> Result<()> {
    let (root, out) = (text(authority), text(directory));
    host_sluice(&["ca", "issue-node", "--root", &root, "--node", node, "--out", &out])?.ok().map(drop)
}

fn host_sluice(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("sluice")?);
    command.args(arguments);
    run(command, PATIENCE)
}

/// One of the workspace's programs: in the directory that `SLUICE_BIN_DIR` names, or else built
/// beside the one that asks.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("SLUICE_BIN_DIR").map(PathBuf::from) {
        let path = directory.join(name);
        ensure!(path.is_file(), "SLUICE_BIN_DIR is {}, and there is no {name} in it", directory.display());
        return Ok(path);
    }
    let own = std::env::current_exe()?;
    // Tests stand one level deeper, in deps/.
    let found = own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    let Some(path) = found else { bail!("{name} is not built: run `make build`") };
    Ok(path)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
