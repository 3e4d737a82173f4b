//! Bytes through two legs: whole, in odd pieces, cut short, garbled.

use std::sync::Arc;

use ::snapshot::{CloseReason, RefuseReason, SourceAddress, TlsMode};

use super::certs::{Ca, NOW};
use super::stock::{self, ALL};
use super::world::{API, API_AT, World, at, ends, exact, inbound};
use crate::policy::Route;
use crate::snapshot::{Compiled, EndpointId, Error};
use crate::tls::{Failure, TlsLeg, provider};

/// Two nodes of one trust domain: the frontend's, and one where the api runs.
pub fn pair(algorithm: Option<&'static rcgen::SignatureAlgorithm>) -> (Arc<Compiled>, Arc<Compiled>) {
    let (ca, provider) = match algorithm {
        Some(algorithm) => (Ca::with("example.com", algorithm), provider::seeded()),
        None => (Ca::new("example.com"), provider::production()),
    };
    let mut world = World::with(ca, provider);
    let near = world.compile();
    let leaf = world.ca.svid(API);
    world.keys.insert(leaf.svid.key, leaf.key());
    world.database().svid = Some(leaf.svid);
    world.database().spiffe_id = API.into();
    world.database().inbound = Some(vec![exact(super::world::FRONTEND)]);
    (near, world.compile())
}

fn legs((near, far): &(Arc<Compiled>, Arc<Compiled>)) -> (TlsLeg, TlsLeg) {
    let endpoint = EndpointId { service: 0, endpoint: 0 };
    let route = Route::Egress {
        workload: 0,
        endpoint,
        rule: 0,
        mode: TlsMode::Mutual,
        source: SourceAddress::Preserve,
        ends: ends(API_AT),
    };
    let client = TlsLeg::originate(near, &route, at(API_AT), NOW).unwrap();
    (client, TlsLeg::accept(far, &inbound(1, 3000, TlsMode::Mutual), NOW).unwrap())
}

fn established(pair: &(Arc<Compiled>, Arc<Compiled>)) -> (TlsLeg, TlsLeg) {
    let (mut client, mut server) = legs(pair);
    stock::carry_legs(&mut client, &mut server, 1460);
    assert!(client.established() && server.established());
    (client, server)
}

/// Numbers that look random, the same every time.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }
}

#[test]
fn a_handshake_negotiates_what_we_prefer_and_both_ends_know_each_other() {
    let (client, server) = established(&pair(None));
    let report = client.report();
    assert_eq!(
        (report.version.as_str(), report.group.as_str(), report.cipher.as_str()),
        ("TLSv1.3", "X25519MLKEM768", "TLS13_AES_128_GCM_SHA256")
    );
    assert_eq!(client.peer().unwrap().spiffe_id.as_ref(), API);
    assert_eq!(server.peer().unwrap().spiffe_id.as_ref(), super::world::FRONTEND);
    assert_eq!(report.local_serial, server.report().peer_serial);
    assert_eq!(report.peer_not_after, Some(NOW + 3600));
}

#[test]
fn a_megabyte_each_way_arrives_whole_in_odd_pieces() {
    let mut random = Seeded(1);
    let payload: Vec<u8> = (0..1 << 20).map(|_| random.next() as u8).collect();
    let (mut client, mut server) = established(&pair(None));
    for _ in 0..2 {
        let (mut sent, mut received) = (0, Vec::<u8>::new());
        let mut wire: Vec<u8> = Vec::new();
        while received.len() < payload.len() {
            let take = (payload.len() - sent).min(1 + random.below(40_000));
            sent += client.write(&payload[sent..sent + take]);
            assert!(client.pending() <= (64 << 10) + 17_000, "what waits is bounded");
            let mut piece = vec![0; 1 + random.below(9000)];
            let n = client.write_tls(&mut piece);
            wire.extend(&piece[..n]);
            let offered = wire.len().min(1 + random.below(30_000));
            let taken = server.read_tls(&wire[..offered]).unwrap();
            wire.drain(..taken);
            assert!(server.plaintext() <= 3 * (16 << 10), "what is unread is bounded");
            let mut out = vec![0; 1 + random.below(20_000)];
            let n = server.read(&mut out);
            received.extend(&out[..n]);
        }
        assert!(received == payload);
        std::mem::swap(&mut client, &mut server);
    }
}

#[test]
fn a_leg_whose_plaintext_nobody_reads_takes_no_more_and_loses_nothing() {
    let (mut client, mut server) = established(&pair(None));
    let mut wire = Vec::new();
    for _ in 0..8 {
        client.write(&[7; 16_000]);
        let mut out = vec![0; 20_000];
        let n = client.write_tls(&mut out);
        wire.extend(&out[..n]);
    }
    let (mut at, mut received) = (0, 0);
    let first = server.read_tls(&wire).unwrap();
    assert!(first > 0 && first < wire.len());
    at += first;
    assert_eq!(server.read_tls(&wire[at..]).unwrap(), 0, "full");
    while at < wire.len() || server.plaintext() > 0 {
        let mut out = [0; 1000];
        received += server.read(&mut out);
        at += server.read_tls(&wire[at..]).unwrap();
    }
    assert_eq!(received, 8 * 16_000);
}

#[test]
fn writing_stops_at_the_bound_and_goes_on_when_it_drains() {
    let (mut client, _server) = established(&pair(None));
    let mut written = 0;
    loop {
        match client.write(&[1; 10_000]) {
            0 => break,
            n => written += n,
        }
    }
    assert!((60_000..=66_000).contains(&written), "{written}");
    client.write_tls(&mut [0; 30_000]);
    assert!(client.write(&[1; 10_000]) > 0);
}

#[test]
fn close_notify_is_an_end_and_silence_is_not() {
    let (mut client, mut server) = established(&pair(None));
    client.write(b"last words");
    client.close_notify();
    client.close_notify();
    assert_eq!(client.write(b"more"), 0);
    stock::carry_legs(&mut client, &mut server, 5);
    assert!(server.closed_by_peer() && !client.closed_by_peer());
    let mut out = [0; 64];
    let n = server.read(&mut out);
    assert_eq!(&out[..n], b"last words");
    assert_eq!(server.read_tls(b"what comes after is ignored"), Ok(27));
    // The other direction stays open: half-close.
    assert_eq!(server.write(b"answer"), 6);
    stock::carry_legs(&mut client, &mut server, 4096);
    assert_eq!(client.read(&mut out), 6);
    assert!(!client.closed_by_peer(), "without close_notify the end would be a truncation");
}

#[test]
fn no_byte_passes_before_the_handshake_stands() {
    let pair = pair(None);
    let (mut client, mut server) = legs(&pair);
    assert_eq!((client.write(b"early"), server.write(b"early")), (0, 0));
    let marker = stock::carry_legs(&mut client, &mut server, 333);
    assert!(!marker.windows(5).any(|w| w == b"early"));
    assert_eq!((client.plaintext(), server.plaintext()), (0, 0));
}

#[test]
fn no_ticket_is_sent() {
    let (mut client, mut server) = established(&pair(None));
    assert_eq!((client.pending(), server.pending()), (0, 0));
    let mut out = [0; 16];
    assert_eq!((client.read(&mut out), server.read(&mut out)), (0, 0));
}

#[test]
fn equal_seeds_give_equal_bytes_and_other_seeds_others() {
    let pair = pair(Some(&rcgen::PKCS_ED25519));
    let run = |seed| {
        provider::seed(seed);
        let (mut client, mut server) = legs(&pair);
        let mut wire = stock::carry_legs(&mut client, &mut server, 1460);
        assert!(client.established() && server.established());
        client.write(b"payload");
        wire.extend(stock::carry_legs(&mut client, &mut server, 1460));
        wire
    };
    let first = run(1);
    assert!(first == run(1));
    assert!(first != run(2));
}

#[test]
fn hostile_bytes_never_panic_and_never_get_through() {
    let pair = pair(Some(&rcgen::PKCS_ED25519));
    let mut random = Seeded(42);
    provider::seed(42);
    let (mut client, mut server) = legs(&pair);
    let hello = first_flight(&mut client);
    server.read_tls(&hello).unwrap();
    let answer = first_flight(&mut server);
    let mut through = 0;
    for round in 0..20_000 {
        let (mut leg, good) = match round % 2 {
            0 => (legs(&pair).1, &hello),
            _ => {
                provider::seed(42);
                (legs(&pair).0, &answer)
            }
        };
        if round % 2 == 1 {
            first_flight(&mut leg);
        }
        let mut bytes = match random.below(4) {
            0 => (0..random.below(600)).map(|_| random.next() as u8).collect(),
            1 => good[..random.below(good.len())].to_vec(),
            _ => good.clone(),
        };
        for _ in 0..=random.below(4) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let piece = rest.len().min(1 + random.below(rest.len()));
            match leg.read_tls(&rest[..piece]) {
                Ok(taken) => rest = &rest[taken..],
                Err(failure) => {
                    assert_eq!(leg.read_tls(rest), Err(failure), "dead stays dead");
                    break;
                }
            }
        }
        // A record header's version is in no transcript (RFC 8446 §5.1): to change it is no attack.
        let genuine = leg.peer().is_some_and(|peer| &*peer.spiffe_id == API);
        through += usize::from(leg.established());
        assert!(genuine || (leg.plaintext(), leg.write(b"x")) == (0, 0));
        assert!(leg.pending() < 16_000);
    }
    assert!(through < 1000, "{through} of 20000");
}

fn first_flight(leg: &mut TlsLeg) -> Vec<u8> {
    let mut out = vec![0; 16_384];
    let n = leg.write_tls(&mut out);
    out.truncate(n);
    out
}

#[test]
fn a_garbled_record_ends_the_connection_with_tls_error() {
    let (mut client, mut server) = established(&pair(None));
    client.write(b"hello");
    let mut wire = first_flight(&mut client);
    let last = wire.len() - 1;
    wire[last] ^= 1;
    let failure = server.read_tls(&wire).unwrap_err();
    assert!(matches!(failure, Failure::Protocol(_)));
    assert_eq!(failure.close_reason(), CloseReason::TlsError);
    stock::carry_legs(&mut server, &mut client, 4096);
    assert_eq!(client.alert_received(), Some("BadRecordMac"));
    assert_eq!(client.failure().unwrap().close_reason(), CloseReason::ClosedByPeer);
}

#[test]
fn plain_text_on_a_tls_leg_is_a_broken_protocol() {
    let pair = pair(None);
    let (_, mut server) = legs(&pair);
    let failure = server.read_tls(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").unwrap_err();
    assert_eq!(failure.refuse_reason(), RefuseReason::TlsProtocol);
}

#[test]
fn an_svid_that_does_not_come_leaves_the_one_before_until_it_ends_and_to_nobody_else() {
    let mut world = World::new();
    let good = world.compile();
    let before = good.workload("apps/database").unwrap().credentials.clone().unwrap();
    world.database().svid = None;
    let of_database = |compiled: &Compiled| compiled.workload("apps/database").unwrap().credentials.clone();
    let compiled = world.try_compile(Some(&good)).unwrap();
    assert!(Arc::ptr_eq(&of_database(&compiled).unwrap(), &before));
    assert!(
        matches!(compiled.unusable.as_slice(), [one] if one.contains("has no SVID for it")),
        "{:?}",
        compiled.unusable
    );
    // It is the one of before of the next one too.
    let compiled = world.try_compile(Some(&compiled)).unwrap();
    assert!(Arc::ptr_eq(&of_database(&compiled).unwrap(), &before));
    assert!(of_database(&world.try_compile(None).unwrap()).is_none());
    world.snapshot.assembled_at = before.not_after();
    let ended = world.try_compile(Some(&compiled)).unwrap();
    assert!(of_database(&ended).is_none());
    assert_eq!(ended.unusable, Vec::<String>::new());
    world.snapshot.assembled_at = 0;
    world.database().spiffe_id = API.into();
    assert!(of_database(&world.try_compile(Some(&good)).unwrap()).is_none(), "another identity's");
}

#[test]
fn an_svid_that_cannot_be_used_costs_its_own_workload_only() {
    let mut world = World::new();
    let good = world.compile();
    let (id, other) = (world.database().svid.as_ref().unwrap().key, world.ca.svid(API));
    let before = good.workload("apps/database").unwrap().credentials.clone().unwrap();
    let no_key = ::snapshot::channel::PrivateKey::new(b"no key".to_vec());
    for (key, why) in [(other.key(), "is not that of the certificate"), (no_key, "no PKCS#8 key")] {
        world.keys.insert(id, key);
        // What was imported before is not asked for again.
        assert!(world.try_compile(Some(&good)).unwrap().unusable.is_empty());
        let compiled = world.try_compile(None).unwrap();
        assert!(matches!(compiled.unusable.as_slice(), [one] if one.contains("apps/database") && one.contains(why)));
        assert!(compiled.workload("apps/database").unwrap().credentials.is_none());
        assert_eq!(compiled.workloads.iter().filter(|w| w.credentials.is_none()).count(), 1);
    }
    world.keys.insert(other.svid.key, other.key());
    world.database().svid = Some(other.svid);
    let compiled = world.try_compile(Some(&good)).unwrap();
    assert!(matches!(compiled.unusable.as_slice(), [one] if one.contains("its certificate is of")));
    let kept = compiled.workload("apps/database").unwrap().credentials.clone().unwrap();
    assert!(Arc::ptr_eq(&kept, &before), "the one before stands");
    world.database().spiffe_id = API.into();
    world.database().svid.as_mut().unwrap().chain[0].truncate(40);
    let compiled = world.try_compile(Some(&good)).unwrap();
    assert!(compiled.workload("apps/database").unwrap().credentials.is_none(), "the one before is of another ID");
}

#[test]
fn a_key_that_has_not_come_and_a_root_that_is_none_refuse_the_whole() {
    let mut world = World::new();
    let id = world.database().svid.as_ref().unwrap().key;
    world.keys.remove(&id);
    assert_eq!(world.try_compile(None).unwrap_err(), Error::KeyUnknown("apps/database".into()));
    let mut world = World::new();
    world.snapshot.bundles[1].roots.push(vec![1, 2, 3]);
    assert!(
        matches!(world.try_compile(None).unwrap_err(), Error::Root { domain, index: 1, .. } if domain == "partner.org")
    );
}

#[test]
fn what_did_not_change_is_taken_over_and_keys_stay_out_of_debug() {
    let mut world = World::new();
    let before = world.compile();
    let renewed = world.ca.svid(super::world::FRONTEND);
    world.keys.clear();
    world.keys.insert(renewed.svid.key, renewed.key());
    world.frontend().svid = Some(renewed.svid.clone());
    let after = world.try_compile(Some(&before)).unwrap();
    let same = |a: &Compiled, b: &Compiled, i: usize| {
        Arc::ptr_eq(a.workloads[i].credentials.as_ref().unwrap(), b.workloads[i].credentials.as_ref().unwrap())
    };
    assert!(!same(&before, &after, 0) && same(&before, &after, 1));
    assert!(Arc::ptr_eq(before.roots("example.com").unwrap(), after.roots("example.com").unwrap()));
    let shown = format!("{:?} {:?}", after.workloads[0], world.keys);
    assert!(shown.contains("PrivateKey(..)") && !shown.contains("PRIVATE"));
    let secret = format!("{:?}", &renewed.pkcs8[36..44]);
    assert!(!shown.contains(secret.trim_matches(['[', ']'])));
}

#[test]
fn a_stock_client_reads_what_we_wrote() {
    let world = World::new();
    let mut leg = TlsLeg::accept(&world.compile(), &inbound(1, 5432, TlsMode::Mutual), NOW).unwrap();
    let mut client = stock::client(Some(&world.ca.svid(super::world::FRONTEND)), ALL);
    assert_eq!(stock::carry(&mut leg, &mut client), (None, None));
    assert_eq!(leg.write(b"row"), 3);
    leg.close_notify();
    assert_eq!(stock::carry(&mut leg, &mut client), (None, None));
    let mut out = String::new();
    std::io::Read::read_to_string(&mut client.reader(), &mut out).unwrap();
    assert_eq!(out, "row");
}

#[test]
fn workers_may_share_what_is_compiled_and_hand_legs_over() {
    fn shared<T: Send + Sync>() {}
    fn handed<T: Send>() {}
    shared::<Compiled>();
    handed::<TlsLeg>();
}
