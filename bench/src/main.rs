//! `bench/run`: the bench, and, started by itself inside the namespaces, the load's two ends.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::cli::{self, Options};
use bench::limits::Limit;
use bench::load::{client, held, server};
use bench::plan::{case, cases, turns};
use bench::progress::expected;
use bench::run::run;
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
        _ => match cli::parse(arguments)? {
            Some(options) if options.list => {
                list(&options);
                Ok(ExitCode::SUCCESS)
            }
            Some(options) => Ok(if run(&options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            None => {
                print!("{}", cli::HELP);
                Ok(ExitCode::SUCCESS)
            }
        },
    }
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
