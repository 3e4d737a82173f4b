//! Shows two gateways at work: plain HTTP at both ends, mTLS on the wire, and what is refused.
//!
//! Real packets between network namespaces, a real HTTP client and server that know nothing of
//! TLS, and evidence only from what an operator has: `sluice`, the service's own log, and a capture
//! on the wire. `KEEP=1` leaves everything up; whatever else happens, everything is removed.

mod crafted;
mod legacy;
mod mtls;
mod refusals;
mod report;
mod restart;
mod rotation;
mod stage;

use std::process::ExitCode;

use pktgen_tests::netns::stay_if_ending;
use report::Report;
use stage::Stage;

const HELP: &str = "\
make demo: shows two gateways at work between network namespaces, step by step. Needs root.

  make demo            runs all steps, and removes everything at the end
  KEEP=1 make demo     leaves it up, and says what to try

Exits with 0 if every step shows what it should. The steps for programs: target/demo/report.json.
";

fn main() -> ExitCode {
    // It lays namespaces and starts gateways: not by a mistyped word.
    if let Some(argument) = std::env::args().nth(1) {
        print!("{HELP}");
        return if ["-h", "--help"].contains(&argument.as_str()) { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    let mut report = Report::new();
    let mut stage = None;
    report.step("two nodes, a wire and a plain service stand; both gateways are ready", || {
        let (set, detail) = Stage::set()?;
        stage = Some(set);
        Ok(detail)
    });
    if let Some(stage) = &stage {
        run(stage, &mut report);
    }
    stay_if_ending();
    if let Some(stage) = stage.filter(|_| std::env::var_os("KEEP").is_some_and(|keep| keep == "1")) {
        stage.keep();
    }
    match report.finish() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(stage: &Stage, report: &mut Report) {
    report.step("a plain call is answered over mTLS, and the service sees the caller's own address", || {
        mtls::call(stage)
    });
    report.step("the wire carries the call as TLS records, and not in clear", || mtls::wire(stage));
    report
        .step("an intruder with a valid SVID is refused by node-b, from its certificate", || refusals::intruder(stage));
    report.step("a caller without identity is refused on node-a", || refusals::stranger(stage));
    report.step("a caller that takes the frontend's address is refused", || refusals::spoof(stage));
    report.step("a SYN in fragments, and one under two VLAN tags, reach no service", || crafted::syns(stage));
    report.step("a legacy host is refused under MUTUAL", || legacy::refused(stage));
    report
        .step("a dataplane killed while requests run leaks nothing, and is back within 2 s", || restart::killed(stage));
    report.step("under PERMISSIVE the legacy host is served, in clear", || legacy::served(stage));
    report.step("under PERMISSIVE a service that speaks first is heard", || legacy::service_speaks_first(stage));
    report.step("SVIDs of 6 s are renewed under a download that runs on", || rotation::renewed(stage));
}
