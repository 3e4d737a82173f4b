//! An independent judge of paths: whatever we take, webpki takes too. (It does not hold the other
//! way round: webpki knows neither keyUsage nor SPIFFE IDs.)

use std::time::Duration;

use ::snapshot::RefuseReason::NotAllowedInbound;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::forge::{self, Kind, Plan};
use super::{id, issuers, leaf};
use crate::tls::provider;
use crate::tls::tests::certs::{Leaf, NOW};
use crate::tls::tests::chains::verdict;
use crate::tls::tests::world::{FRONTEND, World};
use crate::tls::verified::Role;

fn webpki_takes(root: &[u8], leaf: &Leaf, role: Role) -> bool {
    let root = CertificateDer::from(root);
    let Ok(anchor) = webpki::anchor_from_trusted_cert(&root) else { return false };
    let anchors = [anchor];
    let chain: Vec<_> = leaf.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (usage, now) = match role {
        Role::Client => (KeyUsage::client_auth(), UnixTime::since_unix_epoch(Duration::from_secs(NOW))),
        Role::Server => (KeyUsage::server_auth(), UnixTime::since_unix_epoch(Duration::from_secs(NOW))),
    };
    let algorithms = provider::production().signature_verification_algorithms.all;
    let verify = |end: &EndEntityCert<'_>| {
        end.verify_for_usage(algorithms, &anchors, &chain[1..], now, usage, None, None).map(|_| ())
    };
    EndEntityCert::try_from(&chain[0]).and_then(|end| verify(&end)).is_ok()
}

/// None if the root cannot be one.
fn we_take(world: &mut World, root: &[u8], leaf: &Leaf, role: Role) -> Option<bool> {
    world.snapshot.bundles[0].roots = vec![root.to_vec()];
    let compiled = world.try_compile(None).ok()?;
    Some(match verdict(&compiled, leaf, role, NOW) {
        Ok(_) => true,
        // Authenticated, and then not in the list.
        Err(refusal) => refusal.reason == NotAllowedInbound,
    })
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn whatever_we_take_webpki_takes_too() {
    let bends: Vec<_> = leaf::ROWS.iter().chain(issuers::ROWS).flat_map(|row| [row.wrong, row.right]).collect();
    let (mut world, mut draw, mut both, mut webpki_alone) = (World::new(), Draw(7), 0, 0);
    for _ in 0..3000 {
        let role = [Role::Client, Role::Server][draw.below(2)];
        let mut plan = Plan::good(id(role), [Kind::P256, Kind::Ed25519][draw.below(2)]);
        for _ in 0..draw.below(4) {
            bends[draw.below(bends.len())](&mut plan, role);
        }
        // There it counts self-issued certificates, which RFC 5280 §6.1.4 (l) does not.
        if plan.issuers.iter().any(|issuer| issuer.subject == forge::common_name("root")) {
            continue;
        }
        let (root, leaf) = (plan.root(), plan.leaf());
        let Some(ours) = we_take(&mut world, &root, &leaf, role) else { continue };
        let theirs = webpki_takes(&root, &leaf, role);
        assert!(theirs || !ours, "{plan:#?}");
        both += usize::from(theirs && ours);
        webpki_alone += usize::from(theirs && !ours);
    }
    assert!(both > 500 && webpki_alone > 300, "{both} taken by both, {webpki_alone} by webpki alone");
}

#[test]
fn a_garbled_chain_or_root_never_panics_and_is_not_taken_where_webpki_does_not() {
    let (mut world, mut draw, mut taken) = (World::new(), Draw(3), 0);
    let mut plan = Plan::good(FRONTEND, Kind::P256);
    // With all that is read, and constraints on mail, three bits away from those on URIs: webpki
    // refuses every URI below one of those.
    plan.root.set(forge::CONSTRAINTS, true, forge::constraints(&[(0x81, b"example.com")], &[(0x81, b"example.org")]));
    plan.root.set(forge::SUBJECT_KEY, false, forge::key_id(b"root"));
    plan.issuers[1].set(forge::AUTHORITY_KEY, false, forge::authority_key_id(b"root"));
    let (good, root) = (plan.leaf(), plan.root());
    for _ in 0..20_000 {
        let (mut leaf, mut root) = (good.clone(), root.clone());
        let which = draw.below(4);
        let bytes = leaf.chain.get_mut(which).unwrap_or(&mut root);
        for _ in 0..=draw.below(2) {
            let at = draw.below(bytes.len());
            bytes[at] ^= 1 << draw.below(8);
        }
        let Some(ours) = we_take(&mut world, &root, &leaf, Role::Client) else { continue };
        assert!(!ours || webpki_takes(&root, &leaf, Role::Client), "{which}: {:?}, {root:?}", leaf.chain);
        taken += usize::from(ours);
    }
    // A root is not signed by anybody who is asked, so much in it may be garbled.
    assert!((500..5000).contains(&taken), "{taken} taken");
}
