//! An SVID that the control process takes out of files is one that the dataplane imports: what it
//! refused would take the whole snapshot with it, and so every other workload's news.

#[path = "../../ctrl/tests/openssl/mod.rs"]
mod openssl;

use ctrl::config::identity::Files;
use ctrl::config::{SpiffeId, TrustDomain};
use ctrl::source::files::{Expected, read};
use dataplane::tls::Credentials;
use openssl::*;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use snapshot::channel::PrivateKey;
use snapshot::{KeyId, Svid};

const BASIC: &str = "basicConstraints=critical,CA:FALSE";
const USAGE: &str = "keyUsage=critical,digitalSignature";

/// What the control process says of its files, where it takes them.
fn taken(ca: &Authority, leaf: &Leaf) -> Result<Svid, String> {
    let directory = tempfile::tempdir().unwrap();
    for (file, content) in [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), ("ca.crt", &ca.root())] {
        put(directory.path(), file, content);
    }
    let expected = Expected {
        id: SpiffeId::parse(ID).unwrap(),
        workload: "default/frontend".into(),
        trust_domain: TrustDomain::parse("example.com").unwrap(),
    };
    let identity = read(&Files::at(directory.path()), &expected, ctrl::clock::now());
    identity.map(|identity| identity.issued.svid).map_err(|fault| fault.to_string())
}

/// What the dataplane says of it.
fn imported(leaf: &Leaf) -> Result<Credentials, String> {
    let chain = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap().to_vec()];
    let key = PrivatePkcs8KeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let key = PrivateKey::new(key.secret_pkcs8_der().to_vec());
    let svid = Svid { key: KeyId([0; 32]), serial: leaf.serial(), not_before: 0, not_after: u64::MAX, chain };
    Credentials::import(&svid, &key, ID).map_err(|error| error.to_string())
}

/// A subjectAltName of the right URI and of one more name, as it is encoded.
fn names_with(name: &[u8]) -> String {
    let names = [&[0x86, ID.len() as u8], ID.as_bytes(), name].concat();
    let hex: String = names.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("2.5.29.17=DER:30{:02x}{hex}", names.len())
}

#[test]
fn no_svid_is_taken_from_files_that_the_dataplane_would_refuse() {
    let ca = Authority::new();
    let san = format!("subjectAltName=URI:{ID}");
    let critical = format!("subjectAltName=critical,URI:{ID}");
    let (wild, strange) = (names_with(&[0xa6, 2, 5, 0]), names_with(&[0x88, 2, 0x2a, 3]));
    // What they both say of it, or that they both take it.
    for (subject, extensions, said) in [
        ("/O=leaf", vec![BASIC, USAGE, &san], None),
        ("/O=leaf", vec![BASIC, "keyUsage=digitalSignature", &san], Some(["keyUsage: not critical", "not critical"])),
        ("/O=leaf", vec![BASIC, &san], Some(["keyUsage: no digitalSignature", "no keyUsage"])),
        ("/", vec![BASIC, USAGE, &san], Some(["subjectAltName: not critical", "subjectAltName is not critical"])),
        ("/", vec![BASIC, USAGE, &critical], None),
        ("/O=leaf", vec![BASIC, USAGE, &san, "1.2.3.4=DER:0500"], None),
        ("/O=leaf", vec![BASIC, USAGE, &san, "1.2.3.4=critical,DER:0500"], Some(["critical extension 1.2.3.4"; 2])),
        (
            "/O=leaf",
            vec![BASIC, USAGE, &san, "crlDistributionPoints=critical,URI:http://crl.example.com/"],
            Some(["critical extension 2.5.29.31"; 2]),
        ),
        // Two values where one belongs, which a parser that is content with the first overlooks.
        ("/O=leaf", vec![BASIC, USAGE, &san, "2.5.29.14=DER:0401010500"], Some(["does not parse"; 2])),
        ("/O=leaf", vec![BASIC, USAGE, &wild], Some(["", ""])),
        ("/O=leaf", vec![BASIC, USAGE, &strange], None),
    ] {
        let leaf = ca.leaf_of(subject, P256, &extensions.join("\n"));
        let (taken, imported) = (taken(&ca, &leaf), imported(&leaf));
        match said {
            None => assert!(taken.is_ok() && imported.is_ok(), "{extensions:?}: {taken:?} {imported:?}"),
            Some([files, import]) => {
                let (taken, imported) = (taken.expect_err(files), imported.expect_err(import));
                assert!(taken.contains(files), "{extensions:?}: {taken}");
                assert!(imported.contains(import), "{extensions:?}: {imported}");
            }
        }
    }
}

#[test]
fn every_kind_of_key_that_is_taken_from_files_is_one_that_the_dataplane_imports() {
    let ca = Authority::new();
    let curve = |name: &'static str| ["-algorithm", "EC", "-pkeyopt", name];
    let rsa = |bits: &'static str| ["-algorithm", "RSA", "-pkeyopt", bits];
    for (options, good) in [
        (&curve("ec_paramgen_curve:P-384")[..], true),
        (&curve("ec_paramgen_curve:P-521"), true),
        (&["-algorithm", "ED25519"], true),
        (&rsa("rsa_keygen_bits:2048"), true),
        (&rsa("rsa_keygen_bits:1024"), false),
        (&curve("ec_paramgen_curve:secp256k1"), false),
    ] {
        let leaf = ca.svid_on(options);
        let (taken, imported) = (taken(&ca, &leaf), imported(&leaf));
        assert_eq!((taken.is_ok(), imported.is_ok()), (good, good), "{options:?}: {taken:?} {imported:?}");
    }
}
