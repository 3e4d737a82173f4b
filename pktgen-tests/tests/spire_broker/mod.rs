//! The SPIFFE Broker API by mutual TLS, against an agent that holds both sides to SPIRE's rules, lies and goes away.

mod rig;
mod trusted;

use std::time::Duration;

use ctrl::clock::now;
use ctrl::config::SpiffeId;
use rcgen::{BasicConstraints, IsCa};
use rig::{AGENT, Broker, OBJECT, OURS, one};
use snapshot::Bundle;

use crate::spire_agent::Answer;
use crate::spire_agent::ca::{Ca, Svid};
use crate::spire_agent::rig::{BACKEND, FRONTEND, HOUR, serial};

#[tokio::test]
async fn svids_come_by_references_with_their_bundles_and_each_push_is_taken() {
    let mut rig = Broker::new(&[FRONTEND, BACKEND]);
    let partner = Ca::of("partner.org");
    for round in 0..3 {
        let (frontend, backend) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, HOUR));
        rig.object("serviceaccounts.core shop/frontend", one(&frontend));
        rig.object("deployments.apps shop/backend", one(&backend));
        rig.until_serial(FRONTEND, &frontend).await;
        rig.until_serial(BACKEND, &backend).await;
        let (svid, key) = rig.identities.svid(&SpiffeId::parse(BACKEND).unwrap()).unwrap();
        assert_eq!((&svid.chain, key.pkcs8().is_empty()), (&backend.chain, false), "round {round}");
        assert!(rig.identities.settled());
    }
    assert_eq!(rig.identities.iter().count(), 2, "the SVID that sluice-ctrl shows is no workload's");
    assert_eq!(rig.identities.bundle(now()).roots, [rig.ca.root()]);
    assert_eq!(rig.identities.errors(), []);
    assert_eq!(rig.agent.shown(&[&rig.ours]), [rig.ours.serial.clone()], "one connection, by our certificate");
    assert_eq!(rig.agent.asked(), 3, "each stream was asked for once: what is new was pushed");

    assert_eq!(rig.identities.federated(now()), []);
    rig.agent.tell(|world| {
        // sluice-ctrl itself federates with nobody.
        world.untold = vec!["partner.org".into()];
        world.federates_with = vec!["partner.org".into()];
        world.bundles.insert("partner.org".into(), partner.root());
    });
    let bundle = |roots: Vec<Vec<u8>>| [Bundle { trust_domain: "partner.org".into(), roots }];
    let want = bundle(vec![partner.root()]);
    rig.until("partner.org", |identities| identities.federated(now()) == want).await;
    let both = [partner.root(), Ca::of("partner.org").root()];
    rig.agent.tell(|world| drop(world.bundles.insert("partner.org".into(), both.concat())));
    let want = bundle(both.to_vec());
    rig.until("its root rotates", |identities| identities.federated(now()) == want).await;
    rig.agent.tell(|world| drop(world.bundles.remove("partner.org")));
    rig.until("it is taken back", |identities| identities.federated(now()).is_empty()).await;
    assert_eq!(rig.identities.bundle(now()).roots, [rig.ca.root()]);
}

#[tokio::test]
async fn what_is_not_there_yet_and_a_refusal_are_waits_and_take_nothing_back() {
    let mut rig = Broker::new(&[FRONTEND]);
    let waits = rig.until_fault(FRONTEND, "it does not find serviceaccounts shop/frontend").await;
    assert!(waits.waiting && waits.reason.contains("broker.sock"), "{waits:?}");
    assert!(rig.identities.warnings(now()).is_empty(), "{:?}", rig.identities.warnings(now()));
    rig.object("serviceaccounts.core shop/frontend", Answer::Denied);
    let waits = rig.until_fault(FRONTEND, "no identity issued").await;
    assert!(waits.waiting && waits.reason.contains("an entry for what it attests that by"), "{waits:?}");
    rig.object("serviceaccounts.core shop/frontend", Answer::Svids(vec![]));
    let waits = rig.until_fault(FRONTEND, "it has no SVID for what shop/frontend is asked about by").await;
    assert!(waits.waiting, "{waits:?}");
    // The agent takes other references of us; it was configured anew, so it has been away.
    let kind = "type.googleapis.com/spiffe.broker.WorkloadPIDReference";
    rig.agent.stop();
    rig.agent.tell(|world| world.brokers[0].kinds = vec![kind.into()]);
    rig.agent.serve();
    let waits = rig.until_fault(FRONTEND, "is not allowed to use reference type").await;
    assert!(waits.waiting && waits.reason.contains("`brokers` of its configuration"), "{waits:?}");

    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&frontend));
    rig.agent.tell(|world| world.brokers[0].kinds = vec![OBJECT.into()]);
    rig.until_serial(FRONTEND, &frontend).await;
    for gone in [None, Some(Answer::Denied), Some(Answer::Svids(vec![]))] {
        rig.agent.tell(|world| match gone.clone() {
            Some(answer) => drop(world.objects.insert("serviceaccounts.core shop/frontend".into(), answer)),
            None => drop(world.objects.remove("serviceaccounts.core shop/frontend")),
        });
        let waits = rig.until_failure(FRONTEND).await;
        assert!(waits.waiting, "{waits:?}");
        assert_eq!(
            serial(&rig.identities, FRONTEND),
            Some(frontend.serial.clone()),
            "{gone:?}: it serves until it ends"
        );
        rig.object("serviceaccounts.core shop/frontend", one(&frontend));
        rig.until_serial(FRONTEND, &frontend).await;
    }
}

/// What is wrong with each, and what the agent says of the frontend.
fn lies(ca: &Ca) -> Vec<(&'static str, Answer)> {
    let good = || ca.issue(FRONTEND, HOUR);
    let with = |chain: Vec<Vec<u8>>| Svid { chain, ..good() };
    let is_ca = ca.issue_with(FRONTEND, HOUR, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let expired = ca.issue_with(FRONTEND, HOUR, |p| p.not_after = p.not_before + Duration::from_secs(5));
    let foreign = Svid { id: FRONTEND.into(), ..ca.issue("spiffe://other.org/x", HOUR) };
    vec![
        ("public key: ", one(&Svid { key: ca.issue(BACKEND, HOUR).key, ..good() })),
        ("basicConstraints of the first certificate: CA:TRUE", one(&is_ca)),
        ("notAfter of the leaf: ", one(&expired)),
        ("URI SAN: spiffe://other.org/x; want ", one(&foreign)),
        ("the chain leads to none of the 1 roots", one(&Ca::of("example.com").issue(FRONTEND, HOUR))),
        ("certificate 1: is missing: the chain is empty", one(&with(vec![]))),
        ("8 certificates; at most 7 make a chain", one(&with(vec![good().chain.concat(); 8]))),
        ("the private key is none that TLS signs with", one(&Svid { key: vec![1, 2, 3], ..good() })),
        ("for this reference; want spiffe://example.com/myapp/frontend", one(&ca.issue(BACKEND, HOUR))),
        ("SVIDs: 101; at most 100 are taken", Answer::Svids(vec![good(); 101])),
        ("its message is too large: ", Answer::Huge(5 << 20)),
    ]
}

#[tokio::test]
async fn each_lie_is_named_and_leaves_the_last_good_in_force() {
    let mut rig = Broker::new(&[FRONTEND]);
    let good = rig.ca.issue(FRONTEND, HOUR);
    for (words, lie) in lies(&rig.ca) {
        rig.object("serviceaccounts.core shop/frontend", one(&good));
        rig.until_serial(FRONTEND, &good).await;
        rig.object("serviceaccounts.core shop/frontend", lie);
        let named = rig.until_fault(FRONTEND, words).await;
        assert!(named.reason.contains("broker.sock: ") && !named.waiting, "{named:?}");
        assert_eq!(serial(&rig.identities, FRONTEND).as_ref(), Some(&good.serial), "{words}");
        assert_eq!(rig.identities.bundle(now()).roots, [rig.ca.root()], "{words}");
    }
}

#[tokio::test]
async fn a_pod_is_asked_about_by_its_uid_and_its_successor_when_it_goes() {
    let mut rig = Broker::by_pods(&[FRONTEND]);
    let waits = rig.until_fault(FRONTEND, "shop/frontend has no pod on this node").await;
    assert!(waits.waiting, "{waits:?}");
    let (first, second, third) =
        (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(FRONTEND, HOUR));
    for (uid, svid) in [("u-1", &first), ("u-2", &second), ("u-3", &third)] {
        rig.object(&format!("pod {uid} shop/frontend-{uid}"), one(svid));
    }
    rig.pods(&["u-2"]);
    rig.until_serial(FRONTEND, &second).await;
    let asked = rig.agent.asked();
    rig.pods(&["u-1", "u-2"]);
    rig.until_serial(FRONTEND, &second).await;
    assert_eq!(rig.agent.asked(), asked, "the one that it is asked about is still there");
    let partner = Ca::of("partner.org");
    rig.agent.tell(|world| {
        world.untold = vec!["partner.org".into()];
        world.federates_with = vec!["partner.org".into()];
        world.bundles.insert("partner.org".into(), partner.root());
    });
    rig.until("it federates", |identities| !identities.federated(now()).is_empty()).await;
    rig.pods(&["u-1", "u-3"]);
    let (wanted, federated) = (rig.wanted.clone(), rig.identities.federated(now()));
    rig.identities.refresh(&wanted, now());
    assert_eq!(rig.identities.federated(now()), federated, "nobody is cut while the other one is asked about");
    rig.until_serial(FRONTEND, &first).await;
    // Another pod by the same name.
    rig.agent.tell(|world| drop(world.objects.insert("pod u-4 shop/frontend-u-1".into(), one(&third))));
    rig.wanted[0].pods = vec![rig::pod("u-4", "frontend-u-1")];
    rig.until_serial(FRONTEND, &third).await;
    rig.pods(&[]);
    assert!(rig.until_fault(FRONTEND, "has no pod on this node").await.waiting);
}

#[tokio::test]
async fn a_port_of_loopback_is_asked_as_a_socket_is() {
    let mut rig = Broker::by_port(&[FRONTEND]);
    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&frontend));
    assert!(rig.until_fault(FRONTEND, "is not allowed over TCP").await.waiting);
    rig.agent.tell(|world| world.brokers[0].over_tcp = true);
    rig.until_serial(FRONTEND, &frontend).await;
    rig.object("serviceaccounts.core shop/frontend", Answer::Huge(5 << 20));
    let named = rig.until_fault(FRONTEND, "too large").await;
    assert!(named.reason.starts_with(&format!("tcp://{}: ", rig.agent.broker_port())), "{named:?}");
}

#[tokio::test]
async fn the_example_of_the_docs_runs_as_it_is_written() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/spire-broker/gateway.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/docs/identity-spire.md");
    let page = std::fs::read_to_string(page).unwrap();
    let part = text.lines().skip_while(|line| line.trim() != "spire:").skip(1);
    let part = part.take_while(|line| !line.starts_with("  cores:")).map(|line| line.split('#').next().unwrap().trim());
    let part: Vec<_> = part.filter(|line| !line.is_empty()).collect();
    assert!(part.len() == 8 && part.iter().all(|line| page.contains(line)), "{part:?} stand on the page");
    let id = "spiffe://example.com/myapp/app/frontend";
    let mut rig = Broker::of(&text, id, "riptides-system/frontend");
    let frontend = rig.ca.issue(id, HOUR);
    rig.object("serviceaccounts.core riptides-system/frontend", one(&frontend));
    rig.until_serial(id, &frontend).await;
    assert_eq!(rig.agent.shown(&[&rig.ours]), [rig.ours.serial.clone()]);
}

#[tokio::test]
async fn an_endpoint_is_looked_at_as_far_as_who_looks_gets_an_svid() {
    let rig = Broker::new(&[FRONTEND]);
    let domain = ctrl::config::TrustDomain::parse("example.com").unwrap();
    let look = async || ctrl::source::spire::look_at_broker(&rig.spire(), &domain).await.unwrap();
    let fine = look().await.unwrap();
    assert!(fine.contains(OURS) && fine.contains(AGENT), "{fine}");
    let stranger = rig.ca.issue("spiffe://example.com/stranger", HOUR);
    rig.agent.tell(|world| world.agent = Some(stranger));
    let named = look().await.unwrap_err();
    assert!(named.contains("URI SAN: spiffe://example.com/stranger; want one of"), "{named}");
    // As for most who are not sluice-ctrl itself.
    rig.own(Answer::Denied);
    let named = look().await.unwrap_err();
    assert!(named.contains("somebody listens; whether it takes us was not tried, for want of an SVID of"), "{named}");
    assert!(named.contains("no entry for sluice-ctrl has reached the agent yet"), "{named}");
}
