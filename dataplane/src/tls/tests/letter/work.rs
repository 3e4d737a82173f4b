//! What a verdict costs, whatever is presented: counted in signature checks, not in seconds.

use ::snapshot::RefuseReason::{PeerExpired, PeerUntrusted};

use super::forge::{self, Kind, Plan};
use crate::tls::path::{MAX_PRESENTED, SIGNATURES};
use crate::tls::tests::certs::{Leaf, NOW};
use crate::tls::tests::chains::Judge;
use crate::tls::tests::world::FRONTEND;

fn judge(roots: Vec<Vec<u8>>) -> Judge {
    let mut judge = Judge::new();
    judge.world.snapshot.bundles[0].roots = roots;
    judge.compiled = judge.world.compile();
    judge
}

#[test]
fn a_tangle_of_issuers_of_one_name_costs_a_bounded_number_of_checks() {
    let mut plan = Plan::good(FRONTEND, Kind::P256);
    let mut issuer = plan.issuers[0].clone();
    issuer.subject = forge::common_name("root");
    plan.issuers = vec![issuer; MAX_PRESENTED - 1];
    // The last one leads nowhere: its key is not the root's, only its issuer's name.
    plan.issuers.last_mut().unwrap().signature_broken = true;
    // The signer of each comes last in the search for it.
    plan.bytes = |chain| chain[1..].reverse();
    let judge = judge(vec![plan.root()]);
    let (reason, checks) = judge.client(&plan.leaf(), NOW);
    assert_eq!((reason, checks), (Some(PeerUntrusted), SIGNATURES));
    // The same in the order in which it was signed is found, and is within the bound.
    plan.issuers.last_mut().unwrap().signature_broken = false;
    plan.bytes = |_| {};
    assert!(matches!(judge.client(&plan.leaf(), NOW), (None, 1..=SIGNATURES)));
}

#[test]
fn an_issuer_presented_over_and_over_is_checked_once_in_a_path() {
    let mut plan = Plan::good(FRONTEND, Kind::P256);
    plan.bytes = |chain| chain.resize(MAX_PRESENTED, chain[1].clone());
    assert_eq!(judge(vec![plan.root()]).client(&plan.leaf(), NOW), (None, 3));
}

#[test]
fn a_signature_that_two_paths_share_is_checked_once() {
    let mut plan = Plan::good(FRONTEND, Kind::P256);
    plan.root.to = NOW - 1;
    let mut leaf = plan.leaf();
    // The first issuer once more, of the same key: another way to the same second issuer.
    plan.issuers[0].to += 1;
    leaf.chain.push(plan.leaf().chain.remove(1));
    assert_eq!(judge(vec![plan.root()]).client(&leaf, NOW), (Some(PeerExpired), 5));
}

/// `count` roots of one name and of other keys.
fn others(plan: &Plan, count: u16, with_key_id: bool) -> Vec<Vec<u8>> {
    let other = |n: u16| {
        let mut other = plan.clone();
        other.root.key = Some(forge::public_key(Kind::P256, 9));
        other.root.unset(forge::SUBJECT_KEY);
        if with_key_id {
            other.root.set(forge::SUBJECT_KEY, false, forge::key_id(&n.to_be_bytes()));
        }
        other.root()
    };
    (0..count).map(other).collect()
}

fn with_key_ids() -> Plan {
    let mut plan = Plan::good(FRONTEND, Kind::P256);
    plan.root.set(forge::SUBJECT_KEY, false, forge::key_id(b"the one"));
    plan.issuers[1].set(forge::AUTHORITY_KEY, false, forge::authority_key_id(b"the one"));
    plan
}

#[test]
fn among_a_thousand_roots_of_one_name_the_key_id_leads_to_the_one() {
    let plan = with_key_ids();
    let leaf = plan.leaf();
    for at in [0, 500, 1000] {
        let mut roots = others(&plan, 1000, true);
        roots.insert(at, plan.root());
        assert_eq!(judge(roots).client(&leaf, NOW), (None, 3), "at {at}");
    }
    // It is a hint and no proof: one that is another's is tried first, and then the others are.
    let mut misled = plan.clone();
    misled.issuers[1].set(forge::AUTHORITY_KEY, false, forge::authority_key_id(&7_u16.to_be_bytes()));
    let mut roots = others(&plan, 10, true);
    roots.insert(0, plan.root());
    assert_eq!(judge(roots).client(&misled.leaf(), NOW), (None, 4));
}

#[test]
fn without_key_ids_as_many_roots_of_one_name_are_tried_as_the_bound_allows() {
    let plan = Plan::good(FRONTEND, Kind::P256);
    let leaf: Leaf = plan.leaf();
    // Two signatures are those of the issuers.
    for (before, want) in [(SIGNATURES - 3, (None, SIGNATURES)), (SIGNATURES - 2, (Some(PeerUntrusted), SIGNATURES))] {
        let mut roots = others(&plan, before.try_into().unwrap(), false);
        roots.push(plan.root());
        assert_eq!(judge(roots).client(&leaf, NOW), want, "{before} others first");
    }
    let mut roots = others(&plan, 1000, false);
    roots.push(plan.root());
    assert_eq!(judge(roots).client(&leaf, NOW), (Some(PeerUntrusted), SIGNATURES));
}
