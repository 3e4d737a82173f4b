//! Identities out of files, as their writers lay them: what is taken, and what is wrong by its name.

mod openssl;

use std::path::Path;

use ctrl::config::identity::Files;
use ctrl::config::{SpiffeId, TrustDomain};
use ctrl::source::files::{Expected, Identity, read};
use openssl::*;

const WORKLOAD: &str = "riptides-system/frontend";

fn expected() -> Expected {
    Expected {
        id: SpiffeId::parse(ID).unwrap(),
        workload: WORKLOAD.into(),
        trust_domain: TrustDomain::parse("example.com").unwrap(),
    }
}

fn in_days(days: u64) -> u64 {
    ctrl::clock::now() + days * DAY
}

fn read_at(config: &Files, now: u64) -> Result<Identity, String> {
    read(config, &expected(), now).map_err(|fault| fault.to_string())
}

fn read_now(directory: &Path) -> Result<Identity, String> {
    read_at(&Files::at(directory), in_days(0))
}

/// What was read is this SVID with its key, under this root.
fn assert_is(name: &str, identity: &Identity, leaf: &Leaf, roots: usize) {
    assert_eq!(identity.issued.svid.serial, leaf.serial(), "{name}");
    let key =
        with_file(identity.issued.key.pkcs8(), |path| openssl(&["pkey", "-inform", "DER", "-pubout", "-in", path]));
    assert_eq!(key, leaf.public_key(), "{name}");
    assert_eq!(identity.roots.len(), roots, "{name}");
}

#[test]
fn each_writers_layout_is_found_by_what_is_there() {
    let ca = Authority::new();
    let (root, leaf) = (ca.root(), ca.svid_by_intermediate());
    let (certificate, key) = (leaf.certificate.as_str(), leaf.key.as_str());
    let all = format!("{key}{certificate}{root}");
    let three = |names: [&str; 3]| {
        let contents = [certificate, key, &root];
        names.into_iter().map(str::to_owned).zip(contents.map(str::to_owned)).collect::<Vec<_>>()
    };
    let one = |name: &str| vec![(name.to_owned(), all.clone())];
    // With the `certificate`, `key` and `bundle` that the source names.
    type Case<'a> = (&'a str, Vec<(String, String)>, [Option<&'a str>; 3]);
    let found = [None, None, None];
    let cases: [Case<'_>; 7] = [
        ("cert-manager, csi-driver-spiffe", three(["tls.crt", "tls.key", "ca.crt"]), found),
        ("spiffe-helper", three(["svid.pem", "svid_key.pem", "svid_bundle.pem"]), found),
        ("Vault agent, one template each", three(["cert.pem", "key.pem", "ca.pem"]), found),
        ("Vault agent, one template", one("identity.pem"), found),
        ("names of one's own", three(["a", "b", "sub/c"]), [Some("a"), Some("b"), Some("sub/c")]),
        ("one file of one's own", one("everything"), [Some("everything"), None, None]),
        ("a bundle elsewhere", three(["tls.crt", "tls.key", "trust/roots"]), [None, None, Some("trust/roots")]),
    ];
    for (name, files, names) in cases {
        let directory = tempfile::tempdir().unwrap();
        files.iter().for_each(|(file, content)| put(directory.path(), file, content));
        let [certificate, key, bundle] = names.map(|name| name.map(Into::into));
        let config = Files { certificate, key, bundle, ..Files::at(directory.path()) };
        let identity = read_at(&config, in_days(0)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_is(name, &identity, &leaf, 1);
        assert_eq!(identity.issued.svid.chain.len(), 2, "{name}: leaf and intermediate, and no root");
        assert!(identity.warnings.is_empty(), "{name}: {:?}", identity.warnings);
    }
}

#[test]
fn a_volume_of_the_kubelet_is_read_through_its_links() {
    let ca = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let root = ca.root();
    for generation in ["2026_11_26", "2026_11_27"] {
        let leaf = ca.svid();
        let files = [("tls.crt", leaf.certificate.as_str()), ("tls.key", &leaf.key), ("ca.crt", &root)];
        volume(directory.path(), generation, &files, 0o400);
        assert_is(generation, &read_now(directory.path()).unwrap(), &leaf, 1);
    }
}

#[test]
fn every_form_of_key_that_openssl_writes_is_taken_with_text_around_it() {
    let ca = Authority::new();
    let rsa: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let parameters = openssl(&["ecparam", "-name", "prime256v1"]);
    type Written<'a> = &'a dyn Fn(&Leaf) -> String;
    let pkcs8: Written<'_> = &|leaf| leaf.key.clone();
    let sec1: Written<'_> = &|leaf| leaf.key_by(&["ec"]);
    let cases: [(&str, &[&str], Written<'_>, &str); 8] = [
        ("P-256, PKCS#8", P256, pkcs8, "BEGIN PRIVATE KEY"),
        ("P-256, SEC1", P256, sec1, "BEGIN EC PRIVATE KEY"),
        (
            "P-256, SEC1 behind its parameters",
            P256,
            &|leaf| format!("{parameters}{}", leaf.key_by(&["ec"])),
            "BEGIN EC PARAMETERS",
        ),
        ("P-384, SEC1", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], sec1, "BEGIN EC PRIVATE KEY"),
        ("P-521, PKCS#8", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], pkcs8, "BEGIN PRIVATE KEY"),
        ("RSA, PKCS#8", rsa, pkcs8, "BEGIN PRIVATE KEY"),
        ("RSA, PKCS#1", rsa, &|leaf| leaf.key_by(&["rsa", "-traditional"]), "BEGIN RSA PRIVATE KEY"),
        ("Ed25519", &["-algorithm", "ED25519"], pkcs8, "BEGIN PRIVATE KEY"),
    ];
    for (name, options, written, begins) in cases {
        let leaf = ca.svid_on(options);
        let key = written(&leaf);
        assert!(key.contains(begins), "{name}: {begins}");
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "cert.pem", &leaf.with_text().replace('\n', "\r\n"));
        put(directory.path(), "key.pem", &format!("Bag Attributes\n    friendlyName: mine\n{key}trailing words\n"));
        put(directory.path(), "ca.pem", &format!("# our root\n{}", ca.root()));
        let identity = read_now(directory.path()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_is(name, &identity, &leaf, 1);
    }
}

/// A right directory, spoilt; and what is said of it, `DIR` for the directory.
type Fault<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>, String);

#[test]
fn what_is_wrong_is_named_with_file_field_value_and_what_would_be_right() {
    let ca = Authority::new();
    let (leaf, other) = (ca.svid(), ca.svid());
    let with = |extensions: &str| ca.leaf(P256, extensions);
    let san = format!("subjectAltName=URI:{ID}");
    let replace = |leaf: Leaf| {
        move |directory: &Path| {
            put(directory, "tls.crt", &leaf.certificate);
            put(directory, "tls.key", &leaf.key);
        }
    };
    let foreign = Authority::new();
    let key_of = |leaf: &Leaf| leaf.key.clone();
    let encrypted = with_file(&leaf.key, |path| openssl(&["pkcs8", "-topk8", "-passout", "pass:x", "-in", path]));
    let legacy = leaf.key_by(&["ec", "-aes128", "-passout", "pass:x"]);
    let other_ids = format!("{ID}, URI:spiffe://example.com/second");
    let cases: Vec<Fault<'_>> = vec![
        (
            "the key of another leaf",
            Box::new(|d| put(d, "tls.key", &key_of(&other))),
            "DIR/tls.key: public key: ".into(),
        ),
        (
            "a leaf of another workload",
            Box::new(replace(ca.svid_of("spiffe://example.com/myapp/app/backend"))),
            format!("DIR/tls.crt: URI SAN: spiffe://example.com/myapp/app/backend; want {ID} alone, which is the SPIFFE ID of {WORKLOAD}"),
        ),
        (
            "the same path in another trust domain",
            Box::new(replace(ca.svid_of("spiffe://example.org/myapp/app/frontend"))),
            format!("DIR/tls.crt: URI SAN: spiffe://example.org/myapp/app/frontend; want {ID} alone"),
        ),
        (
            "two IDs",
            Box::new(replace(ca.svid_of(&other_ids))),
            format!("DIR/tls.crt: URI SAN: {ID} and spiffe://example.com/second; want {ID} alone"),
        ),
        (
            "no ID",
            Box::new(replace(with("keyUsage=digitalSignature\nsubjectAltName=DNS:a.example.com"))),
            format!("DIR/tls.crt: URI SAN: none; want {ID} alone"),
        ),
        (
            "a CA for a leaf",
            Box::new(replace(with(&format!("basicConstraints=CA:TRUE\nkeyUsage=digitalSignature\n{san}")))),
            "DIR/tls.crt: basicConstraints of the first certificate: CA:TRUE; want the leaf first, and no CA (X509-SVID §4)".into(),
        ),
        (
            "a leaf that signs certificates",
            Box::new(replace(with(&format!("keyUsage=digitalSignature,keyCertSign\n{san}")))),
            "DIR/tls.crt: keyUsage: keyCertSign or cRLSign; want digitalSignature without them".into(),
        ),
        (
            "a leaf that does not sign",
            Box::new(replace(with(&format!("keyUsage=keyEncipherment\n{san}")))),
            "DIR/tls.crt: keyUsage: no digitalSignature; want digitalSignature".into(),
        ),
        (
            "a leaf for neither role",
            Box::new(replace(with(&format!("keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n{san}")))),
            "DIR/tls.crt: the chain leads to none of the 1 roots in DIR/ca.crt: ".into(),
        ),
        (
            "another root",
            Box::new(|d| put(d, "ca.crt", &foreign.root())),
            "DIR/tls.crt: the chain leads to none of the 1 roots in DIR/ca.crt: InvalidSignatureForPublicKey".into(),
        ),
        ("a bundle of nothing", Box::new(|d| put(d, "ca.crt", "")), "DIR/ca.crt: holds no certificate".into()),
        (
            "a bundle with a leaf in it",
            Box::new(|d| put(d, "ca.crt", &format!("{}{}", ca.root(), other.certificate))),
            "DIR/ca.crt: root 2: is no CA certificate (subject O=leaf)".into(),
        ),
        (
            "a thousand roots",
            Box::new(|d| put(d, "ca.crt", &ca.root().repeat(1000))),
            "DIR/ca.crt: 1000 certificates; at most 100 roots are taken of one bundle".into(),
        ),
        (
            "a certificate that is cut off",
            Box::new(|d| put(d, "tls.crt", &leaf.certificate[..leaf.certificate.len() / 2])),
            "DIR/tls.crt: block 1 has no end: the file is cut off, or still being written".into(),
        ),
        ("an empty key", Box::new(|d| put(d, "tls.key", "")), "DIR/tls.key: holds no private key; want PKCS#8".into()),
        (
            "two keys",
            Box::new(|d| put(d, "tls.key", &format!("{}{}", leaf.key, other.key))),
            "DIR/tls.key: holds 2 private keys; want one".into(),
        ),
        (
            "an encrypted key",
            Box::new(|d| put(d, "tls.key", &encrypted)),
            "DIR/tls.key: the private key is encrypted, and there is nobody to ask; decrypt it: openssl pkey".into(),
        ),
        (
            "an encrypted key, the older way",
            Box::new(|d| put(d, "tls.key", &legacy)),
            "DIR/tls.key: the private key is encrypted".into(),
        ),
        (
            "a key that everybody can read",
            Box::new(|d| put_with_mode(d, "tls.key", &leaf.key, 0o644)),
            "DIR/tls.key: mode 0644 lets everybody read a private key; run: chmod o-rwx DIR/tls.key".into(),
        ),
        (
            "no key file",
            Box::new(|d| std::fs::remove_file(d.join("tls.key")).unwrap()),
            "DIR/tls.key: is missing; the private key is expected beside tls.crt".into(),
        ),
        (
            "no bundle file",
            Box::new(|d| std::fs::remove_file(d.join("ca.crt")).unwrap()),
            "DIR/ca.crt: is missing; the trust bundle is expected beside DIR/tls.crt".into(),
        ),
        (
            "another layout's files beside",
            Box::new(|d| put(d, "svid.pem", "")),
            "DIR: holds the files of two layouts (tls.crt and svid.pem)".into(),
        ),
        (
            "a directory of something else",
            Box::new(|d| std::fs::rename(d.join("tls.crt"), d.join("server.crt")).unwrap()),
            "DIR: no layout that is known: want tls.crt with tls.key and ca.crt; ".into(),
        ),
        (
            "a key that would be waited for",
            Box::new(|d| {
                std::fs::remove_file(d.join("tls.key")).unwrap();
                let path = d.join("tls.key");
                assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
            }),
            "DIR/tls.key: is no regular file".into(),
        ),
        (
            "a file without end",
            Box::new(|d| {
                let file = std::fs::File::create(d.join("ca.crt")).unwrap();
                file.set_len(5 << 20).unwrap();
            }),
            "DIR/ca.crt: 5242880 bytes; at most 4194304 are read".into(),
        ),
    ];
    for (name, spoil, want) in cases {
        let directory = tempfile::tempdir().unwrap();
        for (file, content) in [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), ("ca.crt", &ca.root())] {
            put(directory.path(), file, content);
        }
        assert_is(name, &read_now(directory.path()).unwrap_or_else(|fault| panic!("{name}: {fault}")), &leaf, 1);
        spoil(directory.path());
        let said = read_now(directory.path()).expect_err(name).replace(directory.path().to_str().unwrap(), "DIR");
        assert!(said.starts_with(&want), "{name}\n  got  {said}\n  want {want}");
        assert!(!said.contains("PRIVATE KEY") && !said.contains(&leaf.key[30..90]), "{name}: {said}");
    }
}

#[test]
fn what_time_does_to_a_certificate_and_to_roots_is_seen_when_it_does() {
    let (ca, short) = (Authority::new(), Authority::for_days(3));
    let leaf = ca.svid();
    let directory = tempfile::tempdir().unwrap();
    for (file, content) in
        [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), ("ca.crt", &(short.root() + &ca.root()))]
    {
        put(directory.path(), file, content);
    }
    let config = Files::at(directory.path());
    assert_eq!(read_at(&config, in_days(0)).unwrap().roots.len(), 2);
    let late = read_at(&config, in_days(2)).unwrap_err();
    assert!(late.contains("tls.crt: notAfter of the leaf: ") && late.contains("expired"), "{late}");
    let early = read_at(&config, ctrl::clock::now() - DAY).unwrap_err();
    assert!(early.contains("tls.crt: notBefore of the leaf: "), "{early}");

    // An identity that was read in time still ends when it does.
    let identity = read_at(&config, in_days(0)).unwrap();
    assert_eq!(identity.check_time(identity.issued.svid.not_after - 1), Ok(()));
    assert!(identity.check_time(identity.issued.svid.not_after).is_err());

    // On the fourth day: renewed since, and one of the roots has ended.
    let renewed = ca.svid_for_days(9);
    put(directory.path(), "tls.crt", &renewed.certificate);
    put(directory.path(), "tls.key", &renewed.key);
    let now = in_days(4);
    let identity = read_at(&config, now).unwrap();
    assert_eq!(identity.roots.len(), 1, "the root that has ended is left out");
    let [warning] = identity.warnings.as_slice() else { panic!("{:?}", identity.warnings) };
    assert!(warning.contains("ca.crt: root 1 expired at") && warning.contains("left out"), "{warning}");
    put(directory.path(), "ca.crt", &short.root());
    let none = read_at(&config, now).unwrap_err();
    assert!(none.contains("ca.crt: all 1 roots have expired, the last at"), "{none}");
}

#[test]
fn a_bundle_may_hold_a_hundred_roots_and_not_one_more() {
    let ca = Authority::new();
    let leaf = ca.svid();
    for (count, taken) in [(100, true), (101, false)] {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "tls.crt", &leaf.certificate);
        put(directory.path(), "tls.key", &leaf.key);
        put(directory.path(), "ca.crt", &ca.root().repeat(count));
        let found = read_now(directory.path());
        assert_eq!(found.as_ref().map(|identity| identity.roots.len()).ok(), taken.then_some(1), "{count}: {found:?}");
    }
}

#[test]
fn a_key_that_a_group_reads_is_taken_and_in_a_volume_everybodys_is_warned_about() {
    let ca = Authority::new();
    let (leaf, root) = (ca.svid(), ca.root());
    for mode in [0o400, 0o440, 0o600, 0o640] {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "tls.crt", &leaf.certificate);
        put_with_mode(directory.path(), "tls.key", &leaf.key, mode);
        put(directory.path(), "ca.crt", &root);
        assert_eq!(read_now(directory.path()).unwrap().warnings, Vec::<String>::new(), "{mode:o}");
    }
    let directory = tempfile::tempdir().unwrap();
    let files = [("tls.crt", leaf.certificate.as_str()), ("tls.key", &leaf.key), ("ca.crt", &root)];
    volume(directory.path(), "1", &files, 0o644);
    let identity = read_now(directory.path()).unwrap();
    let [warning] = identity.warnings.as_slice() else { panic!("{:?}", identity.warnings) };
    assert!(
        warning.contains("tls.key: mode 0644 lets everybody read") && warning.contains("defaultMode: 0400"),
        "{warning}"
    );
}

#[test]
fn a_certificate_for_one_role_is_taken_with_a_warning() {
    let ca = Authority::new();
    let extensions =
        format!("keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=URI:{ID}");
    let leaf = ca.leaf(P256, &extensions);
    let directory = tempfile::tempdir().unwrap();
    for (file, content) in [("cert.pem", &leaf.certificate), ("key.pem", &leaf.key), ("ca.pem", &ca.root())] {
        put(directory.path(), file, content);
    }
    let identity = read_now(directory.path()).unwrap();
    let [warning] = identity.warnings.as_slice() else { panic!("{:?}", identity.warnings) };
    assert!(warning.contains("cert.pem: its workload cannot call others by it"), "{warning}");
}

#[test]
fn no_output_about_an_identity_holds_its_key() {
    let ca = Authority::new();
    let leaf = ca.svid();
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "identity.pem", &format!("{}{}{}", leaf.key, leaf.certificate, ca.root()));
    let identity = read_now(directory.path()).unwrap();
    // The private scalar (RFC 5915) follows its OCTET STRING header.
    let secret = identity.issued.key.pkcs8();
    assert_eq!(secret[34..36], [0x04, 0x20]);
    let scalar = format!("{:?}", &secret[36..68]);
    let shown = format!("{identity:?}");
    assert!(shown.contains("PrivateKey(..)") && !shown.contains(scalar.trim_matches(['[', ']'])), "{shown}");
}
