//! Peers good and bad, in both roles: each ends with one reason here and one alert there.

use ::snapshot::{RefuseReason, RefuseReason::*, RuleId, SourceAddress, TlsMode};
use rcgen::{ExtendedKeyUsagePurpose as Eku, KeyUsagePurpose as Use};
use rustls::AlertDescription as Alert;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::UnixTime;

use std::sync::Arc;
use std::time::Duration;

use super::certs::{Ca, Leaf, NOW, Says};
use super::stock::{self, ALL};
use super::world::{API, API_AT, DATABASE, FRONTEND, World, at, ends, exact, inbound};
use crate::planted;
use crate::policy::Route;
use crate::snapshot::EndpointId;
use crate::tls::identity;
use crate::tls::verify::{Slot, Verifier};
use crate::tls::{Failure, Refusal, TlsLeg};

/// Index of each in the world's snapshot.
const FROM: usize = 0;
const TO: usize = 1;

fn to_api(mode: TlsMode) -> Route {
    Route::Egress {
        workload: FROM,
        endpoint: EndpointId { service: 0, endpoint: 0 },
        rule: 0,
        mode,
        source: SourceAddress::Preserve,
        ends: ends(API_AT),
    }
}

fn alert_of(error: Option<rustls::Error>) -> Option<Alert> {
    match error {
        Some(rustls::Error::AlertReceived(alert)) => Some(alert),
        None => None,
        Some(other) => panic!("{other}"),
    }
}

fn reason_of(failure: &Option<Failure>) -> Option<RefuseReason> {
    failure.as_ref().map(Failure::refuse_reason)
}

/// What is wrong with a peer's certificate, as a function of the certificate that would be right.
struct Row {
    name: &'static str,
    leaf: Leaf,
    want: Option<(RefuseReason, Alert)>,
    named: bool,
}

/// Rows for a peer that should be `id`.
fn rows(world: &World, id: &str) -> Vec<Row> {
    let good = Says::id(id);
    let other = Ca::new("example.com");
    let unknown = Ca::new("unknown.org");
    let leaf = |says: Says| world.ca.leaf(&says);
    let mut stolen = world.ca.leaf(&good);
    stolen.pkcs8 = world.ca.leaf(&good).pkcs8;
    let mut torn = world.ca.leaf(&good);
    torn.chain[0].truncate(40);
    let mut trailing = world.ca.leaf(&good);
    trailing.chain[0].push(0);
    let mut headless = world.ca.by_intermediate(NOW + 60).leaf(&good);
    headless.chain.truncate(1);
    let uris = |uris: &[&[u8]]| Says { uris: uris.iter().map(|u| u.to_vec()).collect(), ..good.clone() };
    let no_id = Some((PeerNoSpiffeId, Alert::BadCertificate));
    let bad = Some((PeerBadCertificate, Alert::BadCertificate));
    let expired = Some((PeerExpired, Alert::CertificateExpired));
    let untrusted = Some((PeerUntrusted, Alert::UnknownCA));
    let row = |name, leaf, want| Row { name, leaf, want, named: false };
    vec![
        row("as it should be", leaf(good.clone()), None),
        row("without EKU", leaf(Says { extended: vec![], ..good.clone() }), None),
        row("without key usage", leaf(Says { usages: vec![], ..good.clone() }), bad),
        row("no URI SAN", leaf(uris(&[])), no_id),
        row("two SPIFFE IDs", leaf(uris(&[id.as_bytes(), b"spiffe://example.com/x"])), no_id),
        row("a URI beside the SPIFFE ID", leaf(uris(&[id.as_bytes(), b"https://example.com/"])), no_id),
        row("a URI before the SPIFFE ID", leaf(uris(&[b"https://example.com/", id.as_bytes()])), no_id),
        row("the same SPIFFE ID twice", leaf(uris(&[id.as_bytes(), id.as_bytes()])), no_id),
        row("a URI that is no text beside it", leaf(uris(&[id.as_bytes(), b"\xff\xfe"])), no_id),
        row("a URI that is no text", leaf(uris(&[b"\xff\xfe"])), no_id),
        row("upper case", leaf(uris(&[b"spiffe://EXAMPLE.com/a"])), no_id),
        row("an ID without a path", leaf(uris(&[b"spiffe://example.com"])), no_id),
        row("a NUL in the ID", leaf(uris(&[b"spiffe://example.com/a\0b"])), no_id),
        row("a CA", leaf(Says { ca: true, ..good.clone() }), bad),
        row(
            "may sign certificates",
            leaf(Says { usages: vec![Use::DigitalSignature, Use::KeyCertSign], ..good.clone() }),
            bad,
        ),
        row("may sign CRLs", leaf(Says { usages: vec![Use::DigitalSignature, Use::CrlSign], ..good.clone() }), bad),
        row("may not sign", leaf(Says { usages: vec![Use::KeyEncipherment], ..good.clone() }), bad),
        row("for mail only", leaf(Says { extended: vec![Eku::EmailProtection], ..good.clone() }), bad),
        row("expired", leaf(Says { not_after: NOW - 1, ..good.clone() }), expired),
        row("not yet valid", leaf(Says { not_before: NOW + 1, ..good.clone() }), expired),
        row("in its last second", leaf(Says { not_after: NOW, ..good.clone() }), None),
        row("of another root of that name", other.leaf(&good), untrusted),
        row("our domain, signed by a partner's root", world.partner.leaf(&good), untrusted),
        row("a partner's domain, signed by our root", leaf(uris(&[b"spiffe://partner.org/billing/x"])), untrusted),
        row(
            "a domain without a bundle",
            unknown.svid("spiffe://unknown.org/a"),
            Some((PeerTrustDomainUnknown, Alert::UnknownCA)),
        ),
        row("its intermediate expired", world.ca.by_intermediate(NOW - 1).leaf(&good), expired),
        row("by an intermediate of another root", other.by_intermediate(NOW + 60).leaf(&good), untrusted),
        row("its intermediate left out", headless, untrusted),
        row("another's certificate", stolen, Some((PeerBadSignature, Alert::DecryptError))),
        row("a torn certificate", torn, bad),
        row("bytes after the certificate", trailing, bad),
    ]
}

#[test]
fn each_caller_ends_with_its_reason_here_and_its_alert_there() {
    let world = World::new();
    let compiled = world.compile();
    let mut rows = rows(&world, FRONTEND);
    let policy = |name, leaf| Row { name, leaf, want: Some((NotAllowedInbound, Alert::AccessDenied)), named: true };
    rows.push(policy("valid and not in the list", world.ca.svid(API)));
    rows.push(policy("a partner's, not in the list", world.partner.svid("spiffe://partner.org/sales")));
    let billing = world.partner.svid("spiffe://partner.org/billing/eu");
    rows.push(Row { name: "a partner's, in the list", leaf: billing, want: None, named: true });
    for mode in [TlsMode::Mutual, TlsMode::Permissive] {
        for row in &rows {
            let mut leg = TlsLeg::accept(&compiled, &inbound(TO, 5432, mode), NOW).unwrap();
            let mut client = stock::client(Some(&row.leaf), ALL);
            stock::say(&mut client, b"SELECT 1");
            let (failure, error) = stock::carry(&mut leg, &mut client);
            let (name, why) = (row.name, &failure);
            assert_eq!(reason_of(&failure), row.want.map(|(reason, _)| reason), "{name}: {why:?}");
            assert_eq!(alert_of(error), row.want.map(|(_, alert)| alert), "{name}: {why:?}");
            let mut heard = [0; 64];
            match row.want {
                None => {
                    assert_eq!(leg.outcome(), Some(&Ok(Some(RuleId(2)))), "{name}");
                    assert!(leg.peer().is_some() && leg.established(), "{name}");
                    assert_eq!(leg.read(&mut heard), 8, "{name}");
                }
                Some((reason, _)) => {
                    assert!(matches!(leg.outcome(), Some(Err(refusal)) if refusal.reason == reason), "{name}");
                    assert!(leg.outcome().unwrap().as_ref().unwrap_err().detail.is_some(), "{name}");
                    assert_eq!(leg.peer().is_some(), row.named, "{name}");
                    assert_eq!((leg.plaintext(), leg.read(&mut heard), leg.write(b"no")), (0, 0, 0), "{name}");
                }
            }
        }
    }
}

#[test]
fn each_server_ends_with_its_reason_here_and_its_alert_there() {
    let world = World::new();
    let compiled = world.compile();
    let mut rows = rows(&world, API);
    rows.push(Row {
        name: "valid and not in the list",
        leaf: world.ca.svid(DATABASE),
        want: Some((NotAllowedOutbound, Alert::AccessDenied)),
        named: true,
    });
    for mode in [TlsMode::Mutual, TlsMode::Simple] {
        for row in &rows {
            let mut leg = TlsLeg::originate(&compiled, &to_api(mode), at(API_AT), NOW).unwrap();
            let mut server = stock::server(&row.leaf, mode == TlsMode::Mutual, ALL);
            let (failure, error) = stock::carry(&mut leg, &mut server);
            let (name, why) = (row.name, &failure);
            assert_eq!(reason_of(&failure), row.want.map(|(reason, _)| reason), "{name}: {why:?}");
            assert_eq!(alert_of(error), row.want.map(|(_, alert)| alert), "{name}: {why:?}");
            assert_eq!(leg.write(b"GET /"), if row.want.is_none() { 5 } else { 0 }, "{name}");
            assert_eq!(leg.peer().is_some(), row.want.is_none() || row.named, "{name}");
            let shown = server.peer_certificates().is_some();
            assert_eq!(shown, mode == TlsMode::Mutual && row.want.is_none(), "{name}: our certificate");
        }
    }
}

#[test]
fn a_garbled_certificate_never_panics_and_never_names_another() {
    let world = World::new();
    let good = world.ca.svid(FRONTEND);
    let compiled = world.compile();
    let (mut seed, mut read, mut verified) = (9_u64, 0, 0);
    for _ in 0..20_000 {
        let mut leaf = good.chain[0].clone();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (seed >> 33) as usize % leaf.len();
        leaf[at] ^= ((seed >> 20) as u8).max(1);
        read += usize::from(identity::read_leaf(&leaf).is_ok());
        let route = inbound(TO, 1, TlsMode::Mutual);
        let slot = Arc::new(Slot::default());
        let judge = Verifier { compiled: compiled.clone(), route, slot: slot.clone(), keeps: false };
        let _ = judge.verify_client_cert(&leaf.into(), &[], UnixTime::since_unix_epoch(Duration::from_secs(NOW)));
        verified += usize::from(slot.outcome().unwrap().is_ok());
    }
    // All bytes but the ASN.1 around the signature are signed.
    assert!(read > 5_000 && verified < 20, "{read} read, {verified} verified");
}

#[test]
fn a_chain_through_an_intermediate_is_followed() {
    let world = World::new();
    let leaf = world.ca.by_intermediate(NOW + 7200).svid(FRONTEND);
    let mut leg = TlsLeg::accept(&world.compile(), &inbound(TO, 5432, TlsMode::Mutual), NOW).unwrap();
    let (failure, error) = stock::carry(&mut leg, &mut stock::client(Some(&leaf), ALL));
    assert_eq!((failure, error), (None, None));
    assert_eq!(leg.peer().unwrap().spiffe_id.as_ref(), FRONTEND);
}

#[test]
fn a_caller_without_a_certificate_is_refused_also_under_permissive() {
    let compiled = World::new().compile();
    for mode in [TlsMode::Mutual, TlsMode::Permissive] {
        let mut leg = TlsLeg::accept(&compiled, &inbound(TO, 5432, mode), NOW).unwrap();
        let (failure, error) = stock::carry(&mut leg, &mut stock::client(None, ALL));
        assert_eq!(reason_of(&failure), Some(NoClientCertificate));
        assert_eq!(alert_of(error), Some(Alert::CertificateRequired));
        assert!(!leg.established());
    }
}

#[test]
fn under_simple_a_caller_is_anonymous_and_no_certificate_is_asked_for() {
    let world = World::new();
    let compiled = world.compile();
    let mut leg = TlsLeg::accept(&compiled, &inbound(TO, 5432, TlsMode::Simple), NOW).unwrap();
    let mut client = stock::client(Some(&world.ca.svid(API)), ALL);
    assert_eq!(stock::carry(&mut leg, &mut client), (None, None));
    assert!(leg.established() && leg.peer().is_none());
    assert_eq!(
        client.peer_certificates().unwrap()[0].as_ref(),
        world.snapshot.workloads[TO].svid.as_ref().unwrap().chain[0]
    );
}

#[test]
fn mutual_without_a_list_admits_nobody_and_permissive_any_authenticated_caller() {
    let mut world = World::new();
    world.database().inbound = None;
    let compiled = world.compile();
    for (mode, want) in [(TlsMode::Mutual, Some(NoInboundList)), (TlsMode::Permissive, None)] {
        let mut leg = TlsLeg::accept(&compiled, &inbound(TO, 5432, mode), NOW).unwrap();
        let (failure, _) = stock::carry(&mut leg, &mut stock::client(Some(&world.ca.svid(FRONTEND)), ALL));
        assert_eq!(reason_of(&failure), want);
    }
}

#[test]
fn tls_1_2_is_for_simple_egress_only() {
    let world = World::new();
    let compiled = world.compile();
    let old = &[&TLS12];
    let mut leg = TlsLeg::accept(&compiled, &inbound(TO, 5432, TlsMode::Mutual), NOW).unwrap();
    let (failure, error) = stock::carry(&mut leg, &mut stock::client(Some(&world.ca.svid(FRONTEND)), old));
    assert_eq!((reason_of(&failure), alert_of(error)), (Some(TlsProtocol), Some(Alert::ProtocolVersion)));
    for (mode, want) in [(TlsMode::Mutual, Some(RefusedByPeer)), (TlsMode::Simple, None)] {
        let mut leg = TlsLeg::originate(&compiled, &to_api(mode), at(API_AT), NOW).unwrap();
        let (failure, _) = stock::carry(&mut leg, &mut stock::server(&world.ca.svid(API), false, old));
        assert_eq!(reason_of(&failure), want, "{failure:?}");
        assert_eq!(leg.established(), want.is_none());
    }
}

#[test]
fn a_peers_alert_in_the_handshake_is_its_refusal() {
    let world = World::new();
    let compiled = world.compile();
    // A far gateway whose policy does not know us.
    let mut strict = World::with(Ca::new("example.com"), world.provider.clone());
    strict.snapshot.bundles = world.snapshot.bundles.clone();
    strict.database().inbound = Some(vec![exact(API)]);
    strict.database().spiffe_id = API.into();
    let leaf = world.ca.svid(API);
    strict.keys.insert(leaf.svid.key, leaf.key());
    strict.database().svid = Some(leaf.svid);
    let mut far = TlsLeg::accept(&strict.compile(), &inbound(TO, 3000, TlsMode::Mutual), NOW).unwrap();
    let mut near = TlsLeg::originate(&compiled, &to_api(TlsMode::Mutual), at(API_AT), NOW).unwrap();
    stock::carry_legs(&mut near, &mut far, 4096);
    assert_eq!(far.failure().map(Failure::refuse_reason), Some(NotAllowedInbound));
    assert_eq!(near.alert_received(), Some("AccessDenied"));
    assert_eq!(near.failure().map(Failure::refuse_reason), Some(RefusedByPeer));
}

#[test]
fn a_refusal_says_what_would_have_been_right() {
    let world = World::new();
    let mut leg = TlsLeg::accept(&world.compile(), &inbound(TO, 5432, TlsMode::Mutual), NOW).unwrap();
    let leaf = world.ca.svid("spiffe://example.com/myapp/frontent");
    stock::carry(&mut leg, &mut stock::client(Some(&leaf), ALL));
    let Some(Err(Refusal { rule, detail: Some(detail), .. })) = leg.outcome() else { panic!() };
    assert_eq!(*rule, Some(RuleId(2)));
    assert!(detail.contains("the nearest entry is spiffe://example.com/myapp/frontend"), "{detail}");
}

#[test]
fn the_host_name_goes_out_as_sni_and_an_address_does_not() {
    let world = World::new();
    let compiled = world.compile();
    for (service, want) in [(0, Some("api.example.com")), (1, None)] {
        let endpoint = EndpointId { service, endpoint: 0 };
        let route = Route::Egress {
            workload: FROM,
            endpoint,
            rule: service as usize,
            mode: TlsMode::Mutual,
            source: SourceAddress::Preserve,
            ends: ends(API_AT),
        };
        let mut leg = TlsLeg::originate(&compiled, &route, at(API_AT), NOW).unwrap();
        let mut server = stock::server(&world.ca.svid(API), true, &[&TLS13]);
        assert_eq!(stock::carry(&mut leg, &mut server), (None, None));
        let rustls::Connection::Server(server) = server else { panic!() };
        assert_eq!(server.server_name(), want);
    }
}

#[test]
fn without_a_valid_svid_no_leg_is_made_that_needs_one() {
    let mut world = World::new();
    let compiled = world.compile();
    let refused = |leg: Result<TlsLeg, RefuseReason>| leg.err();
    for (now, want) in [(NOW + 3600, None), (NOW + 3601, Some(NoSvid)), (NOW - 61, Some(NoSvid))] {
        assert_eq!(refused(TlsLeg::accept(&compiled, &inbound(TO, 1, TlsMode::Mutual), now)), want);
        assert_eq!(refused(TlsLeg::originate(&compiled, &to_api(TlsMode::Mutual), at(API_AT), now)), want);
        assert_eq!(refused(TlsLeg::originate(&compiled, &to_api(TlsMode::Simple), at(API_AT), now)), None);
    }
    world.database().svid = None;
    assert_eq!(refused(TlsLeg::accept(&world.compile(), &inbound(TO, 1, TlsMode::Permissive), NOW)), Some(NoSvid));
}

#[cfg(feature = "planted")]
#[test]
fn the_planted_bugs_of_authentication_let_strangers_in() {
    let world = World::new();
    let compiled = world.compile();
    let says = |uris: &[&str]| Says { uris: uris.iter().map(|u| u.as_bytes().to_vec()).collect(), ..Says::id("") };
    for (bug, leaf) in [
        (planted::Bug::VerdictSkipped, world.ca.svid(API)),
        (planted::Bug::SecondSanUnchecked, world.ca.leaf(&says(&[FRONTEND, API]))),
    ] {
        let let_in = |bug| {
            planted::plant(bug);
            let mut leg = TlsLeg::accept(&compiled, &inbound(TO, 5432, TlsMode::Mutual), NOW).unwrap();
            stock::carry(&mut leg, &mut stock::client(Some(&leaf), ALL));
            planted::plant(None);
            leg.established()
        };
        assert!(!let_in(None) && let_in(Some(bug)), "{bug:?}");
    }
}

#[cfg(not(feature = "planted"))]
#[test]
fn without_the_feature_no_bug_is_planted() {
    assert!(planted::Bug::ALL.iter().all(|bug| !planted::is(*bug)));
}
