//! Who is trusted on either side of the broker endpoint, and for how long.

use std::time::Duration;

use ctrl::clock::now;

use super::rig::{Broker, OURS, one};
use crate::spire_agent::Answer;
use crate::spire_agent::ca::{Ca, Svid};
use crate::spire_agent::rig::{FRONTEND, HOUR, serial};

/// What the agent shows, and what is said of it.
fn impostors(ca: &Ca) -> Vec<(&'static str, Svid)> {
    let agent = "spiffe://example.com/spire/agent/join_token/1";
    let expired = ca.issue_with(agent, HOUR, |p| p.not_after = p.not_before + Duration::from_secs(5));
    vec![
        ("URI SAN: spiffe://example.com/spire/server; want one of spiffe://example.com/spire/agent/* alone", {
            ca.issue("spiffe://example.com/spire/server", HOUR)
        }),
        ("URI SAN: spiffe://other.org/spire/agent/x; want one of", ca.issue("spiffe://other.org/spire/agent/x", HOUR)),
        ("the chain leads to none of the 1 roots", Ca::of("example.com").issue(agent, HOUR)),
        ("notAfter of the leaf: ", expired),
    ]
}

#[tokio::test]
async fn an_agent_that_is_not_the_one_that_is_expected_is_told_nothing_and_named() {
    let mut rig = Broker::new(&[FRONTEND]);
    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&frontend));
    let mut right = None;
    rig.agent.tell(|world| right = world.agent.clone());
    for (words, impostor) in impostors(&rig.ca) {
        rig.agent.tell(|world| world.agent = Some(impostor));
        let named = rig.until_fault(FRONTEND, words).await;
        assert!(named.reason.contains("broker.sock: its certificate: ") && !named.waiting, "{named:?}");
        assert_eq!(serial(&rig.identities, FRONTEND), None, "{words}");
    }
    assert_eq!(rig.agent.asked(), 1, "by the Workload API alone");
    rig.agent.tell(|world| world.agent = right);
    rig.until_serial(FRONTEND, &frontend).await;
}

#[tokio::test]
async fn a_newer_svid_of_ours_is_what_the_next_connection_shows_at_once() {
    let mut rig = Broker::new(&[FRONTEND]);
    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&frontend));
    rig.until_serial(FRONTEND, &frontend).await;
    let (first, second) = (rig.ours.clone(), rig.ca.issue(OURS, HOUR));
    rig.own(one(&second));
    rig.until_shown(&[&first, &second]).await;
    // Its stream has moved along.
    let next = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&next));
    rig.until_serial(FRONTEND, &next).await;
    rig.agent.until("the one before is closed", |world| world.open == 1).await;
    assert_eq!(rig.agent.asked(), 3, "once at the Workload API, and once on each connection");
    // The agent's root rotates: who it is has to be shown under what is trusted now.
    let successor = Ca::of("example.com");
    let both = [rig.ca.root(), successor.root()].concat();
    rig.agent.tell(|world| drop(world.bundles.insert("example.com".into(), both)));
    rig.until_shown(&[&first, &second, &second]).await;
}

#[tokio::test]
async fn an_agent_whose_root_is_dropped_is_asked_no_more() {
    let mut rig = Broker::new(&[FRONTEND]);
    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&frontend));
    rig.until_serial(FRONTEND, &frontend).await;
    let next = Ca::of("example.com");
    let (ours, agent) = (next.issue(OURS, HOUR), rig.ca.issue("spiffe://example.com/spire/agent/old", HOUR));
    rig.agent.tell(|world| {
        world.own = one(&ours);
        world.agent = Some(agent);
        world.bundles.insert("example.com".into(), next.root());
    });
    rig.until_fault(FRONTEND, "its certificate: the chain leads to none of the 1 roots").await;
    let (agent, second) = (next.issue("spiffe://example.com/spire/agent/new", HOUR), next.issue(FRONTEND, HOUR));
    rig.agent.tell(|world| world.agent = Some(agent));
    rig.object("serviceaccounts.core shop/frontend", one(&second));
    rig.until_serial(FRONTEND, &second).await;
    rig.until("the new root alone", |identities| identities.bundle(now()).roots == [next.root()]).await;
}

#[tokio::test]
async fn without_an_svid_of_ours_everybody_waits_and_one_that_ends_ends_the_connection() {
    let mut rig = Broker::new(&[FRONTEND]);
    rig.own(Answer::Denied);
    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&frontend));
    let waits = rig.until_fault(FRONTEND, "for which sluice-ctrl has no SVID of its own: ").await;
    assert!(waits.waiting && waits.reason.contains("no entry for sluice-ctrl has reached the agent yet"), "{waits:?}");
    let other = rig.ca.issue("spiffe://example.com/else", HOUR);
    rig.own(one(&other));
    let waits = rig.until_fault(FRONTEND, "it gives spiffe://example.com/else").await;
    assert!(waits.waiting && waits.reason.contains(&format!("no entry of {OURS} for sluice-ctrl")), "{waits:?}");

    let ends = now() + 6;
    let short = rig.ca.issue(OURS, Duration::from_secs(6));
    rig.own(one(&short));
    rig.until_serial(FRONTEND, &frontend).await;
    rig.own(Answer::Denied);
    let ended = rig.until_fault(FRONTEND, "for which sluice-ctrl has no SVID of its own: ").await;
    assert!(ended.waiting && now() >= ends, "as long as it is valid it serves: {ended:?}");
    rig.agent.until("the connection ends with it", |world| world.open == 0).await;
    assert_eq!(serial(&rig.identities, FRONTEND), Some(frontend.serial), "the workload's own has not ended");
    let (longer, next) = (rig.ca.issue(OURS, HOUR), rig.ca.issue(FRONTEND, HOUR));
    rig.object("serviceaccounts.core shop/frontend", one(&next));
    rig.own(one(&longer));
    rig.until_serial(FRONTEND, &next).await;
}

#[tokio::test]
async fn a_broker_that_the_agent_does_not_know_is_told_what_to_configure() {
    let mut rig = Broker::new(&[FRONTEND]);
    let frontend = rig.ca.issue(FRONTEND, HOUR);
    rig.object("serviceaccounts.core shop/frontend", one(&frontend));
    rig.agent.tell(|world| world.brokers[0].id = "spiffe://example.com/sluice-of-old".into());
    let named = rig.until_fault(FRONTEND, "it does not take our certificate").await;
    assert!(!named.waiting && named.reason.contains(OURS) && named.reason.contains("`brokers`"), "{named:?}");
    rig.agent.tell(|world| world.brokers[0].id = OURS.into());
    rig.until_serial(FRONTEND, &frontend).await;
    // SPIFFE Broker Endpoint §6: what we show is asked for anew before it is shown again.
    let mut before = 0;
    rig.agent.tell(|world| (world.unauthenticated, before) = (true, world.asked_own));
    rig.agent.until("our own is asked for", |world| world.asked_own > before).await;
    rig.until_fault(FRONTEND, "the client cannot be identified").await;
}
