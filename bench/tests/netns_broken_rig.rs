//! The bench breaks its own rig on purpose: each time that has to be an error or a repetition, and
//! never a figure.

use std::path::PathBuf;
use std::time::Duration;

use bench::contender::Contender;
use bench::environment::Environment;
use bench::plan::{BASE, Flow, Scope, Turn, Work};
use bench::run::{measure, take};
use bench::samples::{Entry, Log, Terms};
use bench::stage::{NO_SABOTAGE, Sabotage, Stage};
use bench::{files, summary};
use pktgen_tests::netns::wait_until;
use rustix::process::{Pid, Signal, kill_process};

/// Those that need no more than the tests install; the bench itself has others besides.
const HERE: [Contender; 3] = [Contender::None, Contender::Haproxy, Contender::Sluice];

const STREAM: Work = Work::Bulk(Flow { streams: 1, down: false, megabits: Some(100) });

fn terms(foreign: f64) -> Terms {
    files::take_all().unwrap();
    let environment = Environment::read(&[]).unwrap();
    Terms { environment, scope: Scope::Quick, rounds: 1, seconds: 0.5, foreign }
}

fn turn(contender: Contender) -> Turn {
    Turn { layout: BASE, contender, subject: contender.name().into(), works: vec![STREAM] }
}

fn log(name: &str, terms: &Terms) -> (Log, PathBuf) {
    let path = std::env::temp_dir().join(format!("bench-{name}-{}.jsonl", std::process::id()));
    (Log::open(&path, terms, true).unwrap(), path)
}

/// Why the one thing that was to be measured was not.
fn only_failure(log: &Log) -> String {
    assert!(summary::rows(log).is_empty(), "a figure came of it: {:?}", summary::rows(log));
    let [(_, why)] = log.failures()[..] else { panic!("one failure: {:?}", log.failures()) };
    why.to_owned()
}

#[test]
fn a_peer_that_does_not_verify_its_clients_is_no_comparison() {
    let terms = terms(1.0);
    let (mut log, path) = log("unverified", &terms);
    take(&turn(Contender::Haproxy), 1, &terms, &mut log, Sabotage { verify_clients: false }).unwrap();
    assert!(only_failure(&log).contains("it verifies no clients"), "{}", only_failure(&log));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_contender_that_is_down_is_a_failure_with_its_name() {
    let terms = terms(1.0);
    let (mut log, path) = log("down", &terms);
    let turn = turn(Contender::Haproxy);
    let mut stage = Stage::set(turn.layout, turn.contender, NO_SABOTAGE).unwrap();
    let victims = stage.gateways();
    for pid in &victims {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    }
    wait_until("they have ended", Duration::from_secs(5), || stage.gateways().is_empty().then_some(())).unwrap();
    measure(&mut stage, &turn, STREAM, 1, &terms, &mut log).unwrap();
    assert!(only_failure(&log).contains("haproxy has ended"), "{}", only_failure(&log));
    std::fs::remove_file(path).unwrap();
}

/// A stranger is a process that does not descend from the bench: one that was left to init.
#[test]
fn samples_under_foreign_load_are_thrown_away_and_do_not_count() {
    let terms = terms(0.05);
    let (mut log, path) = log("foreign", &terms);
    let pid_file = path.with_extension("pid");
    let script = "timeout 120 sh -c 'while :; do :; done' & echo $! > \"$0\"";
    let started = std::process::Command::new("setsid").args(["sh", "-c", script]).arg(&pid_file).status().unwrap();
    assert!(started.success());
    let stranger: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    take(&turn(Contender::None), 1, &terms, &mut log, NO_SABOTAGE).unwrap();
    // `timeout` hands it on to what it runs.
    kill_process(Pid::from_raw(stranger).unwrap(), Signal::TERM).unwrap();
    assert_eq!(log.thrown_away(), 3);
    assert!(only_failure(&log).contains("foreign load was above 5 %"), "{}", only_failure(&log));
    let shares: Vec<f64> = log
        .entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::ThrownAway { foreign, .. } => Some(*foreign),
            Entry::Begin(_) | Entry::Sample(_) | Entry::Failed { .. } | Entry::Found { .. } => None,
        })
        .collect();
    assert!(shares.iter().all(|share| *share > 0.2), "one busy process of {} CPUs: {shares:?}", terms.environment.cpus);
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(pid_file).unwrap();
}

/// The other way round: nothing is broken, and a figure comes of it.
#[test]
fn a_contender_that_stands_as_it_should_is_measured() {
    let terms = terms(1.0);
    let (mut log, path) = log("whole", &terms);
    for contender in HERE {
        take(&turn(contender), 1, &terms, &mut log, NO_SABOTAGE).unwrap();
    }
    assert_eq!(log.failures(), []);
    let rows = summary::rows(&log);
    for contender in HERE {
        let throughput = rows.iter().find(|row| row.subject == contender.name() && row.figure == "throughput").unwrap();
        assert!(throughput.median > 0.0, "{contender}: {throughput:?}");
    }
    std::fs::remove_file(path).unwrap();
}
