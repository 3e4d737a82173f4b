//! The embedded CA as OpenSSL and the file system see it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ctrl::config::{SpiffeId, TrustDomain};
use ctrl::source::embedded_ca::{EmbeddedCa, init, issue_node};
use ctrl::source::{Error, Source as _, Wanted, keyfile};

const NOW: u64 = 1_800_000_000;
const YEAR: u64 = 365 * 86_400;

/// A root and the node `node-a` below `dir`.
fn authority(dir: &Path) {
    init(&dir.join("root"), &TrustDomain::parse("example.com").unwrap(), NOW).unwrap();
    issue_node(&dir.join("root"), "node-a", &dir.join("node-a"), NOW).unwrap();
}

fn frontend() -> SpiffeId {
    SpiffeId::parse("spiffe://example.com/myapp/app/frontend").unwrap()
}

fn wanted(id: SpiffeId) -> Wanted {
    Wanted { id, dns_names: vec![], workload: "shop/frontend".into(), pods: vec![] }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Output of openssl; it must succeed.
fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn write_der(path: &Path, der: &[u8]) -> String {
    std::fs::write(path, der).unwrap();
    path.display().to_string()
}

#[test]
fn openssl_verifies_the_chain_and_sees_exactly_one_uri() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let ca = EmbeddedCa::open(&dir.path().join("node-a")).unwrap();
    let names = ["backend-api.myapp.svc.cluster.local".to_owned()];
    let issued = ca.issue_svid(&frontend(), &names, Duration::from_secs(3_600), NOW).unwrap();

    let leaf = write_der(&dir.path().join("leaf.der"), &issued.svid.chain[0]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let at = NOW.to_string();
    let verify = |purpose| {
        let (bundle, node) = (path("node-a/bundle.pem"), path("node-a/node.crt"));
        openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-attime",
            &at,
            "-CAfile",
            &bundle,
            "-untrusted",
            &node,
            &leaf,
        ])
    };
    for purpose in ["sslserver", "sslclient"] {
        assert_eq!(verify(purpose), format!("{leaf}: OK\n"), "{purpose}");
    }

    let text = openssl(&["x509", "-in", &leaf, "-noout", "-text"]);
    assert_eq!(text.matches("URI:").count(), 1);
    for part in [
        "URI:spiffe://example.com/myapp/app/frontend, DNS:backend-api.myapp.svc.cluster.local",
        "CA:FALSE",
        "Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "ASN1 OID: prime256v1",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let serial = openssl(&["x509", "-in", &leaf, "-noout", "-serial"]);
    assert_eq!(serial.trim().to_lowercase(), format!("serial={}", issued.svid.serial));

    let node = openssl(&["x509", "-in", &path("node-a/node.crt"), "-noout", "-text"]);
    assert!(node.contains("CA:TRUE, pathlen:0") && node.contains("URI:spiffe://example.com\n"), "{node}");
    let root = openssl(&["x509", "-in", &path("root/root.crt"), "-noout", "-text"]);
    assert!(root.contains("CA:TRUE, pathlen:1") && root.contains("Certificate Sign"), "{root}");
}

#[test]
fn the_key_of_an_svid_is_the_one_in_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let ca = EmbeddedCa::open(&dir.path().join("node-a")).unwrap();
    let issued = ca.issue(&wanted(frontend()), NOW).unwrap();
    let leaf = write_der(&dir.path().join("leaf.der"), &issued.svid.chain[0]);
    let key = write_der(&dir.path().join("key.der"), issued.key.pkcs8());
    let of_leaf = openssl(&["x509", "-in", &leaf, "-noout", "-pubkey"]);
    assert_eq!(of_leaf, openssl(&["pkey", "-inform", "DER", "-in", &key, "-pubout"]));

    let public = dir.path().join("public.pem");
    std::fs::write(&public, of_leaf).unwrap();
    let spki = dir.path().join("public.der").display().to_string();
    openssl(&["pkey", "-pubin", "-in", &public.display().to_string(), "-outform", "DER", "-out", &spki]);
    let digest = openssl(&["dgst", "-sha256", "-r", &spki]);
    let id: String = issued.svid.key.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest.split(' ').next(), Some(id.as_str()));
}

#[test]
fn a_key_file_is_readable_by_openssl_and_by_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    for (key, certificate) in [("root/root.key", "root/root.crt"), ("node-a/node.key", "node-a/node.crt")] {
        assert_eq!(mode(&dir.path().join(key)), 0o600, "{key}");
        assert_eq!(mode(&dir.path().join(certificate)), 0o644, "{certificate}");
        let key = openssl(&["pkey", "-in", &dir.path().join(key).display().to_string(), "-pubout"]);
        let certificate = dir.path().join(certificate).display().to_string();
        assert_eq!(key, openssl(&["x509", "-in", &certificate, "-noout", "-pubkey"]));
    }
    assert_eq!(mode(&dir.path().join("node-a")), 0o700);
    let files: Vec<_> = std::fs::read_dir(dir.path().join("node-a")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files.len(), 3, "no temporary files stay: {files:?}");
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_to_run() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let key = dir.path().join("node-a/node.key");
    for (bits, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o666, true)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(bits)).unwrap();
        let opened = EmbeddedCa::open(&dir.path().join("node-a"));
        assert_eq!(opened.is_err(), refused, "{bits:o}");
        if let Err(error) = opened {
            let path = key.display();
            assert_eq!(
                error.to_string(),
                format!("{path}: mode {bits:04o} lets others read a private key; run: chmod 600 {path}")
            );
        }
    }
}

#[test]
fn nothing_is_ever_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let before = std::fs::read(dir.path().join("root/root.key")).unwrap();
    let again = init(&dir.path().join("root"), &TrustDomain::parse("example.com").unwrap(), NOW);
    assert!(matches!(again, Err(Error::Exists(path)) if path.ends_with("root.key")));
    let again = issue_node(&dir.path().join("root"), "node-a", &dir.path().join("node-a"), NOW);
    assert!(matches!(again, Err(Error::Exists(_))));
    assert_eq!(std::fs::read(dir.path().join("root/root.key")).unwrap(), before);
    // A certificate alone also stands in the way: the key that it belongs to must not be orphaned.
    std::fs::remove_file(dir.path().join("node-a/node.key")).unwrap();
    assert!(matches!(
        issue_node(&dir.path().join("root"), "node-a", &dir.path().join("node-a"), NOW),
        Err(Error::Exists(path)) if path.ends_with("node.crt")
    ));
}

#[test]
fn files_that_do_not_belong_together_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let other = tempfile::tempdir().unwrap();
    authority(other.path());
    let node = dir.path().join("node-a");
    let swap = |name: &str| {
        let own = std::fs::read(node.join(name)).unwrap();
        std::fs::copy(other.path().join("node-a").join(name), node.join(name)).unwrap();
        let error = EmbeddedCa::open(&node).unwrap_err().to_string();
        std::fs::write(node.join(name), own).unwrap();
        error
    };
    let crt = node.join("node.crt").display().to_string();
    assert_eq!(swap("node.key"), format!("{crt}: does not belong to the key in {}", node.join("node.key").display()));
    assert_eq!(swap("bundle.pem"), format!("{crt}: is signed by none of the roots in bundle.pem"));
    EmbeddedCa::open(&node).unwrap();
    std::fs::write(node.join("node.crt"), "hello").unwrap();
    assert_eq!(EmbeddedCa::open(&node).unwrap_err().to_string(), format!("{crt}: holds no certificate"));
}

#[test]
fn an_issuer_past_its_end_issues_nothing_and_warns_a_month_before() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let ca = EmbeddedCa::open(&dir.path().join("node-a")).unwrap();
    assert_eq!(ca.not_after(), NOW + YEAR);
    assert!(ca.warnings(NOW).is_empty() && ca.warnings(NOW + YEAR - 30 * 86_400).is_empty());
    assert_eq!(ca.warnings(NOW + YEAR - 30 * 86_400 + 1).len(), 1);
    let hour = Duration::from_secs(3_600);
    let issue = |now| ca.issue_svid(&frontend(), &[], hour, now);
    // The last SVID ends with its issuer, not after it.
    assert_eq!(issue(NOW + YEAR - 60).unwrap().svid.not_after, NOW + YEAR);
    let error = issue(NOW + YEAR).unwrap_err().to_string();
    assert!(error.ends_with("node.crt expired at 2028-01-15T08:00:00Z"), "{error}");
    assert!(issue(NOW - 301).unwrap_err().to_string().contains("is not valid before"));
    // The root is asked too before it signs a node.
    let late = issue_node(&dir.path().join("root"), "b", &dir.path().join("b"), NOW + 11 * YEAR);
    assert!(matches!(late, Err(Error::IssuerNotValid { .. })));
    assert!(!dir.path().join("b").exists());
}

#[test]
fn an_svid_lives_from_two_seconds_upward() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let ca = EmbeddedCa::open(&dir.path().join("node-a")).unwrap();
    for (ttl, before) in [(2, 1), (6, 3), (60, 30), (3_600, 30)] {
        let svid = ca.issue_svid(&frontend(), &[], Duration::from_secs(ttl), NOW).unwrap().svid;
        assert_eq!((NOW - svid.not_before, svid.not_after - NOW), (before, ttl));
        let leaf = write_der(&dir.path().join("leaf.der"), &svid.chain[0]);
        let text = openssl(&["x509", "-in", &leaf, "-noout", "-enddate", "-dateopt", "iso_8601"]);
        assert_eq!(text.trim(), format!("notAfter={}", ctrl::rotate::utc(svid.not_after).replace('T', " ")));
    }
    assert!(matches!(ca.issue_svid(&frontend(), &[], Duration::from_secs(1), NOW), Err(Error::Ttl(1))));
    let one = ca.issue(&wanted(frontend()), NOW).unwrap().svid;
    let two = ca.issue(&wanted(frontend()), NOW).unwrap().svid;
    assert!(one.serial != two.serial && one.key != two.key);
}

#[test]
fn an_id_of_another_trust_domain_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let ca = EmbeddedCa::open(&dir.path().join("node-a")).unwrap();
    let foreign = SpiffeId::parse("spiffe://example.com.evil/myapp").unwrap();
    assert!(matches!(ca.issue(&wanted(foreign), NOW), Err(Error::ForeignId { .. })));
}

#[test]
fn debug_output_holds_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let ca = EmbeddedCa::open(&dir.path().join("node-a")).unwrap();
    let issued = ca.issue(&wanted(frontend()), NOW).unwrap();
    let secret = issued.key.pkcs8();
    let shown = format!("{ca:?} {issued:?} {:?}", keyfile::read(&dir.path().join("node-a/node.key")).is_ok());
    // The private scalar (RFC 5915) follows its OCTET STRING header; the public key is no secret.
    assert_eq!(secret[34..36], [0x04, 0x20]);
    let listed = format!("{:?}", &secret[36..68]);
    assert!(!shown.contains(listed.trim_matches(['[', ']'])));
    assert!(!shown.contains("PRIVATE KEY") && shown.contains("PrivateKey(..)"));
}

#[test]
fn a_certificate_that_is_cut_off_is_named_without_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let node = dir.path().join("node-a");
    let whole = std::fs::read(node.join("node.crt")).unwrap();
    std::fs::write(node.join("node.crt"), &whole[..whole.len() / 2]).unwrap();
    let said = EmbeddedCa::open(&node).unwrap_err().to_string();
    assert_eq!(said, format!("{}/node.crt: is cut off within a certificate", node.display()));
}
