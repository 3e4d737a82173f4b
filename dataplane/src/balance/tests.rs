//! Which endpoint is chosen, who is ejected and for how long, and what outlives a newer snapshot.

use std::collections::BTreeMap;

use super::*;
use crate::planted;

const NOW: Instant = Instant::from_micros_const(100_000_000);

fn endpoints(count: u16) -> Vec<SocketAddr> {
    (1..=count).map(|n| SocketAddr::new([198, 18, 2, 2].into(), n)).collect()
}

fn balancer(places: usize) -> Balancer {
    Balancer::of_size(&[7; 16], 0, places)
}

fn any(_: SocketAddr) -> bool {
    true
}

/// Gives `calls` calls, each of which stands and goes on.
fn give(balancer: &mut Balancer, of: &[SocketAddr], calls: usize) -> BTreeMap<SocketAddr, u32> {
    for _ in 0..calls {
        let chosen = balancer.choose(of, NOW, any).expect("all fit");
        assert!(balancer.begun(chosen, NOW));
        balancer.stood(chosen);
    }
    balancer.shown(0, usize::MAX, NOW).map(|shown| (shown.address, shown.active)).collect()
}

fn fail(balancer: &mut Balancer, endpoint: SocketAddr, of: &[SocketAddr], times: u32, now: Instant) -> bool {
    (0..times).fold(false, |_, _| {
        assert!(balancer.begun(endpoint, now));
        let ejected = balancer.failed(endpoint, of, now);
        balancer.ended(endpoint);
        ejected
    })
}

/// Of 100 calls that go on, what 10 endpoints have at the least and at the most.
fn spread() -> (u32, u32) {
    let active = give(&mut balancer(16), &endpoints(10), 100);
    (*active.values().min().expect("ten"), *active.values().max().expect("ten"))
}

#[test]
fn two_choices_are_nearly_even_and_one_is_not() {
    let (least, most) = spread();
    assert!(least >= 8 && most <= 12, "{least} to {most}");
    planted::plant(Some(Bug::FirstDrawWins));
    let (least, most) = spread();
    planted::plant(None);
    assert!(least < 8 || most > 12, "chance alone is as even: {least} to {most}");
}

#[test]
fn every_endpoint_has_its_turn_and_the_same_secret_draws_alike() {
    let of = endpoints(50);
    let draw = |secret, core| {
        let mut balancer = Balancer::of_size(&[secret; 16], core, 64);
        (0..500).map(|_| balancer.choose(&of, NOW, any).expect("all fit")).collect::<Vec<_>>()
    };
    let drawn = draw(7, 0);
    assert!(of.iter().all(|endpoint| drawn.contains(endpoint)));
    assert_eq!(drawn, draw(7, 0));
    assert_ne!(drawn, draw(7, 1));
    assert_ne!(drawn, draw(8, 0));
}

#[test]
fn what_does_not_fit_is_never_given_a_call_however_few_do() {
    let (of, mut balancer) = (endpoints(100), balancer(128));
    for _ in 0..200 {
        assert_eq!(balancer.choose(&of, NOW, |endpoint| endpoint == of[41]), Some(of[41]));
    }
    assert_eq!(balancer.choose(&of, NOW, |_| false), None);
    assert_eq!(balancer.choose(&[], NOW, any), None);
}

#[test]
fn five_failures_in_a_row_eject_for_longer_each_time_and_one_that_stands_begins_anew() {
    let (of, mut balancer) = (endpoints(4), balancer(8));
    assert!(!fail(&mut balancer, of[0], &of, FAILURES - 1, NOW));
    balancer.stood(of[0]);
    assert!(!fail(&mut balancer, of[0], &of, FAILURES - 1, NOW));
    assert!(fail(&mut balancer, of[0], &of, 1, NOW));
    let given =
        |balancer: &mut Balancer, now| (0..100).filter(|_| balancer.choose(&of, now, any) == Some(of[0])).count();
    let mut now = NOW;
    for nth in 1..=LONGEST + 2 {
        let over = now + EJECTION * nth.min(LONGEST);
        assert_eq!((given(&mut balancer, over - Duration::from_micros(1)), balancer.ejected(now)), (0, 1), "{nth}");
        assert!(given(&mut balancer, over) > 0, "{nth}");
        assert_eq!(balancer.ejected(over), 0);
        now = over;
        assert!(fail(&mut balancer, of[0], &of, FAILURES, now));
    }
    // So long without one is as if there had been none.
    now += EJECTION * (2 * LONGEST + 1);
    assert!(fail(&mut balancer, of[0], &of, FAILURES, now));
    assert!(given(&mut balancer, now + EJECTION) > 0);
}

/// How many of four, all of which fail, are ejected.
fn ejected_of_four() -> usize {
    let (of, mut balancer) = (endpoints(4), balancer(8));
    for &endpoint in &of {
        fail(&mut balancer, endpoint, &of, 3 * FAILURES, NOW);
    }
    balancer.ejected(NOW)
}

#[test]
fn no_more_than_half_are_ejected_and_where_all_are_none_is() {
    assert_eq!(ejected_of_four(), 2);
    planted::plant(Some(Bug::AllEjected));
    assert_eq!(ejected_of_four(), 4);
    planted::plant(None);
    // One may always be, and two of which one has gone from the list leave nobody.
    let (of, mut balancer) = (endpoints(2), balancer(8));
    assert!(fail(&mut balancer, of[0], &of, FAILURES, NOW));
    assert!(!fail(&mut balancer, of[1], &of, FAILURES, NOW));
    for _ in 0..20 {
        assert_eq!(balancer.choose(&of, NOW, any), Some(of[1]));
    }
    assert_eq!(balancer.choose(&of[..1], NOW, any), Some(of[0]), "all are ejected: none is treated so");
}

#[test]
fn a_full_table_forgets_what_nothing_depends_on_and_nothing_else() {
    let (of, mut balancer) = (endpoints(6), balancer(3));
    assert!(balancer.begun(of[0], NOW));
    assert!(fail(&mut balancer, of[1], &of, FAILURES, NOW));
    assert!(balancer.begun(of[2], NOW));
    balancer.ended(of[2]);
    assert!(balancer.begun(of[3], NOW), "the third has no call any more");
    assert!(!balancer.begun(of[4], NOW), "one is ejected, and two have calls");
    let known: Vec<_> = balancer.shown(0, 9, NOW).map(|shown| (shown.address, shown.active)).collect();
    assert_eq!(known, [(of[0], 1), (of[1], 0), (of[3], 1)]);
    balancer.ended(of[4]);
    // When the ejection counts for nothing any more, its place does.
    let later = NOW + EJECTION * 3;
    assert!(balancer.begun(of[4], later));
    assert!(!balancer.begun(of[5], later));
}
