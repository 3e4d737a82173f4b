//! The main thing: a plain call becomes mTLS, and the wire shows nothing else.

use anyhow::{Context, Result, bail, ensure};
use pktgen_tests::netns::{Capture, Host, gateway::Gateway, wait_until};
use pktgen_tests::stream::{holds_marker, streams};
use snapshot::{ConnectionReport, TlsReport};

use crate::stage::{BACKEND_ID, FRONTEND_ID, SECONDS, Stage};

pub fn call(stage: &Stage) -> Result<String> {
    let reply = stage.call(&stage.site.frontend, "first-call", &[])?;
    let seen = stage.service.events("request")?;
    let seen = seen.iter().find(|event| event["marker"] == "first-call").context("the service logged no request")?;
    let (address, port) = (Host::Frontend.v4().to_string(), reply.local_port);
    ensure!(seen["peer"] == *address && seen["peer_port"] == port, "the service saw {seen}, not {address}:{port}");
    let (_, at_a) = connection(&stage.node_a, port)?;
    let (b, at_b) = connection(&stage.node_b, port)?;
    ensure!(b.local_id.as_deref() == Some(BACKEND_ID), "node-b serves as {:?}", b.local_id);
    ensure!(b.peer_id.as_deref() == Some(FRONTEND_ID), "node-b was called by {:?}", b.peer_id);
    ensure!((&at_a.version, &at_a.cipher) == (&at_b.version, &at_b.cipher), "the nodes disagree: {at_a:?}, {at_b:?}");
    Ok(format!(
        "{FRONTEND_ID} -> {BACKEND_ID}, {} {} {}; the service saw {address}:{port}",
        at_b.version, at_b.group, at_b.cipher
    ))
}

/// The gateway's report of the connection from the frontend's `port`.
pub fn connection(gateway: &Gateway, port: u16) -> Result<(ConnectionReport, TlsReport)> {
    let client = std::net::SocketAddr::new(Host::Frontend.v4(), port);
    let what = format!("{} reports the connection of {client}", gateway.name());
    let report =
        wait_until(&what, SECONDS(5), || gateway.connections().ok()?.into_iter().rev().find(|c| c.client == client))?;
    match report.tls.clone() {
        Some(tls) => Ok((report, tls)),
        None => bail!("{}: the connection of {client} has no TLS: {report:?}", gateway.name()),
    }
}

const MARKER: &str = "the-marker-that-must-not-be-seen";

pub fn wire(stage: &Stage) -> Result<String> {
    let capture = Capture::start(&stage.site.wire, "b0")?;
    let payload = 100_000;
    let path = format!("/bytes?count={payload}");
    let output =
        pktgen_tests::netns::run(stage.curl(&stage.site.frontend, &path, MARKER, &["-o", "/dev/null"]), SECONDS(15))?;
    output.ok()?;
    stage.call(&stage.site.frontend, MARKER, &[])?;
    let frames = capture.finish()?;
    ensure!(!frames.is_empty(), "the capture is empty, so it proves nothing");
    let sealed: usize = streams(&frames).iter().map(|stream| stream.application_data()).sum();
    ensure!(sealed >= payload, "{sealed} bytes of TLS application data, for a payload of {payload}");
    ensure!(!holds_marker(&frames, MARKER.as_bytes()), "the marker stands on the wire in clear");
    Ok(format!(
        "{} frames captured, {sealed} bytes of TLS application data for {payload} of payload, the marker in none \
         (the PERMISSIVE step below finds one with the same filter)",
        frames.len()
    ))
}
