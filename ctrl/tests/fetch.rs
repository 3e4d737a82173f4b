//! Bundles from endpoints that the test plays: what is taken, what is refused, and what stays in force meanwhile.

mod certs;
mod counting;
mod example;
mod fetching;
mod https;
mod words;

use certs::{Says, spiffe_bundle};
use counting::identities;
use ctrl::assemble::assemble;
use ctrl::clock;
use ctrl::trusted::Trusted;
use example::{network, resolved};
use fetching::{Control, ENDPOINT, HOUR, bundle, by_spiffe, by_web};
use https::{Ca, Reply, Server, spiffe};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose as Use, SerialNumber, date_time_ymd};
use snapshot::Version;

#[tokio::test]
async fn a_bundle_follows_its_endpoint_from_root_to_root_and_over_a_restart() {
    let (first, second) = (Ca::of("partner.org"), Ca::of("partner.org"));
    let server = Server::start(Some(first.server(spiffe(ENDPOINT))), bundle(&[&first, &second], 7)).await;
    let (spec, pem) = (by_spiffe(&server, ""), first.pem());
    let files = [("partner.pem", pem.as_bytes())];
    let mut control = Control::start(std::slice::from_ref(&spec), &files);
    control.hurries = false;
    assert!(control.is_by(&[&first]), "what it begins with");
    control.until("the bundle", |this| this.is_by(&[&first, &second])).await;
    assert_eq!(control.problems(), Vec::<String>::new());
    let row = &control.fetches.rows("partner.org")[0];
    assert_eq!((row.field.as_str(), row.kind.as_str(), row.sequence), ("spec.endpoint", "https_spiffe", Some(7)));
    assert!(row.got_at.is_some() && row.next_in.is_some_and(|seconds| seconds <= 1), "{row:?}");

    // The endpoint goes over to the second root, and drops the first.
    server.show(second.server(spiffe(ENDPOINT)));
    server.reply(bundle(&[&second], 8));
    control.until("the first root to go", |this| this.is_by(&[&second])).await;

    // By the first, nobody speaks for it any more, whatever the file says.
    server.show(first.server(spiffe(ENDPOINT)));
    server.reply(bundle(&[&first], 9));
    control.until_told("a root of before", "the chain leads to none of the 1 roots in the bundle of partner.org").await;
    assert!(control.is_by(&[&second]));

    // A restart goes on from there. So it does when the file has another URL, and not when it has other roots.
    let known = || control.fetches.got().known();
    let again = Control::again(std::slice::from_ref(&spec), &files, known());
    assert!(again.is_by(&[&second]));
    let moved = spec.replace("/bundle", "/elsewhere");
    assert!(Control::again(&[moved], &files, known()).is_by(&[&second]));
    let third = Ca::of("partner.org");
    let pem = third.pem();
    let mut begun = Control::again(&[spec], &[("partner.pem", pem.as_bytes())], known());
    assert!(begun.is_by(&[&third]), "the operator has begun anew");
    // It is tried before it is taken: by then the bundle of before is still there.
    control.fetches.got().fill(&mut begun.loaded);
    assert!(begun.is_by(&[&third]));

    let mut again = Control { hurries: false, ..again };
    server.show(second.server(spiffe(ENDPOINT)));
    server.reply(bundle(&[&second, &third], 10));
    again.until("the bundle after a restart", |this| this.is_by(&[&second, &third])).await;
}

#[tokio::test]
async fn nobody_but_the_one_with_the_id_is_asked() {
    let (root, other) = (Ca::of("partner.org"), Ca::of("other.org"));
    let leaf = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = spiffe(ENDPOINT);
        params.key_usages = vec![Use::DigitalSignature];
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
        change(&mut params);
        root.server_of(params)
    };
    let two = [spiffe(ENDPOINT), spiffe("spiffe://partner.org/b")].concat();
    let lent = root.below_as("lent", Some("spiffe://other.org"));
    let server = Server::start(Some(root.local()), bundle(&[&root, &other], 1)).await;
    let pem = root.pem();
    let mut control = Control::start(&[by_spiffe(&server, "")], &[("partner.pem", pem.as_bytes())]);
    for (name, shown, want) in [
        (
            "a name of the web",
            root.local(),
            format!("URI SAN: none; want {ENDPOINT} alone, which is the SPIFFE ID of the endpoint"),
        ),
        (
            "another ID",
            root.server(spiffe("spiffe://partner.org/spire/agent")),
            "URI SAN: spiffe://partner.org/spire/agent; want".into(),
        ),
        ("two IDs", root.server(two), format!("URI SAN: {ENDPOINT} and spiffe://partner.org/b; want")),
        (
            "an ID of another trust domain",
            root.server(spiffe("spiffe://other.org/spire/server")),
            "URI SAN: spiffe://other.org/spire/server; want".into(),
        ),
        (
            "somebody else's CA",
            other.server(spiffe(ENDPOINT)),
            "the chain leads to none of the 1 roots in the bundle of partner.org".into(),
        ),
        (
            "one that is over",
            leaf(&|params| params.not_after = date_time_ymd(2025, 1, 1)),
            "expired, want one that is renewed".into(),
        ),
        (
            "one that may sign",
            leaf(&|params| params.key_usages.push(Use::KeyCertSign)),
            "keyUsage: keyCertSign or cRLSign".into(),
        ),
        (
            "a CA",
            leaf(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "basicConstraints of the first certificate".into(),
        ),
        (
            "by an intermediate for somebody else",
            lent.server_with(spiffe(ENDPOINT), &[&lent]),
            "certificate 2: is of spiffe://other.org (CN=lent), not of trust domain partner.org".into(),
        ),
    ] {
        server.show(shown);
        control.until_told(name, &want).await;
        assert!(control.is_by(&[&root]), "{name}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    // By a chain that is right, whatever the name in the URL is.
    let between = root.below("intermediate");
    server.show(between.server_with(spiffe(ENDPOINT), &[&between]));
    server.reply(bundle(&[&root], 1));
    control.until("the bundle", |this| this.problems().is_empty()).await;
    assert!(server.asked()[0].starts_with("GET /bundle HTTP/1.1\r\n"), "{:?}", server.asked());
}

#[tokio::test]
async fn what_is_no_bundle_of_the_trust_domain_is_refused_by_name_and_the_last_good_stays() {
    let (web, root) = (Ca::of_web("web"), Ca::of("partner.org"));
    let server = Server::start(Some(web.local()), bundle(&[&root], 3)).await;
    let pem = web.pem();
    let mut control = Control::start(&[by_web(&server)], &[("web.pem", pem.as_bytes())]);
    assert_eq!(control.roots("partner.org"), Vec::<Vec<u8>>::new(), "nobody yet");
    let known = resolved(&control.loaded).await;
    let empty = assemble(&control.loaded, &network(), &known, &identities(), Version(1), clock::now()).unwrap().0;
    assert!(empty.bundles.iter().any(|bundle| bundle.trust_domain == "partner.org" && bundle.roots.is_empty()));
    control.until("the bundle", |this| this.is_by(&[&root])).await;
    let over = Says { life: (1, 1_700_000_000), ..Says::root("partner.org") }.sign();
    let many: Vec<_> = std::iter::repeat_n(certs::root("partner.org"), 1000).collect();
    let cut = spiffe_bundle(&[certs::root("partner.org")]);
    for (name, reply, want) in [
        (
            "of another trust domain",
            bundle(&[&root, &Ca::of("other.org")], 4),
            "its bundle certificate 2 of 2 is of spiffe://other.org (CN=other.org root), not of trust domain partner.org",
        ),
        ("empty", Reply::ok(r#"{"keys": []}"#), "its bundle is a SPIFFE bundle without a key of use x509-svid"),
        ("garbage", Reply::ok("\u{7f}ELF"), "its bundle is no SPIFFE bundle: "),
        ("no text", Reply::ok([0xff; 100]), "its bundle is not text"),
        ("PEM", Reply::ok(root.pem()), "its bundle is no SPIFFE bundle: "),
        ("cut off", Reply::ok(&cut[..cut.len() / 2]), "its bundle is no SPIFFE bundle: "),
        (
            "a thousand roots",
            Reply::ok(spiffe_bundle(&many)),
            "its bundle holds 1000 certificates, at most 100 are taken",
        ),
        ("as large as memory", Reply::ok(vec![b' '; (1 << 20) + 1]), "the answer is larger than 1048576 bytes"),
        (
            "all over",
            Reply::ok(spiffe_bundle(&[over])),
            "its bundle has no root that is valid: the last expired at 2023-",
        ),
        (
            "a leaf",
            Reply::ok(spiffe_bundle(&[Says { ca: false, ..Says::root("partner.org") }.sign()])),
            "is not one of a CA",
        ),
        ("not there", Reply::status("404 Not Found", "", cut.clone()), "404 Not Found is the answer"),
        (
            "elsewhere",
            Reply::status("302 Found", "location: https://evil.org/\r\n", ""),
            "a redirect to https://evil.org/, is not followed",
        ),
    ] {
        server.reply(reply);
        control.until_told(name, want).await;
        assert!(control.is_by(&[&root]), "{name}");
        assert!(
            control.problems()[0].starts_with("TrustBundle default/t0 spec.endpoint: https://127.0.0.1:"),
            "{name}"
        );
        assert!(control.problems()[0].contains("(what was got at 20"), "{:?}", control.problems());
    }
    // Who is there proves it by the roots that were given, and by no others.
    server.show(Ca::of_web("web").local());
    server.reply(bundle(&[&Ca::of("partner.org")], 4));
    control.until_told("another CA", "signed by none of the roots that are trusted for it").await;
    assert!(control.is_by(&[&root]));
    // An older bundle may be meant, and is told of.
    server.show(web.local());
    server.reply(bundle(&[&root], 2));
    control.until_told("back", "its sequence number went back from 3 to 2").await;
    let next = Ca::of("partner.org");
    server.reply(bundle(&[&root, &next], 3));
    control.until("forward", |this| this.is_by(&[&root, &next]) && this.problems().is_empty()).await;
    let counts = control.fetches.rows("partner.org")[0].counts;
    assert!(counts.fetched >= 3 && counts.failed >= 13, "{counts:?}");
}

#[tokio::test]
async fn an_endpoint_may_be_of_a_trust_domain_whose_bundle_is_known_by_another_way() {
    let (third, partner, stranger) = (Ca::of("third.org"), Ca::of("partner.org"), Ca::of("partner.org"));
    let id = "spiffe://third.org/federation";
    let server = Server::start(Some(stranger.server(spiffe(id))), bundle(&[&partner], 1)).await;
    let spec = format!(
        "trustDomain: partner.org\nendpoint: {{ url: \"{}\", profile: https_spiffe, endpointSPIFFEID: {id}, refreshInterval: 1s }}",
        server.url("/")
    );
    let of_third = "trustDomain: third.org\nroots: [{ file: third.pem }]".to_owned();
    let pem = third.pem();
    let mut control = Control::start(&[spec, of_third], &[("third.pem", pem.as_bytes())]);
    control
        .until_told("a CA of partner.org", "the chain leads to none of the 1 roots in the bundle of third.org")
        .await;
    server.show(third.server(spiffe(id)));
    control.until("the bundle", |this| this.is_by(&[&partner])).await;
    assert_eq!(control.roots("third.org"), [third.der()], "no pool has got anything of another");
}

/// Whoever is there says whom to trust, so he is held to all that any peer of his trust domain is held to.
#[tokio::test]
async fn an_endpoint_that_is_revoked_is_nobody() {
    let (root, second, other) =
        (Ca::of("partner.org"), Ca::of("partner.org"), Ca::new("other", Some("spiffe://partner.org".into())));
    let (between, now) = (root.below("intermediate"), clock::now());
    let leaf = || {
        let mut params = CertificateParams::default();
        (params.subject_alt_names, params.key_usages) = (spiffe(ENDPOINT), vec![Use::DigitalSignature]);
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
        params.serial_number = Some(SerialNumber::from(0x4f3a_u64));
        params
    };
    let (by_root, by_between) = (root.server_of(leaf()), between.server_with(spiffe(ENDPOINT), &[&between]));
    let server = Server::start(Some(by_root.clone()), bundle(&[&root, &second], 1)).await;
    let file = |more: &str| format!("crls:\n  - {{ file: a.crl{more} }}\n");
    let (soon, over) = (now + HOUR, now - 10);
    let none = root.crl(1, &[], soon);
    let mut wrong = String::new();
    for (name, shown, more, crl, want) in [
        ("nothing", &by_root, String::new(), none.clone(), None),
        (
            "its ID",
            &by_root,
            format!("revoked: {{ spiffeIDs: [\"{ENDPOINT}\"] }}\n"),
            none.clone(),
            Some("spiffe://partner.org/spire/server is revoked in t0.yaml:"),
        ),
        (
            "a path above it",
            &by_root,
            "revoked: { spiffeIDs: [\"spiffe://partner.org/spire/*\"] }\n".into(),
            none.clone(),
            Some("(spec.revoked.spiffeIDs)"),
        ),
        (
            "another ID",
            &by_root,
            "revoked: { spiffeIDs: [\"spiffe://partner.org/spire/server/*\"], serials: [\"4f3a00\"] }\n".into(),
            none.clone(),
            None,
        ),
        (
            "its serial",
            &by_root,
            "revoked: { serials: [\"4F:3A\"] }\n".into(),
            none.clone(),
            Some("its serial 4f3a is revoked in t0.yaml:"),
        ),
        (
            "a CRL",
            &by_root,
            file(""),
            root.crl(1, &[0x4f3a], soon),
            Some("certificate 1 (serial 4f3a) is revoked by CRL a.crl of CN=partner.org root"),
        ),
        ("another CA's CRL", &by_root, file(""), other.crl(1, &[0x4f3a], soon), None),
        (
            "a CRL against the intermediate",
            &by_between,
            file(""),
            root.crl_against(1, &between, soon),
            Some("certificate 2 (serial "),
        ),
        ("a CRL that is over", &by_root, file(""), root.crl(1, &[], over), None),
        (
            "a CRL that is over, and to fail then",
            &by_root,
            file(", onStale: fail"),
            root.crl(1, &[], over),
            Some("CRL a.crl is past its nextUpdate, "),
        ),
        (
            "a CRL that is to fail until it is there",
            &by_root,
            "crls:\n  - { url: \"http://127.0.0.1:1/\", onStale: fail }\n".into(),
            none.clone(),
            Some("CRL http://127.0.0.1:1/ has not been got yet"),
        ),
    ] {
        server.show(shown.clone());
        let pem = root.pem();
        let files: [(&str, &[u8]); 2] = [("partner.pem", pem.as_bytes()), ("a.crl", &crl)];
        let mut control = Control::start(&[by_spiffe(&server, &more)], &files);
        let is_told = |this: &Control, words: &str| this.problems().iter().any(|problem| problem.contains(words));
        let settled = |this: &Control| this.is_by(&[&root, &second]) || want.is_some_and(|want| is_told(this, want));
        control.until(name, settled).await;
        if control.is_by(&[&root, &second]) != want.is_none() {
            wrong += &format!("{name}\n");
        }
    }
    assert!(wrong.is_empty(), "who was believed, and who not: {wrong}");
}

#[tokio::test]
async fn what_was_asked_of_somebody_who_is_trusted_no_more_is_asked_again() {
    let (third, next, partner) = (Ca::of("third.org"), Ca::of("third.org"), Ca::of("partner.org"));
    let id = "spiffe://third.org/federation";
    let server = Server::start(Some(third.server(spiffe(id))), bundle(&[&partner], 1)).await;
    let spec = format!(
        "trustDomain: partner.org\nendpoint: {{ url: \"{}\", profile: https_spiffe, endpointSPIFFEID: {id}, refreshInterval: 1s }}",
        server.url("/")
    );
    let by = |ca: &Ca| [spec.clone(), format!("trustDomain: third.org\n{}", certs::inline(&ca.pem()))];
    let mut control = Control::start(&by(&third), &[]);
    control.fetches.ask(|id| Trusted::of(id, &control.loaded, &identities(), clock::now()));
    control.news.notified().await;
    // It has come, and is heard only after that.
    control.becomes(&by(&next));
    control.news.notify_one();
    control.until_told("who answered", "the chain leads to none of the 1 roots in the bundle of third.org").await;
    assert!(control.is_by(&[]), "what he said is not believed");
    server.show(next.server(spiffe(id)));
    control.until("the bundle", |this| this.is_by(&[&partner])).await;
}
