//! Rules of this node that captured connections no longer meet.
//!
//! Frames that leave by AF_XDP pass no netfilter hook and no qdisc, and frames that are steered
//! never reach them: whoever relies on such rules for captured destinations has to know.

use std::process::Command;

use super::Line;
use crate::config::Gateway;

pub fn check(gateway: &Gateway) -> Vec<Line> {
    let mut lines = vec![nft()];
    lines.extend(gateway.ports.iter().map(|port| tc(&port.interface)));
    lines
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let done = Command::new(program).args(arguments).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

fn nft() -> Line {
    let Some(rules) = output("nft", &["-a", "list", "ruleset"]) else {
        return Line::note("nft rules", "cannot be listed (nft is missing or not permitted)");
    };
    // With -a each rule ends in its handle; so do tables and chains, which open a block.
    let count = rules.lines().filter(|l| l.contains("# handle") && !l.contains('{')).count();
    match count {
        0 => Line::fine("nft rules", "none"),
        n => Line::note("nft rules", format!("{n} rules: captured connections do not pass them")),
    }
}

fn tc(interface: &str) -> Line {
    let subject = format!("tc on {interface}");
    let list = |direction| output("tc", &["filter", "show", "dev", interface, direction]);
    let (Some(ingress), Some(egress)) = (list("ingress"), list("egress")) else {
        return Line::note(subject, "cannot be listed (tc or the interface is missing)");
    };
    let filters = ingress.lines().chain(egress.lines()).filter(|l| l.starts_with("filter") && l.contains("handle"));
    match filters.filter(|l| !l.contains("sluice")).count() {
        0 => Line::fine(subject, "no filters but our own"),
        n => Line::note(subject, format!("{n} filters of others: captured connections do not pass them")),
    }
}
