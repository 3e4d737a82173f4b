//! Instructions of the hot paths, counted by gungraun under callgrind: the same on a busy machine as
//! on a quiet one, and so the gate for commits that touch them. Also how cost grows with flows and
//! rules.
//!
//! `count` is what `bench/instructions` asks for: it has gungraun run each case, puts names and
//! units to what was counted, and compares. Everything else on the command line is gungraun's.

mod cases;
mod crowd;
mod gateway;
mod name;
mod node;
mod packet;
mod policy;
mod record;
mod segment;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use bench::gate::{Results, losses, missing};
use name::{Case, TIMES, UNITS};
use serde_json::Value;

const OUT: &str = "target/bench";
const RESULTS: &str = "target/bench/instructions.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == "count" => {
            options(rest).and_then(|options| count(&options)).map(|()| ExitCode::SUCCESS).unwrap_or_else(|error| {
                eprintln!("instructions: {error:#}");
                ExitCode::FAILURE
            })
        }
        Some(_) | None => {
            cases::begin();
            ExitCode::SUCCESS
        }
    }
}

#[derive(Default)]
struct Options {
    /// Part of the names of the cases that are wanted.
    only: String,
    base: Option<Results>,
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    for pair in arguments.chunks(2) {
        match pair.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["--only", part] => options.only = part.into(),
            ["--base", file] => {
                let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
                options.base = Some(serde_json::from_str(&text).with_context(|| format!("{file} is no result"))?);
            }
            _ => anyhow::bail!("use --only PART, --base FILE of another commit's results, or neither"),
        }
    }
    Ok(options)
}

fn count(options: &Options) -> Result<()> {
    let full = std::env::var_os("FULL").is_some();
    let wanted = |case: &Case| (full || !case.is_full()) && case.name().contains(&options.only);
    let (cases, left_out): (Vec<Case>, Vec<Case>) = listed()?.into_iter().partition(wanted);
    ensure!(
        !cases.is_empty(),
        "no case has {:?} in its name{}",
        options.only,
        if full { "" } else { "; FULL=1 has more" }
    );
    let mut results = Results::new();
    for (case, counted) in cases.iter().zip(run(&cases)) {
        for (unit, value) in counted.with_context(|| case.name())? {
            let key = format!("{}, per {unit}", case.name());
            let before = options.base.as_ref().and_then(|base| base.get(&key));
            let ratio = before.map_or(String::new(), |before| format!("  {:.3} × base", value / before));
            println!("{key:50} {value:12.0}{ratio}");
            results.insert(key, value);
        }
    }
    // A part of them would pass for the whole, as the next one's base.
    if options.only.is_empty() {
        fs::write(RESULTS, serde_json::to_string_pretty(&results)?)?;
        println!("in {RESULTS}");
    }
    let lost = options.base.as_ref().map(|base| losses(base, &results)).unwrap_or_default();
    ensure!(lost.is_empty(), "more instructions than before: {}", lost.join("; "));
    // What was left out on purpose may be in the base.
    let asked = |name: &&String| {
        name.contains(&options.only) && !left_out.iter().any(|case| name.starts_with(&format!("{}, per ", case.name())))
    };
    let gone = options.base.as_ref().map(|base| missing(base, &results)).unwrap_or_default();
    let gone: Vec<_> = gone.into_iter().filter(|name| asked(&name)).collect();
    ensure!(gone.is_empty(), "counted before, and not now: {}", gone.join("; "));
    Ok(())
}

fn gungraun() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--bench", "--home", OUT]).stdin(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

fn listed() -> Result<Vec<Case>> {
    let output = gungraun()?.args(["--list", "--format=terse"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let cases: Vec<Case> = said.lines().filter_map(Case::listed).collect();
    ensure!(output.status.success() && !cases.is_empty(), "gungraun lists nothing: {}", errors(&output.stderr));
    Ok(cases)
}

/// All of them, as many at once as there are CPUs: it is instructions that are counted.
fn run(cases: &[Case]) -> Vec<Result<Vec<(String, f64)>>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = Mutex::new(cases.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().expect("nobody panics with it").next();
                    let Some((number, case)) = taken else { break };
                    let counted = per_unit(number, case);
                    done.lock().expect("nobody panics with it").push((number, counted));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics with it");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, counted)| counted).collect()
}

/// Instructions per unit of one case.
fn per_unit(number: usize, case: &Case) -> Result<Vec<(String, f64)>> {
    let file = Path::new(OUT).join(format!("units-{number}.json"));
    let _ = fs::remove_file(&file);
    let units = std::path::absolute(&file)?;
    let output = gungraun()?.env(UNITS, units).args(["--output-format=json", &case.path]).output()?;
    ensure!(output.status.success(), "{}", errors(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).context("gungraun prints one summary")?;
    let instructions = instructions(&summary).with_context(|| format!("no count in {summary}"))?;
    let units: Vec<(String, u64)> = match fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => vec![(case.unit().into(), TIMES)],
    };
    let _ = fs::remove_file(&file);
    ensure!(instructions > 0.0 && units.iter().all(|(_, count)| *count > 0), "nothing was counted: {units:?}");
    Ok(units.into_iter().map(|(unit, count)| (unit, instructions / count as f64)).collect())
}

/// Of the run that was just made; what gungraun kept of the one before stands beside it.
fn instructions(summary: &Value) -> Option<f64> {
    summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"].as_f64()
}

fn errors(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().to_owned()
}
