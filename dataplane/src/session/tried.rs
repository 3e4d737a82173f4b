//! What a verdict leaves behind besides itself: its rule's count, and what rules in shadow would have made
//! of the call.

use super::{Context, Session};
use crate::io::PacketIo;
use crate::policy::{self, Shadow, Verdict, Would};
use crate::snapshot::Compiled;
use crate::stats::{CoreCounters, Report, Total};

impl Session {
    /// Once for each connection, with what `self.compiled` says of `self.route`.
    pub fn note_verdict<P: PacketIo>(&mut self, verdict: Verdict, cx: &mut Context<'_, P>) {
        if let Some(rule) = verdict.rule() {
            self.compiled.hit(rule);
        }
        self.note_shadow(verdict, cx);
    }

    /// Again whenever the snapshot has changed: a living connection is counted anew only where it is
    /// another rule that would have changed something.
    pub(super) fn note_shadow<P: PacketIo>(&mut self, verdict: Verdict, cx: &mut Context<'_, P>) {
        let found = policy::shadow(&self.compiled, &self.route, self.peer.as_ref(), verdict);
        let told = found.map(|found| found.told(&self.compiled));
        if told == self.shadow {
            return;
        }
        self.shadow = told;
        let Some(found) = found else { return };
        count(&self.compiled, found, cx.counters());
        // A refused one is logged as such, and tells it then.
        if found.would == Would::Refuse {
            let report = self.report(cx.now.unix_ms, cx.core, cx.ports, None);
            cx.mailbox.report(Report::Shadow(Box::new(report)));
        }
    }
}

/// The rule's own count, and the core's.
pub fn count(compiled: &Compiled, found: Shadow, counters: &CoreCounters) {
    compiled.hit(found.rule);
    counters.add(
        match found.would {
            Would::Refuse => Total::ShadowRefused,
            Would::Admit => Total::ShadowAdmitted,
        },
        1,
    );
}
