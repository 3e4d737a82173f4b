//! What is remembered of verified chains: it spares signature checks, and never changes a verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use ::snapshot::{Crl, RefuseReason, RefuseReason::*, Revoked, RuleId, TlsMode};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm, UnixTime,
};

use super::certs::{Ca, Leaf, NOW, Says, der};
use super::letter::forge::{Kind, Plan, USAGE};
use super::world::{FRONTEND, World, exact, inbound};
use crate::snapshot::Compiled;
use crate::tls::certificate::Certificate;
use crate::tls::identity::hex_serial;
use crate::tls::verified::Role;
use crate::tls::verify::{Slot, Verifier};
use crate::tls::{Outcome, provider};

/// ECDSA P-256, and how often it was asked.
#[derive(Debug)]
struct Counting(AtomicUsize);

impl SignatureVerificationAlgorithm for Counting {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.0.fetch_add(1, Relaxed);
        webpki::aws_lc_rs::ECDSA_P256_SHA256.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        webpki::aws_lc_rs::ECDSA_P256_SHA256.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        webpki::aws_lc_rs::ECDSA_P256_SHA256.signature_alg_id()
    }
}

pub struct Judge {
    pub world: World,
    pub compiled: Arc<Compiled>,
    counting: &'static Counting,
}

impl Judge {
    pub fn new() -> Self {
        let counting: &'static Counting = Box::leak(Box::new(Counting(AtomicUsize::new(0))));
        let all: &'static [&'static dyn SignatureVerificationAlgorithm] = Box::leak(Box::new([counting as _]));
        let algorithms = WebPkiSupportedAlgorithms { all, mapping: &[] };
        let production =
            CryptoProvider { signature_verification_algorithms: algorithms, ..(*provider::production()).clone() };
        let world = World::with(Ca::new("example.com"), Arc::new(production));
        Self { compiled: world.compile(), world, counting }
    }

    /// What the leaf's holder is refused for as a caller, and how many signatures were checked.
    pub fn client(&self, leaf: &Leaf, now: u64) -> (Option<RefuseReason>, usize) {
        self.judge(leaf, Role::Client, now)
    }

    fn server(&self, leaf: &Leaf, now: u64) -> (Option<RefuseReason>, usize) {
        self.judge(leaf, Role::Server, now)
    }

    fn judge(&self, leaf: &Leaf, role: Role, now: u64) -> (Option<RefuseReason>, usize) {
        let before = self.counting.0.load(Relaxed);
        let reason = verdict(&self.compiled, leaf, role, now).err().map(|refusal| refusal.reason);
        (reason, self.counting.0.load(Relaxed) - before)
    }
}

/// What comes of a chain in this role, under the policy of the database's callers.
pub(in crate::tls) fn verdict(compiled: &Arc<Compiled>, leaf: &Leaf, role: Role, now: u64) -> Outcome {
    let slot = Arc::new(Slot::default());
    let route = inbound(1, 5432, TlsMode::Permissive);
    let judge = Verifier { compiled: compiled.clone(), route, slot: slot.clone(), keeps: false };
    let chain: Vec<CertificateDer<'_>> = leaf.chain.iter().map(|der| der.as_slice().into()).collect();
    let (end, rest, now) = (&chain[0], &chain[1..], UnixTime::since_unix_epoch(Duration::from_secs(now)));
    let said = match role {
        Role::Client => judge.verify_client_cert(end, rest, now).map(drop),
        Role::Server => {
            let name = ServerName::try_from("any.example").unwrap();
            judge.verify_server_cert(end, rest, &name, &[], now).map(drop)
        }
    };
    let outcome = slot.outcome().unwrap().clone();
    assert_eq!(said.is_ok(), outcome.is_ok());
    outcome
}

#[test]
fn a_chain_is_verified_once_and_then_known() {
    let judge = Judge::new();
    let leaf = judge.world.ca.by_intermediate(NOW + 7200).svid(FRONTEND);
    assert_eq!(judge.client(&leaf, NOW), (None, 2));
    assert_eq!(judge.client(&leaf, NOW + 1), (None, 0));
    // Another leaf of the same issuer is another chain.
    assert_eq!(judge.client(&judge.world.ca.svid(FRONTEND), NOW), (None, 1));
}

#[test]
fn what_is_known_ends_with_the_first_certificate_of_the_chain_and_begins_with_the_last() {
    let judge = Judge::new();
    let leaf = judge.world.ca.by_intermediate(NOW + 100).svid(FRONTEND);
    assert_eq!(judge.client(&leaf, NOW), (None, 2));
    assert_eq!(judge.client(&leaf, NOW + 100), (None, 0));
    assert_eq!(judge.client(&leaf, NOW + 101).0, Some(PeerExpired));
    let short = judge.world.ca.leaf(&Says { not_after: NOW + 50, ..Says::id(FRONTEND) });
    assert_eq!(judge.client(&short, NOW), (None, 1));
    assert_eq!(judge.client(&short, NOW + 51).0, Some(PeerExpired));
    assert_eq!(judge.client(&short, NOW - 61).0, Some(PeerExpired));
    assert_eq!(judge.client(&short, NOW + 50), (None, 0));
}

#[test]
fn what_is_known_ends_with_the_root() {
    let mut plan = Plan::good(FRONTEND, Kind::P256);
    plan.root.to = NOW + 50;
    plan.issuers.truncate(1);
    let mut judge = Judge::new();
    judge.world.snapshot.bundles[0] = plan.bundle();
    judge.compiled = judge.world.compile();
    let leaf = plan.leaf();
    assert_eq!(judge.client(&leaf, NOW), (None, 2));
    assert_eq!(judge.client(&leaf, NOW + 50), (None, 0));
    assert_eq!(judge.client(&leaf, NOW + 51).0, Some(PeerExpired));
}

#[test]
fn nothing_is_remembered_of_what_a_rule_refused() {
    let mut plan = Plan::good(FRONTEND, Kind::P256);
    plan.issuers[0].unset(USAGE);
    let mut judge = Judge::new();
    judge.world.snapshot.bundles[0] = plan.bundle();
    judge.compiled = judge.world.compile();
    let leaf = plan.leaf();
    for _ in 0..3 {
        assert_eq!(judge.client(&leaf, NOW), (Some(PeerUntrusted), 3));
    }
}

#[test]
fn what_is_known_of_one_role_is_not_believed_in_the_other() {
    use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    let judge = Judge::new();
    let caller = judge.world.ca.leaf(&Says { extended: vec![ClientAuth], ..Says::id(FRONTEND) });
    assert_eq!(judge.client(&caller, NOW), (None, 1));
    assert_eq!(judge.server(&caller, NOW).0, Some(PeerBadCertificate));
}

#[test]
fn a_known_leaf_with_other_certificates_beside_it_is_verified_anew() {
    let judge = Judge::new();
    let leaf = judge.world.ca.by_intermediate(NOW + 7200).svid(FRONTEND);
    assert_eq!(judge.client(&leaf, NOW).0, None);
    let alone = Leaf { chain: leaf.chain[..1].to_vec(), ..leaf.clone() };
    assert_eq!(judge.client(&alone, NOW).0, Some(PeerUntrusted));
    // The same bytes, divided in another way.
    let mut moved = leaf.clone();
    let first = moved.chain[1].remove(0);
    moved.chain[0].push(first);
    assert!(judge.client(&moved, NOW).0.is_some());
}

#[test]
fn another_bundle_knows_nothing_and_the_same_one_keeps_what_it_knows() {
    let mut judge = Judge::new();
    let leaf = judge.world.ca.svid(FRONTEND);
    assert_eq!(judge.client(&leaf, NOW), (None, 1));
    judge.compiled = judge.world.try_compile(Some(&judge.compiled)).unwrap();
    assert_eq!(judge.client(&leaf, NOW), (None, 0));
    judge.world.snapshot.bundles[0] = Ca::new("example.com").bundle();
    judge.compiled = judge.world.try_compile(Some(&judge.compiled)).unwrap();
    assert_eq!(judge.client(&leaf, NOW).0, Some(PeerUntrusted));
}

#[test]
fn a_known_caller_is_decided_about_anew() {
    let mut judge = Judge::new();
    let leaf = judge.world.ca.svid(FRONTEND);
    assert_eq!(judge.client(&leaf, NOW), (None, 1));
    judge.world.database().inbound = Some(vec![]);
    judge.compiled = judge.world.try_compile(Some(&judge.compiled)).unwrap();
    assert_eq!(judge.client(&leaf, NOW), (Some(NotAllowedInbound), 0));
}

#[test]
fn a_known_caller_that_is_revoked_is_refused_and_the_others_stay_known() {
    let mut judge = Judge::new();
    let says = |serial| Says { serial, ..Says::id(FRONTEND) };
    let [one, other] = [0x4f3a, 0x4f3b].map(|serial| judge.world.ca.leaf(&says(serial)));
    assert_eq!((judge.client(&one, NOW), judge.client(&other, NOW)), ((None, 1), (None, 1)));
    let mut list =
        Revoked { trust_domain: "example.com".into(), serials: vec![("4f3a".into(), RuleId(0))], ..Revoked::default() };
    judge.world.snapshot.revoked = vec![list.clone()];
    judge.compiled = judge.world.try_compile(Some(&judge.compiled)).unwrap();
    assert_eq!((judge.client(&one, NOW), judge.client(&other, NOW)), ((Some(PeerRevoked), 0), (None, 0)));
    list.ids.push((exact(FRONTEND), RuleId(0)));
    judge.world.snapshot.revoked = vec![list];
    judge.compiled = judge.world.try_compile(Some(&judge.compiled)).unwrap();
    assert_eq!((judge.client(&one, NOW), judge.client(&other, NOW)), ((Some(PeerRevoked), 0), (Some(PeerRevoked), 0)));
    judge.world.snapshot.revoked.clear();
    judge.compiled = judge.world.try_compile(Some(&judge.compiled)).unwrap();
    assert_eq!((judge.client(&one, NOW), judge.client(&other, NOW)), ((None, 0), (None, 0)));
}

/// As [`Crl::issuer`] has a CA that is called by its common name alone.
fn called(name: &str) -> [u8; 32] {
    let attribute = [der(0x06, &[0x55, 0x04, 0x03]), der(0x0c, name.as_bytes())].concat();
    let names = der(0x31, &der(0x30, &attribute));
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &names).as_ref().try_into().unwrap()
}

#[test]
fn a_crl_revokes_by_issuer_and_serial_wherever_in_a_known_chain_and_fails_by_the_clock() {
    let mut judge = Judge::new();
    let says = Says { serial: 0x4f3a, ..Says::id(FRONTEND) };
    let direct = judge.world.ca.leaf(&says);
    let [one, other] = [(); 2].map(|()| judge.world.ca.by_intermediate(NOW + 7200).leaf(&says));
    let between = hex_serial(Certificate::read(&one.chain[1]).unwrap().serial());
    let (root, node) = (called("example.com"), called("example.com node"));
    for leaf in [&direct, &one, &other] {
        assert_eq!(judge.client(leaf, NOW).0, None);
    }
    let revoked = Some(PeerRevoked);
    for (name, issuer, serial, want) in [
        ("the root's", root, "4f3a", [revoked, None, None]),
        ("the intermediates'", node, "4f3a", [None, revoked, revoked]),
        ("one intermediate", root, between.as_str(), [None, revoked, None]),
        ("an intermediate's serial at those below", node, between.as_str(), [None, None, None]),
        ("another's", [7; 32], "4f3a", [None, None, None]),
    ] {
        let serials = vec![serial.to_owned()];
        let crl = Crl { issuer, serials, rule: RuleId(0), fails_after: Some(NOW + 60), is_stale: false };
        let list = Revoked { trust_domain: "example.com".into(), crls: vec![crl], ..Revoked::default() };
        judge.world.snapshot.revoked = vec![list];
        judge.compiled = judge.world.try_compile(Some(&judge.compiled)).unwrap();
        let leaves = [&direct, &one, &other];
        assert_eq!(leaves.map(|leaf| judge.client(leaf, NOW + 60)), want.map(|reason| (reason, 0)), "{name}");
        let stale = want.map(|reason| (reason.or(Some(CrlStale)), 0));
        assert_eq!(leaves.map(|leaf| judge.client(leaf, NOW + 61)), stale, "{name}: past its nextUpdate");
    }
}
