//! Roots that change while calls live: those that rotate, and those of other trust domains.

mod trust_calls;

use pktgen_tests::sim::pki::{Authority, TRUST_DOMAIN};
use pktgen_tests::sim::topology::{self, PORT, id};
use pktgen_tests::sim::trust::{revoke_id, trust};
use pktgen_tests::sim::{Expect, Setup, World};
use snapshot::{Bundle, CloseReason, IdPattern, RefuseReason};
use trust_calls::{A, B, SECOND, change, finish, issue, plain, quick, report, shows, slow};

const BILLING: &str = "spiffe://partner.org/billing";

/// Gives every workload of a node an SVID of `authority`.
fn reissue(world: &mut World, node: usize, authority: &mut Authority) {
    let fresh = topology::identities(node, authority);
    world.push(node, &fresh, |snapshot| {
        for (workload, identity) in snapshot.workloads.iter_mut().zip(&fresh) {
            workload.svid = Some(identity.svid.clone());
        }
    });
}

#[test]
fn roots_rotate_by_overlap_and_cut_only_what_still_chains_to_the_old_one() {
    let mut world = World::new(&Setup::new(36));
    let mut new = Authority::new(world.chance.fork(), TRUST_DOMAIN);
    let (old_root, new_root) = (world.authority.bundle(), new.bundle());
    let both = |world: &mut World, bundles: &[Bundle]| {
        for node in [A, B] {
            world.push(node, &[], |snapshot| trust(snapshot, bundles));
        }
        world.run(world.clock.micros() + SECOND / 2, |_| false).expect("nothing breaks");
    };
    let begin =
        |world: &mut World| (0..20).map(|_| plain(world, "frontend", ("backend", PORT), slow())).collect::<Vec<_>>();
    let before = begin(&mut world);
    world.run(SECOND / 2, |_| false).expect("they stand");
    // The new root is trusted everywhere before anything is signed by it; in which order is the same.
    both(&mut world, &[old_root.clone(), new_root.clone()]);
    both(&mut world, &[new_root.clone(), old_root]);
    reissue(&mut world, A, &mut new);
    let mixed = begin(&mut world);
    world.run(world.clock.micros() + SECOND / 2, |_| false).expect("they stand");
    reissue(&mut world, B, &mut new);
    let after = begin(&mut world);
    world.run(world.clock.micros() + SECOND / 2, |_| false).expect("they stand");
    assert!([A, B].iter().all(|&node| world.gateways[node].ended.is_empty()), "nobody was cut by the overlap");
    // `mixed` has a caller of the new root and a server of the old one: only its own node lets go of it.
    for id in before.iter().chain(&mixed) {
        world.calls[id.0].expect = Expect::Cut;
    }
    both(&mut world, &[new_root]);
    let last = begin(&mut world);
    finish(&mut world).expect("what chains to the new root loses nothing");
    for id in before.iter().chain(&mixed) {
        assert_eq!(report(&world, A, *id).closed, Some(CloseReason::PolicyChanged));
    }
    for id in after.iter().chain(&last) {
        for node in [A, B] {
            assert_eq!(report(&world, node, *id).closed, Some(CloseReason::Finished));
        }
    }
}

#[test]
fn another_trust_domain_is_believed_by_its_own_roots_and_by_no_others() {
    let mut world = World::new(&Setup::new(37));
    let mut partner = Authority::new(world.chance.fork(), "partner.org");
    let bundle = partner.bundle();
    world.push(B, &[], |snapshot| {
        snapshot.bundles.push(bundle);
        let list = snapshot.workloads[0].inbound.as_mut().expect("backend has a list");
        list.push(IdPattern::Exact(BILLING.into()));
    });
    let good = issue(&mut partner, BILLING);
    let own = issue(&mut world.authority, &id("peer"));
    let lives = [&good, &own].map(|shown| shows(&mut world, shown, slow()));
    let cases = [
        ("ours, signed by the partner", issue(&mut partner, &id("peer")), RefuseReason::PeerUntrusted),
        ("the partner's, signed by us", issue(&mut world.authority, BILLING), RefuseReason::PeerUntrusted),
        ("in no list", issue(&mut partner, "spiffe://partner.org/other"), RefuseReason::NotAllowedInbound),
    ];
    for (name, shown, reason) in cases {
        let refused = shows(&mut world, &shown, quick());
        world.calls[refused.0].expect = Expect::Refused;
        world.oracle.forbid(refused);
        world.run(world.clock.micros() + SECOND / 2, |_| false).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        assert_eq!(report(&world, B, refused).refused, Some(reason), "{name}");
    }
    // Its whole trust domain is revoked while its bundle stays.
    let all = IdPattern::Under("spiffe://partner.org/".into());
    change(&mut world, B, &lives[..1], |snapshot| revoke_id(snapshot, all)).expect("in time");
    finish(&mut world).expect("the partner's call is cut, ours is delivered");
    assert_eq!(report(&world, B, lives[0]).closed, Some(CloseReason::PolicyChanged));
    assert_eq!(report(&world, B, lives[1]).closed, Some(CloseReason::Finished));
    // And then the trust domain is known no more.
    world.push(B, &[], |snapshot| {
        snapshot.bundles.retain(|bundle| bundle.trust_domain == TRUST_DOMAIN);
        snapshot.revoked.clear();
    });
    let refused = shows(&mut world, &good, quick());
    world.calls[refused.0].expect = Expect::Refused;
    finish(&mut world).expect("it is refused");
    assert_eq!(report(&world, B, refused).refused, Some(RefuseReason::PeerTrustDomainUnknown));
}
