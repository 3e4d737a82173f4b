//! `sluice`: the command line of a gateway.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let [_, first, parent, program, rest @ ..] = arguments.as_slice()
        && first == ctrl::supervise::CHILD
    {
        let parent = parent.to_str().and_then(|p| p.parse().ok()).unwrap_or(0);
        let e = ctrl::supervise::become_child(parent, program, rest);
        eprintln!("{}: {e}", program.display());
        return ExitCode::FAILURE;
    }
    ctrl::cli::main()
}
