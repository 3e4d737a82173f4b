//! Chains that were verified before: what two of a handshake's three signature checks are spared by.
//!
//! A workload calls again and again with the same SVID. What [`Roots`](super::Roots) have found
//! valid once, for one role, stays so until one of its certificates or its root ends, so it is
//! remembered by its digest, in the roots themselves: another bundle is another memory. Nothing is
//! remembered of what was refused. That the peer holds the key is never
//! remembered; its CertificateVerify is checked in each handshake.
//!
//! Workers share a memory without a lock: a slot is taken out to be read and put back, and a worker
//! that finds it empty meanwhile verifies once more.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use crossbeam::atomic::AtomicCell;
use rustls_pki_types::CertificateDer;

use super::Peer;
use super::path::Window;

/// Chains remembered by one trust domain's roots: more peers than a node speaks to in an hour.
const SLOTS: usize = 1024;

/// What a chain is to prove: a certificate for one role is none for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client = 1,
    Server = 2,
}

/// Digest of a role and of each certificate of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChainId([u8; 32]);

impl ChainId {
    pub fn of(role: Role, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(&[role as u8]);
        for certificate in std::iter::once(leaf).chain(intermediates) {
            digest.update(&(certificate.len() as u64).to_be_bytes());
            digest.update(certificate);
        }
        Self(digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn slot(self) -> usize {
        usize::from(u16::from_be_bytes([self.0[0], self.0[1]])) % SLOTS
    }
}

#[derive(Debug)]
struct Entry {
    chain: ChainId,
    peer: Peer,
    /// When every certificate of the path is valid, its root among them.
    valid: Window,
}

pub(super) struct Verified {
    slots: Vec<AtomicCell<Option<Arc<Entry>>>>,
}

impl Verified {
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicCell::new(None)).collect() }
    }

    /// Who the chain was found to belong to, if that still holds at `now`.
    pub fn find(&self, chain: ChainId, now: u64) -> Option<Peer> {
        let slot = &self.slots[chain.slot()];
        let entry = slot.take()?;
        let now = i64::try_from(now).ok()?;
        let known = entry.chain == chain && (entry.valid.0..=entry.valid.1).contains(&now);
        let peer = known.then(|| entry.peer.clone());
        slot.store(Some(entry));
        peer
    }

    /// Remembers a chain whose path has passed every rule just now, for as long as each certificate
    /// of that path is valid, in the place of whichever had its slot.
    pub fn keep(&self, chain: ChainId, peer: &Peer, valid: Window) {
        self.slots[chain.slot()].store(Some(Arc::new(Entry { chain, peer: peer.clone(), valid })));
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}
