//! Two services of one host are two workloads by the processes that listen, and a third process is nobody: calls
//! from the node and from the wire, through both gateways, with the delivered example.

use std::time::Duration;

use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Gateway, Host, Namespace, Output, Process, wait_until};
use snapshot::{ConnectionReport, Direction, RefuseReason};

const PATIENCE: Duration = Duration::from_secs(30);
const LISTENERS: &str = include_str!("../../deploy/examples/listeners.yaml");
const CATALOG: (u32, u16) = (61_011, 8081);
const LEDGER: (u32, u16) = (61_012, 8082);
const STRANGER: u32 = 61_013;

/// The frontend and the backend may call both services.
fn callers() -> String {
    let policy = policy();
    let lists = "  allowedSPIFFEIDs:\n";
    let outbound = "    outbound:\n      - spiffe://example.com/myapp/app/backend-api\n";
    let egress = "  egress:\n";
    assert!(policy.contains(outbound) && policy.matches(egress).count() == 1 && policy.matches(lists).count() >= 2);
    let shops = "    - selectors: [{ app: catalog }, { app: ledger }]\n      connection: { tls: { mode: MUTUAL } }\n";
    let ids = "      - spiffe://example.com/shop/*\n";
    policy
        .replacen(egress, &format!("{egress}{shops}"), 1)
        .replacen(outbound, &format!("{outbound}{ids}"), 1)
        // The first identity is the backend's.
        .replacen(lists, &format!("{egress}{shops}{lists}"), 1)
}

/// A web server of this user, once it listens.
fn serve(host: &Namespace, directory: &std::path::Path, (user, port): (u32, u16)) -> Process {
    let line = format!(
        "setpriv --reuid={user} --regid={user} --clear-groups /usr/bin/python3 -m http.server --directory /usr/share/doc --bind :: {port}"
    );
    let log = directory.join(format!("{user}-{port}.log"));
    let process = host.spawn(&line, &log).unwrap();
    wait_until(&format!("user {user} listens at {port}"), PATIENCE, || {
        let sockets = host.run(&format!("ss -ltnH sport = :{port}"), PATIENCE).ok()?;
        (!sockets.stdout.trim().is_empty()).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", std::fs::read_to_string(&log).unwrap_or_default()));
    process
}

fn call(from: &Namespace, port: u16, v6: bool) -> Output {
    let address = Host::Stranger.address(v6);
    let host = if v6 { format!("[{address}]") } else { address.to_string() };
    from.run(&format!("curl -sS -o /dev/null --max-time 10 http://{host}:{port}/"), PATIENCE).unwrap()
}

fn said(gateway: &Gateway, what: &str, fits: impl Fn(&ConnectionReport) -> bool) -> ConnectionReport {
    let last = || gateway.connections().ok()?.into_iter().chain(gateway.refused().ok()?).rev().find(&fits);
    wait_until(what, PATIENCE, last).unwrap_or_else(|error| panic!("{error:#}: {:#?}", gateway.refused()))
}

#[test]
fn services_of_one_host_have_their_own_identities_by_who_listens_and_a_third_has_none() {
    let callers = callers();
    let files = [("policy.yaml", callers.as_str()), ("listeners.yaml", LISTENERS)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let (a, host, directory) = (&pair.node_a, &pair.site.stranger, pair.site.rig.directory());
    let catalog = serve(host, directory, CATALOG);
    let _ledger = serve(host, directory, LEDGER);

    // From the node and from the wire, over both families; the caller sees who it is that answers.
    for (from, direction) in [(&pair.site.frontend, Direction::Local), (&pair.site.backend, Direction::Inbound)] {
        for v6 in [false, true] {
            let reply = call(from, CATALOG.1, v6);
            assert!(reply.status.success(), "{direction:?} IPv6 {v6}: {reply:?} {:#?}", a.refused());
            let seen = said(a, "node-a reports the call", |c| {
                c.direction == direction && c.server.ip() == Host::Stranger.address(v6) && c.refused.is_none()
            });
            let id = if direction == Direction::Local { seen.peer_id } else { seen.local_id };
            assert_eq!(id.as_deref(), Some("spiffe://example.com/shop/catalog"));
            let evidence = seen.attested.expect("evidence");
            assert!(
                evidence.contains("process:uid 61011 (listeners.yaml:") && evidence.contains("listens by"),
                "{evidence}"
            );
        }
    }
    // The other one has its own list.
    assert!(!call(&pair.site.frontend, LEDGER.1, false).status.success());
    let refused = said(a, "the ledger refuses", |c| c.refused == Some(RefuseReason::NotAllowedInbound));
    assert_eq!(refused.peer_id.as_deref(), Some("spiffe://example.com/shop/ledger"));
    // Who takes the port is not who had it.
    drop(catalog);
    assert!(!call(&pair.site.backend, CATALOG.1, false).status.success());
    said(a, "nobody listens", |c| {
        let none = c.detail.as_deref().is_some_and(|why| why.contains("has no socket that listens at 198.18.4.2:8081"));
        none && c.refused == Some(RefuseReason::NotAttested)
    });
    let _stranger = serve(host, directory, (STRANGER, CATALOG.1));
    for from in [&pair.site.frontend, &pair.site.backend] {
        assert!(!call(from, CATALOG.1, false).status.success());
    }
    for direction in [Direction::Egress, Direction::Inbound] {
        let refused = said(a, &format!("a stranger is not called ({direction:?})"), |c| {
            let stranger = c.detail.as_deref().is_some_and(|why| why.contains("uid 61013"));
            stranger && c.refused == Some(RefuseReason::NotAttested) && c.direction == direction
        });
        let detail = refused.detail.expect("a detail");
        assert!(detail.contains("uid 61013") && detail.contains("matches no selector of shop/catalog"), "{detail}");
    }

    let described = a.sluice(&["describe", "workload", "shop/catalog"]).unwrap();
    let text = described.ok().unwrap();
    for part in ["listens by socket", "not attested, from or to the same addresses:", "uid 61013"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    println!("{text}");
    let explained = a.explain("spiffe://example.com/myapp/app/frontend", "198.18.4.2:8082").unwrap();
    println!("{}", explained.steps.join("\n"));
    assert!(!explained.allowed && explained.steps.iter().any(|step| step.contains("the process that listens decides")));
}
