//! partner.org, as the tests of trust play it: its roots and CRLs, its billing service, and the calls that it makes
//! to the backend.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../../ctrl/tests/https/ca.rs"]
mod ca;
pub mod publisher;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ca::Ca;
use pktgen_tests::netns::gateway::{BACKEND, Gateway};
use pktgen_tests::netns::pair::{Pair, policy};
use pktgen_tests::netns::{Host, Namespace, Process, run, wait_until};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose as Eku, KeyPair, KeyUsagePurpose as Use, SanType, SerialNumber,
    date_time_ymd,
};
use snapshot::{CloseReason, ConnectionReport, RefuseReason};

pub const FRONTEND: &str = "spiffe://example.com/myapp/app/frontend";
pub const BILLING: &str = "spiffe://partner.org/billing";
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A root of the partner, as its own people run it.
pub struct Root(pub Ca);

impl Root {
    pub fn new() -> Self {
        Self(Ca::new("partner root", Some("spiffe://partner.org".into())))
    }

    /// Its CRL of this number, which revokes these serials, and is followed at `next` (seconds since the epoch).
    pub fn crl(&self, number: u64, serials: &[u64], next: u64) -> String {
        self.0.crl_list(number, serials, next).pem().unwrap()
    }

    pub fn issue(&self, directory: &Path, name: &str) -> Shown {
        self.issue_as(directory, name, 1)
    }

    /// A certificate of the partner's service, and the options by which curl shows it.
    pub fn issue_as(&self, directory: &Path, name: &str, serial: u64) -> Shown {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name.push(DnType::CommonName, "billing");
        params.key_usages = vec![Use::DigitalSignature];
        params.extended_key_usages = vec![Eku::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(BILLING.try_into().unwrap())];
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2034, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0.0).unwrap();
        let shown =
            Shown { certificate: directory.join(format!("{name}.crt")), key: directory.join(format!("{name}.key")) };
        std::fs::write(&shown.certificate, certificate.pem()).unwrap();
        std::fs::write(&shown.key, key.serialize_pem()).unwrap();
        shown
    }
}

pub struct Shown {
    certificate: PathBuf,
    key: PathBuf,
}

/// A call of the backend: plainly by the frontend, over TLS by whoever shows a certificate.
pub fn curl(pair: &Pair, from: &Namespace, shown: Option<&Shown>, path: &str) -> std::process::Command {
    let mut command = from.command("curl");
    command.args(["-sS", "--max-time", "60", "--resolve"]).arg(format!("{BACKEND}:3000:{}", Host::Backend.v4()));
    let scheme = match shown {
        None => "http",
        Some(shown) => {
            command.arg("--cacert").arg(pair.authority.join("root.crt"));
            command.arg("--cert").arg(&shown.certificate).arg("--key").arg(&shown.key);
            "https"
        }
    };
    command.arg(format!("{scheme}://{BACKEND}:3000{path}"));
    command
}

pub fn served(pair: &Pair, from: &Namespace, shown: Option<&Shown>) -> bool {
    run(curl(pair, from, shown, "/"), PATIENCE).unwrap().status.success()
}

/// A download that goes on for longer than the test takes.
pub fn download(pair: &Pair, from: &Namespace, shown: Option<&Shown>, name: &str) -> Process {
    let directory = pair.site.rig.directory();
    let mut command = curl(pair, from, shown, "/bytes?count=4000000&seconds=55");
    command.arg("-o").arg(directory.join(name));
    Process::start(command, &directory.join(format!("{name}.log"))).unwrap()
}

/// Waits until a connection of `peer` is there that bytes have come over.
pub fn lives(gateway: &Gateway, peer: &str) {
    let flowing = |c: &ConnectionReport| c.peer_id.as_deref() == Some(peer) && c.closed.is_none() && c.received > 100;
    wait_until(&format!("{peer} is served"), PATIENCE, || {
        gateway.connections().ok()?.iter().any(flowing).then_some(())
    })
    .unwrap();
}

/// Waits until the download has failed, and a connection of `peer` was cut with this in its detail.
pub fn is_cut(gateway: &Gateway, mut download: Process, peer: &str, why: &str) {
    let ended = wait_until("the download is cut", PATIENCE, || download.ended().ok()?).unwrap();
    assert!(!ended.success(), "the download was not cut");
    let cut = |c: &ConnectionReport| {
        c.peer_id.as_deref() == Some(peer)
            && c.closed == Some(CloseReason::PolicyChanged)
            && c.detail.as_deref().is_some_and(|detail| detail.contains(why))
    };
    let mut last = Vec::new();
    let found = wait_until(&format!("a connection of {peer} cut because of {why}"), PATIENCE, || {
        last = gateway.connections().ok()?;
        last.iter().any(cut).then_some(())
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:#?}"));
}

pub fn newest_refusal(gateway: &Gateway, host: Host, reason: RefuseReason) -> ConnectionReport {
    wait_until(&format!("a refusal with {reason}"), PATIENCE, || {
        let newest = gateway.refused().ok()?.into_iter().rev().find(|c| c.client.ip() == host.v4())?;
        (newest.refused == Some(reason)).then_some(newest)
    })
    .unwrap()
}

/// The backend lists the frontend, and now the partner's service.
pub fn with_billing() -> String {
    let entry = format!("    inbound:\n      - {FRONTEND}\n");
    let policy = policy();
    assert!(policy.contains(&entry), "the backend lists the frontend");
    policy.replacen(&entry, &format!("{entry}      - {BILLING}\n"), 1)
}

/// Connections of the partner's service that bytes have come over.
pub fn live(gateway: &Gateway) -> usize {
    let all = gateway.connections().unwrap_or_default();
    let flowing = |c: &&ConnectionReport| c.peer_id.as_deref() == Some(BILLING) && c.closed.is_none();
    all.iter().filter(flowing).filter(|c| c.received > 100).count()
}
