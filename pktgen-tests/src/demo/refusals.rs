//! Who is refused, where, and what the gateways say about it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use pktgen_tests::netns::gateway::Gateway;
use pktgen_tests::netns::{Host, wait_until};
use snapshot::{ConnectionReport, RefuseReason};

use crate::stage::{INTRUDER_ID, SECONDS, Stage};

pub fn intruder(stage: &Stage) -> Result<String> {
    stage.refused_call(&stage.site.intruder, Host::Intruder, "intruder", &[])?;
    let report = refusal(&stage.node_b, Host::Intruder, RefuseReason::NotAllowedInbound)?;
    ensure!(report.peer_id.as_deref() == Some(INTRUDER_ID), "node-b refused {:?}", report.peer_id);
    let to = SocketAddr::new(Host::Backend.v4(), 3000).to_string();
    let why = stage.node_b.explain(INTRUDER_ID, &to)?;
    ensure!(!why.allowed && why.refused == Some(RefuseReason::NotAllowedInbound), "explain says {why:?}");
    let at_a = refusal(&stage.node_a, Host::Intruder, RefuseReason::RefusedByPeer);
    let at_a = at_a.map_or("closed by its peer", |_| "RefusedByPeer");
    Ok(format!(
        "node-b refused {INTRUDER_ID}: NotAllowedInbound by {}; node-a: {at_a}; explain: {}",
        report.rule.as_deref().unwrap_or("no rule"),
        why.steps.last().context("explain gives no steps")?
    ))
}

pub fn stranger(stage: &Stage) -> Result<String> {
    let said = stage.refused_call(&stage.site.stranger, Host::Stranger, "stranger", &[])?;
    let report = refusal(&stage.node_a, Host::Stranger, RefuseReason::NoIdentity)?;
    Ok(format!("node-a refused {}: NoIdentity, {}; {said}", report.client, RefuseReason::NoIdentity.meaning()))
}

/// From the intruder's cable with the frontend's address: address and port do not agree.
pub fn spoof(stage: &Stage) -> Result<String> {
    let address = Host::Frontend.v4();
    let intruder = &stage.site.intruder;
    let before = spoofed(&stage.node_a)?;
    let accepted = stage.service.accepted()?;
    intruder.ip(&format!("address add {address}/32 dev eth0"))?;
    let extra = ["--interface", &address.to_string(), "--connect-timeout", "2"];
    let result = stage.refused_call(intruder, Host::Frontend, "spoof", &extra);
    intruder.ip(&format!("address del {address}/32 dev eth0"))?;
    let said = result?;
    ensure!(stage.service.accepted()? == accepted, "the service saw a connection");
    let dropped = wait_until("node-a counts drop_spoofed", SECONDS(5), || {
        spoofed(&stage.node_a).ok().map(|now| now - before).filter(|more| *more > 0.0)
    })?;
    Ok(format!("node-a dropped {dropped} packets from {address} at in1 (drop_spoofed); {said}"))
}

fn spoofed(gateway: &Gateway) -> Result<f64> {
    gateway.metric("sluice_steered_packets_total", "drop_spoofed")
}

/// The newest refusal of `host` by `gateway`, which has this reason.
pub fn refusal(gateway: &Gateway, host: Host, reason: RefuseReason) -> Result<ConnectionReport> {
    let what = format!("{} refuses {} with {reason}", gateway.name(), host.v4());
    wait_until(&what, SECONDS(5), || {
        let all = gateway.refused().ok()?;
        all.into_iter().rev().find(|report| report.client.ip() == host.v4() && report.refused == Some(reason))
    })
}
