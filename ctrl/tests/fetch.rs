//! Bundles from endpoints and CRLs from URLs, out of servers that the test plays: what is taken, what is refused,
//! and what stays in force meanwhile.

mod certs;
mod counting;
mod example;
mod https;
mod words;

use std::time::Duration;

use certs::{Says, spiffe_bundle, trust_bundle};
use counting::identities;
use ctrl::assemble::assemble;
use ctrl::config::crls::Crl;
use ctrl::config::{Loaded, load_dir};
use ctrl::crls::{self, Held, MOST_FETCHED, MOST_OF_DOMAIN};
use ctrl::fetch::{Fetches, Heard, Known};
use ctrl::source::News;
use ctrl::{bundles, clock};
use example::{GATEWAY, by_address, network, resolved};
use https::{Ca, Reply, Server, spiffe};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose as Use, date_time_ymd};
use snapshot::Version;
use snapshot::check::MOST_REVOKED;

const ENDPOINT: &str = "spiffe://partner.org/spire/server";
const HOUR: u64 = 3_600;
/// For everything together; a slow machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A control process as far as it fetches.
struct Control {
    _directory: tempfile::TempDir,
    loaded: Loaded,
    fetches: Fetches,
    news: News,
    held: Held,
    /// It asks at once, whatever its pace.
    hurries: bool,
}

impl Control {
    fn start(specs: &[String], files: &[(&str, &[u8])]) -> Self {
        Self::again(specs, files, Known::default())
    }

    /// One that was there before.
    fn again(specs: &[String], files: &[(&str, &[u8])], known: Known) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (news, write) = (News::default(), |name: &str, bytes: &[u8]| {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        });
        write("gateway.yaml", GATEWAY.as_bytes());
        write("policy.yaml", by_address().as_bytes());
        files.iter().for_each(|(name, bytes)| write(name, bytes));
        for (nth, spec) in specs.iter().enumerate() {
            write(&format!("t{nth}.yaml"), trust_bundle(&format!("t{nth}"), spec).as_bytes());
        }
        let mut loaded = load_dir(directory.path()).unwrap_or_else(|faults| panic!("{:#?}", words::words(&faults)));
        let mut fetches = Fetches::new(known, news.clone());
        fetches.keep(&loaded);
        fetches.got().fill(&mut loaded);
        Self { _directory: directory, loaded, fetches, news, held: Held::default(), hurries: true }
    }

    /// The configuration is another from now on.
    fn becomes(&mut self, specs: &[String]) {
        let mut loaded = Self::start(specs, &[]).loaded;
        self.fetches.got().fill(&mut loaded);
        self.loaded = loaded;
        self.held.take(&self.loaded);
        self.fetches.keep(&self.loaded);
    }

    /// Until something has come, or failed.
    async fn turn(&mut self) -> Heard {
        let (now, identities) = (clock::now(), identities());
        if self.hurries {
            self.fetches.clock_jumped();
        }
        loop {
            self.fetches.ask(|domain| crls::roots_of(domain, &self.loaded, &identities, now));
            let due = self.fetches.next_due().unwrap_or_else(|| tokio::time::Instant::now() + PATIENCE);
            tokio::select! {
                () = self.news.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
            let judge = |crl: (&str, &_, &_), loaded: &_| self.held.judge(crl, loaded, &identities, now);
            let heard = self.fetches.hear(now, &mut self.loaded, judge);
            if heard != Heard::Nothing {
                self.held.take(&self.loaded);
                return heard;
            }
        }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done(self) {
            let late = tokio::time::timeout_at(deadline, self.turn()).await.is_err();
            assert!(!late, "{what}: {:#?}", self.problems());
        }
    }

    /// Until it is told that something is wrong, in these words.
    async fn until_told(&mut self, name: &str, words: &str) {
        // What was told before may have the same words.
        tokio::time::timeout(PATIENCE, self.turn()).await.expect("something comes");
        let told = |this: &Self| this.problems().iter().any(|problem| problem.contains(words));
        self.until(&format!("{name}: {words}"), told).await;
    }

    fn problems(&self) -> Vec<String> {
        self.fetches.problems().collect()
    }

    fn roots(&self, domain: &str) -> Vec<Vec<u8>> {
        let mut bundles = self.loaded.bundles.iter().filter(|bundle| bundle.trust_domain.as_str() == domain);
        let mut roots: Vec<_> = bundles.next().unwrap().roots.iter().map(|root| root.certificate.der.clone()).collect();
        roots.sort();
        roots
    }

    fn is_by(&self, cas: &[&Ca]) -> bool {
        let mut want: Vec<_> = cas.iter().map(|ca| ca.der()).collect();
        want.sort();
        self.roots("partner.org") == want
    }

    /// Of the first TrustBundle, by the serials that they revoke.
    fn crls(&self) -> Vec<Vec<String>> {
        self.loaded.bundles[0].crls.iter().map(|crl| crl.list.serials.clone()).collect()
    }
}

/// A bundle of these, as an endpoint gives it.
fn bundle(cas: &[&Ca], sequence: u64) -> Reply {
    let x5c = |ca: &&Ca| ca.pem().lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let key = |ca| serde_json::json!({ "use": "x509-svid", "kty": "EC", "x5c": [x5c(ca)] });
    let keys: Vec<_> = cas.iter().map(key).collect();
    let bundle = serde_json::json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 600 });
    Reply::ok(bundle.to_string())
}

fn by_spiffe(server: &Server, more: &str) -> String {
    format!(
        "trustDomain: partner.org\nroots: [{{ file: partner.pem }}]\nendpoint:\n  url: {}\n  profile: https_spiffe\n  \
         endpointSPIFFEID: {ENDPOINT}\n  refreshInterval: 1s\n{more}",
        server.url("/bundle")
    )
}

fn by_web(server: &Server) -> String {
    let url = server.url("/bundle");
    format!(
        "trustDomain: partner.org\nendpoint:\n  url: {url}\n  profile: https_web\n  roots: {{ file: web.pem }}\n  \
         refreshInterval: 1s\n"
    )
}

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

fn crl_spec(root: &Ca, entries: &str) -> String {
    format!("trustDomain: partner.org\n{}crls:\n{entries}", certs::inline(&root.pem()))
}

fn entry(server: &Server, more: &str) -> String {
    format!("  - {{ url: \"{}\", refreshInterval: 1s{more} }}\n", server.url("/ca.crl"))
}

#[tokio::test]
async fn a_crl_from_a_url_is_taken_by_its_signature_and_number_and_stays_while_nothing_better_comes() {
    let root = Ca::of("partner.org");
    let next = clock::now() + HOUR;
    let server = Server::start(None, Reply::status("503 Service Unavailable", "", "")).await;
    let spec = crl_spec(&root, &entry(&server, ""));
    let mut control = Control::start(std::slice::from_ref(&spec), &[]);
    control.until_told("away", "503 Service Unavailable is the answer (nothing was got yet)").await;
    // PEM and DER alike.
    server.reply(Reply::ok(root.crl_list(5, &[0x4f3a], next).pem().unwrap()));
    control.until("the first", |this| this.crls() == [["4f3a"]]).await;
    assert_eq!(control.problems(), Vec::<String>::new());
    for (name, reply, want) in [
        ("older", Reply::ok(root.crl(4, &[], next)), "its CRL number is 4, older than number 5, which is held"),
        (
            "somebody else's",
            Reply::ok(Ca::of("other.org").crl(6, &[], next)),
            "it is of CN=other.org root, and CN=partner.org root is whose CRL was here; if that is meant, take the entry out",
        ),
        (
            "of another key",
            Reply::ok(Ca::of("partner.org").crl(6, &[], next)),
            "its signature is not by the key of CN=partner.org root",
        ),
        ("garbage", Reply::ok("hello"), "what is there holds no CRL"),
        ("cut off", Reply::ok(&root.crl(6, &[], next)[..100]), "what is there is no CRL"),
        ("away", Reply::status("404 Not Found", "", ""), "404 Not Found is the answer (what was got at"),
    ] {
        server.reply(reply);
        control.until_told(name, want).await;
        assert_eq!(control.crls(), [["4f3a"]], "{name}");
    }
    server.reply(Reply::ok(root.crl(6, &[0x4f3a, 0x4f3b], next)));
    control.until("the next", |this| this.crls() == [["4f3a", "4f3b"]]).await;
    // A restart knows it, and its number, while nobody is there.
    drop(server);
    let again = Control::again(&[spec], &[], control.fetches.got().known());
    assert_eq!(again.crls(), [["4f3a", "4f3b"]]);
    let without = format!("trustDomain: partner.org\n{}", certs::inline(&root.pem()));
    let gone = Control::again(&[without], &[], control.fetches.got().known());
    assert_eq!(gone.crls(), Vec::<Vec<String>>::new(), "what nobody wants is forgotten");
}

#[tokio::test]
async fn what_a_crl_revokes_stays_revoked_while_its_new_url_has_given_nothing() {
    let (root, other) = (Ca::of("partner.org"), Ca::new("second", Some("spiffe://partner.org".into())));
    let next = clock::now() + HOUR;
    let both = format!("trustDomain: partner.org\n{}", certs::inline(&format!("{}{}", root.pem(), other.pem())));
    let with = |entries: &str| format!("{both}crls:\n{entries}");
    let first = Server::start(None, Reply::ok(root.crl(5, &[0x11], next))).await;
    let second = Server::start(None, Reply::status("503 Service Unavailable", "", "")).await;
    let file = ("a.crl", root.crl(4, &[0x22], next));
    let of_file = with("  - { file: a.crl }\n");
    let moved = with(&entry(&second, ", onStale: fail"));
    for (name, before, number, left) in [("a file", of_file, "4", "22"), ("a URL", with(&entry(&first, "")), "5", "11")]
    {
        second.reply(Reply::status("503 Service Unavailable", "", ""));
        let mut control = Control::start(&[before], &[(file.0, &file.1)]);
        control.until(name, |this| this.crls() == [[left]]).await;
        control.becomes(std::slice::from_ref(&moved));
        assert_eq!(control.crls(), [[left]], "{name}");
        control.until_told(name, "503 Service Unavailable is the answer").await;
        assert_eq!(control.crls(), [[left]], "{name}");
        let (resolved, identities, now) = (resolved(&control.loaded).await, identities(), clock::now());
        assemble(&control.loaded, &network(), &resolved, &identities, Version(1), now).unwrap();
        // Nor does a restart let anybody in, whether the entry was moved before it or meanwhile.
        let mut again = Control::again(std::slice::from_ref(&moved), &[], control.fetches.got().known());
        assert_eq!(again.crls(), [[left]], "{name}");
        // Nothing older than it is taken, and its issuer's newest is in place of it.
        second.reply(Reply::ok(root.crl(3, &[], next)));
        control.until_told(name, &format!("its CRL number is 3, older than number {number}")).await;
        assert_eq!(control.crls(), [[left]], "{name}");
        second.reply(Reply::ok(root.crl(6, &[0x33], next)));
        control.until(name, |this| this.crls() == [["33"]] && this.problems().is_empty()).await;
        again.until(name, |this| this.crls() == [["33"]]).await;
    }
    // By one of two entries another issuer's list comes: what was left stays for the other one.
    let third = Server::start(None, Reply::ok(other.crl(1, &[0x44], next))).await;
    second.reply(Reply::status("503 Service Unavailable", "", ""));
    let mut control = Control::start(&[with(&entry(&first, ""))], &[]);
    control.until("the first", |this| this.crls() == [["11"]]).await;
    control.becomes(&[with(&format!("{}{}", entry(&second, ""), entry(&third, "")))]);
    control.until("the other's", |this| this.crls() == [["44"], ["11"]]).await;
    second.reply(Reply::ok(root.crl(6, &[0x33], next)));
    control.until("the issuer's", |this| this.crls() == [["33"], ["44"]]).await;
}

#[tokio::test]
async fn a_crl_from_a_url_is_one_of_its_issuer_and_within_what_all_may_revoke() {
    let (root, other) = (Ca::of("partner.org"), Ca::new("second", Some("spiffe://partner.org".into())));
    let next = clock::now() + HOUR;
    let both = format!("trustDomain: partner.org\n{}", certs::inline(&format!("{}{}", root.pem(), other.pem())));
    let server = Server::start(None, Reply::ok(root.crl(2, &[1, 2], next))).await;
    let entries = format!("crls:\n  - {{ file: a.crl }}\n{}", entry(&server, ""));
    let spec = format!("{both}{entries}");
    let mut control = Control::start(std::slice::from_ref(&spec), &[("a.crl", &root.crl(1, &[9], next))]);
    control
        .until_told("another CRL of the issuer", "it is of CN=partner.org root, as a.crl is; an issuer has one")
        .await;
    assert_eq!(control.crls(), [["09"]]);
    let serials: Vec<_> = (10..MOST_REVOKED as u64 + 9).collect();
    let many = other.crl(1, &serials, next);
    let mut control = Control::start(&[spec], &[("a.crl", &many)]);
    control.until_told("two too many", "with its 2 entries more than 100000 would be revoked").await;
    server.reply(Reply::ok(root.crl(2, &[1], next)));
    control.until("as many as are taken", |this| this.crls().len() == 2).await;
    server.reply(Reply::ok(root.crl(3, &(0..=MOST_OF_DOMAIN as u64).collect::<Vec<_>>(), next)));
    control.until_told("one domain's share", "more than 25000 would be fetched for one trust domain").await;
    // In place of one that was taken, not beside it.
    server.reply(Reply::ok(root.crl(3, &[2], next)));
    control.until("the next", |this| this.crls().get(1) == Some(&vec!["02".into()])).await;
    // A file that is put beside a CRL that was fetched is refused, and not the one that is held.
    let mut loaded = control.loaded.clone();
    let url = loaded.bundles[0].crls[1].clone();
    loaded.bundles[0].crls[0] = Crl { path: "spec.crls[0]".into(), is_fetched: false, from: "b.crl".into(), ..url };
    let faults = control.held.check(&loaded, &identities(), clock::now()).unwrap_err();
    let said = words::words(&faults);
    assert!(
        said.len() == 1 && said[0].contains("spec.crls[0]: \"b.crl\": it is of CN=partner.org root, as http"),
        "{said:?}"
    );
}

#[tokio::test]
async fn what_is_fetched_leaves_half_of_all_entries_to_the_operator() {
    let next = clock::now() + HOUR;
    let most: Vec<_> = (0..MOST_OF_DOMAIN as u64).collect();
    let (mut specs, mut servers) = (Vec::new(), Vec::new());
    for nth in 0..3 {
        let root = Ca::of(&format!("d{nth}.org"));
        let server = Server::start(None, Reply::ok(root.crl(1, &most, next))).await;
        let roots = certs::inline(&root.pem());
        specs.push(format!("trustDomain: d{nth}.org\n{roots}crls:\n{}", entry(&server, "")));
        servers.push(server);
    }
    let mut control = Control::start(&specs, &[]);
    control.until_told("the third", "more than 50000 would be fetched for all trust domains").await;
    let fetched: usize = control.loaded.bundles.iter().map(|bundle| bundle.revokes()).sum();
    assert!(fetched <= MOST_FETCHED, "{fetched}");
    control.until("two of them", |this| this.loaded.bundles.iter().map(|b| b.crls.len()).sum::<usize>() == 2).await;
}

#[tokio::test]
async fn an_intermediate_of_a_partner_may_sign_crls_if_it_is_named_and_leads_up_to_a_root() {
    let (root, other) = (Ca::of("partner.org"), Ca::of("partner.org"));
    let (issuing, foreign) = (root.below("issuing CA"), other.below("issuing CA"));
    let next = clock::now() + HOUR;
    let server = Server::start(None, Reply::ok(issuing.crl(1, &[0x11], next))).await;
    let plain = crl_spec(&root, &entry(&server, ""));
    let named = crl_spec(&root, &entry(&server, ", issuer: { file: issuing.pem }"));
    let (good, bad) = (issuing.pem(), foreign.pem());
    let mut nobody = Control::start(&[plain], &[]);
    nobody.until_told("not named", "its issuer CN=issuing CA is no root of partner.org").await;
    let mut stray = Control::start(std::slice::from_ref(&named), &[("issuing.pem", bad.as_bytes())]);
    stray.until_told("under another root", "no certificate of its `issuer` is valid now and leads up to a root").await;
    let mut control = Control::start(&[named], &[("issuing.pem", good.as_bytes())]);
    control.until("the CRL", |this| this.crls() == [["11"]]).await;
    // Whose CRL it is, the file has said: not even the root's is taken in its place.
    let mut control = Control::again(
        &[crl_spec(&root, &entry(&server, ", issuer: { file: issuing.pem }"))],
        &[("issuing.pem", good.as_bytes())],
        Known::default(),
    );
    server.reply(Reply::ok(root.crl(9, &[], next)));
    control.until_told("the root's", "its issuer CN=partner.org root is no CA of its `issuer`").await;
    // Two levels up.
    let lower = issuing.below("lower CA");
    let both = format!("{}{}", lower.pem(), issuing.pem());
    server.reply(Reply::ok(lower.crl(1, &[0x22], next)));
    let spec = crl_spec(&root, &entry(&server, ", issuer: { file: issuing.pem }"));
    let mut control = Control::start(&[spec], &[("issuing.pem", both.as_bytes())]);
    control.until("the CRL two levels down", |this| this.crls() == [["22"]]).await;
}

#[tokio::test]
async fn until_a_crl_that_is_to_fail_was_fetched_its_trust_domain_is_refused() {
    let root = Ca::of("partner.org");
    let server = Server::start(None, Reply::status("503 Service Unavailable", "", "")).await;
    for (on_stale, refuses) in [("warn", false), ("fail", true)] {
        let spec = crl_spec(&root, &entry(&server, &format!(", onStale: {on_stale}")));
        let control = Control::start(&[spec], &[]);
        let (resolved, identities, now) = (resolved(&control.loaded).await, identities(), clock::now());
        let assembled = assemble(&control.loaded, &network(), &resolved, &identities, Version(1), now).unwrap().0;
        let crls: Vec<_> = assembled.revoked.iter().flat_map(|list| &list.crls).collect();
        assert_eq!(crls.iter().map(|crl| crl.is_stale).collect::<Vec<_>>(), vec![true; refuses.into()], "{on_stale}");
        assert!(crls.iter().all(|crl| crl.fails_after.is_some_and(|end| end < now)), "{crls:?}");
        let rules = crls.iter().map(|crl| assembled.rules[crl.rule.0 as usize].name.as_str());
        for rule in rules {
            assert!(rule.starts_with("TrustBundle default/t0 spec.crls[0] (http://127.0.0.1:"), "{rule}");
        }
    }
    server.reply(Reply::ok(root.crl(1, &[0x11], clock::now() + HOUR)));
    let mut control = Control::start(&[crl_spec(&root, &entry(&server, ", onStale: fail"))], &[]);
    control.until("the CRL", |this| this.crls() == [["11"]]).await;
    let (resolved, identities, now) = (resolved(&control.loaded).await, identities(), clock::now());
    let assembled = assemble(&control.loaded, &network(), &resolved, &identities, Version(1), now).unwrap().0;
    let crls: Vec<_> = assembled.revoked.iter().flat_map(|list| &list.crls).collect();
    assert_eq!(crls.iter().map(|crl| crl.is_stale).collect::<Vec<_>>(), [false]);
    let rows = bundles::rows(&control.loaded, &identities.bundle(now), &[]);
    let row = rows.iter().find(|row| row.trust_domain == "partner.org").unwrap();
    assert_eq!((row.crls[0].from.as_str(), row.crls[0].on_stale.as_str()), (server.url("/ca.crl").as_str(), "fail"));
}
