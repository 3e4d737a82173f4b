//! Identities that live for seconds, under a connection that lives longer.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use pktgen_tests::netns::{Process, wait_until};

use crate::mtls::connection;
use crate::stage::{SECONDS, Stage};

const COUNT: usize = 4_000_000;

pub fn renewed(stage: &Stage) -> Result<String> {
    for gateway in [&stage.node_a, &stage.node_b] {
        gateway.renew_every("6s")?;
    }
    let file = stage.site.rig.directory().join("download");
    let log = stage.site.rig.directory().join("download.log");
    let path = format!("/bytes?count={COUNT}&seconds=12");
    let extra = ["--max-time", "60", "-o", &file.to_string_lossy()];
    let mut download = Process::start(stage.curl(&stage.site.frontend, &path, "download", &extra), &log)?;

    let (mut of_a, mut of_b) = (BTreeSet::new(), BTreeSet::new());
    wait_until("three serials of each side", SECONDS(30), || {
        let port = stage.call(&stage.site.frontend, "renewed", &[]).ok()?.local_port;
        let (_, tls) = connection(&stage.node_b, port).ok()?;
        of_a.extend(tls.peer_serial);
        of_b.extend(tls.local_serial);
        (of_a.len() >= 3 && of_b.len() >= 3).then_some(())
    })
    .with_context(|| format!("seen: {of_a:?} and {of_b:?}"))?;
    ensure!(download.ended()?.is_none(), "the download ended too early to prove anything");
    ensure!(download.wait(SECONDS(30))?.success(), "the download failed: {}", fs::read_to_string(log)?);
    let bytes = fs::read(&file)?;
    let right = |(at, byte): (usize, &u8)| usize::from(*byte) == at % 251;
    ensure!(bytes.len() == COUNT && bytes.iter().enumerate().all(right), "{} bytes, not those sent", bytes.len());
    Ok(format!(
        "{} serials of the frontend and {} of the backend on new handshakes; the download's {COUNT} bytes are exact",
        of_a.len(),
        of_b.len()
    ))
}
