//! What answers come to: which addresses a name has, for how long, and how many at the most.

use super::*;
use answer::{Found, bounded};

const NOW: u64 = 1_000_000;

fn ips(list: &[&str], ttl: u32) -> Found {
    Found::Addresses(list.iter().map(|text| (text.parse().expect("an address"), bounded(ttl))).collect())
}

fn answer(v4: Found) -> Answer {
    Answer { v4, v6: Found::None("none".into()) }
}

fn list(resolved: &Resolved) -> Vec<String> {
    let shown = |ip: IpAddr| if resolved.is_current("n", ip) { ip.to_string() } else { format!("({ip})") };
    resolved.addresses("n").map(shown).collect()
}

fn reason(resolved: &Resolved) -> Option<(String, usize)> {
    resolved.failures().into_iter().next().map(|failure| (failure.reason, failure.kept))
}

#[test]
fn what_an_answer_replaces_stays_for_twice_its_ttl_and_is_not_current() {
    let mut resolved = Resolved::default();
    assert_eq!(resolved.take("n", &answer(ips(&["198.18.1.8", "198.18.1.9"], 10)), NOW), Some(Duration::from_secs(10)));
    assert_eq!(list(&resolved), ["198.18.1.8", "198.18.1.9"]);
    resolved.take("n", &answer(ips(&["198.18.1.9", "198.18.1.7"], 3)), NOW + 5_000);
    assert_eq!(list(&resolved), ["198.18.1.7", "(198.18.1.8)", "198.18.1.9"]);
    // Later answers do not lengthen its time, and the shorter TTL of another is not its own.
    resolved.take("n", &answer(ips(&["198.18.1.9"], 3)), NOW + 8_000);
    assert_eq!(resolved.next_end(), Some(NOW + 14_000), "3 s of the one that went last");
    assert!(resolved.forget(NOW + 14_000));
    assert_eq!(list(&resolved), ["(198.18.1.8)", "198.18.1.9"]);
    assert!(!resolved.forget(NOW + 24_999));
    assert!(resolved.forget(NOW + 25_000));
    assert_eq!((list(&resolved), resolved.next_end()), (vec!["198.18.1.9".to_owned()], None));
    // One that comes back is current again.
    resolved.take("n", &answer(ips(&["198.18.1.8"], 3)), NOW + 30_000);
    resolved.take("n", &answer(ips(&["198.18.1.9"], 3)), NOW + 31_000);
    assert_eq!(list(&resolved), ["(198.18.1.8)", "198.18.1.9"]);
}

#[test]
fn a_failure_of_any_kind_keeps_the_last_good_for_as_long_as_it_takes() {
    let mut good = Resolved::default();
    good.take("n", &answer(ips(&["198.18.1.8", "198.18.1.9"], 10)), NOW);
    for (fails, why) in [
        (Answer::failed("SERVFAIL"), "SERVFAIL"),
        (answer(Found::None("NXDOMAIN".into())), "NXDOMAIN"),
        (answer(Found::Failed("no answer".into())), "no answer"),
    ] {
        let mut resolved = good.clone();
        resolved.take("n", &fails, NOW + 1_000_000);
        assert!(!resolved.forget(u64::MAX - 1));
        assert_eq!(list(&resolved), ["198.18.1.8", "198.18.1.9"], "{why}");
        assert_eq!(reason(&resolved), Some((why.to_owned(), 2)));
        assert!(!resolved.leads_where(&good), "that it fails is news");
        resolved.take("n", &answer(ips(&["198.18.1.8", "198.18.1.9"], 10)), NOW + 2_000_000);
        assert!(resolved.leads_where(&good));
    }
}

#[test]
fn a_family_that_fails_keeps_its_own_and_one_that_is_empty_does_not() {
    let mut resolved = Resolved::default();
    let both = Answer { v4: ips(&["198.18.1.8"], 10), v6: ips(&["2001:db8::8"], 5) };
    assert_eq!(resolved.take("n", &both, NOW), Some(Duration::from_secs(5)));
    let half = Answer { v4: ips(&["198.18.1.9"], 10), v6: Found::Failed("SERVFAIL".into()) };
    resolved.take("n", &half, NOW);
    assert_eq!(list(&resolved), ["(198.18.1.8)", "198.18.1.9", "2001:db8::8"]);
    assert_eq!(reason(&resolved), Some(("AAAA: SERVFAIL".into(), 3)));
    resolved.take("n", &answer(ips(&["198.18.1.9"], 10)), NOW);
    assert_eq!(list(&resolved), ["(198.18.1.8)", "198.18.1.9", "(2001:db8::8)"]);
    assert_eq!(reason(&resolved), None);
}

#[test]
fn addresses_are_bounded_and_the_same_are_taken_whatever_their_order() {
    let many = |from: u32, count: u32| -> Vec<String> {
        (from..from + count).map(|n| std::net::Ipv4Addr::from(0xc612_0000 + n).to_string()).collect()
    };
    let ask = |resolved: &mut Resolved, list: &[String], now| {
        let list: Vec<_> = list.iter().map(String::as_str).collect();
        resolved.take("n", &answer(ips(&list, 60)), now);
    };
    let most = MOST_ADDRESSES as u32;
    let (mut resolved, mut list) = (Resolved::default(), many(0, most + 7));
    ask(&mut resolved, &list, NOW);
    assert_eq!(resolved.addresses("n").count(), MOST_ADDRESSES);
    assert_eq!(resolved.left_out().collect::<Vec<_>>(), [("n", 7)]);
    let first: Vec<_> = resolved.addresses("n").collect();
    list.reverse();
    ask(&mut resolved, &list, NOW);
    assert_eq!(resolved.addresses("n").collect::<Vec<_>>(), first);
    // Those that were replaced make room for those that were not.
    ask(&mut resolved, &many(5_000, most - 2), NOW + 1);
    assert_eq!(resolved.addresses("n").count(), MOST_ADDRESSES);
    assert_eq!(resolved.addresses("n").filter(|ip| resolved.is_current("n", *ip)).count(), MOST_ADDRESSES - 2);
    assert_eq!(resolved.left_out().count(), 0);
}

#[test]
fn a_ttl_counts_as_a_second_at_the_least_and_an_hour_at_the_most() {
    let seconds = |ttl| bounded(ttl).as_secs();
    assert_eq!([0, 1, 2, 3_600, 3_601, u32::MAX].map(seconds), [1, 1, 2, 3_600, 3_600, 3_600]);
}
