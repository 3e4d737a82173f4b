//! What a TrustBundle fetches: its `endpoint` and CRLs by URL. What is taken, and the exact words about what is not.

mod certs;
mod words;

use std::time::Duration;

use certs::{inline, root, trust_bundle};
use ctrl::config::crls::OnStale;
use ctrl::config::endpoint::Profile;
use ctrl::config::{Diagnostic, Loaded, load_dir, parse_files};
use words::{GATEWAY, differs, words};

fn load(specs: &[String], files: &[(&str, &[u8])]) -> Result<Loaded, Vec<Diagnostic>> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("g.yaml", GATEWAY.as_bytes());
    files.iter().for_each(|(name, bytes)| write(name, bytes));
    for (nth, spec) in specs.iter().enumerate() {
        let name = if nth == 0 { "t".to_owned() } else { format!("t{nth}") };
        write(&format!("{name}.yaml"), trust_bundle(&name, spec).as_bytes());
    }
    load_dir(dir.path())
}

#[test]
fn an_endpoint_is_read_with_its_profile_and_what_it_begins_with() {
    let (ca, web) = (root("partner.org"), root("example.net"));
    let spiffe = format!(
        "trustDomain: partner.org\nendpoint:\n  url: https://spire.partner.org:8443/b?c=d\n  profile: https_spiffe\n  \
         endpointSPIFFEID: spiffe://partner.org/spire/server\n{}",
        inline(&ca.pem())
    );
    let of_web = "trustDomain: third.org\nendpoint: { url: \"https://third.org/\", profile: https_web, \
                  roots: { file: web.pem }, refreshInterval: 10m }";
    let of_system = "trustDomain: fourth.org\nendpoint: { url: \"https://fourth.org/\", profile: https_web }";
    let of_other = "trustDomain: fifth.org\nendpoint: { url: \"https://fifth.org/\", profile: https_spiffe, \
                    endpointSPIFFEID: spiffe://partner.org/spire/server }";
    let of_own = "trustDomain: sixth.org\nendpoint: { url: \"https://[2001:db8::6]/\", profile: https_spiffe, \
                  endpointSPIFFEID: spiffe://example.com/spire/server }";
    let specs = [spiffe, of_web.into(), of_system.into(), of_other.into(), of_own.into()];
    let loaded = load(&specs, &[("web.pem", web.pem().as_bytes())]);
    let loaded = loaded.unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
    let endpoint = |name: &str| {
        let bundle = loaded.bundles.iter().find(|bundle| bundle.trust_domain.as_str() == name).unwrap();
        bundle.endpoint.clone().unwrap()
    };
    let first = endpoint("partner.org");
    assert_eq!(first.url.to_string(), "https://spire.partner.org:8443/b?…");
    assert!(matches!(&first.profile, Profile::Spiffe { id } if id.as_str() == "spiffe://partner.org/spire/server"));
    let begins: Vec<_> = first.initial.iter().map(|root| root.certificate.der.as_slice()).collect();
    assert_eq!((begins, first.refresh), (vec![ca.der().as_ref()], None));
    let second = endpoint("third.org");
    assert_eq!(second.profile, Profile::Web { roots: Some(web.pem().into_bytes()) });
    assert_eq!((second.refresh, second.initial.len()), (Some(Duration::from_secs(600)), 0));
    assert_eq!(endpoint("fourth.org").profile, Profile::Web { roots: None });
    assert!(loaded.warnings.is_empty(), "{:?}", words(&loaded.warnings));
    assert_ne!(first.origin(), second.origin());
}

#[test]
fn who_has_to_be_there_is_part_of_what_a_bundle_began_with() {
    let web = |name: &str| root(name).pem();
    let (one, two) = (web("one"), web("two"));
    let files = [("one.pem", one.as_bytes()), ("two.pem", two.as_bytes())];
    let origin = |endpoint: &str| {
        let specs = [format!("trustDomain: partner.org\nendpoint: {{ {endpoint} }}")];
        let loaded = load(&specs, &files).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
        loaded.bundles[0].endpoint.as_ref().unwrap().origin()
    };
    let of_web = origin("url: \"https://partner.org/\", profile: https_web, roots: { file: one.pem }");
    let own = "profile: https_spiffe, endpointSPIFFEID: spiffe://example.com";
    let of_id = origin(&format!("url: \"https://partner.org/\", {own}/a"));
    for (name, endpoint, was, same) in [
        ("a path", "url: \"https://partner.org/b\", profile: https_web, roots: { file: one.pem }", of_web, true),
        (
            "how it is written",
            "url: \"https://PARTNER.org:443/\", profile: https_web, roots: { file: one.pem }",
            of_web,
            true,
        ),
        ("a host", "url: \"https://partner.net/\", profile: https_web, roots: { file: one.pem }", of_web, false),
        ("a port", "url: \"https://partner.org:8443/\", profile: https_web, roots: { file: one.pem }", of_web, false),
        ("its roots", "url: \"https://partner.org/\", profile: https_web, roots: { file: two.pem }", of_web, false),
        ("the system's roots", "url: \"https://partner.org/\", profile: https_web", of_web, false),
        ("a profile", &format!("url: \"https://partner.org/\", {own}/a"), of_web, false),
        ("an ID", &format!("url: \"https://partner.org/\", {own}/b"), of_id, false),
        ("where the ID's holder is", &format!("url: \"https://elsewhere.net/\", {own}/a"), of_id, true),
    ] {
        assert_eq!(origin(endpoint) == was, same, "{name}");
    }
}

#[test]
fn each_fault_of_an_endpoint_is_named_with_its_place_and_what_is_allowed() {
    const HTTPS: &str = "[such as https://spire.partner.org:8443]";
    const ID: &str = "[the ID of the endpoint's SVID, such as spiffe://partner.org/spire/server]";
    let of = |endpoint: &str| vec![format!("trustDomain: partner.org\nendpoint: {{ {endpoint} }}")];
    let spiffe = |domain: &str, of: &str| {
        format!(
            "trustDomain: {domain}\nendpoint: {{ url: \"https://a\", profile: https_spiffe, endpointSPIFFEID: spiffe://{of}/s }}"
        )
    };
    let cases: &[(&str, Vec<String>, &[&str])] = &[
        (
            "nothing",
            of(""),
            &[
                "t.yaml:6:13: error: spec.endpoint.url: is missing",
                "t.yaml:6:13: error: spec.endpoint.profile: is missing",
            ],
        ),
        (
            "http",
            of("url: \"http://a/\", profile: https_web"),
            &[&format!(
                "t.yaml:6:20: error: spec.endpoint.url: does not begin with https:// (or http://, where that is allowed) {HTTPS}"
            )],
        ),
        (
            "a password",
            of("url: \"https://u:hunter2@a/\", profile: https_web"),
            &[&format!(
                "t.yaml:6:20: error: spec.endpoint.url: names a user before the host; credentials do not belong into a URL {HTTPS}"
            )],
        ),
        (
            "another profile",
            of("url: \"https://a/\", profile: https"),
            &[
                "t.yaml:6:43: error: spec.endpoint.profile: \"https\" is not allowed here [allowed: https_web, https_spiffe]",
            ],
        ),
        (
            "no ID",
            of("url: \"https://a/\", profile: https_spiffe"),
            &[&format!("t.yaml:6:13: error: spec.endpoint.endpointSPIFFEID: is missing {ID}")],
        ),
        (
            "no SPIFFE ID",
            of("url: \"https://a/\", profile: https_spiffe, endpointSPIFFEID: a"),
            &[&format!(
                "t.yaml:6:75: error: spec.endpoint.endpointSPIFFEID: \"a\": does not begin with spiffe:// {ID}"
            )],
        ),
        (
            "an ID for the web",
            of("url: \"https://a/\", profile: https_web, endpointSPIFFEID: spiffe://a/b"),
            &[
                "t.yaml:6:72: error: spec.endpoint.endpointSPIFFEID: is for the profile https_spiffe [take it out, or change the profile]",
            ],
        ),
        (
            "a file for SPIFFE",
            of("url: \"https://a/\", profile: https_spiffe, endpointSPIFFEID: spiffe://a/b, roots: { file: web.pem }"),
            &[
                "t.yaml:6:96: error: spec.endpoint.roots: is for the profile https_web [take it out: `spec.roots` is what https_spiffe begins with]",
            ],
        ),
        (
            "a file that is none",
            of("url: \"https://a/\", profile: https_web, roots: { file: gone }"),
            &[
                "t.yaml:6:69: error: spec.endpoint.roots.file: \"gone\": No such file or directory (os error 2) [PEM certificates in a file below the configuration directory, or no `roots` for the system's]",
            ],
        ),
        (
            "a file of nothing",
            of("url: \"https://a/\", profile: https_web, roots: { file: empty }"),
            &[
                "t.yaml:6:69: error: spec.endpoint.roots.file: \"empty\": holds no certificate (PEM is expected) [PEM certificates in a file below the configuration directory, or no `roots` for the system's]",
            ],
        ),
        (
            "too often",
            of("url: \"https://a/\", profile: https_web, refreshInterval: 999ms"),
            &["t.yaml:6:71: error: spec.endpoint.refreshInterval: \"999ms\": out of range [use 1s to 604800s]"],
        ),
        (
            "nobody to begin with",
            vec![spiffe("partner.org", "partner.org")],
            &[
                "t.yaml:6:13: error: spec.roots: no root to begin with: whoever answers first would be believed [give the bundle as it is now, in a file that came by another way]",
            ],
        ),
        (
            "an unknown trust domain",
            vec![spiffe("partner.org", "third.org")],
            &[
                "t.yaml:6:13: error: spec.endpoint.endpointSPIFFEID: spiffe://third.org/s is of a trust domain by whose bundle nobody can be verified here [add a TrustBundle with its roots, or `roots` here and an ID of the trust domain itself]",
            ],
        ),
        (
            "each by the other",
            vec![spiffe("partner.org", "third.org"), spiffe("third.org", "partner.org")],
            &[
                "t.yaml:6:13: error: spec.endpoint.endpointSPIFFEID: spiffe://third.org/s is of a trust domain by whose bundle nobody can be verified here [add a TrustBundle with its roots, or `roots` here and an ID of the trust domain itself]",
                "t1.yaml:6:13: error: spec.endpoint.endpointSPIFFEID: spiffe://partner.org/s is of a trust domain by whose bundle nobody can be verified here [add a TrustBundle with its roots, or `roots` here and an ID of the trust domain itself]",
            ],
        ),
        (
            "the own trust domain",
            vec!["trustDomain: example.com\nendpoint: { url: \"https://a/\", profile: https_web }".into()],
            &[
                "t.yaml:6:13: error: spec.endpoint: example.com is this node's own trust domain: its roots come from the identity sources [take it out; `roots` are added to those of the sources]",
            ],
        ),
    ];
    let mut wrong = String::new();
    let pem = root("example.net").pem();
    for (name, specs, want) in cases {
        let faults = load(specs, &[("empty", b""), ("web.pem", pem.as_bytes())]).map(drop).expect_err(name);
        wrong.extend(differs(name, &words(&faults), want));
        let shown: String = faults.iter().map(ToString::to_string).collect();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(wrong.is_empty(), "{wrong}");
    // On its own, a file cannot know which trust domain is the gateway's.
    let alone = vec![("t.yaml".into(), trust_bundle("t", &spiffe("partner.org", "third.org")))];
    assert!(parse_files(&alone).is_ok());
}

#[test]
fn crls_by_url_are_read_and_their_faults_named() {
    let ca = root("partner.org");
    let with = |entries: &str| vec![format!("trustDomain: partner.org\ncrls: {entries}\n{}", inline(&ca.pem()))];
    let taken = "[{ url: \"http://pki.partner.org/ca.crl\" }, { url: \"https://pki.partner.org/b.crl\", onStale: fail, \
                 refreshInterval: 5m, issuer: { file: ca.pem } }]";
    let pem = ca.pem();
    let files: [(&str, &[u8]); 2] = [("ca.pem", pem.as_bytes()), ("empty", b"")];
    let loaded = load(&with(taken), &files).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
    let urls: Vec<_> = loaded.bundles[0]
        .crl_urls
        .iter()
        .map(|crl| (crl.url.to_string(), crl.on_stale, crl.refresh.as_secs(), crl.issuers.len(), crl.path.as_str()))
        .collect();
    assert_eq!(
        urls,
        [
            ("http://pki.partner.org/ca.crl".into(), OnStale::Warn, 3_600, 0, "spec.crls[0]"),
            ("https://pki.partner.org/b.crl".into(), OnStale::Fail, 300, 1, "spec.crls[1]"),
        ]
    );
    let mut wrong = String::new();
    for (name, entries, want) in [
        (
            "both",
            "[{ file: a, url: \"http://a/\" }]",
            "t.yaml:6:10: error: spec.crls[0]: a CRL has one origin [file: PATH, or url: http://…]",
        ),
        ("neither", "[{}]", "t.yaml:6:10: error: spec.crls[0]: a CRL has one origin [file: PATH, or url: http://…]"),
        (
            "ldap",
            "[{ url: \"ldap://a/\" }]",
            "t.yaml:6:17: error: spec.crls[0].url: does not begin with https:// (or http://, where that is allowed) [such as http://pki.partner.org/ca.crl]",
        ),
        (
            "twice",
            "[{ url: \"http://a\" }, { url: \"http://A/\" }]",
            "t.yaml:6:31: error: spec.crls[1]: http://A/ is what spec.crls[0] is fetched from [take one of them out]",
        ),
        (
            "no issuer",
            "[{ url: \"http://a\", issuer: { file: empty } }]",
            "t.yaml:6:45: error: spec.crls[0].issuer.file: \"empty\": holds no certificate: it is neither PEM nor a SPIFFE bundle [the CA that signs this CRL, and those up to a root, as PEM below the configuration directory]",
        ),
    ] {
        let faults = load(&with(entries), &files).map(drop).expect_err(name);
        wrong.extend(differs(name, &words(&faults), &[want]));
    }
    assert!(wrong.is_empty(), "{wrong}");
}
