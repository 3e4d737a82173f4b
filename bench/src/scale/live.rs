//! The programs as users run them, on a node of its own.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pktgen_tests::netns::gateway::{self, Gateway, Settings};
use pktgen_tests::netns::{Cables, Site};
use rustix::param::clock_ticks_per_second;

use super::{Options, Row, files, row};

pub fn measure(options: &Options) -> Result<Vec<Row>> {
    let site = Site::lay(Cables::mtu(1500))?;
    let authority = site.rig.directory().join("root-ca");
    gateway::authority(&authority)?;
    let policies = files::policies(options.rules, options.identities);
    let workloads = files::identities(options.identities);
    let mut all = vec![("workloads.yaml", workloads.as_str())];
    all.extend(policies.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let settings = Settings {
        name: "node-b",
        inside: &["in0"],
        cores: &[0],
        ttl: &options.ttl,
        unmatched_egress: "pass",
        limits: "{}",
        xdp: "auto",
    };
    let mut node = Gateway::configure(&site.rig, &site.node_b, &authority, &settings, &all)?;
    let began = Instant::now();
    node.launch()?;
    node.wait_ready()?;
    let mut rows = vec![row("from start to in force", seconds(began), "s")];
    rows.push(row("one rule changed, in force", change(&node, options)?, "s"));
    for (what, program) in [("memory of ctrl", "sluice-ctrl"), ("memory of the dataplane", "sluice-dataplane")] {
        rows.push(row(what, Watched::of(&node, program)?.memory()?, "MB"));
    }
    if options.rotate > 0.0 {
        rows.extend(rotation(&node, options)?);
    }
    node.stop()?;
    Ok(rows)
}

/// Median of the seconds from `sluice apply` to its end, which is when the change is in force.
fn change(node: &Gateway, options: &Options) -> Result<f64> {
    let (count, each) = (options.rules.div_ceil(files::EACH), files::EACH.min(options.rules));
    let file = node.directory().with_extension("change");
    fs::create_dir_all(&file)?;
    let file = file.join(files::file(0));
    let mut times = vec![];
    for edition in 1..=options.changes {
        fs::write(&file, files::policy(0, count, each, options.identities, edition))?;
        let began = Instant::now();
        node.sluice(&["apply", "-f", &file.to_string_lossy(), "--wait", "30s"])?.ok()?;
        times.push(seconds(began));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// What both programs spend while nothing changes but SVIDs.
#[expect(clippy::disallowed_methods, reason = "that time passes is what is waited for")]
fn rotation(node: &Gateway, options: &Options) -> Result<Vec<Row>> {
    let programs = [Watched::of(node, "sluice-ctrl")?, Watched::of(node, "sluice-dataplane")?];
    let spent = || programs.iter().map(Watched::spent).sum::<Result<f64>>();
    let serials = || -> Result<Vec<_>> { Ok(node.report()?.identities.into_iter().map(|i| i.serial).collect()) };
    let (before, old, began) = (spent()?, serials()?, Instant::now());
    std::thread::sleep(Duration::from_secs_f64(options.rotate));
    let (spent, lasted) = (spent()? - before, seconds(began));
    let renewed = serials()?.iter().zip(&old).filter(|(new, old)| new != old).count();
    Ok(vec![
        row("SVIDs renewed while watched", renewed as f64, ""),
        row("spent meanwhile", spent, "s CPU"),
        row("share of a core", spent / lasted * 100.0, "%"),
    ])
}

/// One of the gateway's programs.
struct Watched(u32);

impl Watched {
    fn of(node: &Gateway, program: &str) -> Result<Self> {
        let report = node.report()?;
        let pid = if program == "sluice-ctrl" { Some(report.pid) } else { report.dataplane.map(|d| d.pid) };
        Ok(Self(pid.with_context(|| format!("{program} does not run"))?))
    }

    /// Seconds of CPU since its start (proc(5), fields 14 and 15 of stat).
    fn spent(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let (_, fields) = stat.rsplit_once(')').context("stat has a name")?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / clock_ticks_per_second() as f64)
    }

    /// Resident, in MB.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("status says VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
