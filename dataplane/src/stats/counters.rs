//! Counters of one core: written by its worker alone, read by the agent at any time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use snapshot::{CloseReason, DropReason, RefuseReason};

/// What is counted that is no reason for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Total {
    PacketsReceived,
    PacketsSent,
    SessionsOpened,
    SessionsRelayed,
    RelayedPlain,
    RelayedLocal,
    /// Of the plain ones: by a bypass, under MUTUAL.
    RelayedBypass,
    /// Rules in shadow would have refused it; would have admitted it.
    ShadowRefused,
    ShadowAdmitted,
    /// A change took its permission, and `onChange` let it drain; kept it.
    LeftToDrain,
    Kept,
    Handshakes,
    /// Of these, by a ticket; tickets that were not used, by why.
    Resumed,
    ResumptionUnknown,
    ResumptionUnbound,
    ResumptionExpired,
    ResumptionNotAllowed,
    BytesSent,
    BytesReceived,
    /// PROXY headers that services were sent. They are no payload: in none of the counts above.
    ProxyHeaders,
    ProxyHeaderBytes,
    ReportsLost,
    /// Of these, how calls were decided.
    DecisionsLost,
    HandedOver,
    /// Calls to virtual addresses; endpoints that could not be connected, those that were ejected by it, and
    /// calls that were given to another one then.
    Balanced,
    EndpointsFailed,
    EndpointEjections,
    ConnectsRetried,
    /// Calls that are not counted with their endpoint's, for want of room.
    EndpointsForgotten,
    Turns,
    /// Gauges: set, not counted.
    Sessions,
    Handshaking,
    Flows,
    FramesFree,
    Frames,
    EndpointsEjected,
    SnapshotVersion,
}

impl Total {
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::PacketsReceived, "packets_received"),
        (Self::PacketsSent, "packets_sent"),
        (Self::SessionsOpened, "sessions_opened"),
        (Self::SessionsRelayed, "sessions_relayed"),
        (Self::RelayedPlain, "relayed_plain"),
        (Self::RelayedLocal, "relayed_local"),
        (Self::RelayedBypass, "relayed_bypass"),
        (Self::ShadowRefused, "shadow_refused"),
        (Self::ShadowAdmitted, "shadow_admitted"),
        (Self::LeftToDrain, "left_to_drain"),
        (Self::Kept, "kept"),
        (Self::Handshakes, "handshakes"),
        (Self::Resumed, "resumed"),
        (Self::ResumptionUnknown, "resumption_refused_unknown"),
        (Self::ResumptionUnbound, "resumption_refused_unbound"),
        (Self::ResumptionExpired, "resumption_refused_expired"),
        (Self::ResumptionNotAllowed, "resumption_refused_not_allowed"),
        (Self::BytesSent, "bytes_sent"),
        (Self::BytesReceived, "bytes_received"),
        (Self::ProxyHeaders, "proxy_headers"),
        (Self::ProxyHeaderBytes, "proxy_header_bytes"),
        (Self::ReportsLost, "reports_lost"),
        (Self::DecisionsLost, "decisions_lost"),
        (Self::HandedOver, "handed_over"),
        (Self::Balanced, "balanced"),
        (Self::EndpointsFailed, "endpoints_failed"),
        (Self::EndpointEjections, "endpoint_ejections"),
        (Self::ConnectsRetried, "connects_retried"),
        (Self::EndpointsForgotten, "endpoints_forgotten"),
        (Self::Turns, "turns"),
        (Self::Sessions, "sessions"),
        (Self::Handshaking, "handshaking"),
        (Self::Flows, "flows"),
        (Self::FramesFree, "frames_free"),
        (Self::Frames, "frames"),
        (Self::EndpointsEjected, "endpoints_ejected"),
        (Self::SnapshotVersion, "snapshot_version"),
    ];
}

#[derive(Debug)]
pub struct CoreCounters {
    dropped: [AtomicU64; DropReason::COUNT],
    refused: [AtomicU64; RefuseReason::COUNT],
    closed: [AtomicU64; CloseReason::COUNT],
    totals: [AtomicU64; Total::ALL.len()],
}

impl Default for CoreCounters {
    fn default() -> Self {
        Self {
            dropped: [const { AtomicU64::new(0) }; DropReason::COUNT],
            refused: [const { AtomicU64::new(0) }; RefuseReason::COUNT],
            closed: [const { AtomicU64::new(0) }; CloseReason::COUNT],
            totals: [const { AtomicU64::new(0) }; Total::ALL.len()],
        }
    }
}

impl CoreCounters {
    pub fn drop(&self, reason: DropReason) {
        add(&self.dropped[reason as usize], 1);
    }

    pub fn drop_many(&self, reason: DropReason, count: u64) {
        add(&self.dropped[reason as usize], count);
    }

    pub fn refuse(&self, reason: RefuseReason) {
        add(&self.refused[reason as usize], 1);
    }

    pub fn close(&self, reason: CloseReason) {
        add(&self.closed[reason as usize], 1);
    }

    pub fn add(&self, total: Total, by: u64) {
        add(&self.totals[total as usize], by);
    }

    pub fn set(&self, gauge: Total, value: u64) {
        self.totals[gauge as usize].store(value, Relaxed);
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }

    pub fn refused(&self, reason: RefuseReason) -> u64 {
        self.refused[reason as usize].load(Relaxed)
    }

    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].load(Relaxed)
    }

    pub fn total(&self, total: Total) -> u64 {
        self.totals[total as usize].load(Relaxed)
    }
}

/// One writer: a plain load and store will do, and costs no locked instruction.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}
