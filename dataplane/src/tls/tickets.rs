//! Session tickets (`connection.resumption: tickets`): a second handshake without certificates, and never
//! without a judge.
//!
//! The library does not ask its verifier on a resumed handshake: what a ticket remembers would be believed for
//! as long as it lives. So each ticket keeps the chain that its peer showed, and before it is used, on either
//! side, that chain is put before the same judge as in a full handshake: the roots, deny lists, CRLs, rules and
//! lists of the snapshot that is in force now. If it says no, there is no ticket, and the handshake is a full
//! one, which refuses or admits by itself. The signatures on the chain are known by digest (`verified`), so that
//! costs next to nothing.
//!
//! Tickets hang on the SVID that they were made under: a renewed one begins with none, and a restart too. Each
//! is for one workload, port and mode, or one destination, for an hour at the most and never beyond either
//! SVID, and it is used once. What is kept has a fixed place: who finds it taken throws out who has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aws_lc_rs::digest::{SHA256, digest};
use crossbeam::atomic::AtomicCell;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls12Resumption, Tls13ClientSessionValue,
};
use rustls::server::StoresServerSessions;
use rustls::{DigitallySignedStruct, Error, NamedGroup, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::verified::Role;
use super::verify::{Chain, Slot, Verifier};
use super::{Outcome, Peer};
use crate::planted::{self, Bug};

/// Tickets that one SVID keeps of each kind.
const SLOTS: usize = 256;

/// Tickets for one destination: connections that begin at once each have their own.
const SIDE_BY_SIDE: usize = 4;

/// Seconds that a ticket lives at the most.
const LIFE: u64 = 3_600;

/// What became of a ticket that was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// It is none of ours, was used, made room for another, or is of another SVID.
    Unknown,
    /// It is for another workload, port or mode.
    Unbound,
    Expired,
    /// The snapshot in force does not admit the chain that it remembers.
    NotAllowed,
}

/// What a ticket is good for, as a digest.
type Binding = [u8; 32];

fn binding(parts: &[&[u8]]) -> Binding {
    let framed: Vec<u8> = parts
        .iter()
        .flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied()))
        .collect();
    digest(&SHA256, &framed).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Who was at the other end, and until when that may be remembered.
#[derive(Clone)]
struct Remembered {
    binding: Binding,
    chain: Chain,
    peer: Peer,
    until: u64,
}

impl Remembered {
    /// None: nobody was admitted. Without a chain of the handshake's own it is a resumed one, which remembers
    /// on.
    fn of(slot: &Slot, credentials: &Credentials, binding: Binding, now: u64) -> Option<Self> {
        let (chain, peer) = match (slot.chain.get(), slot.outcome(), slot.peer()) {
            (Some(chain), Some(Ok(_)), Some(peer)) => (chain.clone(), peer.clone()),
            (None, None, _) => slot.remembered.get().map(|(chain, peer, _)| (chain.clone(), peer.clone()))?,
            (Some(_) | None, _, _) => return None,
        };
        let until = (now + LIFE).min(credentials.not_after()).min(peer.not_after);
        Some(Self { binding, chain, peer, until })
    }

    /// Asks the judge, who has the snapshot in force. On a yes the slot has it, for a handshake that resumes.
    fn ask(&self, verifier: &Verifier, binding: &Binding, now: u64, role: Role) -> Result<(), Unused> {
        if self.binding != *binding {
            return Err(Unused::Unbound);
        }
        if now > self.until {
            return Err(Unused::Expired);
        }
        let (leaf, intermediates) = self.chain.split_first().ok_or(Unused::Unknown)?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        let (peer, outcome) = match planted::is(Bug::ResumedUnjudged) {
            true => (Some(self.peer.clone()), Ok(None)),
            false => verifier.weigh(leaf, intermediates, at, role),
        };
        match (peer, outcome) {
            (Some(peer), outcome @ Ok(_)) => {
                let _ = verifier.slot.remembered.set((self.chain.clone(), peer, outcome));
                Ok(())
            }
            (Some(_) | None, _) => Err(Unused::NotAllowed),
        }
    }
}

/// Of one SVID.
pub(super) struct Tickets {
    issued: Vec<AtomicCell<Option<Box<Issued>>>>,
    held: Vec<AtomicCell<Option<Box<Held>>>>,
}

/// A ticket that we gave out.
struct Issued {
    id: Vec<u8>,
    value: Zeroizing<Vec<u8>>,
    of: Remembered,
}

/// A ticket that we were given.
struct Held {
    value: Tls13ClientSessionValue,
    /// The library takes a ticket for none if it is offered under another verifier.
    verifier: Arc<Rebound>,
    of: Remembered,
}

impl Tickets {
    pub fn new() -> Self {
        let empty = |_| AtomicCell::new(None);
        Self { issued: (0..SLOTS).map(empty).collect(), held: (0..SLOTS).map(|_| AtomicCell::new(None)).collect() }
    }

    fn place(key: &[u8]) -> usize {
        key.first_chunk().map_or(0, |bytes: &[u8; 2]| usize::from(u16::from_be_bytes(*bytes)) % SLOTS)
    }

    fn take_issued(&self, id: &[u8]) -> Option<Box<Issued>> {
        let cell = &self.issued[Self::place(id)];
        let found = cell.take()?;
        if found.id == id {
            return Some(found);
        }
        cell.store(Some(found));
        None
    }

    fn places(binding: &Binding) -> impl Iterator<Item = usize> {
        let first = Self::place(binding);
        (0..SIDE_BY_SIDE).map(move |step| (first + step) % SLOTS)
    }

    fn keep_held(&self, held: Box<Held>) {
        let mut held = Some(held);
        for place in Self::places(&held.as_ref().expect("it is there").of.binding.clone()) {
            let before = self.held[place].take();
            match before {
                Some(other) => self.held[place].store(Some(other)),
                None => return self.held[place].store(held.take()),
            }
        }
        let place = Self::place(&held.as_ref().expect("it found no place").of.binding);
        self.held[place].store(held);
    }

    fn take_held(&self, binding: &Binding) -> Option<Box<Held>> {
        Self::places(binding).find_map(|place| {
            let found = self.held[place].take()?;
            if found.of.binding == *binding {
                return Some(found);
            }
            self.held[place].store(Some(found));
            None
        })
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

/// What the library asks for tickets while one caller's handshake runs.
pub(super) struct Accepting {
    verifier: Arc<Verifier>,
    credentials: Arc<Credentials>,
    binding: Binding,
    now: u64,
    /// One ticket is looked at, of as many as a caller may offer. What the library looks at and passes over it
    /// does without asking for the key to it: so anybody's ticket may stand before one's own.
    asked: AtomicBool,
}

impl Accepting {
    /// For a caller of this port of a workload.
    pub fn new(
        verifier: Arc<Verifier>,
        credentials: Arc<Credentials>,
        (workload, port, mode): (&str, u16, &str),
        now: u64,
    ) -> Self {
        let binding = binding(&[b"accept", workload.as_bytes(), &port.to_be_bytes(), mode.as_bytes()]);
        Self { verifier, credentials, binding, now, asked: AtomicBool::new(false) }
    }
}

impl StoresServerSessions for Accepting {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        let value = Zeroizing::new(value);
        let Some(of) = Remembered::of(&self.verifier.slot, &self.credentials, self.binding, self.now) else {
            return false;
        };
        let tickets = self.credentials.tickets();
        tickets.issued[Tickets::place(&id)].store(Some(Box::new(Issued { id, value, of })));
        true
    }

    /// Tickets of TLS 1.2, which nobody is given.
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        if self.asked.swap(true, Relaxed) {
            return None;
        }
        let found = self.credentials.tickets().take_issued(id).ok_or(Unused::Unknown);
        let asked = found.and_then(|found| {
            found.of.ask(&self.verifier, &self.binding, self.now, Role::Client).map(|()| found.value.to_vec())
        });
        if let Err(why) = &asked {
            let _ = self.verifier.slot.unused.set(*why);
        }
        asked.ok()
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for Accepting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepting").finish_non_exhaustive()
    }
}

/// A verifier that one connection hands on to the next, with the ticket: judges for whoever it is bound to, and
/// nobody without.
pub(super) struct Rebound(AtomicCell<Option<Arc<Verifier>>>);

impl Rebound {
    fn judge(&self) -> Result<Arc<Verifier>, Error> {
        let bound = self.0.take();
        self.0.store(bound.clone());
        bound.ok_or_else(|| Error::General("its judge is another connection's".into()))
    }
}

impl std::fmt::Debug for Rebound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebound").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Rebound {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(&*self.judge()?, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(&*self.judge()?, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge().map(|judge| ServerCertVerifier::supported_verify_schemes(&*judge)).unwrap_or_default()
    }
}

/// What the library asks for tickets on one connection to a server.
struct Originating {
    verifier: Arc<Rebound>,
    /// Of its own handshake; no judge, who would keep a snapshot for as long as the connection lives.
    slot: Arc<Slot>,
    credentials: Arc<Credentials>,
    binding: Binding,
    now: u64,
    offer: AtomicCell<Option<Box<Tls13ClientSessionValue>>>,
    /// One ticket a connection, so that no two handshakes have one verifier.
    kept: AtomicBool,
}

/// The verifier and the tickets of a connection to this server, by this name.
pub(super) fn originating(
    judge: Arc<Verifier>,
    credentials: Arc<Credentials>,
    (workload, mode): (&str, &str),
    (server, name): (std::net::SocketAddr, &ServerName<'static>),
    now: u64,
) -> (Arc<Rebound>, Resumption) {
    let parts = [server.to_string(), format!("{name:?}")];
    let binding =
        binding(&[b"originate", workload.as_bytes(), mode.as_bytes(), parts[0].as_bytes(), parts[1].as_bytes()]);
    let held = credentials.tickets().take_held(&binding);
    let asked = held.map(|held| held.of.ask(&judge, &binding, now, Role::Server).map(|()| *held));
    let (verifier, offer) = match asked {
        Some(Ok(held)) => (held.verifier, Some(Box::new(held.value))),
        Some(Err(why)) => {
            let _ = judge.slot.unused.set(why);
            (Arc::new(Rebound(AtomicCell::new(None))), None)
        }
        None => (Arc::new(Rebound(AtomicCell::new(None))), None),
    };
    verifier.0.store(Some(judge.clone()));
    let store = Originating {
        verifier: verifier.clone(),
        slot: judge.slot.clone(),
        credentials,
        binding,
        now,
        offer: AtomicCell::new(offer),
        kept: AtomicBool::new(false),
    };
    (verifier, Resumption::store(Arc::new(store)).tls12_resumption(Tls12Resumption::Disabled))
}

impl ClientSessionStore for Originating {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        if self.kept.swap(true, Relaxed) {
            return;
        }
        let Some(of) = Remembered::of(&self.slot, &self.credentials, self.binding, self.now) else { return };
        // Its handshake is over: what it would be judged by next is another snapshot's.
        self.verifier.0.store(None);
        self.credentials.tickets().keep_held(Box::new(Held { value, verifier: self.verifier.clone(), of }));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.offer.take().map(|value| *value)
    }
}

impl std::fmt::Debug for Originating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Originating").finish_non_exhaustive()
    }
}

/// What a resumed handshake stands on: the chain, who that is, and the verdict of just now.
pub(super) type Resumed = (Chain, Peer, Outcome);
