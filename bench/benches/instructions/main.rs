//! Instructions of the hot paths, counted by callgrind: the same on a busy machine as on a quiet
//! one, and so the gate for commits that touch them. Also how cost grows with flows and rules.
//!
//! Started without a case, it runs itself under valgrind once for each. A case prepares without
//! being watched, then has valgrind count what it does, and says how many units that were.

mod counted;
mod gateway;
mod paths;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

/// Its name, and what it does; that says how many of which unit it has done.
type Case = (String, Box<dyn Fn() -> Units>);
type Units = Vec<(&'static str, u64)>;

/// Instructions per unit, by case and unit.
type Results = BTreeMap<String, f64>;

/// More than this share more than before is a loss.
const TOLERANCE: f64 = 0.02;
const RESULTS: &str = "target/bench/instructions.json";

fn cases() -> Vec<Case> {
    paths::cases().into_iter().chain(gateway::cases()).collect()
}

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--case", name] => watched(name),
        [] => all("", None),
        ["--only", part] => all(part, None),
        ["--base", file] => all("", Some(file)),
        _ => Err(anyhow::anyhow!("use no option, --only PART, or --base FILE of another commit's results")),
    };
    done.map(|()| ExitCode::SUCCESS).unwrap_or_else(|error| {
        eprintln!("instructions: {error:#}");
        ExitCode::FAILURE
    })
}

/// One case, inside of valgrind.
fn watched(name: &str) -> Result<()> {
    let (_, case) = cases().into_iter().find(|(known, _)| known == name).context("there is no such case")?;
    println!("{}", serde_json::to_string(&case())?);
    Ok(())
}

fn all(part: &str, base: Option<&str>) -> Result<()> {
    let base: Option<Results> =
        base.map(|file| anyhow::Ok(serde_json::from_str(&fs::read_to_string(file)?)?)).transpose()?;
    let (mut results, mut losses) = (Results::new(), Vec::new());
    for (name, _) in cases().iter().filter(|(name, _)| name.contains(part)) {
        for (unit, value) in count(name).with_context(|| name.clone())? {
            let key = format!("{name}, per {unit}");
            let before = base.as_ref().and_then(|base| base.get(&key));
            let ratio = before.map_or(String::new(), |before| format!("  {:.3} × base", value / before));
            println!("{key:55} {value:12.0}{ratio}");
            if before.is_some_and(|before| value > before * (1.0 + TOLERANCE)) {
                losses.push(key.clone());
            }
            results.insert(key, value);
        }
    }
    // A part of them would pass for the whole, as the next one's base.
    if part.is_empty() {
        fs::create_dir_all("target/bench")?;
        fs::write(RESULTS, serde_json::to_string_pretty(&results)?)?;
        println!("in {RESULTS}");
    }
    ensure!(losses.is_empty(), "more instructions than before: {}", losses.join("; "));
    Ok(())
}

/// Instructions per unit.
fn count(name: &str) -> Result<Vec<(String, f64)>> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--instr-atstart=no", "--collect-atstart=no"]);
    // AWS-LC chooses its code by what the CPU has; valgrind knows no AVX-512, and says so to it.
    let output = command.arg(std::env::current_exe()?).args(["--case", name]).output();
    let output = output.context("run valgrind: deploy/setup.sh bench installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<f64>().ok());
    let collected = collected.context("valgrind tells what it collected")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let units: Vec<(String, u64)> = serde_json::from_str(printed.lines().last().unwrap_or_default())?;
    if units.iter().any(|(_, count)| *count == 0) || collected == 0.0 {
        bail!("nothing was counted: {collected} instructions, {units:?}");
    }
    Ok(units.into_iter().map(|(unit, count)| (unit, collected / count as f64)).collect())
}
