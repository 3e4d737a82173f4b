//! Both gateways with a SPIRE agent as their identity source: SVIDs of seconds rotate under calls, and a
//! bundle that the agent pushes lets a partner in and, taken back, out.
//!
//! The agent is played by the tests: no registry ships SPIRE.

mod spire_agent;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use pktgen_tests::load::{Server, call, complete, open};
use pktgen_tests::netns::gateway::{BACKEND as HOST, Gateway};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Namespace, Process, Service, run, wait_until};
use snapshot::{CloseReason, RefuseReason};
use spire_agent::ca::{Ca, Svid};
use spire_agent::{Agent, Answer, broker};

const FRONTEND: &str = "spiffe://example.com/myapp/app/frontend";
const BACKEND: &str = "spiffe://example.com/myapp/app/backend-api";
const BILLING: &str = "spiffe://partner.org/billing";
const PATIENCE: Duration = Duration::from_secs(20);

/// The frontend's SVID comes by the Workload API of node-a, the backend's by its selectors on node-b.
fn configure(setup: &Setup<'_>) -> (Pair, Agent, Ca) {
    configure_with(setup, |agent| {
        format!(
            "{{ source: spire, spire: {{ adminSocket: {}, delegated: [{{ workloads: [riptides-system/*], \
             selectors: ['k8s:ns:{{namespace}}', 'k8s:sa:{{name}}'] }}] }} }}",
            agent.admin_socket().display()
        )
    })
}

/// The same with another source on node-b.
fn configure_with(setup: &Setup<'_>, node_b: impl FnOnce(&Agent) -> String) -> (Pair, Agent, Ca) {
    let pair = Pair::configure(setup).unwrap();
    let directory = pair.site.rig.directory().join("agent");
    std::fs::create_dir(&directory).unwrap();
    let agent = Agent::start(&directory);
    let ca = Ca::of("example.com");
    agent.tell(|world| drop(world.bundles.insert("example.com".into(), ca.root())));
    let own = format!("{{ source: spire, spire: {{ socket: {} }} }}", agent.socket().display());
    for (node, identity) in [(&pair.node_a, own), (&pair.node_b, node_b(&agent))] {
        let file = node.directory().join("gateway.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| line.trim_start().starts_with("identity:")).unwrap();
        std::fs::write(&file, text.replace(line, &format!("  identity: {identity}"))).unwrap();
    }
    (pair, agent, ca)
}

fn launch(pair: &mut Pair) {
    pair.node_a.launch().unwrap();
    pair.node_b.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
}

/// What the agent gives from now on; both at once.
fn issue(agent: &Agent, ca: &Ca, life: Duration) -> [Svid; 2] {
    let [frontend, backend] = [FRONTEND, BACKEND].map(|id| ca.issue(id, life));
    agent.tell(|world| {
        world.own = Answer::Svids(vec![frontend.clone()]);
        let selectors = vec!["k8s:ns:riptides-system".into(), "k8s:sa:backend-api".into()];
        world.workloads.insert(selectors, Answer::Svids(vec![backend.clone()]));
    });
    [frontend, backend]
}

fn in_force(gateway: &Gateway, svid: &Svid) {
    wait_until(&format!("{} has {}", svid.id, svid.serial), PATIENCE, || {
        let identities = gateway.report().ok()?.identities;
        let of = identities.into_iter().find(|identity| identity.spiffe_id == svid.id)?;
        (of.serial.as_ref() == Some(&svid.serial)).then_some(())
    })
    .unwrap();
}

/// Serials that peers of a gateway have shown.
fn shown(gateway: &Gateway) -> BTreeSet<String> {
    let connections = gateway.connections().unwrap();
    connections.into_iter().filter_map(|connection| connection.tls?.peer_serial).collect()
}

/// Calls on connections of their own, fifty a second, until told to stop; what failed of them.
fn calls(
    from: &Namespace,
    address: SocketAddr,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<anyhow::Result<(u64, Vec<String>)>> {
    let stop = stop.clone();
    from.enter_detached(move || {
        let (mut due, mut count, mut failures) = (Instant::now(), 0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                park_timeout(left);
            }
            due += Duration::from_millis(20);
            count += 1;
            if let Err(error) = call(address, count, 1000) {
                failures.push(format!("call {count}: {error:#}"));
            }
        }
        (count, failures)
    })
}

#[test]
fn svids_that_an_agent_pushes_wait_for_their_entries_and_rotate_under_calls() {
    let (mut pair, mut agent, ca) = configure(&Setup::default());
    launch(&mut pair);
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    // No entry has reached the agent: shown as a wait, and no problem.
    let status = wait_until("both wait", PATIENCE, || {
        let said = |gateway: &Gateway| gateway.sluice(&["status"]).ok().map(|output| output.stdout);
        let (a, b) = (said(&pair.node_a)?, said(&pair.node_b)?);
        (a.contains("waiting    for the SVID of") && b.contains("waiting    for the SVID of")).then_some([a, b])
    });
    for said in status.unwrap() {
        assert!(!said.contains("problem"), "{said}");
    }
    assert!(pair.site.frontend.enter(|| call(address, 1, 1000)).unwrap().is_err(), "nobody calls without an SVID");
    wait_until("that is told", PATIENCE, || {
        let refusals = pair.node_a.refused().ok()?;
        refusals.iter().any(|c| c.refused == Some(RefuseReason::NoSvid)).then_some(())
    })
    .unwrap();

    let life = Duration::from_secs(5);
    let mut serials = issue(&agent, &ca, life);
    let both = |serials: &[Svid; 2]| {
        in_force(&pair.node_a, &serials[0]);
        in_force(&pair.node_b, &serials[1]);
    };
    both(&serials);
    let held = pair.site.frontend.enter(|| open(address, 1)).unwrap().unwrap();
    let stop = Arc::<AtomicBool>::default();
    let calling = calls(&pair.site.frontend, address, &stop);
    let mut seen = BTreeSet::new();
    let (began, mut restarted) = (Instant::now(), false);
    for round in 1..=4 {
        // An SVID is renewed at half of its life.
        while began.elapsed() < life / 2 * round {
            park_timeout(Duration::from_millis(50));
        }
        if !std::mem::replace(&mut restarted, true) {
            agent.stop();
            agent.serve();
        }
        serials = issue(&agent, &ca, life);
        both(&serials);
        seen.extend(shown(&pair.node_b));
    }
    stop.store(true, Ordering::Relaxed);
    let (count, failures) = calling.join().unwrap().unwrap();
    println!("{count} calls over {} SVIDs", seen.len());
    assert_eq!(failures, Vec::<String>::new());
    assert!(seen.len() >= 4, "node-b saw {seen:?}");
    complete(&held, 1, 100_000).expect("the connection from before all of it");
    assert_eq!(server.failures(), Vec::<String>::new());
}

#[test]
fn a_control_process_that_restarts_while_the_agent_is_away_costs_nobody_their_identity() {
    let (mut pair, mut agent, ca) = configure(&Setup::default());
    let [_, backend] = issue(&agent, &ca, Duration::from_secs(3_600));
    pair.node_a.launch().unwrap();
    pair.node_b.launch_apart().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    in_force(&pair.node_b, &backend);
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    let calls = |mut numbers: std::ops::Range<u64>| {
        pair.site.frontend.enter(|| numbers.try_for_each(|number| call(address, number, 1000))).unwrap()
    };
    wait_until("node-a has its SVID", PATIENCE, || calls(1..2).ok()).unwrap();
    let held = pair.site.frontend.enter(|| open(address, 1)).unwrap().unwrap();
    let before = pair.node_b.status().unwrap();
    agent.stop();
    pair.node_b.kill_control().unwrap();
    pair.node_b.launch_control().unwrap();
    pair.node_b.wait_ready().unwrap();
    let said = wait_until("the restarted control process is in force and says what it lacks", PATIENCE, || {
        let after = pair.node_b.status().ok()?;
        let said = pair.node_b.sluice(&["status"]).ok()?.stdout;
        (after.in_force > before.in_force && said.contains("the one before serves until it ends")).then_some(said)
    });
    assert!(said.unwrap().contains("admin.sock"), "the agent is named");
    // The caller is verified by a bundle that nobody could be asked for.
    calls(2..12).unwrap();
    complete(&held, 1, 100_000).expect("the connection from before");
    agent.serve();
    let [_, next] = issue(&agent, &ca, Duration::from_secs(3_600));
    in_force(&pair.node_b, &next);
    calls(12..22).unwrap();
    assert_eq!(server.failures(), Vec::<String>::new());
    pair.ensure_nothing_refused().unwrap();
}

#[test]
fn svids_by_the_broker_api_serve_calls_rotate_and_outlive_the_agent() {
    const OURS: &str = "spiffe://example.com/sluice";
    let (mut pair, mut agent, ca) = configure_with(&Setup::default(), |agent| {
        format!(
            "{{ source: spire, spire: {{ socket: {}, broker: {{ spiffeID: {OURS}, agentID: \
             'spiffe://example.com/spire/agent/*', address: 'unix://{}', references: [{{ workloads: \
             [riptides-system/*], object: {{ group: core, plural: serviceaccounts, namespace: '{{namespace}}', name: \
             '{{name}}' }} }}] }} }} }}",
            agent.socket().display(),
            agent.broker_socket().display()
        )
    });
    let hour = Duration::from_secs(3_600);
    // The agent gives sluice-ctrl of either node the same, as it is one process to it.
    let give = |agent: &Agent| {
        let [ours, frontend, backend] = [OURS, FRONTEND, BACKEND].map(|id| ca.issue(id, hour));
        agent.tell(|world| {
            world.own = Answer::Svids(vec![ours.clone(), frontend.clone()]);
            let about = "serviceaccounts.core riptides-system/backend-api";
            world.objects.insert(about.into(), Answer::Svids(vec![backend.clone()]));
        });
        [ours, frontend, backend]
    };
    agent.tell(|world| {
        world.agent = Some(ca.issue("spiffe://example.com/spire/agent/join_token/1", hour));
        world.brokers = vec![broker::Broker { id: OURS.into(), kinds: vec!["*".into()], over_tcp: false }];
    });
    launch(&mut pair);
    wait_until("no entry is a wait", PATIENCE, || {
        let said = pair.node_b.sluice(&["status"]).ok()?.stdout;
        (said.contains("waiting    for the SVID of") && !said.contains("problem")).then_some(())
    })
    .unwrap();
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    let calls = |mut numbers: std::ops::Range<u64>| {
        pair.site.frontend.enter(|| numbers.try_for_each(|number| call(address, number, 1000))).unwrap()
    };
    let both = |[_, frontend, backend]: &[Svid; 3]| {
        in_force(&pair.node_a, frontend);
        in_force(&pair.node_b, backend);
    };
    let first = give(&agent);
    both(&first);
    calls(1..11).unwrap();
    let held = pair.site.frontend.enter(|| open(address, 1)).unwrap().unwrap();
    let check = pair.node_b.at(&pair.site.node_b, "check").unwrap().stdout;
    assert!(
        check.contains(&format!("takes {OURS}, and proves to be one of spiffe://example.com/spire/agent/*")),
        "{check}"
    );
    // What we show rotates with what we get.
    let second = give(&agent);
    both(&second);
    calls(11..21).unwrap();
    let ours = [&first[0], &second[0]];
    wait_until("the newer certificate of ours is shown", PATIENCE, || {
        (agent.shown(&ours).last() == Some(&second[0].serial)).then_some(())
    })
    .unwrap();
    agent.stop();
    wait_until("the agent is missed", PATIENCE, || {
        pair.node_b.sluice(&["status"]).ok()?.stdout.contains("broker.sock").then_some(())
    })
    .unwrap();
    calls(21..31).unwrap();
    complete(&held, 1, 100_000).expect("the connection from before all of it");
    assert_eq!(server.failures(), Vec::<String>::new());
}

/// A call of the backend by the partner, whose certificate nobody but its own trust domain has signed.
fn partner(pair: &Pair, path: &str) -> std::process::Command {
    let directory = pair.site.rig.directory();
    let mut command = pair.site.legacy.command("curl");
    command.args(["-sS", "--max-time", "60", "--resolve"]).arg(format!("{HOST}:3000:{}", Host::Backend.v4()));
    // The server is known by its SPIFFE ID, which curl does not look at.
    command.arg("--insecure");
    command.arg("--cert").arg(directory.join("billing.crt")).arg("--key").arg(directory.join("billing.key"));
    command.arg(format!("https://{HOST}:3000{path}"));
    command
}

fn write_pem(directory: &Path, svid: &Svid) {
    for (name, label, der) in
        [("billing.crt", "CERTIFICATE", &svid.chain[0]), ("billing.key", "PRIVATE KEY", &svid.key)]
    {
        let base64 = |der: &[u8]| {
            let mut command = std::process::Command::new("openssl");
            let file = directory.join("der");
            std::fs::write(&file, der).unwrap();
            command.args(["base64", "-in"]).arg(file);
            run(command, PATIENCE).unwrap().stdout
        };
        let text = format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", base64(der));
        std::fs::write(directory.join(name), text).unwrap();
    }
}

#[test]
fn a_bundle_that_the_agent_pushes_lets_a_partner_in_and_cuts_it_when_it_is_taken_back() {
    let entry = format!("    inbound:\n      - {FRONTEND}\n");
    let policy = policy();
    assert!(policy.contains(&entry), "the backend lists the frontend");
    let policy = policy.replacen(&entry, &format!("{entry}      - {BILLING}\n"), 1);
    let (mut pair, agent, ca) = configure(&Setup { files: &[("policy.yaml", policy.as_str())], ..Setup::default() });
    let [_, backend] = issue(&agent, &ca, Duration::from_secs(3_600));
    launch(&mut pair);
    in_force(&pair.node_b, &backend);
    let _service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let partners = Ca::of("partner.org");
    write_pem(pair.site.rig.directory(), &partners.issue(BILLING, Duration::from_secs(3_600)));
    let served = || run(partner(&pair, "/"), PATIENCE).unwrap().status.success();
    let wait = |what: &str, want: bool| wait_until(what, PATIENCE, || (served() == want).then_some(())).unwrap();

    // The agent tracks the bundle for somebody else.
    agent.tell(|world| drop(world.bundles.insert("partner.org".into(), partners.root())));
    assert!(!served(), "nobody here federates with partner.org");
    agent.tell(|world| world.federates_with = vec!["partner.org".into()]);
    wait("the partner is let in", true);
    let listed = pair.node_b.sluice(&["bundle"]).unwrap();
    assert!(listed.ok().unwrap().contains("partner.org"), "{listed:?}");

    let mut command = partner(&pair, "/bytes?count=4000000&seconds=55");
    command.arg("-o").arg(pair.site.rig.directory().join("download"));
    let mut download = Process::start(command, &pair.site.rig.directory().join("download.log")).unwrap();
    wait_until("it downloads", PATIENCE, || {
        let live = pair.node_b.connections().ok()?;
        live.iter()
            .any(|c| c.peer_id.as_deref() == Some(BILLING) && c.closed.is_none() && c.received > 100)
            .then_some(())
    })
    .unwrap();
    agent.tell(|world| drop(world.bundles.remove("partner.org")));
    let ended = wait_until("the download is cut", PATIENCE, || download.ended().ok()?).unwrap();
    assert!(!ended.success(), "the download was not cut");
    wait_until("the reason is told", PATIENCE, || {
        let all = pair.node_b.connections().ok()?;
        let cut = |c: &snapshot::ConnectionReport| {
            c.peer_id.as_deref() == Some(BILLING) && c.closed == Some(CloseReason::PolicyChanged)
        };
        all.iter().any(cut).then_some(())
    })
    .unwrap();
    assert!(!served(), "it is not let in again");
}
