//! The example of policies as it is delivered, through both gateways: an allow under conditions, a deny,
//! a rule in shadow and then enforced, and what every view says of them.

use std::fs;
use std::time::Duration;

use pktgen_tests::netns::gateway::BACKEND;
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, Namespace, Output, Service, run, wait_until};
use snapshot::{ConnectionReport, RefuseReason};

const PATIENCE: Duration = Duration::from_secs(15);
const POLICIES: &str = include_str!("../../deploy/examples/policies.yaml");
const INTRUDER: &str = include_str!("../../deploy/demo/intruder.yaml");

fn curl(from: &Namespace, marker: &str) -> Output {
    let mut command = from.command("curl");
    command.args(["-sS", "--max-time", "10", "-H"]).arg(format!("X-Marker: {marker}"));
    let address = Host::Backend.address(false);
    command.arg("--resolve").arg(format!("{BACKEND}:3000:{address}")).arg(format!("http://{BACKEND}:3000/"));
    run(command, PATIENCE).unwrap()
}

fn served(from: &Namespace, marker: &str) {
    let reply = curl(from, marker);
    assert!(reply.stdout.contains(&format!("you said: {marker}")), "{reply:?}");
}

/// The place of the rule whose first line is the `nth` that begins one.
fn place(policies: &str, nth: usize) -> String {
    let mut begins = policies.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("- action:"));
    let (line, _) = begins.nth(nth).expect("there are so many rules");
    format!("policies.yaml:{}", line + 1)
}

fn last(all: Vec<ConnectionReport>, from: Host) -> Option<ConnectionReport> {
    all.into_iter().rev().find(|connection| connection.client.ip() == from.address(false))
}

#[test]
fn the_delivered_policies_allow_deny_and_try_as_they_say_and_every_view_shows_it() {
    let files = [("intruder.yaml", INTRUDER), ("policies.yaml", POLICIES)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let rule = |nth: usize| format!("riptides-system/backend-guard spec.rules[{nth}] ({})", place(POLICIES, nth));
    let (intruder, frontend) = ("spiffe://example.com/myapp/app/intruder", "spiffe://example.com/myapp/app/frontend");
    let backend = "198.18.2.2:3000";

    // The backend's own list does not have it: the allow admits it, from its own network.
    served(&pair.site.intruder, "allowed");
    let ended = |from| last(pair.node_b.connections().ok()?, from).filter(|c| c.closed.is_some());
    let said = wait_until("node-b reports the intruder's call", PATIENCE, || ended(Host::Intruder)).unwrap();
    assert_eq!(said.rule, Some(rule(1)), "{said:?}");
    let elsewhere =
        pair.node_b.sluice(&["explain", "--from", intruder, "--at", "198.18.9.9", "--to", backend]).unwrap();
    assert!(
        elsewhere.stdout.contains("expected from 198.18.3.0/24 or 2001:db8:3::/64, got 198.18.9.9"),
        "{elsewhere:?}"
    );
    assert!(elsewhere.stdout.contains(&rule(1)), "{elsewhere:?}");

    // The rule in shadow refuses nothing, and says what it would have done.
    served(&pair.site.frontend, "tried");
    let said = wait_until("node-b reports the frontend's call", PATIENCE, || ended(Host::Frontend)).unwrap();
    let would = format!("would be refused by {}", rule(2));
    assert_eq!((said.refused, said.shadow.as_ref()), (None, Some(&would)), "{said:?}");
    let explained = pair.node_b.explain(frontend, backend).unwrap();
    assert!(explained.allowed && explained.steps.iter().any(|step| step.contains(&would)), "{explained:#?}");
    let table = pair.node_b.sluice(&["policies", "--shadow"]).unwrap();
    let table = table.ok().unwrap();
    let row = table.lines().find(|line| line.contains(&rule(2))).unwrap_or_else(|| panic!("{table}"));
    assert!(row.contains("deny inbound (shadow)") && row.trim_end().ends_with(" 1"), "{table}");
    assert!(!table.contains(&rule(1)), "that one is enforced: {table}");
    assert_eq!(pair.node_b.metric("sluice_shadow_refused_total", "").unwrap(), 1.0);
    assert_eq!(pair.node_b.metric("sluice_policy_rule_hits_total", "spec.rules[2]").unwrap(), 1.0);
    let log = fs::read_to_string(pair.node_b.log()).unwrap();
    assert!(log.contains("in shadow: allowed, and a rule would refuse it") && log.contains(&would), "{log}");

    let enforced = POLICIES.replacen("enforcement: shadow", "enforcement: enforce", 1);
    assert_ne!(enforced, POLICIES);
    tried(&pair, &enforced, &rule(2));

    // Enforced, it cuts and refuses; whom it does not name goes on.
    pair.node_b.apply("policies.yaml", &enforced).unwrap();
    let before = service.accepted().unwrap();
    let reply = curl(&pair.site.frontend, "denied");
    assert!(!reply.status.success(), "{reply:?}");
    let refused = || last(pair.node_b.refused().ok()?, Host::Frontend);
    let said = wait_until("node-b refuses the frontend", PATIENCE, refused).unwrap();
    assert_eq!((said.refused, said.rule), (Some(RefuseReason::DeniedByRule), Some(rule(2))));
    assert_eq!(said.peer_id.as_deref(), Some(frontend));
    let explained = pair.node_b.explain(frontend, backend).unwrap();
    assert_eq!((explained.refused, explained.rule), (Some(RefuseReason::DeniedByRule), Some(rule(2))));
    assert_eq!(service.accepted().unwrap(), before, "the service saw nothing of it");
    served(&pair.site.intruder, "still allowed");
}

/// What enforcing it would change, of the files and of the calls so far.
fn tried(pair: &Pair, enforced: &str, rule: &str) {
    let directory = pair.site.rig.directory().join("tried");
    fs::create_dir(&directory).unwrap();
    let (new, same) = (directory.join("policies.yaml"), directory.join("same.yaml"));
    fs::write(&new, enforced).unwrap();
    fs::write(&same, POLICIES).unwrap();
    let (new, same) = (new.to_str().unwrap(), same.to_str().unwrap());
    let ask = |arguments: &[&str], want: i32| {
        let said = pair.node_b.sluice(arguments).unwrap();
        assert_eq!(said.status.code(), Some(want), "{said:?}");
        said
    };
    let said = ask(&["diff", "-f", new], 1);
    assert_eq!(
        said.stdout,
        "~ Policy riptides-system/backend-guard\n    ~ spec.rules[2].enforcement: shadow -> enforce\n"
    );
    ask(&["diff", "-f", same, "--name", "policies.yaml"], 0);
    ask(&["policy", "diff", same, "--name", "policies.yaml"], 0);
    let said = ask(&["policy", "diff", new, "--against", "24h"], 1);
    assert!(said.stdout.contains("newly refused: 1 kind of call, seen 1 call"), "{said:?}");
    assert!(said.stdout.contains(rule) && !said.stdout.contains("newly allowed"), "{said:?}");
    let said = ask(&["policy", "diff", new, "-o", "json"], 1);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["turned"].as_array().map(Vec::len), Some(1), "{json:#}");
    assert_eq!(json["turned"][0]["flow"]["client"], Host::Frontend.v4().to_string());
    assert_eq!(json["turned"][0]["then"]["refused"]["reason"], "DeniedByRule");
    assert_eq!(json["recorded"]["flows"], 2, "{json:#}");
    fs::write(new, enforced.replacen("enforcement: enforce", "enforcement: enforcing", 1)).unwrap();
    let said = ask(&["policy", "diff", new], 2);
    assert!(said.stderr.contains("enforcing"), "{said:?}");
    // Nothing of it was applied.
    assert!(pair.node_b.explain("spiffe://example.com/myapp/app/frontend", "198.18.2.2:3000").unwrap().allowed);
}
