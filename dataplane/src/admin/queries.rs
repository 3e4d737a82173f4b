//! Answers out of the workers' counters and the agent's state.

use snapshot::report::PortReport;
use snapshot::{AuditStatus, CloseReason, CoreReport, Counters, DropReason, RefuseReason, Status, Version};

use super::Audit;
use crate::stats::{CoreCounters, Total};

/// Summed over cores; every name is there, zeros too.
pub fn counters<'a>(
    cores: impl Iterator<Item = &'a CoreCounters> + Clone,
    steering: Vec<(&'static str, u64)>,
    audit: &Audit,
) -> Counters {
    let sum = |of: &dyn Fn(&CoreCounters) -> u64| cores.clone().map(of).sum::<u64>();
    let named = |(name, value): (&str, u64)| (name.to_owned(), value);
    Counters {
        dropped: DropReason::ALL.iter().map(|&r| named((r.name(), sum(&|c| c.dropped(r))))).collect(),
        refused: RefuseReason::ALL.iter().map(|&r| named((r.name(), sum(&|c| c.refused(r))))).collect(),
        closed: CloseReason::ALL.iter().map(|&r| named((r.name(), sum(&|c| c.closed(r))))).collect(),
        steering: steering.into_iter().map(named).collect(),
        totals: Total::ALL
            .iter()
            .map(|&(total, name)| (name, sum(&|c| c.total(total))))
            .chain(audit.totals())
            .map(named)
            .collect(),
        audit_omitted: audit.omitted(),
    }
}

/// `adopted`: the version that each core decides by.
pub fn status<'a>(
    started_at: u64,
    network_revision: u64,
    ports: Vec<PortReport>,
    cores: impl Iterator<Item = (u32, Option<Version>, &'a CoreCounters)>,
    last_nack: Option<String>,
    unusable: Vec<String>,
    audit: Option<AuditStatus>,
) -> Status {
    let cores: Vec<_> = cores.map(|(core, version, counters)| core_report(core, version, counters)).collect();
    Status {
        pid: std::process::id(),
        build: env!("CARGO_PKG_VERSION").into(),
        started_at,
        in_force: cores.iter().map(|core| core.version).min().flatten(),
        network_revision,
        ports,
        cores,
        last_nack,
        unusable,
        audit,
    }
}

fn core_report(core: u32, version: Option<Version>, counters: &CoreCounters) -> CoreReport {
    CoreReport {
        core,
        sessions: counters.total(Total::Sessions),
        handshakes: counters.total(Total::Handshaking),
        frames_free: counters.total(Total::FramesFree),
        frames: counters.total(Total::Frames),
        flows: counters.total(Total::Flows),
        turns: counters.total(Total::Turns),
        version,
    }
}
