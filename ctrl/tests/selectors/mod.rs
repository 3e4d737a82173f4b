//! Selectors that say nothing, too much, or what another workload says.

use crate::words::{GATEWAY, HERE, identity, load, words};

#[test]
fn workloads_that_claim_one_literal_address_are_refused_unless_processes_tell_them_apart() {
    let two_ports = GATEWAY.replace("  ports:\n", "  ports:\n    - { interface: in1, side: inside }\n");
    let of = |name: &str, selectors: &str| {
        let text = identity(&HERE.replace("{ net:ip: 198.18.1.2 }", selectors));
        text.replace("name: a }", &format!("name: {name} }}"))
    };
    let claimed = |on: &str, by: &str| {
        format!(
            "q.yaml:1:1: error: spec.selectors: {on} is claimed by default/a (p.yaml:1) and by default/b (q.yaml:1) {by}"
        )
    };
    let help = "[narrow the selectors of one of them, or give each of them process:* keys]";
    for (a, b, on) in [
        ("{ net:ip: 198.18.1.2 }", "{ net:ip: 198.18.1.2 }", Some("198.18.1.2/32")),
        ("{ net:ip: 198.18.1.2 }", "{ net:cidr: 198.18.1.2/32, process:uid: 7 }", Some("198.18.1.2/32")),
        ("{ net:cidr: 198.18.1.0/24 }", "{ net:ip: 198.18.1.2 }", None),
        ("{ net:ip: 198.18.1.2, process:uid: 8 }", "{ net:ip: 198.18.1.2, process:uid: 7 }", None),
        // One entry without processes is enough.
        (
            "{ net:ip: 198.18.1.2, process:uid: 8 }, { net:ip: 198.18.1.2 }",
            "{ net:ip: 198.18.1.2, process:uid: 7 }",
            Some("198.18.1.2/32"),
        ),
        (
            "{ net:interface: in0, net:ip: 198.18.1.2, process:uid: 8 }",
            "{ net:interface: in1, net:ip: 198.18.1.2, process:uid: 7 }",
            Some("198.18.1.2/32 on in1"),
        ),
        // The one that matches nothing, and one that is a pod's, claim nothing.
        ("{ net:ip: 198.18.1.2, net:cidr: 198.18.9.0/24 }", "{ net:ip: 198.18.1.2 }", None),
        ("{ net:ip: 198.18.1.2, 'k8s:pod:name': x }", "{ net:ip: 198.18.1.2 }", None),
        ("{ net:interface: far0, net:ip: 198.18.1.2 }", "{ net:interface: in0, net:ip: 198.18.1.2 }", None),
    ] {
        let loaded = load(&[("p.yaml", &of("a", a)), ("q.yaml", &of("b", b)), ("g.yaml", &two_ports)]);
        let faults = loaded.err().unwrap_or_default();
        assert_eq!(words(&faults), on.map(|on| claimed(on, help)).into_iter().collect::<Vec<_>>(), "{a} {b}");
    }
}

#[test]
fn each_fault_of_a_process_selector_or_a_netns_is_named_with_its_place() {
    let long = "x".repeat(1_025);
    let cases = [
        (
            "process:names: x",
            "[\"process:names\"]: there is no such selector key [did you mean process:name? process keys: process:name, process:path, process:uid, process:gid, process:cgroup]",
        ),
        (
            "process:name: abcdefghijklmnop",
            "[\"process:name\"]: \"abcdefghijklmnop\": 16 bytes, and no process's name has more than 15 [the name in /proc/PID/comm, which the kernel cuts to 15 bytes]",
        ),
        (
            "process:path: curl",
            "[\"process:path\"]: \"curl\": not an absolute path [the path that /proc/PID/exe leads to, with all symbolic links resolved]",
        ),
        ("process:uid: root", "[\"process:uid\"]: \"root\" is not a whole number [use 0 to 4294967294]"),
        ("process:gid: -1", "[\"process:gid\"]: -1 is out of range [use 0 to 4294967294]"),
        (
            "process:cgroup: a.slice",
            "[\"process:cgroup\"]: \"a.slice\": a cgroup begins with / [a cgroup as /proc/PID/cgroup has it, or all below one: /kubepods.slice/*]",
        ),
        (
            "process:cgroup: /a*",
            "[\"process:cgroup\"]: \"/a*\": a * stands for all below a cgroup, after its last / [a cgroup as /proc/PID/cgroup has it, or all below one: /kubepods.slice/*]",
        ),
    ];
    for (key, want) in cases {
        let text = identity(&HERE.replace("198.18.1.2 }", &format!("198.18.1.2, {key} }}")));
        let faults = load(&[("p.yaml", &text), ("g.yaml", GATEWAY)]).expect_err(key);
        let found = &words(&faults)[0];
        assert!(
            found.starts_with("p.yaml:6:") && found.ends_with(want) && found.contains("spec.selectors[0]"),
            "{found}"
        );
    }
    let path = identity(&HERE.replace("198.18.1.2 }", &format!("198.18.1.2, process:path: /{long} }}")));
    assert!(load(&[("p.yaml", &path), ("g.yaml", GATEWAY)]).is_err());
    for (netns, want) in [
        ("web", "\"web\": not an absolute path [a path such as /run/netns/web, or the PID of a process in it]"),
        ("0", "0 is out of range [use 1 to 2147483647]"),
    ] {
        let gateway = GATEWAY.replace("side: inside", &format!("side: inside, netns: {netns}"));
        let faults = load(&[("g.yaml", &gateway)]).expect_err(netns);
        let found = &words(&faults)[0];
        assert!(found.contains("spec.ports[0].netns: ") && found.ends_with(want), "{found}");
    }
    let outside = GATEWAY.replace("side: outside", "side: outside, netns: /run/netns/web");
    let faults = load(&[("g.yaml", &outside)]).unwrap_err();
    assert!(
        words(&faults)[0].ends_with("workloads are behind inside ports only [leave it out]"),
        "{:?}",
        words(&faults)
    );
}
