//! Calls that a bypass lets in plain (`connection.bypass`): most are probes, which ask whether a service is
//! well.
//!
//! So the service is dialed first, and the caller answered when it stands: a gateway that answers by itself
//! would call a dead service well. What it may do without asking who calls is what the bypass says. A caller
//! that offers TLS is one like any other, and nothing reaches the service before it is allowed. Many probes
//! send nothing, and hang up or reset as soon as they are answered: that is all that they came for.

use super::{Context, Session};
use crate::io::PacketIo;
use crate::policy::{Route, admitted};
use crate::stats::Total;

impl Session {
    /// Whether a plain caller is let in by a bypass.
    pub(super) fn may_bypass(&self) -> bool {
        matches!(self.route, Route::Inbound { bypass: Some(_), .. })
    }

    /// Counts it, if it came in by a bypass, and keeps why it was let in.
    pub(super) fn note_admission<P: PacketIo>(&mut self, cx: &Context<'_, P>) {
        let plain = self.down.tls.is_none();
        self.admitted = admitted(&self.route, plain);
        let Route::Inbound { workload, bypass: Some(rule), .. } = self.route else { return };
        if plain {
            self.compiled.workloads[workload].bypass.hit(rule);
            cx.counters().add(Total::RelayedBypass, 1);
        }
    }
}
