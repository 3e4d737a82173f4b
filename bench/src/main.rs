//! `bench/run`: the bench, and, started by itself inside the namespaces, the load's two ends.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::agree;
use bench::cli::{self, Options};
use bench::cut;
use bench::limits::Limit;
use bench::load::{client, held, server};
use bench::plan::{case, cases, turns};
use bench::profile;
use bench::progress::expected;
use bench::run::run;
use bench::scale;
use bench::stage::{CLIENT, SERVER};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match begin(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
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
        [role, server, connections] if role == held::HOLDER => {
            held::run(server.parse()?, connections.parse()?).map(|()| ExitCode::SUCCESS)
        }
        [role, address] if role == SERVER => server::run(address.parse()?).map(|()| ExitCode::SUCCESS),
        [tool, rest @ ..] if tool == "agree" => match said(agree::parse(rest), agree::HELP) {
            Ok(options) => agreement(&options),
            Err(code) => Ok(code),
        },
        [tool, rest @ ..] if tool == "cut" => match said(cut::parse(rest), cut::HELP) {
            Ok(options) => Ok(if cut::run(&options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            Err(code) => Ok(code),
        },
        [tool, rest @ ..] if tool == "profile" => match said(profile::parse(rest), profile::HELP) {
            Ok(options) => Ok(if profile::run(&options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            Err(code) => Ok(code),
        },
        [tool, rest @ ..] if tool == "scale" => match said(scale::parse(rest), scale::HELP) {
            Ok(options) => scale::run(&options).map(|()| ExitCode::SUCCESS),
            Err(code) => Ok(code),
        },
        _ => match said(cli::parse(arguments), cli::HELP) {
            Ok(options) if options.list => {
                list(&options);
                Ok(ExitCode::SUCCESS)
            }
            Ok(options) => Ok(if run(&options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            Err(code) => Ok(code),
        },
    }
}

/// What was asked for; or, with the help printed or what is wrong, the code to end with.
fn said<T>(parsed: Result<Option<T>>, help: &str) -> Result<T, ExitCode> {
    match parsed {
        Ok(Some(options)) => Ok(options),
        Ok(None) => {
            print!("{help}");
            Err(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            Err(usage())
        }
    }
}

fn agreement(options: &agree::Options) -> Result<ExitCode> {
    let runs = || agree::compare(&agree::read(&options.earlier)?, &agree::read(&options.later)?, options.peers);
    let comparison = match runs() {
        Ok(comparison) => comparison,
        Err(error) => {
            eprintln!("bench: {error:#}");
            return Ok(usage());
        }
    };
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&comparison)?),
        false => print!("{}", comparison.text()),
    }
    Ok(match comparison.all_agree() {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => usage(),
    })
}

fn list(options: &Options) {
    Limit::ALL.iter().for_each(|limit| println!("{}", limit.case()));
    for (layout, works) in cases(options.scope) {
        works.iter().for_each(|work| println!("{}", case(*work, &layout)));
    }
    let turns = turns(options.scope, &options.contenders, &|_| true);
    let limits: f64 = Limit::ALL.iter().map(|limit| limit.seconds(options.seconds)).sum();
    let round = limits + turns.iter().map(|turn| expected(turn, options.seconds)).sum::<f64>();
    println!("\n{} rounds of {:.0} s each, if nothing is thrown away", options.rounds, round);
}

/// Also where there is nothing to compare: that is no answer.
fn usage() -> ExitCode {
    ExitCode::from(2)
}
