//! The identity source `spire` against an agent that tells the truth, waits, lies, hangs and goes away.

mod spire_agent;
mod spire_broker;

use std::time::Duration;

use ctrl::clock::now;
use ctrl::config::SpiffeId;
use ctrl::rotate::Identities;
use ctrl::source::OfSource;
use ctrl::source::embedded_ca::{init, issue_node};
use rcgen::{BasicConstraints, IsCa};
use snapshot::Bundle;
use spire_agent::Answer;
use spire_agent::ca::{Ca, Svid};
use spire_agent::rig::{BACKEND, FRONTEND, HOUR, Rig, gateway, selectors, serial};

fn one(svid: &Svid) -> Answer {
    Answer::Svids(vec![svid.clone()])
}

#[tokio::test]
async fn svids_come_by_id_and_by_selectors_and_each_push_is_taken() {
    let mut rig = Rig::new(&[FRONTEND, BACKEND]);
    let ours = rig.ca.issue("spiffe://example.com/sluice", HOUR);
    for round in 0..3 {
        let (frontend, backend) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, HOUR));
        rig.own(Answer::Svids(vec![ours.clone(), frontend.clone()]));
        rig.backend(one(&backend));
        rig.until_serial(FRONTEND, &frontend).await;
        rig.until_serial(BACKEND, &backend).await;
        let (svid, key) = rig.identities.svid(&SpiffeId::parse(BACKEND).unwrap()).unwrap();
        assert_eq!((&svid.chain, key.pkcs8().is_empty()), (&backend.chain, false), "round {round}");
        assert!(rig.identities.settled());
    }
    assert_eq!(rig.identities.iter().count(), 2, "what else the process is entitled to is nobody's");
    assert_eq!(rig.identities.bundle(now()).roots, [rig.ca.root()]);
    assert_eq!(rig.identities.errors(), []);
    assert_eq!(rig.agent.asked(), 2, "each stream was asked for once: what is new was pushed");
}

#[tokio::test]
async fn a_refusal_and_an_entry_that_is_not_there_yet_are_waits() {
    let mut rig = Rig::new(&[FRONTEND, BACKEND]);
    rig.agent.tell(|world| world.delegate = false);
    let waits = rig.until_fault(FRONTEND, "no entry for sluice-ctrl has reached the agent yet").await;
    assert!(waits.waiting && waits.reason.contains("no identity issued"), "{waits:?}");
    let waits = rig.until_fault(BACKEND, "has to stand in authorized_delegates").await;
    assert!(waits.waiting, "{waits:?}");
    rig.until("a start does not wait for entries", Identities::settled).await;
    assert!(rig.identities.warnings(now()).is_empty(), "{:?}", rig.identities.warnings(now()));

    // The delegate's entry has come, the workloads' have not.
    let ours = rig.ca.issue("spiffe://example.com/sluice", HOUR);
    rig.agent.tell(|world| (world.delegate, world.own) = (true, one(&ours)));
    let waits = rig.until_fault(BACKEND, "no entry with the selectors of shop/backend has reached the agent yet").await;
    assert!(waits.waiting, "{waits:?}");
    let waits = rig.until_fault(FRONTEND, "it gives spiffe://example.com/sluice").await;
    assert!(waits.waiting, "{waits:?}");

    let (frontend, backend) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, HOUR));
    rig.own(Answer::Svids(vec![ours, frontend.clone()]));
    rig.backend(one(&backend));
    rig.until_serial(FRONTEND, &frontend).await;
    rig.until_serial(BACKEND, &backend).await;

    // An entry that goes is one that may come back: the SVID serves until it ends.
    rig.backend(Answer::Denied);
    rig.until_fault(BACKEND, "no entry with the selectors").await;
    assert_eq!(serial(&rig.identities, BACKEND), Some(backend.serial));
}

#[tokio::test]
async fn an_agent_that_goes_away_takes_an_svid_along_only_when_it_ends_and_comes_back_by_itself() {
    let embedded = "        workloads: [shop/frontend, shop/backend]\n      - { name: ca, source: embedded, embedded: { directory: ca } }\n";
    let mut rig = Rig::with(&[FRONTEND, BACKEND, "spiffe://example.com/myapp/other"], embedded, |directory| {
        let domain = ctrl::config::TrustDomain::parse("example.com").unwrap();
        init(&directory.join("root"), &domain, now()).unwrap();
        issue_node(&directory.join("root"), "node-a", &directory.join("ca"), now()).unwrap();
    });
    let (long, short) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, Duration::from_secs(4)));
    rig.own(one(&long));
    rig.backend(one(&short));
    rig.until_serial(FRONTEND, &long).await;
    rig.until_serial(BACKEND, &short).await;
    rig.agent.stop();
    let away = rig.until_fault(FRONTEND, "api.sock: Connection refused").await;
    assert!(!away.waiting, "{away:?}");
    rig.until_fault(BACKEND, "admin.sock: ").await;
    assert_eq!(serial(&rig.identities, BACKEND), Some(short.serial), "the last good serves");
    rig.until("it ends", |identities| serial(identities, BACKEND).is_none()).await;
    assert_eq!(serial(&rig.identities, FRONTEND), Some(long.serial), "for that workload alone");
    assert!(serial(&rig.identities, "spiffe://example.com/myapp/other").is_some(), "another source's");
    assert_eq!(rig.identities.bundle(now()).roots.len(), 2, "peers are verified as before");

    let (frontend, backend) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, HOUR));
    rig.own(one(&frontend));
    rig.backend(one(&backend));
    rig.agent.serve();
    rig.until_serial(FRONTEND, &frontend).await;
    rig.until_serial(BACKEND, &backend).await;
    assert_eq!(rig.identities.errors(), []);
}

/// What is wrong with each, and what the agent says to `socket` and for the backend.
fn lies(authority: &Ca) -> Vec<(&'static str, Answer, Answer)> {
    let ca = |id: &str| authority.issue(id, HOUR);
    let other_key = |id: &str| Svid { key: ca("spiffe://example.com/x").key, ..ca(id) };
    let is_ca = |id: &str| authority.issue_with(id, HOUR, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let expired = |id: &str| authority.issue_with(id, HOUR, |p| p.not_after = p.not_before + Duration::from_secs(5));
    let stranger = Ca::of("example.com");
    let foreign = |id: &str| Svid { id: id.into(), ..ca("spiffe://other.org/x") };
    let chain = |id: &str, chain: Vec<Vec<u8>>| Svid { chain, ..ca(id) };
    let long = |id: &str| chain(id, vec![ca(id).chain.concat(); 8]);
    type Lie<'a> = (&'static str, &'a dyn Fn(&str) -> Answer);
    let lies: [Lie<'_>; 11] = [
        ("public key: ", &|id| one(&other_key(id))),
        ("basicConstraints of the first certificate: CA:TRUE", &|id| one(&is_ca(id))),
        ("notAfter of the leaf: ", &|id| one(&expired(id))),
        ("URI SAN: spiffe://other.org/x; want ", &|id| one(&foreign(id))),
        ("the chain leads to none of the 1 roots", &|id| one(&stranger.issue(id, HOUR))),
        ("certificate 1: is missing: the chain is empty", &|id| one(&chain(id, vec![]))),
        ("certificate 1: ", &|id| one(&chain(id, vec![b"no certificate".to_vec()]))),
        ("8 certificates; at most 7 make a chain", &|id| one(&long(id))),
        ("the private key is none that TLS signs with", &|id| one(&Svid { key: vec![1, 2, 3], ..ca(id) })),
        ("SVIDs: 101; at most 100 are taken", &|id| Answer::Svids(vec![ca(id); 101])),
        ("its message is too large: ", &|_| Answer::Huge(3 << 20)),
    ];
    lies.map(|(words, lie)| (words, lie(FRONTEND), lie(BACKEND))).into()
}

#[tokio::test]
async fn each_lie_about_an_svid_is_named_and_leaves_the_last_good_in_force() {
    let mut rig = Rig::new(&[FRONTEND, BACKEND]);
    let (good_own, good) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, HOUR));
    let unasked = one(&rig.ca.issue("spiffe://example.com/somebody/else", HOUR));
    for (words, own, backend) in lies(&rig.ca) {
        rig.own(one(&good_own));
        rig.backend(one(&good));
        rig.until_serial(FRONTEND, &good_own).await;
        rig.until_serial(BACKEND, &good).await;
        rig.own(own);
        rig.backend(backend);
        for (id, socket, good) in [(FRONTEND, "api.sock: ", &good_own), (BACKEND, "admin.sock: ", &good)] {
            let named = rig.until_fault(id, words).await;
            assert!(named.reason.contains(socket) && !named.waiting, "{named:?}");
            assert_eq!(serial(&rig.identities, id).as_ref(), Some(&good.serial), "{words}");
        }
    }
    rig.backend(unasked);
    let words =
        "it gives spiffe://example.com/somebody/else for these selectors; want spiffe://example.com/myapp/backend";
    assert!(!rig.until_fault(BACKEND, words).await.waiting);
    assert_eq!(serial(&rig.identities, BACKEND), Some(good.serial));
    assert_eq!(rig.identities.bundle(now()).roots, [rig.ca.root()]);
}

#[tokio::test]
async fn each_lie_about_a_bundle_is_named_and_leaves_its_last_good_in_force() {
    let mut rig = Rig::new(&[FRONTEND, BACKEND]);
    let (frontend, backend) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, HOUR));
    let partner = Ca::of("partner.org");
    rig.own(one(&frontend));
    rig.backend(one(&backend));
    rig.agent.tell(|world| {
        world.federates_with = vec!["spiffe://partner.org".into()];
        world.bundles.insert("partner.org".into(), partner.root());
    });
    // Each API has said what is good: a bundle that one of them brings late would be its first.
    rig.until_serial(FRONTEND, &frontend).await;
    rig.until_serial(BACKEND, &backend).await;
    rig.until("it federates", |identities| !identities.federated(now()).is_empty()).await;
    let leaf = rig.ca.issue(FRONTEND, HOUR).chain.concat();
    let thousand = |ca: &Ca| ca.root().repeat(1_000);
    let cases: Vec<(&str, &str, Vec<u8>, &str)> = vec![
        ("a thousand roots", "example.com", thousand(&rig.ca), "1000 certificates; at most 100 roots"),
        ("a thousand foreign roots", "partner.org", thousand(&partner), "1000 certificates; at most 100 roots"),
        ("a leaf", "example.com", leaf, "is no CA certificate"),
        ("none", "example.com", vec![], "is missing: the bundle is empty"),
        ("garbage behind a root", "partner.org", [partner.root(), vec![7; 9]].concat(), "root 2: "),
        (
            "roots of another trust domain",
            "partner.org",
            rig.ca.root(),
            "is of spiffe://example.com, not of trust domain partner.org",
        ),
        ("a name that is none", "Partner", partner.root(), "trust domain of a bundle: "),
    ];
    for (name, domain, ders, words) in cases {
        let before = {
            let mut before = None;
            rig.agent.tell(|world| {
                before = Some(world.bundles.clone());
                world.bundles.insert(domain.into(), ders);
            });
            before.unwrap()
        };
        // Both APIs bring it.
        let both = |identities: &Identities| {
            let warnings = identities.warnings(now());
            warnings.iter().filter(|warning| warning.contains(words)).count() == 2
        };
        rig.until(name, both).await;
        assert_eq!(rig.identities.bundle(now()).roots, [rig.ca.root()], "{name}");
        assert_eq!(rig.identities.federated(now())[0].roots, [partner.root()], "{name}");
        assert_eq!(rig.identities.errors(), [], "{name}");
        rig.agent.tell(|world| world.bundles = before);
        rig.until("it is mended", |identities| identities.warnings(now()).is_empty()).await;
    }
    // An agent of another trust domain altogether.
    let before = rig.identities.bundle(now());
    rig.agent.tell(|world| drop(world.bundles.remove("example.com")));
    let words = "it has bundles of partner.org, and none of example.com";
    rig.until(words, |identities| identities.warnings(now()).iter().any(|w| w.contains(words))).await;
    assert_eq!(rig.identities.bundle(now()), before);
}

#[tokio::test]
async fn federated_bundles_are_those_of_trust_domains_that_somebody_federates_with() {
    let mut rig = Rig::new(&[BACKEND]);
    let (partner, stranger) = (Ca::of("partner.org"), Ca::of("stranger.net"));
    let backend = rig.ca.issue(BACKEND, HOUR);
    rig.backend(one(&backend));
    rig.agent.tell(|world| {
        world.bundles.insert("partner.org".into(), partner.root());
        world.bundles.insert("stranger.net".into(), stranger.root());
    });
    rig.until_serial(BACKEND, &backend).await;
    assert_eq!(rig.identities.federated(now()), [], "the agent tracks them for others");
    rig.agent
        .tell(|world| world.federates_with = vec!["partner.org".into(), "nonsense//".into(), "example.com".into()]);
    let bundle = |roots: Vec<Vec<u8>>| [Bundle { trust_domain: "partner.org".into(), roots }];
    let want = bundle(vec![partner.root()]);
    rig.until("partner.org", |identities| identities.federated(now()) == want).await;
    let next = Ca::of("partner.org");
    let both = [partner.root(), next.root()];
    rig.agent.tell(|world| drop(world.bundles.insert("partner.org".into(), both.concat())));
    let want = bundle(both.to_vec());
    rig.until("its root rotates", |identities| identities.federated(now()) == want).await;
    rig.agent.tell(|world| drop(world.bundles.remove("partner.org")));
    rig.until("its bundle is taken back", |identities| identities.federated(now()).is_empty()).await;
    assert_eq!(rig.identities.bundle(now()).roots, [rig.ca.root()]);
    assert!(!rig.warned("partner.org"));
}

#[tokio::test]
async fn a_root_that_is_dropped_leaves_an_svid_below_it_without_successor_and_says_so() {
    let mut rig = Rig::new(&[BACKEND]);
    let (first, next) = (rig.ca.issue(BACKEND, HOUR), Ca::of("example.com"));
    rig.backend(one(&first));
    rig.until_serial(BACKEND, &first).await;
    let old = rig.ca.root();
    rig.agent.tell(|world| drop(world.bundles.insert("example.com".into(), [old, next.root()].concat())));
    rig.until("both roots", |identities| identities.bundle(now()).roots.len() == 2).await;
    assert_eq!(rig.identities.errors(), [], "an overlap bothers nobody");
    rig.agent.tell(|world| drop(world.bundles.insert("example.com".into(), next.root())));
    rig.until_fault(BACKEND, "the chain leads to none of the 1 roots").await;
    let second = next.issue(BACKEND, HOUR);
    rig.backend(one(&second));
    rig.until_serial(BACKEND, &second).await;
    assert_eq!(rig.identities.bundle(now()).roots, [next.root()]);
}

#[tokio::test]
async fn what_an_agent_had_said_before_a_restart_holds_until_it_says_it_itself() {
    let mut rig = Rig::new(&[BACKEND]);
    let backend = rig.ca.issue(BACKEND, HOUR);
    rig.backend(one(&backend));
    let partner = Ca::of("partner.org");
    rig.agent.tell(|world| {
        world.federates_with = vec!["partner.org".into()];
        world.bundles.insert("partner.org".into(), partner.root());
    });
    rig.until_serial(BACKEND, &backend).await;
    rig.until("it federates", |identities| !identities.federated(now()).is_empty()).await;
    let (trusted, before) = (rig.identities.trusted(), (rig.identities.bundle(now()), rig.identities.federated(now())));
    rig.agent.stop();
    rig.restart();
    rig.until_fault(BACKEND, "admin.sock").await;
    assert_eq!(rig.identities.bundle(now()).roots, [] as [Vec<u8>; 0], "without a memory nobody is trusted");
    rig.restart();
    rig.identities.remember(trusted.clone());
    rig.until_fault(BACKEND, "admin.sock").await;
    assert_eq!((rig.identities.bundle(now()), rig.identities.federated(now())), before);
    assert_eq!(rig.identities.trusted(), trusted, "the restart after that knows it too");
    // What is not of this source is not believed.
    rig.restart();
    let other = |of: &OfSource| {
        [OfSource { source: "other".into(), ..of.clone() }, OfSource { trust_domain: "other.org".into(), ..of.clone() }]
    };
    rig.identities.remember(trusted.iter().flat_map(other).collect());
    assert_eq!(rig.identities.trusted(), []);
    rig.restart();
    rig.identities.remember(trusted);
    let next = Ca::of("example.com");
    let second = next.issue(BACKEND, HOUR);
    rig.backend(one(&second));
    rig.agent.tell(|world| {
        world.federates_with.clear();
        world.bundles.insert("example.com".into(), next.root());
    });
    rig.agent.serve();
    rig.until_serial(BACKEND, &second).await;
    assert_eq!(rig.identities.bundle(now()).roots, [next.root()], "its own word");
    rig.until("its own federation", |identities| identities.federated(now()).is_empty()).await;
}

#[tokio::test]
async fn an_agent_that_hangs_is_named_and_holds_up_nobody_else() {
    let mut rig = Rig::new(&[FRONTEND, BACKEND]);
    rig.own(Answer::Silence);
    let backend = rig.ca.issue(BACKEND, HOUR);
    rig.backend(one(&backend));
    rig.until_serial(BACKEND, &backend).await;
    assert!(!rig.identities.settled(), "it may still answer");
    rig.until_fault(FRONTEND, "api.sock: the agent does not answer within 10 s").await;
    assert!(rig.identities.settled());
    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.own(one(&frontend));
    rig.until_serial(FRONTEND, &frontend).await;
}

#[tokio::test]
async fn a_clock_that_jumps_and_an_svid_that_is_overdue_have_the_agent_asked_anew() {
    let mut rig = Rig::new(&[FRONTEND, BACKEND]);
    let (frontend, backend) = (rig.ca.issue(FRONTEND, HOUR), rig.ca.issue(BACKEND, HOUR));
    rig.own(one(&frontend));
    rig.backend(one(&backend));
    rig.until_serial(FRONTEND, &frontend).await;
    rig.until_serial(BACKEND, &backend).await;
    assert_eq!(rig.agent.asked(), 2);
    rig.identities.clock_jumped(now());
    rig.until_asked(4).await;
    // Ten seconds of its life have passed and five are left: past three fifths.
    let short = rig.ca.issue(BACKEND, Duration::from_secs(5));
    rig.backend(one(&short));
    rig.until_serial(BACKEND, &short).await;
    let before = rig.agent.asked();
    rig.until_asked(before + 2).await;
    assert!(rig.warned("the SPIRE agent has not renewed it"), "{:?}", rig.identities.warnings(now()));
}

#[tokio::test]
async fn a_changed_source_keeps_what_peers_are_verified_by_until_it_knows_better() {
    let mut rig = Rig::new(&[BACKEND]);
    let backend = rig.ca.issue(BACKEND, HOUR);
    rig.backend(one(&backend));
    rig.agent.tell(|world| {
        world.federates_with = vec!["partner.org".into()];
        world.bundles.insert("partner.org".into(), Ca::of("partner.org").root());
    });
    rig.until_serial(BACKEND, &backend).await;
    rig.until("it federates", |identities| !identities.federated(now()).is_empty()).await;
    let before = (rig.identities.bundle(now()), rig.identities.federated(now()));
    let mut changed = gateway(rig.directory.path(), "        workloads: [shop/backend]\n");
    // The same workload is asked for by other selectors.
    let ctrl::config::IdentitySource::Spire(spire) = &mut changed.identity[0].source else { panic!() };
    spire.delegated[0].selectors.truncate(1);
    let reopened = rig.identities.reopen(&changed).unwrap();
    rig.identities.replace_sources(&changed, reopened);
    rig.identities.refresh(&rig.wanted, now());
    let after = (rig.identities.bundle(now()), rig.identities.federated(now()));
    assert_eq!(after, before, "nobody is cut for it");
    let other = rig.ca.issue(BACKEND, HOUR);
    let root = Ca::of("example.com");
    rig.agent.tell(|world| {
        world.workloads.insert(selectors()[..1].to_vec(), one(&other));
        world.federates_with.clear();
        world.bundles.insert("example.com".into(), [rig.ca.root(), root.root()].concat());
    });
    rig.until_serial(BACKEND, &other).await;
    rig.until("its own word", |identities| identities.bundle(now()).roots.len() == 2).await;
    rig.until("its own federation", |identities| identities.federated(now()).is_empty()).await;
}
