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
    match foreign(&ingress) + foreign(&egress) {
        0 => Line::fine(subject, "no filters but our own"),
        n => Line::note(subject, format!("{n} filters of others: captured connections do not pass them")),
    }
}

/// Filters of a listing of tc's that are not ours. Each has a line with its handle, which u32 writes
/// as table::item; one without only opens a priority or a table.
fn foreign(listing: &str) -> usize {
    let one = |line: &&str| line.contains(" handle ") || (line.contains(" fh ") && line.contains("::"));
    let filters = listing.lines().filter(|line| line.starts_with("filter")).filter(one);
    filters.filter(|line| !is_ours(line)).count()
}

/// What `xdp-prog` gives its guard and its shield: priority, handle, and the program's name.
fn is_ours(line: &str) -> bool {
    [" pref 81 bpf ", " handle 0x51 "].iter().all(|sign| line.contains(sign))
        && [" name guard ", " name shield "].iter().any(|name| line.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "filter protocol all pref 81 bpf chain 0 \n\
        filter protocol all pref 81 bpf chain 0 handle 0x51 direct-action not_in_hw id 1207 name guard tag 3b185187f1855c4c jited \n";

    #[test]
    fn our_guard_is_no_foreign_filter_and_everything_else_is() {
        let theirs = "filter protocol ip pref 7 u32 chain 0 \n\
            filter protocol ip pref 7 u32 chain 0 fh 800: ht divisor 1 \n\
            filter protocol ip pref 7 u32 chain 0 fh 800::800 order 2048 key ht 800 bkt 0 terminal flowid not_in_hw \n";
        let bpf = OURS.replace("pref 81", "pref 1").replace("0x51", "0x1").replace("name guard", "name cil_to_netdev");
        for (name, listing, want) in [
            ("nothing", String::new(), 0),
            ("ours", OURS.into(), 0),
            ("ours, on ingress", OURS.replace("name guard", "name shield"), 0),
            ("a program of somebody else", bpf.clone(), 1),
            ("both", format!("{OURS}{bpf}"), 1),
            ("a u32 filter", theirs.into(), 1),
            ("at our priority, of another kind", OURS.replace("bpf", "matchall"), 1),
        ] {
            assert_eq!(foreign(&listing), want, "{name}");
        }
    }
}
