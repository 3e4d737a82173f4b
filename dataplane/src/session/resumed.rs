//! What became of session tickets, counted once a handshake.

use super::{Context, Session};
use crate::io::PacketIo;
use crate::stats::Total;
use crate::tls::Unused;

impl Session {
    pub(super) fn note_resumption<P: PacketIo>(&self, cx: &Context<'_, P>) {
        let Some(tls) = self.tls() else { return };
        if tls.resumed() {
            return cx.counters().add(Total::Resumed, 1);
        }
        let total = match tls.unused() {
            None => return,
            Some(Unused::Unknown) => Total::ResumptionUnknown,
            Some(Unused::Unbound) => Total::ResumptionUnbound,
            Some(Unused::Expired) => Total::ResumptionExpired,
            Some(Unused::NotAllowed) => Total::ResumptionNotAllowed,
        };
        cx.counters().add(total, 1);
    }
}
