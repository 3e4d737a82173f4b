//! What a session tells about itself: one [`ConnectionReport`], live or ended.

use std::net::SocketAddr;
use std::sync::Arc;

use snapshot::{ConnectionReport, Direction, Port, RefuseReason, RuleId, Side, Version};

use super::{Ending, Session};
use crate::policy::Route;
use crate::snapshot::Compiled;
use crate::time::Now;
use crate::tls::TlsLeg;

impl Session {
    pub fn report(&self, now_ms: u64, core: u32, ports: &[Port], detail: Option<&str>) -> ConnectionReport {
        let (refused, closed) = match self.ending {
            Some(Ending::Refused(reason)) => (Some(reason), None),
            Some(Ending::Closed(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        ConnectionReport {
            id: self.id,
            core,
            direction: self.plan.direction,
            client: self.down.remote,
            server: self.down.local,
            source: self.up.as_ref().map(|up| up.local).filter(|local| *local != self.down.remote),
            workload: self.workload.as_deref().map(str::to_owned),
            local_id: self.local_id.as_deref().map(str::to_owned),
            peer_id: self
                .peer
                .as_ref()
                .map(|peer| peer.spiffe_id.to_string())
                .or_else(|| self.callee.as_deref().map(str::to_owned)),
            mode: self.plan.mode,
            // Of one that is refused for who it is, the certificate is what matters.
            tls: self.tls().filter(|tls| !tls.handshaking() || self.peer.is_some()).map(TlsLeg::report),
            state: self.life.shown(self.state).into(),
            refused,
            closed,
            detail: detail.or(self.life.detail()).map(str::to_owned),
            rule: self.rule_text(self.rule),
            shadow: self.shadow.clone(),
            version: self.compiled.version,
            opened_at: self.opened_at,
            ended_at: self.ending.map(|_| now_ms),
            sent: self.request.moved,
            received: self.response.moved,
            allowed_by: self.life.allowed_by(),
            attested: self.attested(ports),
            endpoint: self.balanced.as_ref().map(|balanced| balanced.endpoint),
            admitted: self.admitted,
        }
    }

    fn attested(&self, ports: &[Port]) -> Option<String> {
        let interface = &ports[usize::from(self.down.port.0)].interface;
        self.compiled.evidence(interface, self.down.remote.ip(), self.destination(), &self.witnesses)
    }

    pub(super) fn tls(&self) -> Option<&TlsLeg> {
        self.down.tls.as_deref().or_else(|| self.up.as_ref()?.tls.as_deref())
    }
}

/// The workload of this node whose call or service it is.
fn workload_of(route: &Route) -> Option<usize> {
    match *route {
        Route::Inbound { workload, .. } | Route::Egress { workload, .. } => Some(workload),
        Route::Local { from, .. } => Some(from),
        Route::Plain { workload, .. } | Route::Refuse { workload, .. } => workload,
    }
}

pub fn workload_name(compiled: &Compiled, route: &Route) -> Option<Arc<str>> {
    workload_of(route).map(|index| compiled.workloads[index].name.clone())
}

/// Between two workloads of this node nobody shows a certificate: both are attested here.
pub fn callee(compiled: &Compiled, route: &Route) -> Option<Arc<str>> {
    match *route {
        Route::Local { to, .. } => Some(compiled.workloads[to].spiffe_id.clone()),
        Route::Inbound { .. } | Route::Egress { .. } | Route::Plain { .. } | Route::Refuse { .. } => None,
    }
}

pub fn local_id(compiled: &Compiled, route: &Route) -> Option<Arc<str>> {
    workload_of(route).map(|index| compiled.workloads[index].spiffe_id.clone())
}

pub fn direction_of(side: Side) -> Direction {
    match side {
        Side::Outside => Direction::Inbound,
        Side::Inside => Direction::Egress,
    }
}

/// What is known of a call that was refused from addresses alone.
pub struct AtOnce<'a> {
    pub compiled: &'a Compiled,
    pub route: &'a Route,
    pub rule: Option<RuleId>,
    pub detail: Option<String>,
    pub shadow: Option<String>,
    pub attested: Option<String>,
    pub endpoint: Option<SocketAddr>,
}

/// Of a call that never became a session. `known` is None before the first snapshot.
#[allow(clippy::too_many_arguments)]
pub fn refused_at_once(
    id: u64,
    core: u32,
    side: Side,
    client: SocketAddr,
    server: SocketAddr,
    known: Option<AtOnce<'_>>,
    reason: RefuseReason,
    now: Now,
) -> ConnectionReport {
    let compiled = known.as_ref().map(|known| (known.compiled, known.route));
    let source = known.as_ref().and_then(|known| Some(known.compiled.rule(known.rule?)));
    let rule = source.map(|source| format!("{} ({})", source.name, source.place));
    let version = compiled.map_or(Version(0), |(compiled, _)| compiled.version);
    let workload = compiled.and_then(|(compiled, route)| workload_name(compiled, route)).map(|name| name.to_string());
    let local_id = compiled.and_then(|(compiled, route)| local_id(compiled, route)).map(|id| id.to_string());
    let peer_id = compiled.and_then(|(compiled, route)| callee(compiled, route)).map(|id| id.to_string());
    let endpoint = known.as_ref().and_then(|known| known.endpoint);
    let (detail, shadow, attested) =
        known.map_or((None, None, None), |known| (known.detail, known.shadow, known.attested));
    ConnectionReport {
        id,
        core,
        direction: direction_of(side),
        client,
        server,
        source: None,
        workload,
        local_id,
        peer_id,
        mode: None,
        tls: None,
        state: "refused".into(),
        refused: Some(reason),
        closed: None,
        detail,
        rule,
        shadow,
        version,
        opened_at: now.unix_ms,
        ended_at: Some(now.unix_ms),
        sent: 0,
        received: 0,
        allowed_by: None,
        attested,
        endpoint,
        admitted: None,
    }
}
