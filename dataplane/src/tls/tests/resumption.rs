//! Session tickets of a leg, used by a stock client: what each is good for, and for whom it is worth nothing.

use std::sync::Arc;

use ::snapshot::{Resumption, TlsMode};
use rustls::server::StoresServerSessions;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certs::NOW;
use super::stock;
use super::world::{DB_AT, FRONTEND, World, at, inbound};
use crate::policy::Route;
use crate::snapshot::Compiled;
use crate::tls::tickets::Accepting;
use crate::tls::verify::{Slot, Verifier};
use crate::tls::{TlsLeg, Unused};

const DATABASE: usize = 1;

fn world() -> World {
    let mut world = World::new();
    world.database().resumption = Resumption::Tickets;
    world
}

fn port() -> u16 {
    at(DB_AT).port()
}

/// One handshake of a client that may have a ticket. The leg that it came to stand with, or was refused by.
fn shake(compiled: &Arc<Compiled>, client: &Arc<ClientConfig>, route: &Route, now: u64) -> TlsLeg {
    let mut leg = TlsLeg::accept(compiled, route, now).unwrap();
    let mut stock = stock::client_of(client);
    let (_, error) = stock::carry(&mut leg, &mut stock);
    if error.is_none() {
        assert_eq!(leg.resumed(), stock.handshake_kind() == Some(HandshakeKind::Resumed));
        stock::say(&mut stock, b"hello");
        stock::carry(&mut leg, &mut stock);
        let mut heard = [0; 5];
        assert_eq!(leg.read(&mut heard), if leg.established() { 5 } else { 0 });
    }
    leg
}

fn client(world: &World, id: &str) -> Arc<ClientConfig> {
    stock::client_config(Some(&world.ca.svid(id)), &[&TLS13])
}

#[test]
fn a_ticket_is_good_for_its_workload_port_and_mode_and_for_an_hour() {
    let world = world();
    let compiled = world.compile();
    let here = inbound(DATABASE, port(), TlsMode::Mutual);
    for (name, route, now, want) in [
        ("at once", inbound(DATABASE, port(), TlsMode::Mutual), NOW, None),
        ("in its last second", inbound(DATABASE, port(), TlsMode::Mutual), NOW + 60, None),
        ("later", inbound(DATABASE, port(), TlsMode::Mutual), NOW + 3_601, Some(Unused::Expired)),
        ("at another port", inbound(DATABASE, port() + 1, TlsMode::Mutual), NOW, Some(Unused::Unbound)),
        ("in another mode", inbound(DATABASE, port(), TlsMode::Permissive), NOW, Some(Unused::Unbound)),
    ] {
        let client = client(&world, FRONTEND);
        let first = shake(&compiled, &client, &here, NOW);
        assert!(first.established() && !first.resumed(), "{name}");
        let Ok(mut second) = TlsLeg::accept(&compiled, &route, now) else {
            assert_eq!(want, Some(Unused::Expired), "{name}: our own SVID has ended");
            continue;
        };
        let mut stock = stock::client_of(&client);
        stock::carry(&mut second, &mut stock);
        assert_eq!((second.resumed(), second.unused()), (want.is_none(), want), "{name}");
        if want.is_none() {
            assert!(second.established(), "{name}");
            assert_eq!(second.peer(), first.peer(), "{name}");
            assert!(second.report().resumed && second.report().peer_serial == first.report().peer_serial, "{name}");
        }
    }
}

/// Replicas have one SPIFFE ID and may have one key; what each handed out is its own.
#[test]
fn a_ticket_of_one_workload_is_none_at_another_and_none_after_a_restart() {
    let mut world = world();
    let compiled = world.compile();
    let client = client(&world, FRONTEND);
    assert!(shake(&compiled, &client, &inbound(DATABASE, port(), TlsMode::Mutual), NOW).established());
    world.frontend().resumption = Resumption::Tickets;
    let started_again = world.compile();
    let leg = shake(&started_again, &client, &inbound(DATABASE, port(), TlsMode::Mutual), NOW);
    assert!(leg.established() && !leg.resumed());
    assert_eq!(leg.unused(), Some(Unused::Unknown));
    // The next that it was given is the database's.
    let leg = shake(&started_again, &client, &inbound(0, port(), TlsMode::Permissive), NOW);
    assert_eq!((leg.resumed(), leg.unused()), (false, Some(Unused::Unknown)));
}

#[test]
fn nobody_is_given_a_ticket_who_was_refused_or_is_anonymous_or_where_none_are_asked_for() {
    let mut world = world();
    let stranger = client(&world, "spiffe://example.com/stranger");
    let compiled = world.compile();
    for _ in 0..2 {
        let leg = shake(&compiled, &stranger, &inbound(DATABASE, port(), TlsMode::Mutual), NOW);
        assert!(!leg.established() && leg.unused().is_none(), "nothing was offered");
    }
    let known = client(&world, FRONTEND);
    for _ in 0..2 {
        let leg = shake(&compiled, &known, &inbound(DATABASE, port(), TlsMode::Simple), NOW);
        assert!(leg.established() && !leg.resumed() && leg.unused().is_none());
    }
    world.database().resumption = Resumption::None;
    let compiled = world.compile();
    for _ in 0..2 {
        let leg = shake(&compiled, &known, &inbound(DATABASE, port(), TlsMode::Mutual), NOW);
        assert!(leg.established() && !leg.resumed() && leg.unused().is_none());
    }
}

/// The database's side of handshakes, without the handshakes.
struct Database {
    world: World,
    compiled: Arc<Compiled>,
}

impl Database {
    fn new() -> Self {
        let world = world();
        Self { compiled: world.compile(), world }
    }

    fn judge(&self, slot: &Arc<Slot>) -> Verifier {
        let route = inbound(DATABASE, port(), TlsMode::Mutual);
        Verifier { compiled: self.compiled.clone(), route, slot: slot.clone(), keeps: true }
    }

    fn handshake(&self, slot: &Arc<Slot>) -> Accepting {
        let credentials = self.compiled.workloads[DATABASE].valid_credentials(NOW).unwrap();
        Accepting::new(Arc::new(self.judge(slot)), credentials.clone(), ("apps/database", port(), "MUTUAL"), NOW)
    }

    /// Hands out a ticket to a caller of this ID, once it has shown its chain.
    fn hand_out(&self, id: &[u8], caller: &str) {
        let ours = caller.starts_with("spiffe://example.com/");
        let leaf = if ours { self.world.ca.svid(caller) } else { self.world.partner.svid(caller) };
        let chain: Vec<_> = leaf.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let slot = Arc::new(Slot::default());
        let store = self.handshake(&slot);
        assert!(!store.put(id.to_vec(), id.to_vec()), "nobody has shown anything yet");
        self.judge(&slot).verify_client_cert(&chain[0], &chain[1..], at_now()).unwrap();
        assert!(store.put(id.to_vec(), id.to_vec()));
    }

    /// Of the first that is offered: whether it may be used, as whom, and why not.
    fn offered(&self, ids: &[&[u8]]) -> (Vec<bool>, Option<String>, Option<Unused>) {
        let slot = Arc::new(Slot::default());
        let store = self.handshake(&slot);
        let used = ids.iter().map(|id| store.take(id).as_deref() == Some(*id)).collect();
        let peer = slot.remembered.get().map(|(_, peer, _)| peer.spiffe_id.to_string());
        (used, peer, slot.unused.get().copied())
    }
}

fn at_now() -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW))
}

/// The library passes over a ticket for another name without asking for the key to it, and goes on to the next:
/// whose ticket stands first must not say who the second one is.
#[test]
fn one_ticket_is_looked_at_in_a_handshake_and_used_once() {
    let database = Database::new();
    let billing = "spiffe://partner.org/billing/x";
    database.hand_out(&[1; 32], FRONTEND);
    database.hand_out(&[2; 32], billing);
    assert_eq!(database.offered(&[&[1; 32], &[2; 32]]), (vec![true, false], Some(FRONTEND.into()), None));
    assert_eq!(database.offered(&[&[1; 32], &[2; 32]]), (vec![false, false], None, Some(Unused::Unknown)));
    assert_eq!(database.offered(&[&[2; 32]]), (vec![true], Some(billing.into()), None));
}

#[test]
fn a_ticket_that_finds_its_place_taken_throws_out_who_has_it() {
    let database = Database::new();
    let (mut second, mut elsewhere) = ([1; 32], [1; 32]);
    (second[31], elsewhere[1]) = (9, 7);
    database.hand_out(&[1; 32], FRONTEND);
    database.hand_out(&elsewhere, FRONTEND);
    database.hand_out(&second, FRONTEND);
    assert_eq!(database.offered(&[&[1; 32]]), (vec![false], None, Some(Unused::Unknown)));
    assert_eq!(database.offered(&[&second]).0, [true], "who asked in vain took nothing along");
    assert_eq!(database.offered(&[&elsewhere]).0, [true]);
    // Whatever a caller sends for one.
    for id in [&[][..], &[1], &[1; 33], &[0xff; 600]] {
        assert_eq!(database.offered(&[id]).2, Some(Unused::Unknown));
    }
}
