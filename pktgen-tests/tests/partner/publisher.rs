//! What partner.org publishes on a host of its own: its bundle at an endpoint of the profile `https_spiffe`, and
//! its CRL.

use std::path::{Path, PathBuf};

use pktgen_tests::netns::{Host, Namespace, Process, wait_until};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose as Eku, KeyPair, KeyUsagePurpose as Use, SanType, date_time_ymd,
};

use super::{PATIENCE, Root};

pub const ENDPOINT: &str = "spiffe://partner.org/spire/server";
const SCRIPT: &str = include_str!("publisher.py");

pub struct Publisher {
    directory: PathBuf,
    log: PathBuf,
    _process: Process,
}

impl Publisher {
    /// With a bundle of this root, by whose certificate it speaks, and this CRL.
    pub fn start(namespace: &Namespace, beside: &Path, root: &Root, crl: &str) -> Self {
        let directory = beside.join("published");
        std::fs::create_dir(&directory).unwrap();
        let (script, log) = (beside.join("publisher.py"), beside.join("publisher.log"));
        std::fs::write(&script, SCRIPT).unwrap();
        replace(&directory, "ca.crl", crl);
        speak_as(&directory, root);
        replace(&directory, "bundle.json", &bundle(&[root], 1));
        let line = format!("python3 {} {}", script.display(), directory.display());
        let process = namespace.spawn(&line, &log).unwrap();
        let publisher = Self { directory, log, _process: process };
        let ready = || std::fs::read_to_string(&publisher.log).ok()?.contains("\"ready\"").then_some(());
        wait_until("the partner publishes", PATIENCE, ready).unwrap();
        publisher
    }

    pub fn url(&self) -> String {
        format!("https://{}:8443/bundle.json", Host::Legacy.v4())
    }

    pub fn crl_url(&self) -> String {
        format!("http://{}:8080/ca.crl", Host::Legacy.v4())
    }

    /// The bundle is these roots from now on.
    pub fn bundle(&self, roots: &[&Root], sequence: u64) {
        replace(&self.directory, "bundle.json", &bundle(roots, sequence));
    }

    pub fn crl(&self, crl: &str) {
        replace(&self.directory, "ca.crl", crl);
    }

    /// The endpoint has a certificate of this root from now on.
    pub fn speak_as(&self, root: &Root) {
        speak_as(&self.directory, root);
    }
}

fn speak_as(directory: &Path, root: &Root) {
    let mut params = CertificateParams::default();
    params.key_usages = vec![Use::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(ENDPOINT.try_into().unwrap())];
    (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2034, 1, 1));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &root.0.0).unwrap();
    replace(directory, "endpoint.pem", &format!("{}{}", certificate.pem(), key.serialize_pem()));
}

fn bundle(roots: &[&Root], sequence: u64) -> String {
    let x5c = |root: &Root| root.0.pem().lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let key = |root: &&Root| serde_json::json!({ "use": "x509-svid", "kty": "EC", "x5c": [x5c(root)] });
    let keys: Vec<_> = roots.iter().map(key).collect();
    serde_json::json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 600 }).to_string()
}

/// Whole or not at all.
fn replace(directory: &Path, name: &str, content: &str) {
    let new = directory.join(format!(".{name}"));
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, directory.join(name)).unwrap();
}
