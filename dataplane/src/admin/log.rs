//! Log lines about refused connections, and those that rules in shadow would have refused, at a bounded
//! rate a reason: the counters stay exact.

use snapshot::{ConnectionReport, RefuseReason};

use crate::time::{Duration, Instant};

/// Lines a second and reason; the first of a second, since an attack repeats itself.
const LINES: u32 = 10;

#[derive(Debug)]
pub struct RefusalLog {
    second: Instant,
    written: [u32; RefuseReason::COUNT],
    shadowed: u32,
    left_out: u64,
}

impl RefusalLog {
    pub fn new(now: Instant) -> Self {
        Self { second: now, written: [0; RefuseReason::COUNT], shadowed: 0, left_out: 0 }
    }

    pub fn write(&mut self, report: &ConnectionReport, now: Instant) {
        let Some(reason) = report.refused else { return };
        self.begin(now);
        let written = &mut self.written[reason as usize];
        *written += 1;
        if *written > LINES {
            self.left_out += 1;
            return;
        }
        tracing::warn!(
            reason = reason.name(),
            client = %report.client,
            server = %report.server,
            workload = report.workload.as_deref().unwrap_or("-"),
            peer = report.peer_id.as_deref().unwrap_or("-"),
            rule = report.rule.as_deref().unwrap_or("-"),
            shadow = report.shadow.as_deref().unwrap_or("-"),
            version = report.version.0,
            detail = report.detail.as_deref().unwrap_or("-"),
            attested = report.attested.as_deref().unwrap_or("-"),
            "refused: {}",
            reason.meaning(),
        );
    }

    /// A connection that goes on.
    pub fn write_shadow(&mut self, report: &ConnectionReport, now: Instant) {
        self.begin(now);
        self.shadowed += 1;
        if self.shadowed > LINES {
            self.left_out += 1;
            return;
        }
        tracing::info!(
            client = %report.client,
            server = %report.server,
            workload = report.workload.as_deref().unwrap_or("-"),
            peer = report.peer_id.as_deref().unwrap_or("-"),
            rule = report.rule.as_deref().unwrap_or("-"),
            shadow = report.shadow.as_deref().unwrap_or("-"),
            version = report.version.0,
            "in shadow: allowed, and a rule would refuse it",
        );
    }

    /// A new second, if it is one.
    fn begin(&mut self, now: Instant) {
        if now - self.second >= Duration::from_secs(1) {
            if self.left_out > 0 {
                tracing::warn!(left_out = self.left_out, "more connections were refused, or tried, than are logged");
            }
            *self = Self::new(now);
        }
    }
}
