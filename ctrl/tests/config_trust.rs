//! The `TrustBundle` kind: what is taken, and the exact words about what is not.

mod certs;
mod words;

use std::path::Path;

use certs::{NOW, Says, YEAR, inline, root, spiffe_bundle, trust_bundle};
use ctrl::config::{Diagnostic, Loaded, load_dir, trust};
use snapshot::IdPattern;
use words::{GATEWAY, HERE, differs, identity, load, words};

/// A configuration directory with a Gateway, this TrustBundle, and these files.
fn directory(bundle: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("g.yaml", GATEWAY.as_bytes());
    write("t.yaml", bundle.as_bytes());
    files.iter().for_each(|(name, bytes)| write(name, bytes));
    dir
}

fn with_file(content: &[u8]) -> Result<Loaded, Vec<Diagnostic>> {
    let bundle = trust_bundle("partner", "trustDomain: partner.org\nroots: [{ file: roots/partner }]");
    load_dir(directory(&bundle, &[("roots/partner", content)]).path())
}

#[test]
fn roots_come_from_pem_and_from_spiffe_bundles_each_once_and_told_by_their_content() {
    let (a, b, c) = (root("partner.org"), root("partner.org"), root("partner.org"));
    let bundle = trust_bundle(
        "partner",
        &format!("trustDomain: partner.org\n{}  - file: roots/b.pem\n  - file: ./roots/c.json", inline(&a.pem())),
    );
    // The same root in two files is one root; text around a PEM block is a comment.
    let pem = format!("the partner's\n{}{}", b.pem(), a.pem());
    let json = spiffe_bundle(&[c.clone(), b.clone()]);
    let dir = directory(&bundle, &[("roots/b.pem", pem.as_bytes()), ("roots/c.json", json.as_bytes())]);
    let loaded = load_dir(dir.path()).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
    let bundle = &loaded.bundles[0];
    assert_eq!((bundle.name.as_str(), bundle.trust_domain.as_str()), ("default/partner", "partner.org"));
    let ders: Vec<_> = bundle.roots.iter().map(|root| root.certificate.der.as_slice()).collect();
    assert_eq!(ders, [a.der().as_ref(), b.der().as_ref(), c.der().as_ref()]);
    let from: Vec<_> = bundle.roots.iter().map(|root| root.from.as_str()).collect();
    assert_eq!(from, ["t.yaml:8", "roots/b.pem", "./roots/c.json"]);
    let first = &bundle.roots[0].certificate;
    assert_eq!((first.subject.as_str(), first.not_after), ("CN=partner.org root", NOW + YEAR));
    assert_eq!(first.sha256.len(), 64);
    assert!(loaded.warnings.is_empty(), "{:?}", words(&loaded.warnings));
}

#[test]
fn deny_lists_take_ids_paths_and_serials_however_they_are_written() {
    let spec = "trustDomain: example.com\nrevoked:\n  spiffeIDs: [spiffe://example.com/a, spiffe://example.com/b/*]\n  \
                serials: [\"00:4F:3A\", 4f3b, \"0001\"]";
    let loaded = load(&[("g.yaml", GATEWAY), ("t.yaml", &trust_bundle("own", spec))]).unwrap();
    let bundle = &loaded.bundles[0];
    let ids: Vec<_> = bundle.revoked_ids.iter().map(|id| (id.what.clone(), id.place.to_string())).collect();
    assert_eq!(
        ids,
        [
            (IdPattern::Exact("spiffe://example.com/a".into()), "t.yaml:7".into()),
            (IdPattern::Under("spiffe://example.com/b/".into()), "t.yaml:7".into()),
        ]
    );
    let serials: Vec<_> = bundle.revoked_serials.iter().map(|serial| serial.what.as_str()).collect();
    assert_eq!(serials, ["4f3a", "4f3b", "01"]);
}

#[test]
fn each_fault_of_a_trust_bundle_is_named_with_its_place_and_what_is_allowed() {
    const ID: &str = "[an ID such as spiffe://partner.org/app, or all under a path: spiffe://partner.org/app/*]";
    const SERIAL: &str =
        "[hex in quotes, at most 20 bytes, as `openssl x509 -serial` and `sluice connections -o json` print it]";
    let of = |spec: &str| format!("trustDomain: partner.org\n{spec}");
    let cases: &[(&str, String, &[&str])] = &[
        (
            "no trust domain",
            "roots: []".into(),
            &[
                "t.yaml:5:3: error: spec.trustDomain: is missing [a name such as partner.org, in lower case and without spiffe://]",
            ],
        ),
        (
            "a trust domain that is an ID",
            "trustDomain: spiffe://partner.org".into(),
            &[
                "t.yaml:5:16: error: spec.trustDomain: \"spiffe://partner.org\": the trust domain holds ':'; only a-z, 0-9, '.', '-' and '_' are allowed [a name such as partner.org, in lower case and without spiffe://]",
                "t.yaml:5:3: error: spec: says neither whom to trust nor whom not to [give `roots`, `endpoint`, `revoked`, `crls`, or several of them]",
            ],
        ),
        (
            "an unknown field",
            of("root: []\nrevoked: { spiffeIDs: [] }"),
            &[
                "t.yaml:1:1: error: spec.roots: no root: partner.org is not this node's own trust domain, so nobody of it could be verified [give at least one root]",
                "t.yaml:6:3: error: spec.root: there is no such field [did you mean roots? fields here: crls, endpoint, revoked, roots, trustDomain]",
            ],
        ),
        (
            "no root of a foreign trust domain",
            of("roots: []"),
            &["t.yaml:6:10: error: spec.roots: an empty list [give at least one root, or leave the field out]"],
        ),
        (
            "a root of no origin",
            of("roots: [{}]\nrevoked: { serials: [] }"),
            &["t.yaml:6:11: error: spec.roots[0]: a root has one origin [file: PATH, or pem: with the text]"],
        ),
        (
            "a root of two origins",
            of("roots: [{ file: a, pem: b }]"),
            &["t.yaml:6:11: error: spec.roots[0]: a root has one origin [file: PATH, or pem: with the text]"],
        ),
        (
            "an ID of another trust domain",
            "trustDomain: example.com\nrevoked: { spiffeIDs: [spiffe://partner.org/a, \"spiffe://partner.org/*\"] }"
                .into(),
            &[
                "t.yaml:6:26: error: spec.revoked.spiffeIDs[0]: \"spiffe://partner.org/a\": is of trust domain partner.org, this TrustBundle is for example.com [an ID such as spiffe://example.com/app, or all under a path: spiffe://example.com/app/*]",
                "t.yaml:6:50: error: spec.revoked.spiffeIDs[1]: \"spiffe://partner.org/*\": is of trust domain partner.org, this TrustBundle is for example.com [an ID such as spiffe://example.com/app, or all under a path: spiffe://example.com/app/*]",
            ],
        ),
        (
            "a star in the middle",
            of("revoked: { spiffeIDs: [\"spiffe://partner.org/*/a\"] }"),
            &[
                "t.yaml:1:1: error: spec.roots: no root: partner.org is not this node's own trust domain, so nobody of it could be verified [give at least one root]",
                &format!(
                    "t.yaml:6:26: error: spec.revoked.spiffeIDs[0]: \"spiffe://partner.org/*/a\": '*' is allowed as the whole last segment only, as in spiffe://example.com/myapp/* {ID}"
                ),
            ],
        ),
        (
            "serials that are none",
            "trustDomain: example.com\nrevoked: { serials: [\"4g\", 4711, \"4f 3a\", \"\"] }".into(),
            &[
                &format!("t.yaml:6:24: error: spec.revoked.serials[0]: \"4g\": not a serial {SERIAL}"),
                "t.yaml:6:30: error: spec.revoked.serials[1]: 4711 is not text [put it in quotes]",
                &format!("t.yaml:6:36: error: spec.revoked.serials[2]: \"4f 3a\": not a serial {SERIAL}"),
                "t.yaml:6:45: error: spec.revoked.serials[3]: is empty [give it a value, or leave the field out]",
            ],
        ),
        (
            "a deny list of nothing",
            "trustDomain: example.com\nrevoked: {}".into(),
            &["t.yaml:6:12: error: spec.revoked: revokes nothing [give `spiffeIDs`, `serials`, or both]"],
        ),
    ];
    let mut wrong = String::new();
    for (name, spec, want) in cases {
        let faults = load(&[("g.yaml", GATEWAY), ("t.yaml", &trust_bundle("t", spec))]).expect_err(name);
        let mut got = words(&faults);
        got.sort();
        wrong.extend(differs(name, &got, want));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_root_file_that_is_none_is_refused_with_its_name_and_what_is_wrong_with_it() {
    let good = root("partner.org");
    let leaf = Says { ca: false, name: "leaf".into(), ..Says::root("partner.org") }.sign();
    let unable = Says { usages: vec![rcgen::KeyUsagePurpose::CrlSign], ..Says::root("partner.org") }.sign();
    let silent = Says { usages: vec![], ..Says::root("partner.org") }.sign();
    let foreign = Says { id: Some("spiffe://other.org".into()), ..Says::root("partner.org") }.sign();
    let torn = good.pem();
    let many = good.pem().repeat(101);
    let two = format!("{}{}", good.pem(), leaf.pem());
    let json = spiffe_bundle(&[]);
    let key = |x5c: &str| format!("{{\"keys\":[{{\"use\":\"x509-svid\",\"x5c\":{x5c}}}]}}");
    let cases: [(&str, Vec<u8>, &str); 17] = [
        ("an empty file", b"".to_vec(), "holds no certificate: it is neither PEM nor a SPIFFE bundle"),
        ("DER", good.der().to_vec(), "is not text: it is neither PEM nor a SPIFFE bundle"),
        ("a torn file", torn[..torn.len() - 20].into(), "is cut off within a certificate"),
        ("a leaf", leaf.pem().into(), "its certificate is not one of a CA (CN=leaf): it signs nobody"),
        ("a leaf behind a root", two.into(), "certificate 2 of 2 is not one of a CA (CN=leaf): it signs nobody"),
        (
            "a CA that may not sign",
            unable.pem().into(),
            "its certificate may not sign others (CN=partner.org root): its key usage lacks keyCertSign",
        ),
        (
            "a CA that does not say that it may sign",
            silent.pem().into(),
            "its certificate may not sign others (CN=partner.org root): its key usage lacks keyCertSign",
        ),
        (
            "a root of another trust domain",
            foreign.pem().into(),
            "its certificate is of spiffe://other.org (CN=partner.org root), not of trust domain partner.org",
        ),
        ("more than are taken", many.into(), "holds 101 certificates, at most 100 are taken"),
        ("more than is read", vec![b' '; (1 << 20) + 1], "is larger than 1 MiB, the most that is read of one"),
        ("a torn SPIFFE bundle", b"{\"keys\":[".to_vec(), "is no SPIFFE bundle: EOF while parsing"),
        ("another JSON", b"{}".to_vec(), "is no SPIFFE bundle: missing field `keys`"),
        ("a SPIFFE bundle for JWTs", json.into(), "is a SPIFFE bundle without a key of use x509-svid"),
        ("a chain in x5c", key("[\"a\",\"b\"]").into(), "keys[0].x5c has 2 entries; a SPIFFE bundle has one a key"),
        ("no x5c", key("[]").into(), "keys[0].x5c has 0 entries; a SPIFFE bundle has one a key"),
        ("an x5c that is none", key("[\"-\"]").into(), "keys[0].x5c[0] is not base64"),
        ("an x5c of something else", key("[\"QUJD\"]").into(), "its certificate is no X.509 certificate: "),
    ];
    assert!(with_file(good.pem().as_bytes()).is_ok() && with_file(good.pem().repeat(100).as_bytes()).is_ok());
    for (name, content, want) in cases {
        let faults = with_file(&content).expect_err(name);
        let said = words(&faults);
        let want = format!("t.yaml:6:19: error: spec.roots[0].file: \"roots/partner\": {want}");
        assert!(said.iter().any(|words| words.starts_with(&want)), "{name}\n  got  {said:#?}\n  want {want}");
        assert!(
            said.iter().any(|words| words.contains("[PEM certificates or a SPIFFE bundle (JSON), in a file")),
            "{name}"
        );
    }
}

#[test]
fn a_root_file_is_below_the_configuration_directory_where_its_changes_are_seen() {
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().join("partner.pem");
    std::fs::write(&outside, root("partner.org").pem()).unwrap();
    let dir = |file: &str| {
        directory(&trust_bundle("p", &format!("trustDomain: partner.org\nroots: [{{ file: {file} }}]")), &[])
    };
    let refused = |dir: &Path, want: &str| {
        let said = words(&load_dir(dir).expect_err(want));
        assert!(said.iter().any(|words| words.contains(want)), "{want}: {said:#?}");
    };
    refused(dir("absent.pem").path(), "\"absent.pem\": No such file or directory");
    refused(dir("../../../etc/hostname").path(), "outside the configuration directory: changes would not be seen");
    refused(dir(&outside.display().to_string()).path(), "outside the configuration directory");
    refused(dir(".").path(), "\".\": is not a file");
    let linked = dir("link.pem");
    std::os::unix::fs::symlink(&outside, linked.path().join("link.pem")).unwrap();
    refused(linked.path(), "outside the configuration directory");
    // As a Kubernetes volume has it: a link to what is below.
    let volume = dir("partner.pem");
    std::fs::create_dir(volume.path().join("..2026")).unwrap();
    std::fs::write(volume.path().join("..2026/partner.pem"), root("partner.org").pem()).unwrap();
    std::os::unix::fs::symlink("..2026", volume.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/partner.pem", volume.path().join("partner.pem")).unwrap();
    assert_eq!(load_dir(volume.path()).unwrap().bundles[0].roots.len(), 1);
}

#[test]
fn one_trust_domain_has_one_bundle_and_what_surprises_is_a_warning() {
    let partner = format!("trustDomain: partner.org\n{}", inline(&root("partner.org").pem()));
    let faults = load(&[
        ("g.yaml", GATEWAY),
        ("a.yaml", &trust_bundle("a", &partner)),
        ("b.yaml", &trust_bundle("b", &partner)),
    ]);
    assert_eq!(
        words(&faults.unwrap_err()),
        [
            "b.yaml:1:1: error: spec.trustDomain: trust domain partner.org has a TrustBundle already, default/a in a.yaml:1 [put both into one]"
        ]
    );
    let lists = HERE.replace("inbound: []", "inbound: [spiffe://partner.org/x, \"spiffe://other.org/*\"]");
    let revoked = trust_bundle("own", "trustDomain: example.com\nrevoked: { spiffeIDs: [\"spiffe://example.com/*\"] }");
    let partner = trust_bundle("a", &partner);
    let loaded =
        load(&[("g.yaml", GATEWAY), ("a.yaml", &partner), ("o.yaml", &revoked), ("p.yaml", &identity(&lists))]);
    assert_eq!(
        words(&loaded.unwrap().warnings),
        [
            "o.yaml:6:26: warning: spec.revoked.spiffeIDs: default/a (p.yaml:1) is revoked: its calls are refused",
            "p.yaml:7:32: warning: spec.allowedSPIFFEIDs: spiffe://other.org/* is of a trust domain without a TrustBundle: nobody of it is admitted [add a TrustBundle with its roots, or take the entry out]",
        ]
    );
    let rules = "apiVersion: sluice.dev/v1alpha1\nkind: Policy\nmetadata: { name: p }\nspec:\n  workloads: [default/a]\n  rules:\n    \
                 - { action: deny, direction: inbound, peers: [spiffe://none.org/x] }\n    \
                 - { action: allow, direction: inbound, peers: [spiffe://partner.org/x, spiffe://none.org/y] }\n";
    let loaded = load(&[("g.yaml", GATEWAY), ("a.yaml", &partner), ("p.yaml", &identity(HERE)), ("r.yaml", rules)]);
    assert_eq!(
        words(&loaded.unwrap().warnings),
        [
            "r.yaml:8:7: warning: spec.rules.peers: spiffe://none.org/y is of a trust domain without a TrustBundle: nobody of it is admitted [add a TrustBundle with its roots, or take the peer out]",
        ]
    );
    // A TrustBundle on its own may be for whichever node.
    let alone = ctrl::config::parse_files(&[("o.yaml".into(), revoked)]).unwrap();
    assert_eq!(alone.bundles.len(), 1);
}

#[test]
fn a_root_that_ends_is_told_before_and_after_and_is_no_fault_of_the_file() {
    let says = |life| Says { life, ..Says::root("partner.org") }.sign().pem();
    let roots = [(NOW - YEAR, NOW - 1), (NOW - YEAR, NOW + 86_400), (NOW + 60, NOW + YEAR), (NOW - 1, NOW + YEAR)];
    let pem: String = roots.into_iter().map(says).collect();
    let spec = format!("trustDomain: partner.org\n{}", inline(&pem));
    let loaded = load(&[("g.yaml", GATEWAY), ("t.yaml", &trust_bundle("p", &spec))]).unwrap();
    let said = words(&trust::expiry(&loaded.bundles, NOW));
    assert_eq!(
        said,
        [
            "t.yaml:8:9: warning: spec.roots[0].pem: root CN=partner.org root expired at 2027-01-15T07:59:59Z: nobody is verified by it [take it out]",
            "t.yaml:8:9: warning: spec.roots[0].pem: root CN=partner.org root ends at 2027-01-16T08:00:00Z [put its successor beside it before that]",
            "t.yaml:8:9: warning: spec.roots[0].pem: root CN=partner.org root is not valid before 2027-01-15T08:01:00Z [check the clock, or wait]",
        ]
    );
    assert_eq!(trust::next_end(&loaded.bundles, NOW), Some(NOW + 86_400));
    assert_eq!(loaded.bundles[0].valid_roots(NOW).count(), 3);
    assert_eq!(loaded.bundles[0].valid_roots(NOW + 2 * YEAR).count(), 0);
}
