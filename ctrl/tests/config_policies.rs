//! The kind `Policy`: what it decodes to, each fault of it, and rules that are right and change nothing.

mod words;

use ctrl::config::{Loaded, parse_files};
use snapshot::{Action, Enforcement, IdPattern, PolicyRule, RuleDirection};
use words::{GATEWAY, HERE, differs, identity, load, words};

const HEAD: &str = "apiVersion: sluice.dev/v1alpha1\nkind: Policy\nmetadata: { name: p }\nspec:\n";

/// A Policy for `default/a` with these rules, each on a line of its own from line 7 on.
fn policy(rules: &[&str]) -> String {
    let lines: String = rules.iter().map(|rule| format!("    - {{ {rule} }}\n")).collect();
    let none = if rules.is_empty() { " []" } else { "" };
    format!("{HEAD}  workloads: [default/a]\n  rules:{none}\n{lines}")
}

fn loaded(identity: &str, policy: &str) -> Result<Loaded, Vec<ctrl::config::Diagnostic>> {
    load(&[("g.yaml", GATEWAY), ("i.yaml", identity), ("p.yaml", policy)])
}

#[test]
fn a_policy_is_read_with_all_its_conditions_and_its_places() {
    let text = policy(&[
        "action: deny, direction: inbound",
        "action: allow, direction: outbound, enforcement: shadow, peers: [spiffe://example.com/b, \
         spiffe://example.com/c/*], cidrs: [198.18.0.0/16, \"2001:db8::7\"], ports: [443, \"80\", 8000-8100]",
    ]);
    let here = identity(&format!("{HERE}egress: [{{ selectors: [{{ app: x }}] }}]\n"));
    let loaded = loaded(&here, &text).unwrap();
    let [read] = loaded.policies.as_slice() else { panic!("one policy") };
    assert_eq!((read.name.as_str(), read.rules[1].place.to_string().as_str()), ("default/p", "p.yaml:8"));
    let want = PolicyRule {
        action: Action::Allow,
        direction: RuleDirection::Outbound,
        enforcement: Enforcement::Shadow,
        peers: vec![
            IdPattern::Exact("spiffe://example.com/b".into()),
            IdPattern::Under("spiffe://example.com/c/".into()),
        ],
        cidrs: vec![
            snapshot::Prefix::new("198.18.0.0".parse().unwrap(), 16),
            snapshot::Prefix::host("2001:db8::7".parse().unwrap()),
        ],
        ports: ["443-443", "80-80", "8000-8100"].map(|range| range.parse().unwrap()).into(),
    };
    assert_eq!(read.rules[1].rule, want);
    let first = &read.rules[0].rule;
    assert!(first.peers.is_empty() && first.cidrs.is_empty() && first.ports.is_empty());
    assert_eq!(first.enforcement, Enforcement::Enforce, "without a word about it a rule is enforced");
}

#[test]
fn each_fault_of_a_policy_is_named_with_its_place_and_what_is_allowed() {
    let cases: &[(&str, String, &[&str])] = &[
        (
            "an allow by address alone",
            policy(&["action: allow, direction: inbound, cidrs: [198.18.1.0/24]"]),
            &[
                "p.yaml:7:7: error: spec.rules[0]: an allow without peers: an address is no identity, and admits nobody [say whom by peers; cidrs and ports only narrow that]",
            ],
        ),
        (
            "words that are none, and a field",
            policy(&["action: drop, direction: in, enforcement: dry, peer: x"]),
            &[
                "p.yaml:7:17: error: spec.rules[0].action: \"drop\" is not allowed here [allowed: allow, deny]",
                "p.yaml:7:34: error: spec.rules[0].direction: \"in\" is not allowed here [allowed: inbound, outbound]",
                "p.yaml:7:51: error: spec.rules[0].enforcement: \"dry\" is not allowed here [allowed: enforce, shadow]",
                "p.yaml:7:56: error: spec.rules[0].peer: there is no such field [did you mean peers? fields here: action, cidrs, direction, enforcement, peers, ports]",
            ],
        ),
        (
            "conditions that hold never or always",
            policy(&["action: deny, direction: inbound, peers: [], cidrs: [], ports: []"]),
            &[
                "p.yaml:7:50: error: spec.rules[0].peers: is empty [leave it out where it is no condition]",
                "p.yaml:7:61: error: spec.rules[0].cidrs: is empty [leave it out where it is no condition]",
                "p.yaml:7:72: error: spec.rules[0].ports: is empty [leave it out where it is no condition]",
            ],
        ),
        (
            "addresses and ports that are none",
            policy(&[
                "action: deny, direction: inbound, cidrs: [198.18.1.1/24, \"::ffff:198.18.1.1\", x], ports: [0, 9-8, y]",
            ]),
            &[
                "p.yaml:7:51: error: spec.rules[0].cidrs[0]: \"198.18.1.1/24\": has bits set past its length; the network is 198.18.1.0/24 [such as 198.18.1.0/24 or 2001:db8::/64]",
                "p.yaml:7:66: error: spec.rules[0].cidrs[1]: \"::ffff:198.18.1.1\": an IPv4 address in IPv6 clothes [write it as IPv4]",
                "p.yaml:7:87: error: spec.rules[0].cidrs[2]: \"x\": there is no /length [such as 198.18.1.0/24 or 2001:db8::/64]",
                "p.yaml:7:99: error: spec.rules[0].ports[0]: 0 is out of range [use 1 to 65535]",
                "p.yaml:7:102: error: spec.rules[0].ports[1]: \"9-8\": not a range of ports [a port such as 5432, or a range such as 8000-8100]",
                "p.yaml:7:107: error: spec.rules[0].ports[2]: \"y\": not a range of ports [a port such as 5432, or a range such as 8000-8100]",
            ],
        ),
        (
            "workloads that are none",
            format!("{HEAD}  workloads: [a, \"spiffe://example.com/a*\", /x]\n  rules: []\n"),
            &[
                "p.yaml:5:15: error: spec.workloads[0]: \"a\": neither namespace/name nor a SPIFFE ID [a WorkloadIdentity such as myapp/backend, or SPIFFE IDs such as spiffe://example.com/myapp/*]",
                "p.yaml:5:18: error: spec.workloads[1]: \"spiffe://example.com/a*\": '*' is allowed as the whole last segment only, as in spiffe://example.com/myapp/* [a WorkloadIdentity such as myapp/backend, or SPIFFE IDs such as spiffe://example.com/myapp/*]",
                "p.yaml:5:45: error: spec.workloads[2]: \"/x\": neither namespace/name nor a SPIFFE ID [a WorkloadIdentity such as myapp/backend, or SPIFFE IDs such as spiffe://example.com/myapp/*]",
            ],
        ),
        (
            "the other kinds' version",
            policy(&[]).replace("sluice.dev/v1alpha1", "core.riptides.io/v1alpha1"),
            &[
                "p.yaml:1:13: error: apiVersion: \"core.riptides.io/v1alpha1\" has no Policy [Policy is in sluice.dev/v1alpha1]",
            ],
        ),
    ];
    let here = identity(HERE);
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|(name, text, want)| {
            let faults = loaded(&here, text).expect_err(name);
            differs(name, &words(&faults), want)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A row: the workload's spec, the rules, and what is said of them.
type Row<'r> = (&'r str, String, &'r [&'r str], &'r [&'r str]);

#[test]
fn rules_that_change_nothing_or_less_than_it_seems_are_warned_about() {
    let mode = |mode: &str| {
        format!("workloadID: a\nselectors: [{{ net:ip: 198.18.1.2 }}]\nconnection: {{ tls: {{ mode: {mode} }} }}\n")
    };
    let rows: &[Row<'_>] = &[
        (
            "an allow that a deny takes away, and a deny behind one",
            HERE.into(),
            &[
                "action: allow, direction: inbound, peers: [spiffe://example.com/b/c], cidrs: [198.18.1.0/24], ports: [443]",
                "action: deny, direction: inbound, peers: [spiffe://example.com/b/*], cidrs: [198.18.0.0/16], ports: [400-500]",
                "action: deny, direction: inbound, peers: [spiffe://example.com/b/d/*], cidrs: [198.18.7.7], ports: [400, 500]",
                "action: deny, direction: inbound, peers: [spiffe://example.com/b/d/*], cidrs: [198.18.7.7], ports: [400-501]",
                "action: deny, direction: inbound, peers: [spiffe://example.com/b/*], ports: [443]",
                "action: deny, direction: outbound, peers: [spiffe://example.com/b/*], cidrs: [198.18.0.0/16], ports: [443]",
            ],
            &[
                "p.yaml:7:7: warning: spec.rules[0]: the rule never matches: spec.rules[1] (p.yaml:8) denies all of it",
                "p.yaml:9:7: warning: spec.rules[2]: the rule never matches: spec.rules[1] (p.yaml:8) denies all of it",
            ],
        ),
        (
            "a deny in shadow takes nothing away",
            HERE.into(),
            &[
                "action: deny, direction: inbound, enforcement: shadow",
                "action: allow, direction: inbound, peers: [spiffe://example.com/b]",
            ],
            &[],
        ),
        (
            "under DISABLE no rule is asked inbound",
            mode("DISABLE"),
            &["action: deny, direction: inbound", "action: deny, direction: outbound"],
            &["p.yaml:7:7: warning: spec.rules[0]: the rule changes nothing: what DISABLE leaves alone meets no rule"],
        ),
        (
            "under SIMPLE nobody shows an identity",
            mode("SIMPLE"),
            &[
                "action: deny, direction: inbound, peers: [spiffe://example.com/b]",
                "action: deny, direction: inbound, cidrs: [198.18.0.0/16]",
                "action: allow, direction: inbound, peers: [spiffe://example.com/c]",
            ],
            &[
                "p.yaml:7:7: warning: spec.rules[0]: default/a is SIMPLE: who calls from another node, and so shows no identity, is served although it is denied by its ID [use MUTUAL, or deny without peers]",
                "p.yaml:9:7: warning: spec.rules[2]: the rule changes nothing: callers under SIMPLE show no identity, and none is asked for",
            ],
        ),
        (
            "under PERMISSIVE who is denied by ID may come without one",
            mode("PERMISSIVE"),
            &[
                "action: deny, direction: inbound, peers: [spiffe://example.com/b]",
                "action: allow, direction: inbound, peers: [spiffe://example.com/b]",
            ],
            &[
                "p.yaml:8:7: warning: spec.rules[1]: the rule never matches: spec.rules[0] (p.yaml:7) denies all of it",
                "p.yaml:7:7: warning: spec.rules[0]: default/a is PERMISSIVE: who speaks plain TCP, and is not of this node, is served although it is denied by its ID [use MUTUAL, or deny without peers]",
                "p.yaml:8:7: warning: spec.rules[1]: the rule changes nothing: PERMISSIVE without an inbound list admits every caller that it knows; write [] to admit by rules alone",
            ],
        ),
        (
            "an allow outbound without a list to add to",
            HERE.into(),
            &["action: allow, direction: outbound, peers: [spiffe://example.com/b]"],
            &[
                "p.yaml:7:7: warning: spec.rules[0]: the rule changes nothing: there is no outbound list that it could add to; write [] to allow by rules alone",
            ],
        ),
        (
            "an allow outbound to where no egress entry leads",
            "workloadID: a\nselectors: [{ net:ip: 198.18.1.2 }]\nallowedSPIFFEIDs: { inbound: [], outbound: [] }\n\
             egress: [{ selectors: [{ app: x }] }]\n"
                .into(),
            &[
                "action: allow, direction: outbound, peers: [spiffe://example.com/b], cidrs: [198.18.2.0/24], ports: [80-90]",
                "action: allow, direction: outbound, peers: [spiffe://example.com/b], cidrs: [198.18.3.0/24]",
                "action: allow, direction: outbound, peers: [spiffe://example.com/b], ports: [81]",
            ],
            &[
                "p.yaml:8:7: warning: spec.rules[1]: the rule changes nothing: no Service that the egress entries select has such an address and port",
                "p.yaml:9:7: warning: spec.rules[2]: the rule changes nothing: no Service that the egress entries select has such an address and port",
            ],
        ),
        (
            "an allow is as good as a list against the warning that nobody may call",
            "workloadID: a\nselectors: [{ net:ip: 198.18.1.2 }]\n".into(),
            &["action: allow, direction: inbound, peers: [spiffe://example.com/b]"],
            &[],
        ),
        (
            "in shadow it is not",
            "workloadID: a\nselectors: [{ net:ip: 198.18.1.2 }]\n".into(),
            &["action: allow, direction: inbound, enforcement: shadow, peers: [spiffe://example.com/b]"],
            &[
                "i.yaml:1:1: warning: spec.allowedSPIFFEIDs.inbound: default/a has no inbound list: under MUTUAL nobody may call it [list who may, or write [] to say that nobody shall]",
            ],
        ),
    ];
    const X: &str = "apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: { name: x }\nspec: { addresses: \
                     [{ address: 198.18.2.2, port: 80 }], labels: { app: x } }\n";
    let wrong: Vec<_> = rows
        .iter()
        .filter_map(|(name, spec, rules, want)| {
            let files = [("g.yaml", GATEWAY), ("i.yaml", &identity(spec)), ("p.yaml", &policy(rules)), ("s.yaml", X)];
            let loaded = load(&files).unwrap_or_else(|faults| panic!("{name}: {faults:#?}"));
            let mut got = words(&loaded.warnings);
            // They come by kind, not by line.
            let mut want = want.to_vec();
            want.sort_unstable();
            got.sort_unstable();
            differs(name, &got, &want)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_policy_that_names_nobody_and_two_of_one_name_are_told() {
    let text = format!(
        "{HEAD}  workloads: [default/b, spiffe://example.com/x/*, spiffe://example.com/myapp/*]\n  rules: []\n"
    );
    let loaded = loaded(&identity(HERE), &text).unwrap();
    assert_eq!(
        words(&loaded.warnings),
        [
            "p.yaml:5:15: warning: spec.workloads[0]: no WorkloadIdentity is meant by this: the entry names nobody",
            "p.yaml:5:26: warning: spec.workloads[1]: no WorkloadIdentity is meant by this: the entry names nobody",
        ]
    );
    // Without a Gateway nobody knows the IDs.
    let alone = [("i.yaml".into(), identity(HERE)), ("p.yaml".into(), text.clone())];
    assert_eq!(parse_files(&alone).unwrap().warnings.len(), 1);
    let twice = load(&[("g.yaml", GATEWAY), ("i.yaml", &identity(HERE)), ("p.yaml", &text), ("q.yaml", &text)]);
    let twice = words(&twice.unwrap_err());
    assert!(
        twice.iter().any(|fault| fault.contains("Policy default/p is given twice, first in p.yaml:1")),
        "{twice:#?}"
    );
}

#[test]
fn more_than_a_dataplane_takes_is_an_error_at_the_rule_or_the_workload() {
    let peers: String = (0..1_500).map(|n| format!("spiffe://example.com/{n}, ")).collect();
    let ports: String = (0..1_400).map(|n| format!("{}, ", 2 * n + 1)).collect();
    let rule = format!("action: deny, direction: inbound, peers: [{peers}], ports: [{ports}]");
    let faults = words(&loaded(&identity(HERE), &policy(&["action: deny, direction: outbound", &rule])).unwrap_err());
    assert_eq!(
        faults[0],
        "p.yaml:8:7: error: spec.rules[1]: 2100000 combinations of peers, cidrs and ports; with it all policies have \
         more than 2000000 [name peers by path, and addresses by CIDR]"
    );
    let many: String =
        (0..65).map(|n| format!("---\n{}", policy(&[]).replace("name: p }", &format!("name: p{n} }}")))).collect();
    let faults = words(&loaded(&identity(HERE), &many).unwrap_err());
    assert_eq!(
        faults[0],
        "i.yaml:1:1: error: metadata.name: 65 policies name default/a; at most 64 may [put their rules together into fewer]"
    );
}

#[test]
fn the_delivered_example_is_right_beside_the_workloads_that_it_is_about() {
    let delivered = include_str!("../../deploy/examples/policies.yaml");
    let demo = include_str!("../../deploy/demo/frontend-backend.yaml");
    let loaded = load(&[("g.yaml", GATEWAY), ("i.yaml", demo), ("p.yaml", delivered)]).unwrap();
    assert_eq!((loaded.policies.len(), words(&loaded.warnings)), (2, vec![]));
}
