//! What comes in an order that no server can be made to keep.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use super::*;
use crate::config::load_dir;

const GATEWAY: &str = include_str!("../../tests/data/gateway.yaml");
const PATIENCE: Duration = Duration::from_secs(60);

fn loaded(specs: &[String]) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("gateway.yaml"), GATEWAY).unwrap();
    for (nth, spec) in specs.iter().enumerate() {
        let text = format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: {{ name: t{nth} }}\nspec: {{ {spec} }}\n"
        );
        std::fs::write(directory.path().join(format!("t{nth}.yaml")), text).unwrap();
    }
    load_dir(directory.path()).unwrap()
}

/// CRLs of the own trust domain, which has its roots from elsewhere.
fn crls(domain: &str, urls: &[&str]) -> String {
    let urls: Vec<_> = urls.iter().map(|url| format!("{{ url: \"{url}\" }}")).collect();
    format!("trustDomain: {domain}, crls: [{}]", urls.join(", "))
}

fn list(number: u64, serials: u64) -> Arc<RevocationList> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let revoked_certs = (0..serials).map(|serial| rcgen::RevokedCertParams {
        serial_number: SerialNumber::from(serial + 1),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2044, 1, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Arc::new(crate::config::crl::read(params.signed_by(&ca).unwrap().der()).unwrap())
}

fn nobody(_: &SpiffeId, _: &Loaded) -> Trusted {
    Trusted::default()
}

fn is_asked(fetches: &mut Fetches, key: &Key, asking: impl Future<Output = Result<Came, String>> + Send + 'static) {
    fetches.nth += 1;
    let task = Task::start((key.clone(), fetches.nth), asking, fetches.done_in.clone(), fetches.news.clone());
    let source = fetches.sources.get_mut(key).unwrap();
    (source.due, source.task) = (None, Some(task));
}

#[tokio::test]
async fn of_two_that_came_together_the_second_is_judged_beside_the_first() {
    let mut loaded = loaded(&[crls("example.com", &["http://a.org/", "http://b.org/"])]);
    let mut fetches = Fetches::new(Known::default(), News::default());
    fetches.keep(&loaded);
    let keys: Vec<_> = fetches.sources.keys().cloned().collect();
    let came = list(1, 2);
    for (nth, key) in keys.iter().enumerate() {
        is_asked(&mut fetches, key, std::future::pending());
        let answer = Ok(Came::Crl(came.clone()));
        fetches.done_in.send(Done { key: key.clone(), nth: nth as u64 + 1, answer }).unwrap();
    }
    let judge = |(.., list): (&str, &Url, &Arc<RevocationList>), loaded: &Loaded| {
        let is_there = loaded.bundles[0].crls.iter().any(|crl| crl.list.issuer_id == list.issuer_id);
        if is_there { Err("there already".to_owned()) } else { Ok(()) }
    };
    assert_eq!(fetches.hear(0, &mut loaded, judge, nobody), Heard::Trust);
    assert_eq!(loaded.bundles[0].crls.len(), 1);
    let problems: Vec<_> = fetches.problems().collect();
    assert!(problems.len() == 1 && problems[0].contains("http://b.org/: there already"), "{problems:?}");
}

#[tokio::test]
async fn a_panic_over_what_came_is_a_failure_of_its_source() {
    let mut loaded = loaded(&[crls("example.com", &["http://a.org/"])]);
    let news = News::default();
    let mut fetches = Fetches::new(Known::default(), news.clone());
    fetches.keep(&loaded);
    let key = fetches.sources.keys().next().unwrap().clone();
    is_asked(&mut fetches, &key, std::future::poll_fn(|_| panic!("a parser's fault")));
    assert_eq!(fetches.next_due(), None);
    tokio::time::timeout(PATIENCE, news.notified()).await.expect("it answers");
    assert_eq!(fetches.hear(0, &mut loaded, |_, _| Ok(()), nobody), Heard::News);
    let source = &fetches.sources[&key];
    assert!(source.due.is_some() && source.task.is_none() && source.counts.failed == 1, "{source:?}");
    assert!(source.fault.as_ref().is_some_and(|fault| fault.contains("a fault of the gateway's own")), "{source:?}");
}

#[tokio::test]
async fn a_trust_domain_is_asked_one_thing_at_a_time_and_all_together_only_so_many() {
    let spec = |nth: usize| {
        let endpoint = "endpoint: { url: \"https://127.0.0.1:1/\", profile: https_web }";
        format!("{endpoint}, {}", crls(&format!("d{nth:02}.org"), &["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"]))
    };
    let asked = |domains: usize| {
        let loaded = loaded(&(0..domains).map(spec).collect::<Vec<_>>());
        let mut fetches = Fetches::new(Known::default(), News::default());
        fetches.keep(&loaded);
        fetches.ask(|_| Trusted::default());
        // The same once more asks for nothing more.
        fetches.ask(|_| Trusted::default());
        let asked =
            fetches.sources.iter().filter(|(_, source)| source.task.is_some()).map(|(key, _)| key.domain.as_str());
        let asked: Vec<_> = asked.map(str::to_owned).collect();
        assert_eq!(fetches.next_due(), None, "nothing is to be done before something has come");
        asked
    };
    assert_eq!(asked(3), ["d00.org", "d01.org", "d02.org"]);
    assert_eq!(asked(AT_ONCE + 2).len(), AT_ONCE);
}

#[tokio::test]
async fn who_has_waited_longest_in_a_trust_domain_is_asked_first() {
    let mut loaded = loaded(&[crls("example.com", &["http://a.org/", "http://b.org/"])]);
    let news = News::default();
    let mut fetches = Fetches::new(Known::default(), news.clone());
    fetches.keep(&loaded);
    let keys: Vec<_> = fetches.sources.keys().cloned().collect();
    is_asked(&mut fetches, &keys[0], std::future::ready(Err("it hung".into())));
    tokio::time::timeout(PATIENCE, news.notified()).await.expect("it answers");
    fetches.hear(0, &mut loaded, |_, _| Ok(()), nobody);
    // As if the next look of the first were due by now, too.
    fetches.sources.get_mut(&keys[0]).unwrap().due = Some(Instant::now());
    fetches.ask(|_| Trusted::default());
    let asked: Vec<_> = keys.iter().map(|key| fetches.sources[key].task.is_some()).collect();
    assert_eq!(asked, [false, true]);
}

#[tokio::test]
async fn an_answer_of_whom_other_roots_are_to_judge_by_now_is_dropped_and_asked_for_again() {
    let endpoint =
        "endpoint: { url: \"https://a.org/\", profile: https_spiffe, endpointSPIFFEID: spiffe://example.com/a }";
    let mut loaded = loaded(&[format!("trustDomain: partner.org, {endpoint}")]);
    let news = News::default();
    let mut fetches = Fetches::new(Known::default(), news.clone());
    fetches.keep(&loaded);
    let key = fetches.sources.keys().next().unwrap().clone();
    let by = |root: u8| Trusted { roots: vec![vec![root]], ..Trusted::default() };
    let came = || Ok(Came::Bundle(SpiffeBundle { certificates: vec![], sequence: Some(1), refresh_hint: None }));
    for (name, answer) in [("an answer", came()), ("a fault", Err("it was not the one".to_owned()))] {
        is_asked(&mut fetches, &key, std::future::ready(answer));
        fetches.sources.get_mut(&key).unwrap().by = Some(by(1));
        tokio::time::timeout(PATIENCE, news.notified()).await.expect("it answers");
        let heard = fetches.hear(0, &mut loaded, |_, _| Ok(()), |_, _| by(2));
        let source = &fetches.sources[&key];
        assert_eq!((heard, fetches.got.bundles.len(), source.counts), (Heard::Nothing, 0, Counts::default()), "{name}");
        assert!(source.due.is_some_and(|due| due <= Instant::now()) && source.fault.is_none(), "{name}: {source:?}");
    }
    is_asked(&mut fetches, &key, std::future::ready(came()));
    fetches.sources.get_mut(&key).unwrap().by = Some(by(2));
    tokio::time::timeout(PATIENCE, news.notified()).await.expect("it answers");
    assert_eq!(fetches.hear(0, &mut loaded, |_, _| Ok(()), |_, _| by(2)), Heard::Trust);
    assert_eq!(fetches.got.bundles.len(), 1);
}
