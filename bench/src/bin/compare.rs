//! `compare`: Sluice, HAProxy and plain forwarding in turn, and a table of what each does and costs.
//!
//! The same program is also the load's two ends, started by itself inside the namespaces.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::cli::{self, Options};
use bench::environment::Environment;
use bench::load::{client, server};
use bench::plan::{Task, Turn, turns};
use bench::report::Report;
use bench::stage::{CLIENT, SERVER, Stage};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match begin(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: &[String]) -> Result<ExitCode> {
    match arguments {
        [role, job] if role == CLIENT => {
            let measured = client::run(&serde_json::from_str(job).context("read the job")?)?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(ExitCode::SUCCESS)
        }
        [role, address] if role == SERVER => server::run(address.parse()?).map(|()| ExitCode::SUCCESS),
        _ => match cli::parse(arguments)? {
            Some(options) => compare(&options),
            None => {
                print!("{}", cli::HELP);
                Ok(ExitCode::SUCCESS)
            }
        },
    }
}

fn compare(options: &Options) -> Result<ExitCode> {
    let mut report = Report::new(Environment::read(&options.contenders)?, options.runs, options.seconds);
    let turns = turns(&options.cases, &options.contenders);
    for run in 1..=options.runs {
        for (number, turn) in turns.iter().enumerate() {
            let place = format!("run {run} of {}, turn {} of {}", options.runs, number + 1, turns.len());
            eprintln!("{place}: {}, {}", turn.contender, turn.layout);
            take(turn, options.seconds, &mut report);
        }
    }
    let out = Path::new(&options.out);
    std::fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    std::fs::write(out.join("compare.json"), serde_json::to_string_pretty(&report)?)?;
    std::fs::write(out.join("compare.md"), report.markdown())?;
    print!("{}", report.text());
    println!("every run: {0}/compare.json; this as Markdown: {0}/compare.md", out.display());
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What fails is in the report by its reason, and the other contenders go on.
fn take(turn: &Turn, seconds: f64, report: &mut Report) {
    let (layout, contender) = (turn.layout, turn.contender);
    let mut stage = match Stage::set(turn) {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("  FAILED: {error:#}");
            turn.tasks.iter().for_each(|task| report.fail(*task, layout, contender, &error));
            return;
        }
    };
    report.found(contender, layout, &stage.facts);
    for task in &turn.tasks {
        let seconds = if *task == Task::Connections { seconds * 1.25 } else { seconds };
        match stage.measure(*task, seconds) {
            Ok(measured) => report.add(*task, layout, contender, &measured, stage.idle),
            Err(error) => {
                eprintln!("  FAILED: {}: {error:#}\n{}", task.title(), stage.logs());
                report.fail(*task, layout, contender, &error);
            }
        }
    }
}
