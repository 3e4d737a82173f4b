//! Log lines about refused connections, those that were cut or outlive a change, and those that rules in
//! shadow would have refused, at a bounded rate a reason: the counters stay exact.

use snapshot::{CloseReason, ConnectionReport, RefuseReason};

use crate::time::{Duration, Instant};

/// Lines a second and reason; the first of a second, since an attack repeats itself.
const LINES: u32 = 10;

#[derive(Debug)]
pub struct RefusalLog {
    second: Instant,
    written: [u32; RefuseReason::COUNT],
    shadowed: u32,
    cut: [u32; CloseReason::COUNT],
    outlived: u32,
    left_out: u64,
}

impl RefusalLog {
    pub fn new(now: Instant) -> Self {
        let written = [0; RefuseReason::COUNT];
        Self { second: now, written, shadowed: 0, cut: [0; CloseReason::COUNT], outlived: 0, left_out: 0 }
    }

    pub fn write(&mut self, report: &ConnectionReport, now: Instant) {
        let Some(reason) = report.refused else { return self.write_cut(report, now) };
        self.begin(now);
        if !has_room(&mut self.written[reason as usize], &mut self.left_out) {
            return;
        }
        tracing::warn!(
            reason = reason.name(),
            client = %report.client,
            server = %report.server,
            endpoint = report.endpoint.map(display),
            workload = report.workload.as_deref().unwrap_or("-"),
            peer = report.peer_id.as_deref().unwrap_or("-"),
            rule = report.rule.as_deref().unwrap_or("-"),
            shadow = report.shadow.as_deref().unwrap_or("-"),
            version = report.version.0,
            allowed_by = report.allowed_by.map(|version| version.0),
            detail = report.detail.as_deref().unwrap_or("-"),
            attested = report.attested.as_deref().unwrap_or("-"),
            "refused: {}",
            reason.meaning(),
        );
    }

    /// A connection that goes on.
    pub fn write_shadow(&mut self, report: &ConnectionReport, now: Instant) {
        self.begin(now);
        if !has_room(&mut self.shadowed, &mut self.left_out) {
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

    /// One that stood, and that we have ended: by which change, from which revision to which.
    fn write_cut(&mut self, report: &ConnectionReport, now: Instant) {
        let Some(reason) = report.closed.filter(|reason| is_ours(*reason)) else { return };
        self.begin(now);
        if !has_room(&mut self.cut[reason as usize], &mut self.left_out) {
            return;
        }
        tracing::warn!(
            reason = reason.name(),
            client = %report.client,
            server = %report.server,
            endpoint = report.endpoint.map(display),
            workload = report.workload.as_deref().unwrap_or("-"),
            peer = report.peer_id.as_deref().unwrap_or("-"),
            rule = report.rule.as_deref().unwrap_or("-"),
            allowed_by = report.allowed_by.map(|version| version.0),
            version = report.version.0,
            detail = report.detail.as_deref().unwrap_or("-"),
            "cut: {}",
            reason.meaning(),
        );
    }

    /// One that goes on, though a newer snapshot would not allow it.
    pub fn write_outlived(&mut self, report: &ConnectionReport, now: Instant) {
        self.begin(now);
        if !has_room(&mut self.outlived, &mut self.left_out) {
            return;
        }
        tracing::warn!(
            client = %report.client,
            server = %report.server,
            workload = report.workload.as_deref().unwrap_or("-"),
            peer = report.peer_id.as_deref().unwrap_or("-"),
            rule = report.rule.as_deref().unwrap_or("-"),
            allowed_by = report.allowed_by.map(|version| version.0),
            version = report.version.0,
            detail = report.detail.as_deref().unwrap_or("-"),
            "{}: a newer snapshot does not allow the connection (onChange)",
            report.state,
        );
    }

    /// A new second, if it is one.
    fn begin(&mut self, now: Instant) {
        if now - self.second >= Duration::from_secs(1) {
            if self.left_out > 0 {
                tracing::warn!(left_out = self.left_out, "more connections were refused, cut or tried than are logged");
            }
            *self = Self::new(now);
        }
    }
}

/// Counts a line, as written or as left out.
fn has_room(written: &mut u32, left_out: &mut u64) -> bool {
    *written += 1;
    *left_out += u64::from(*written > LINES);
    *written <= LINES
}

/// Whether we ended it for a reason of policy's: what the ends do themselves is no news.
fn is_ours(reason: CloseReason) -> bool {
    match reason {
        CloseReason::PolicyChanged | CloseReason::PeerExpired | CloseReason::MaxAge => true,
        CloseReason::Finished
        | CloseReason::ResetByClient
        | CloseReason::ResetByServer
        | CloseReason::Truncated
        | CloseReason::TlsError
        | CloseReason::ClosedByPeer
        | CloseReason::IdleTimeout
        | CloseReason::UserTimeout
        | CloseReason::HalfCloseTimeout
        | CloseReason::Drained
        | CloseReason::Unreachable => false,
    }
}
