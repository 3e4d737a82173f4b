//! Living connections of real gateways under changes of files: what a word of the workload keeps is kept
//! and shown, what is revoked is cut, exactly that, and what is too old ends.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, UNIX_EPOCH};

use pktgen_tests::load::{Server, call, complete, open};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Namespace, wait_until};
use snapshot::{CloseReason, ConnectionReport, RefuseReason};

const FRONTEND: &str = "spiffe://example.com/myapp/app/frontend";
const INTRUDER: &str = "spiffe://example.com/myapp/app/intruder";
const PATIENCE: Duration = Duration::from_secs(20);
const EACH: u64 = 60;
const BYTES: u64 = 3_000;

const REVOKED: &str = "apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: { name: own }\nspec:\n  \
                       trustDomain: example.com\n  revoked:\n    spiffeIDs: [spiffe://example.com/myapp/app/intruder]\n";

/// The demo's policy with these callers of the backend, and these words about its connections.
fn serves(callers: &[&str], connection: &str) -> String {
    let policy = policy();
    let listed = format!("    inbound:\n      - {FRONTEND}\n");
    let mode = "  connection:\n    tls:\n      mode: MUTUAL\n  allowedSPIFFEIDs:\n    inbound:\n";
    assert!(policy.contains(&listed) && policy.contains(mode), "the backend's policy is another");
    let callers: String = callers.iter().map(|caller| format!("      - {caller}\n")).collect();
    let policy = policy.replacen(&listed, &format!("    inbound:\n{callers}"), 1);
    policy.replacen("  connection:\n", &format!("  connection:\n{connection}"), 1)
}

fn server() -> SocketAddr {
    SocketAddr::new(Host::Backend.v4(), 3000)
}

fn hold(from: &Namespace, first: u64) -> Vec<(u64, TcpStream)> {
    let all = || (first..first + EACH).map(|number| (number, open(server(), number).unwrap())).collect();
    from.enter(all).unwrap()
}

/// Live ones of `peer`.
fn live(pair: &Pair, peer: &str) -> Option<Vec<ConnectionReport>> {
    let all = pair.node_b.connections().ok()?;
    Some(all.into_iter().filter(|c| c.ended_at.is_none() && c.peer_id.as_deref() == Some(peer)).collect())
}

#[test]
fn what_a_change_takes_back_is_kept_where_its_workload_says_so_and_what_is_revoked_is_cut_exactly() {
    let both = serves(&[FRONTEND, INTRUDER], "");
    let intruder = include_str!("../../deploy/demo/intruder.yaml");
    let files = [("policy.yaml", both.as_str()), ("intruder.yaml", intruder)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let service = Server::start(&pair.site.backend, server()).unwrap();
    let of_frontend = hold(&pair.site.frontend, 0);
    let of_intruder = hold(&pair.site.intruder, 1_000);

    // A rule goes: nobody begins by it any more, and what lives is kept and carries its bytes.
    pair.node_b.apply("policy.yaml", &serves(&[FRONTEND], "    onChange: keep\n")).unwrap();
    wait_until("all of the intruder's are kept", PATIENCE, || {
        let kept = live(&pair, INTRUDER)?.iter().filter(|c| c.state == "kept").count();
        (kept == EACH as usize).then_some(())
    })
    .unwrap();
    assert!(live(&pair, FRONTEND).unwrap().iter().all(|c| c.state == "relaying"));
    let shown = pair.node_b.sluice(&["connections", "-o", "wide"]).unwrap();
    let line = shown.ok().unwrap().lines().find(|line| line.contains(" kept ")).expect("one is shown").to_owned();
    assert!(line.contains("NotAllowedInbound"), "{line}");
    let (some, rest) = of_intruder.split_at(10);
    for (number, stream) in some.iter().chain(&of_frontend[..10]) {
        complete(stream, *number, BYTES).unwrap();
    }
    assert!(pair.site.intruder.enter(|| call(server(), 5_000, BYTES)).unwrap().is_err());
    let refused = wait_until("a refusal is told", PATIENCE, || pair.node_b.refused().ok()?.pop());
    assert_eq!(refused.unwrap().refused, Some(RefuseReason::NotAllowedInbound));

    // The ID is revoked: no word keeps what is its, and nothing else is touched.
    wait_until("those that have ended are over", PATIENCE, || {
        (live(&pair, INTRUDER)?.len() == rest.len()).then_some(())
    })
    .unwrap();
    let before = pair.node_b.apply("own.yaml", REVOKED).unwrap().0 - 1;
    wait_until("the intruder's are cut", PATIENCE, || live(&pair, INTRUDER)?.is_empty().then_some(())).unwrap();
    for (number, stream) in rest {
        assert!(complete(stream, *number, BYTES).is_err(), "{number} was not cut");
    }
    let ended = pair.node_b.connections().unwrap();
    let cut: Vec<_> = ended.iter().filter(|c| c.closed == Some(CloseReason::PolicyChanged)).collect();
    assert_eq!(cut.len(), rest.len(), "exactly the intruder's");
    for one in &cut {
        assert_eq!(one.peer_id.as_deref(), Some(INTRUDER));
        assert!(one.detail.as_deref().is_some_and(|detail| detail.contains("PeerRevoked")), "{one:?}");
        // What was kept was last allowed before its rule went.
        assert!(one.allowed_by.is_some_and(|version| version.0 < before), "{one:?}");
    }
    let log = std::fs::read_to_string(pair.node_b.log()).unwrap();
    let cut = |line: &&str| line.contains("cut: ") && line.contains("PolicyChanged") && line.contains("allowed_by");
    assert!(log.lines().any(|line| cut(&line)), "the log names both revisions");
    for (number, stream) in &of_frontend[10..20] {
        complete(stream, *number, BYTES).unwrap();
    }

    // The rest of the frontend's have lived for longer than they may from now on.
    let old = "    maxConnectionAge: 1s\n    ageGrace: 500ms\n";
    pair.node_b.apply("policy.yaml", &serves(&[FRONTEND], old)).unwrap();
    wait_until("the old ones are gone", PATIENCE, || live(&pair, FRONTEND)?.is_empty().then_some(())).unwrap();
    let all = pair.node_b.connections().unwrap();
    let aged = all.iter().filter(|c| c.closed == Some(CloseReason::MaxAge)).count();
    assert_eq!(aged, EACH as usize - 20, "those that had not ended before");
    pair.site.frontend.enter(|| call(server(), 6_000, BYTES)).unwrap().unwrap();
    drop(service);
}

/// `close` and `grace` end what outlives its peer's certificate, neither before its time; `ignore` lets it go on.
#[test]
fn what_outlives_its_peers_certificate_gets_what_its_workload_says() {
    let words = |word: &str| serves(&[FRONTEND], &format!("    onPeerExpiry: {word}\n    expiryGrace: 2s\n"));
    let files = words("ignore");
    let pair = Pair::start(&Setup { ttl: "4s", files: &[("policy.yaml", &files)], ..Setup::default() }).unwrap();
    let service = Server::start(&pair.site.backend, server()).unwrap();
    let newest =
        || pair.node_b.connections().ok()?.into_iter().rev().find(|one| one.peer_id.as_deref() == Some(FRONTEND));
    let not_after = |one: &ConnectionReport| one.tls.as_ref().unwrap().peer_not_after.unwrap() * 1_000;

    for (number, word, least) in [(0, "close", 0), (1, "grace", 2_000)] {
        pair.node_b.apply("policy.yaml", &words(word)).unwrap();
        let held = pair.site.frontend.enter(|| open(server(), number)).unwrap().unwrap();
        let over = || newest().filter(|one| one.closed.is_some());
        let one = wait_until(&format!("{word} ends the connection"), PATIENCE, over).unwrap();
        assert_eq!(one.closed, Some(CloseReason::PeerExpired), "{word}: {one:?}");
        let late = one.ended_at.unwrap().checked_sub(not_after(&one)).expect("not before the certificate ends");
        assert!((least..least + 5_000).contains(&late), "{word}: {late} ms after the certificate's end");
        println!("{word}: {late} ms after the certificate's end");
        assert!(complete(&held, number, BYTES).is_err(), "{word}");
    }

    pair.node_b.apply("policy.yaml", &words("ignore")).unwrap();
    let held = pair.site.frontend.enter(|| open(server(), 2)).unwrap().unwrap();
    let one = wait_until("the last one lives", PATIENCE, || newest().filter(|one| one.closed.is_none())).unwrap();
    wait_until("its certificate has ended, and the grace too", PATIENCE, || {
        let now = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        (now > not_after(&one) + 2_500).then_some(())
    })
    .unwrap();
    complete(&held, 2, BYTES).unwrap();
    drop(service);
}
