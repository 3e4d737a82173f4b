//! `connection.bypass`: what is taken, and the exact words about what is not.

mod words;

use std::net::IpAddr;

use words::{GATEWAY, HERE, differs, identity, load, words};

fn spec(connection: &str) -> String {
    identity(&format!("{HERE}connection: {{ {connection} }}"))
}

fn one(sources: &str, ports: &str) -> String {
    spec(&format!("bypass: [{{ sources: {sources}, ports: {ports} }}]"))
}

#[test]
fn single_hosts_and_single_ports_are_taken_each_once() {
    let text = one("[198.18.9.9, 198.18.9.9/32, \"2001:db8::9/128\", \"::ffff:198.18.9.8\"]", "[443, 80, 443]");
    let loaded = load(&[("p.yaml", &text), ("g.yaml", GATEWAY)]).expect("it is right");
    let entry = &loaded.identities[0].bypass[0];
    let want: [IpAddr; 3] = ["198.18.9.8", "198.18.9.9", "2001:db8::9"].map(|at| at.parse().unwrap());
    assert_eq!((entry.sources.as_slice(), entry.ports.as_slice()), (&want[..], &[80, 443][..]));
    assert_eq!(words(&loaded.warnings), [""; 0]);
}

/// A file, and all that is said of it.
fn said(text: &str) -> Vec<String> {
    match load(&[("p.yaml", text), ("g.yaml", GATEWAY)]) {
        Ok(loaded) => words(&loaded.warnings),
        Err(faults) => words(&faults),
    }
}

#[test]
fn what_is_not_exact_or_contradicts_its_mode_is_named_with_its_place_and_what_would_be_right() {
    const HOSTS: &str =
        "name each host, such as 198.18.9.9: it is let in by its address alone, so no address may be anybody's";
    let at = "p.yaml:8:";
    let many: Vec<String> = (1..=257).map(|port| port.to_string()).collect();
    let cases: &[(&str, String, String)] = &[
        (
            "a network",
            one("[198.18.9.0/24]", "[80]"),
            format!(
                "{at}38: error: spec.connection.bypass[0].sources[0]: \"198.18.9.0/24\": /24 is wider than one host \
                 [{HOSTS}]"
            ),
        ),
        (
            "everybody",
            one("[0.0.0.0]", "[80]"),
            format!(
                "{at}38: error: spec.connection.bypass[0].sources[0]: \"0.0.0.0\": is no single host's address \
                 [{HOSTS}]"
            ),
        ),
        (
            "a name",
            one("[kubelet]", "[80]"),
            format!("{at}38: error: spec.connection.bypass[0].sources[0]: \"kubelet\": not an IP address [{HOSTS}]"),
        ),
        (
            "a range of ports",
            one("[198.18.9.9]", "[8000-8010]"),
            format!(
                "{at}59: error: spec.connection.bypass[0].ports[0]: \"8000-8010\": is not one port [list each port by \
                 its number: what is not named stays closed]"
            ),
        ),
        (
            "no port",
            one("[198.18.9.9]", "[0]"),
            format!("{at}59: error: spec.connection.bypass[0].ports[0]: 0 is out of range [use 1 to 65535]"),
        ),
        (
            "nobody",
            one("[]", "[80]"),
            format!(
                "{at}37: error: spec.connection.bypass[0].sources: is empty: the entry lets in nobody [list at least \
                 one, or remove it]"
            ),
        ),
        (
            "all ports of a source",
            spec("bypass: [{ sources: [198.18.9.9] }]"),
            format!("{at}26: error: spec.connection.bypass[0].ports: is missing"),
        ),
        (
            "more than are walked",
            one("[198.18.9.9]", &format!("[{}]", many.join(", "))),
            format!(
                "{at}25: error: spec.connection.bypass: 257 pairs of a source and a port, entries: 1 [at most 32 \
                 and 256: who is so many is better given an identity]"
            ),
        ),
        (
            "a port that everybody may call plain",
            spec("tls: { ports: { 80: PERMISSIVE } }, bypass: [{ sources: [198.18.9.9], ports: [80] }]"),
            format!(
                "{at}62: warning: spec.connection.bypass[0]: default/a is PERMISSIVE on port 80: everybody may call it \
                 plain, so nobody needs this [it counts once the port is MUTUAL]"
            ),
        ),
        (
            "a port that speaks TLS to everybody",
            spec("tls: { ports: { 80: SIMPLE } }, bypass: [{ sources: [198.18.9.9], ports: [80] }]"),
            format!(
                "{at}58: error: spec.connection.bypass[0]: default/a is SIMPLE on port 80: nobody may call it plain, \
                 and this says otherwise [use MUTUAL, or have the probe speak TLS, which SIMPLE asks no certificate \
                 for]"
            ),
        ),
        (
            "a port that is not touched",
            spec("tls: { ports: { 80: DISABLE } }, bypass: [{ sources: [198.18.9.9], ports: [80] }]"),
            format!(
                "{at}59: error: spec.connection.bypass[0]: default/a is DISABLE on port 80: it is not touched, so there \
                 is nothing to bypass [remove the entry, or use MUTUAL]"
            ),
        ),
        (
            "a workload",
            one("[198.18.1.2]", "[80]"),
            format!(
                "{at}26: error: spec.connection.bypass[0].sources: 198.18.1.2 is workload default/a: a workload is let \
                 in by who it is [put its SPIFFE ID into allowedSPIFFEIDs.inbound]"
            ),
        ),
        (
            "the same twice",
            spec(
                "bypass: [{ sources: [198.18.9.9], ports: [80] }, { sources: [198.18.9.8, 198.18.9.9], ports: [80, 81] }]",
            ),
            format!(
                "{at}66: warning: spec.connection.bypass[1]: an earlier entry (p.yaml:8) has some of this: there it is \
                 counted"
            ),
        ),
    ];
    let mut wrong = String::new();
    for (name, text, want) in cases {
        let got = said(text);
        // What a mode means for the inbound list is said elsewhere.
        let got: Vec<_> = got.into_iter().filter(|line| !line.contains("allowedSPIFFEIDs.inbound: ")).collect();
        wrong.extend(differs(name, &got, &[want]));
    }
    assert!(wrong.is_empty(), "{wrong}");
}
