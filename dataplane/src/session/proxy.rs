//! What a service is told of its caller before the caller's first byte (`connection.proxyProtocol`).
//!
//! The header goes into the send ring of the leg to the service when the session comes to be relayed: policy
//! has allowed by then, and nothing else is in the ring yet. From there on it is TCP's like any byte. It is no
//! payload, and in no count of it.

use snapshot::ProxyProtocol;

use super::{Context, Session};
use crate::io::PacketIo;
use crate::policy::Route;
use crate::proxy::{Header, LONGEST};
use crate::stats::Total;
use crate::tls::TlsLeg;

impl Session {
    /// Whether the service waits for a header before it does anything.
    pub(super) fn is_announced(&self) -> bool {
        let Some(callee) = self.callee_here() else { return false };
        match self.compiled.workloads[callee].proxy.of(self.destination().port()) {
            ProxyProtocol::None => false,
            ProxyProtocol::V2 => true,
        }
    }

    /// Puts the header before everything, if there is to be one.
    pub(super) fn announce<P: PacketIo>(&mut self, cx: &Context<'_, P>) {
        if !self.is_announced() {
            return;
        }
        let mut bytes = [0; LONGEST];
        let length = self.header().write(&mut bytes);
        let conn = &mut self.up.as_mut().expect("what is relayed has two legs").conn;
        assert_eq!(conn.unacked(), 0, "the header is what the service gets first");
        let sent = conn.send(|room| match room.get_mut(..length) {
            Some(room) => {
                room.copy_from_slice(&bytes[..length]);
                (length, length)
            }
            None => (0, 0),
        });
        // A service that has hung up since takes nothing, the caller's bytes neither.
        assert!(sent == length || conn.room() == 0, "an empty ring of {} bytes has no room for {length}", conn.room());
        cx.counters().add(Total::ProxyHeaders, u64::from(sent > 0));
        cx.counters().add(Total::ProxyHeaderBytes, sent as u64);
    }

    fn header(&self) -> Header<'_> {
        Header {
            source: self.down.remote,
            destination: self.destination(),
            tls: self.down.tls.as_deref().map(TlsLeg::negotiated),
            spiffe_id: match self.route {
                // Between workloads of this node nobody shows a certificate: the caller is attested.
                Route::Local { from, .. } => Some(&*self.compiled.workloads[from].spiffe_id),
                Route::Inbound { .. } | Route::Egress { .. } | Route::Plain { .. } | Route::Refuse { .. } => {
                    self.peer.as_ref().map(|peer| &*peer.spiffe_id)
                }
            },
        }
    }

    /// The workload of this node that is called. What is not ours to touch (mode DISABLE) has none.
    fn callee_here(&self) -> Option<usize> {
        match self.route {
            Route::Inbound { workload, .. } => Some(workload),
            Route::Local { to, .. } => Some(to),
            Route::Egress { .. } | Route::Plain { .. } | Route::Refuse { .. } => None,
        }
    }
}
