//! The identity source `vault` against a server that answers as no OpenBao would: nothing of that is taken,
//! what there was stays in force, and no secret is repeated anywhere.

mod openbao;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctrl::clock::now;
use openbao::played::{Answer, Ca, Played, ca, signs, signs_another_key};
use openbao::put_secret;
use openbao::rig::{BACKEND, FRONTEND, Rig, serial};
use rcgen::{BasicConstraints, IsCa, SanType, date_time_ymd};
use serde_json::json;

const SECRET_ID: &str = "hidden-secret-id";

/// The fields of `vault`.
fn fields(played: &Played, more: &str) -> String {
    format!(
        "{{ server: '{}', path: pki/sign/node, auth: {{ appRole: {{ roleId: r, secretIdFile: secret-id }} }}{more} }}",
        played.server
    )
}

/// A vault that is as it should be, and the identities that ctrl has by it.
async fn start(wanted: &[&str], more: &str) -> (Played, Arc<Ca>, Rig) {
    let ca = ca("spiffe://example.com");
    let played = Played::start(&ca.pem()).await;
    played.say("/sign/node", signs(&ca, |_| {}));
    let directory = tempfile::tempdir().unwrap();
    put_secret(&directory.path().join("secret-id"), SECRET_ID);
    let rig = Rig::new(directory, &fields(&played, more), wanted);
    (played, ca, rig)
}

fn san(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_was_asked_for_is_not_taken() {
    let (played, ca, mut rig) = start(&[BACKEND], "").await;
    // A clock that is a little ahead.
    played.say("/sign/node", signs(&ca, |leaf| leaf.not_after += Duration::from_secs(30)));
    rig.until_well().await;
    let mut before = rig.serial(BACKEND);
    let stranger = openbao::played::ca("spiffe://example.com");
    let leaf = |certificate: &str| Answer::Json(200, json!({ "data": { "certificate": certificate } }));
    let chain = vec![ca.pem(); 20];
    let long = json!({ "data": { "certificate": stranger.pem(), "ca_chain": chain } });
    for (name, answer, words) in [
        ("another key", signs_another_key(&ca), &["the key that was made for it: public key: "][..]),
        (
            "another ID",
            signs(&ca, |leaf| leaf.subject_alt_names = vec![san(FRONTEND)]),
            &["URI SAN: spiffe://example.com/myapp/frontend; want spiffe://example.com/myapp/backend alone"],
        ),
        (
            "one ID more",
            signs(&ca, |leaf| leaf.subject_alt_names.push(san(FRONTEND))),
            &["backend and spiffe://example.com/myapp/frontend; want"],
        ),
        ("no ID", signs(&ca, |leaf| leaf.subject_alt_names.clear()), &["URI SAN: none"]),
        (
            "a CA",
            signs(&ca, |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            &["basicConstraints of the first certificate: CA:TRUE"],
        ),
        ("no usage", signs(&ca, |leaf| leaf.key_usages.clear()), &["keyUsage: no digitalSignature"]),
        (
            "over",
            signs(&ca, |leaf| leaf.not_after = date_time_ymd(2025, 1, 1)),
            &["notAfter of the leaf: 2025-01-01T00:00:00Z; expired"],
        ),
        (
            "for longer",
            signs(&ca, |leaf| leaf.not_after += Duration::from_secs(90)),
            &["/v1/pki/sign/node: notAfter of the leaf: ", "; want at most `ttl` (3600 s) and a minute from now: see"],
        ),
        ("not yet", signs(&ca, |leaf| leaf.not_before = date_time_ymd(2043, 1, 1)), &["notBefore of the leaf"]),
        ("a stranger's", signs(&stranger, |_| {}), &["the chain leads to none of the 1 roots in ", "/v1/pki/issuers"]),
        ("no PEM", leaf("c2VjcmV0"), &["the answer has a `certificate` that holds no certificate"]),
        ("half a PEM", leaf("-----BEGIN CERTIFICATE-----\nMIIB"), &["the answer has a `certificate` that is no PEM"]),
        (
            "no DER",
            leaf("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            &["certificate 1: does not parse"],
        ),
        (
            "two leaves",
            leaf(&[ca.pem(), ca.pem()].concat()),
            &["has 2 certificates as `certificate`; want the leaf alone"],
        ),
        ("a long chain of roots", Answer::Json(200, long), &["basicConstraints of the first certificate"]),
        (
            "no certificate",
            Answer::Json(200, json!({ "data": {} })),
            &["the answer is not as an OpenBao or a Vault has it"],
        ),
        ("no JSON", Answer::Bytes(200, b"<html>".to_vec()), &["the answer is not as an OpenBao or a Vault has it"]),
        ("nothing", Answer::Bytes(200, vec![]), &["the answer is not as an OpenBao or a Vault has it"]),
        ("deep", Answer::Bytes(200, vec![b'['; 100_000]), &["the answer is not as an OpenBao or a Vault has it"]),
        ("too much", Answer::Bytes(200, vec![b' '; (1 << 20) + 1]), &["the answer is larger than 1048576 bytes"]),
        ("half", Answer::Broken, &["the answer breaks off"]),
        (
            "another place",
            Answer::Elsewhere("https://evil.example/v1".into()),
            &["a redirect to https://evil.example/v1, is not followed"],
        ),
        (
            "a colour",
            Answer::Json(400, json!({ "errors": ["\u{1b}[31m\nred"] })),
            &["400, \\u{1b}[31m red; the role of `path`"],
        ),
        (
            "a long reason",
            Answer::Json(500, json!({ "errors": ["x".repeat(100_000)] })),
            &["500, xxx", "xxx; see the server's own log"],
        ),
        (
            "a limit",
            Answer::Json(429, json!({ "errors": ["quota"] })),
            &["429, quota; it has a limit on requests, or is a standby: `server` has to lead to the active one"],
        ),
        ("a standby", Answer::Json(473, json!({})), &["473, without a reason; it is a standby that passes nothing on"]),
        ("sealed", Answer::Json(503, json!({ "errors": ["Vault is sealed"] })), &["unseal it"]),
    ] {
        played.say("/sign/node", answer);
        rig.identities.clock_jumped(now());
        let failure = rig.until_fault(BACKEND, words).await;
        assert!(failure.reason.len() < 1500 && !failure.reason.contains('\u{1b}'), "{name}: {}", failure.reason);
        assert_eq!(rig.serial(BACKEND), before, "{name}: what there was stays in force");
        played.say("/sign/node", signs(&ca, |_| {}));
        rig.identities.clock_jumped(now());
        before = rig.until_renewed(BACKEND, &before).await;
        rig.until_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_are_none_or_too_many_leave_those_from_before() {
    let (played, ca, mut rig) = start(&[BACKEND], ", refresh: 1s").await;
    rig.until_well().await;
    let roots = rig.identities.bundle(now()).roots;
    let of = |pem: &str| Answer::Json(200, json!({ "data": { "certificate": pem, "ca_chain": [] } }));
    let foreign = openbao::played::ca("spiffe://partner.org");
    let names = |names: Vec<String>| Answer::Json(200, json!({ "data": { "keys": names } }));
    let many = vec![ca.pem(); 40];
    for (name, end, answer, words) in [
        (
            "another trust domain's",
            "/issuer/one/json",
            of(&foreign.pem()),
            "spiffe://partner.org, not of trust domain example.com",
        ),
        ("no certificate", "/issuer/one/json", of("root"), "has an issuer that holds no certificate"),
        (
            "a crowd",
            "/issuer/one/json",
            Answer::Json(200, json!({ "data": { "certificate": ca.pem(), "ca_chain": many } })),
            "more than 32 certificates",
        ),
        ("too many", "/issuers", names((0..101).map(|n| n.to_string()).collect()), "101 issuers; at most 100 are read"),
        ("none", "/issuers", names(vec![]), "0 issuers, and none leads to a root"),
        ("another path", "/issuers", names(vec!["../../sys/seal".into()]), "an issuer whose name is none of letters"),
        ("too much", "/issuers", Answer::Bytes(200, vec![b' '; (1 << 20) + 1]), "larger than 1048576 bytes"),
    ] {
        played.say(end, answer);
        rig.until_warned(words).await;
        assert_eq!(rig.identities.bundle(now()).roots, roots, "{name}");
        played.say("/issuers", names(vec!["one".into()]));
        played.say("/issuer/one/json", of(&ca.pem()));
        rig.until("it is well again", |all| all.warnings(now()).is_empty()).await;
    }
    assert_eq!(rig.identities.errors(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_no_header_may_have_is_not_taken() {
    for (name, token) in [
        ("a header more", "s.hidden\r\nX-Evil: 1"),
        ("an end of line", "s.hidden\n"),
        ("no ASCII", "s.hidden-\u{fc}"),
        ("nothing", ""),
        ("too long", &"x".repeat((16 << 10) + 1)),
    ] {
        let (played, _, mut rig) = start(&[BACKEND], "").await;
        let leased = |token: &str| {
            let auth = json!({ "client_token": token, "lease_duration": 3600, "renewable": true });
            Answer::Json(200, json!({ "auth": auth }))
        };
        played.say("/login", leased(token));
        let failure = rig.until_fault(BACKEND, &["/v1/auth/approle/login: the answer is not as an OpenBao"]).await;
        assert!(!failure.reason.contains("hidden"), "{name}: {}", failure.reason);
        played.say("/login", leased("s.hidden-token"));
        rig.until_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_holds_up_nobody_and_is_not_asked_by_everybody() {
    let wanted: Vec<String> = (0..200).map(|nth| format!("spiffe://example.com/myapp/w{nth}")).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let (mut played, ca, mut rig) = start(&wanted, "").await;
    played.say("/sign/node", Answer::Silence);
    for id in [wanted[0], wanted[199]] {
        rig.until_fault(id, &["/v1/pki/sign/node: no answer within 10 s"]).await;
    }
    let asked = *played.asked.borrow_and_update();
    assert!(asked < 60, "{asked} requests for 200 workloads of a server that does not answer");
    assert!(rig.identities.settled());
    played.say("/sign/node", signs(&ca, |_| {}));
    rig.until_well().await;
}

/// On one thread, whose log is caught.
#[tokio::test]
async fn what_a_source_says_of_itself_holds_no_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let (played, _, mut rig) = start(&[BACKEND], ", ttl: 4s").await;
    rig.until_well().await;
    let denied = json!({ "errors": ["permission denied"] });
    played.say("/sign/node", Answer::Json(403, denied.clone()));
    played.say("/lookup-self", Answer::Json(403, denied));
    let before = serial(&rig.identities, BACKEND).unwrap();
    rig.identities.clock_jumped(now());
    rig.until_fault(BACKEND, &["403, permission denied; the token by `auth.appRole.secretIdFile` is over"]).await;
    assert_eq!(serial(&rig.identities, BACKEND), Some(before));
    played.say("/login", Answer::Json(400, json!({ "errors": ["no"] })));
    rig.again(&fields(&played, ""));
    rig.until_fault(BACKEND, &["400, no; see `auth.appRole`"]).await;
    let said = [
        log.text(),
        format!("{:?} {:?} {:?}", rig.identities, rig.identities.errors(), rig.identities.warnings(now())),
        format!("{:?}", openbao::rig::gateway(rig.directory.path(), &fields(&played, ""))),
    ];
    drop(guard);
    assert!(said[0].contains("a token is taken") && said[0].contains("no new SVID"), "{}", said[0]);
    for text in said {
        assert!(!text.contains("hidden-") && !text.contains("BEGIN"), "{text}");
    }
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
