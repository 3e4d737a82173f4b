//! A host without a gateway: refused where mTLS is required, served while one migrates.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use pktgen_tests::netns::{Capture, Host};
use pktgen_tests::stream::holds_marker;
use snapshot::RefuseReason;

use crate::refusals::refusal;
use crate::stage::{POLICY, SECONDS, Stage};

pub fn refused(stage: &Stage) -> Result<String> {
    let said = stage.refused_call(&stage.site.legacy, Host::Legacy, "legacy-under-mutual", &[])?;
    let report = refusal(&stage.node_b, Host::Legacy, RefuseReason::PlaintextRefused)?;
    Ok(format!("node-b refused {}: PlaintextRefused; {said}", report.client))
}

/// The backend's mode becomes PERMISSIVE on node-b, and the filter that found no marker finds one.
pub fn served(stage: &Stage) -> Result<String> {
    let (first, _) = POLICY.split_once("name: frontend\n").context("the example names the frontend")?;
    ensure!(first.matches("mode: MUTUAL").count() == 1, "the backend's mode is not where it was");
    let version = stage.node_b.apply("policy.yaml", &POLICY.replacen("mode: MUTUAL", "mode: PERMISSIVE", 1))?;
    const MARKER: &str = "a-marker-that-is-seen";
    let capture = Capture::start(&stage.site.wire, "b0")?;
    let reply = stage.call(&stage.site.legacy, MARKER, &[])?;
    let frames = capture.finish()?;
    ensure!(holds_marker(&frames, MARKER.as_bytes()), "the filter does not find the marker of a plain call");
    // Who has an identity still uses it.
    let port = stage.call(&stage.site.frontend, "frontend-under-permissive", &[])?.local_port;
    let (_, tls) = crate::mtls::connection(&stage.node_b, port)?;
    Ok(format!(
        "version {version}: \"{}\"; the filter finds its marker on the wire; the frontend still speaks {}",
        reply.body, tls.version
    ))
}

pub fn service_speaks_first(stage: &Stage) -> Result<String> {
    let address = SocketAddr::new(Host::Backend.v4(), 3001);
    let line = stage.site.legacy.enter(|| -> Result<String> {
        let stream = TcpStream::connect_timeout(&address, SECONDS(5))?;
        stream.set_read_timeout(Some(SECONDS(5)))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    })??;
    ensure!(line.starts_with("220 "), "the legacy host heard {line:?}");
    Ok(format!("the legacy host said nothing and heard \"{}\"", line.trim()))
}
