//! When identities are renewed, what becomes of them when their source fails, and when they go.

mod counting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use counting::{Counting, NOW, id, identities, wanted};
use ctrl::config::kubernetes::PodId;
use ctrl::rotate::{Identities, Refreshed, Wanted};
use ctrl::source::Source;

#[test]
fn an_identity_is_renewed_at_half_its_life_and_kept_until_it_expires() {
    let fails = Arc::new(AtomicBool::new(false));
    let source = Counting { fails: fails.clone(), life: 600, ..Counting::default() };
    let mut identities = Identities::new(Box::new(source) as Box<dyn Source>, 1);
    let who = id("a");
    let wanted = [wanted(who.clone(), &[])];
    let serial = |identities: &Identities| identities.svid(&who).map(|(svid, _)| svid.serial.clone());
    assert_ne!(identities.refresh(&wanted, NOW), Refreshed::Nothing);
    assert_eq!(identities.refresh(&wanted, NOW), Refreshed::Nothing);
    let due = identities.next_due().unwrap() - NOW;
    assert!((270..=330).contains(&due), "half of 600 s, give or take a tenth: {due}");
    assert_eq!(identities.refresh(&wanted, NOW + due - 1), Refreshed::Nothing);
    assert_eq!(identities.refresh(&wanted, NOW + due), Refreshed::Renewed);
    assert_eq!(serial(&identities).as_deref(), Some("01"));

    // The source goes away: 1, 2, 4, … 60 s between attempts, the old one stays until its end.
    fails.store(true, Ordering::Relaxed);
    let end = NOW + due + 600;
    let mut now = identities.next_due().unwrap();
    let began = now;
    let mut waits = Vec::new();
    while now < end {
        assert_eq!(identities.refresh(&wanted, now), Refreshed::Nothing);
        assert_eq!(serial(&identities).as_deref(), Some("01"));
        let next = identities.next_due().unwrap();
        waits.push(next - now);
        now = next;
    }
    assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 60]);
    assert_eq!(now, end, "the expiry itself is due");
    assert_ne!(identities.refresh(&wanted, now), Refreshed::Nothing, "its end is a change");
    assert_eq!(serial(&identities), None);
    let [failure] = identities.errors().try_into().unwrap();
    assert_eq!((failure.since, failure.reason.as_str()), (began, "SVID: the source is away"));

    // It comes back, and so does the identity at the next attempt.
    fails.store(false, Ordering::Relaxed);
    assert_ne!(identities.refresh(&wanted, failure.retry_at.max(now + 60)), Refreshed::Nothing);
    assert!(serial(&identities).is_some() && identities.errors().is_empty());
}

#[test]
fn a_renewal_that_comes_late_is_not_to_wait_for_others() {
    let fails = Arc::new(AtomicBool::new(false));
    let source = Counting { fails: fails.clone(), life: 600, ..Counting::default() };
    let mut identities = Identities::new(Box::new(source) as Box<dyn Source>, 1);
    let wanted = [wanted(id("a"), &[])];
    assert_eq!(identities.refresh(&wanted, NOW), Refreshed::Changed);
    fails.store(true, Ordering::Relaxed);
    assert_eq!(identities.refresh(&wanted, NOW + 400), Refreshed::Nothing);
    fails.store(false, Ordering::Relaxed);
    assert_eq!(identities.refresh(&wanted, NOW + 500), Refreshed::Changed);
}

#[test]
fn renewals_are_spread_and_the_same_seed_spreads_them_the_same() {
    let due = |seed: u64, name: String| {
        let mut identities = Identities::new(Box::new(Counting::default()) as Box<dyn Source>, seed);
        identities.refresh(&[wanted(id(&name), &[])], NOW);
        identities.next_due().unwrap() - NOW
    };
    let spread: std::collections::BTreeSet<_> = (0..50).map(|n| due(1, format!("w{n}"))).collect();
    assert!(spread.len() > 20 && spread.iter().all(|due| (1_620..=1_980).contains(due)), "{spread:?}");
    assert_eq!(due(1, "a".into()), due(1, "a".into()));
    assert_ne!(due(1, "a".into()), due(2, "a".into()));
}

#[test]
fn a_source_that_signs_itself_does_not_sign_anew_for_each_pod() {
    let mut identities = identities();
    let wants = |pods: &[&str]| {
        let pod = |uid: &&str| PodId { namespace: "shop".into(), name: "a".into(), uid: (*uid).into() };
        [Wanted { pods: pods.iter().map(pod).collect(), ..wanted(id("a"), &[]) }]
    };
    assert_eq!(identities.refresh(&wants(&["1"]), NOW), Refreshed::Changed);
    for pods in [&["1", "2"][..], &["2"], &[]] {
        assert_eq!(identities.refresh(&wants(pods), NOW + 1), Refreshed::Nothing, "{pods:?}");
    }
}

#[test]
fn an_identity_goes_with_its_workload_and_follows_its_names() {
    let mut identities = identities();
    let want = |name: &str, dns: &[&str]| wanted(id(name), dns);
    assert_ne!(identities.refresh(&[want("a", &[]), want("b", &[])], NOW), Refreshed::Nothing);
    assert_ne!(
        identities.refresh(&[want("a", &["a.example.com"])], NOW + 1),
        Refreshed::Nothing,
        "new names and one gone"
    );
    assert_eq!(
        identities.iter().map(|(id, svid)| (id.as_str(), svid.serial.as_str())).collect::<Vec<_>>(),
        [("spiffe://example.com/a", "02")]
    );
    assert_eq!(identities.refresh(&[want("a", &["a.example.com"])], NOW + 2), Refreshed::Nothing);
}
