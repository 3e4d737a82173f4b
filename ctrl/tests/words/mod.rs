//! What the tests of the configuration share: files made of text, and faults as words.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;

use ctrl::config::{Diagnostic, Loaded, load_files};

pub const EXAMPLE: &str = include_str!("../data/frontend-backend.yaml");
pub const GATEWAY: &str = include_str!("../data/gateway.yaml");

/// The least that is right of a WorkloadIdentity's spec.
pub const HERE: &str = "workloadID: myapp/a\nselectors: [{ net:ip: 198.18.1.2 }]\nallowedSPIFFEIDs: { inbound: [] }\n";

pub fn load(files: &[(&str, &str)]) -> Result<Loaded, Vec<Diagnostic>> {
    let files: Vec<_> = files.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
    load_files(&files)
}

/// A WorkloadIdentity with these lines in its spec.
pub fn identity(spec: &str) -> String {
    let lines: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: {{ name: a }}\nspec:\n{lines}")
}

/// A Gateway with a line replaced.
pub fn gateway(from: &str, to: &str) -> String {
    assert!(GATEWAY.contains(from), "{from}");
    GATEWAY.replacen(from, to, 1)
}

/// Headlines with their help, as a terminal shows them without the excerpt.
pub fn words(faults: &[Diagnostic]) -> Vec<String> {
    let help = |fault: &Diagnostic| fault.help.as_ref().map(|help| format!(" [{help}]")).unwrap_or_default();
    faults.iter().map(|fault| fault.headline() + &help(fault)).collect()
}

/// Every case that differs is shown, not the first alone.
pub fn differs(name: &str, got: &[String], want: &[&str]) -> Option<String> {
    (got != want).then(|| format!("{name}\n  got  {got:#?}\n  want {want:#?}\n"))
}
