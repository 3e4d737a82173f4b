//! The HTTPS client against servers that are right, slow, too generous, cut off, or somebody else.

mod https;

use std::time::Duration;

use ctrl::web::{Answer, Client, Error, Headers, Limits, Reach, Schemes, Stage, Url, tls};
use https::{Ca, Reply, Server};
use hyper::header::HeaderName;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, SanType, date_time_ymd};
use rustls::ClientConfig;

const LIMITS: Limits = Limits { whole: Duration::from_secs(60), largest: 1000 };
/// For what never ends by itself.
const SOON: Limits = Limits { whole: Duration::from_millis(300), largest: 1000 };

fn trusting(ca: &Ca) -> ClientConfig {
    tls::only(tls::roots(ca.pem().as_bytes()).unwrap()).with_no_client_auth()
}

async fn get(ca: &Ca, url: &str, limits: Limits) -> Result<Answer, Error> {
    let client = Client::new(trusting(ca), Schemes::HttpsOnly, limits);
    client.get(&Url::parse(url).unwrap(), &Headers::none()).await
}

#[tokio::test]
async fn what_is_asked_arrives_and_what_is_answered_comes_back() {
    let ca = Ca::of_web("ca");
    let server = Server::start(Some(ca.local()), Reply::ok(r#"{"of": 7}"#)).await;
    let client = Client::new(trusting(&ca), Schemes::HttpsOnly, LIMITS);
    let token = HeaderName::from_static("x-vault-token");
    let headers = Headers::none().secret(token.clone(), "hvs.secret").unwrap();
    let url = Url::parse(&server.url("/v1/x?list=true")).unwrap();

    let answer = client.get(&url, &headers).await.unwrap();
    let body: serde_json::Value = answer.json().unwrap();
    assert_eq!((answer.status.as_u16(), &body["of"]), (200, &7.into()));
    client.post(&url, &headers, &serde_json::json!({ "a": 1 })).await.unwrap();
    client.put(&url, &headers, &serde_json::json!({ "b": 2 })).await.unwrap();

    let asked = server.asked();
    let starts = ["GET /v1/x?list=true HTTP/1.1", "POST /v1/x?list=true HTTP/1.1", "PUT /v1/x?list=true HTTP/1.1"];
    let ends = ["\r\n\r\n", "\r\n\r\n{\"a\":1}", "\r\n\r\n{\"b\":2}"];
    assert_eq!(asked.len(), 3);
    for (nth, request) in asked.iter().enumerate() {
        assert!(request.starts_with(starts[nth]) && request.ends_with(ends[nth]), "{request}");
        for line in [format!("host: {}\r\n", server.address), "x-vault-token: hvs.secret\r\n".into()] {
            assert!(request.contains(&line), "{request}");
        }
        assert_eq!(request.contains("content-type: application/json\r\n"), nth > 0, "{request}");
    }
}

#[tokio::test]
async fn nothing_secret_is_in_what_is_shown() {
    let ca = Ca::of_web("ca");
    let server = Server::start(Some(ca.local()), Reply::ok(r#"{"token": "hvs.secret"}"#)).await;
    let name = HeaderName::from_static("x-vault-token");
    let headers = Headers::none().secret(name.clone(), "hvs.secret").unwrap();
    let bad = Headers::none().secret(name, "hvs.secret\n").unwrap_err();
    let url = Url::parse(&server.url("/?token=hvs.secret")).unwrap();
    let client = Client::new(trusting(&ca), Schemes::HttpsOnly, LIMITS);
    let answer = client.get(&url, &headers).await.unwrap();
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "it never is one")]
    struct Other {
        token: u64,
    }
    let json = answer.json::<Other>().unwrap_err();
    server.reply(Reply::status("403 Forbidden", "", r#"{"errors": ["hvs.secret"]}"#));
    let refused = client.get(&url, &headers).await.unwrap().success().unwrap_err();
    for shown in [
        format!("{headers:?} {bad:?} {bad} {url:?} {url} {client:?} {answer:?}"),
        format!("{json:?} {json} {refused:?} {refused}"),
    ] {
        assert!(!shown.contains("hvs.secret"), "{shown}");
    }
    assert_eq!(refused.to_string(), format!("https://{}/?…: 403 Forbidden is the answer", server.address));
}

#[tokio::test]
async fn a_server_that_is_slow_is_given_up_at_whatever_it_is_slow_at_and_the_connection_is_closed() {
    let ca = Ca::of_web("ca");
    let server = Server::start(Some(ca.local()), Reply::Deaf).await;
    let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive.".to_vec();
    let cases =
        [(Reply::Deaf, Stage::Connect), (Reply::Hang(vec![]), Stage::Answer), (Reply::Hang(begun), Stage::Body)];
    for (nth, (reply, want)) in cases.into_iter().enumerate() {
        // On a slow machine the handshake takes a while, too: as long as it does, the stage is not reached.
        let mut limits = SOON;
        loop {
            server.reply(reply.clone());
            let given_up = tokio::time::timeout(LIMITS.whole, get(&ca, &server.url("/"), limits)).await;
            match given_up.expect("it is given up").unwrap_err() {
                Error::Slow { stage, .. } if stage == want => break,
                Error::Slow { stage, .. } if stage < want => limits.whole *= 2,
                other => panic!("{want:?}: {other:?}"),
            }
        }
        server.await_left(nth + 1).await;
    }
}

#[tokio::test]
async fn who_no_longer_waits_leaves_no_connection_behind() {
    let ca = Ca::of_web("ca");
    let server = Server::start(Some(ca.local()), Reply::Hang(vec![])).await;
    let url = server.url("/");
    tokio::select! {
        done = get(&ca, &url, LIMITS) => panic!("{done:?}"),
        () = server.await_asked(1) => {}
    }
    server.await_left(1).await;
}

#[tokio::test]
async fn a_body_is_taken_up_to_its_limit_and_not_beyond() {
    let ca = Ca::of_web("ca");
    let server = Server::start(Some(ca.local()), Reply::ok([b'x'; 1000])).await;
    let url = server.url("/");
    assert_eq!(get(&ca, &url, LIMITS).await.unwrap().bytes(), [b'x'; 1000]);
    let chunks = |count: usize| {
        let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
        Reply::Raw(
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(count)).into(),
        )
    };
    server.reply(chunks(10));
    assert_eq!(get(&ca, &url, LIMITS).await.unwrap().bytes(), [b'x'; 1000]);
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001));
    // Nothing of it has to come: the length says it.
    let announced = Reply::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".into());
    for (name, reply) in [("chunked", chunks(11)), ("announced", announced), ("endless", Reply::Hang(endless.into()))] {
        server.reply(reply);
        let error = get(&ca, &url, LIMITS).await.unwrap_err();
        assert_eq!(error, Error::Large { url: Url::parse(&url).unwrap(), most: 1000 }, "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_none_is_no_answer() {
    let ca = Ca::of_web("ca");
    let server = Server::start(Some(ca.local()), Reply::Raw(vec![])).await;
    for (name, bytes) in [
        ("nothing", String::new()),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-".into()),
        ("half a body", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive.".into()),
        ("half of the chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfive.\r\n".into()),
        ("another protocol", "220 mail.example.com ESMTP\r\n".into()),
        ("a head without end", format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20))),
    ] {
        server.reply(Reply::Raw(bytes.into()));
        let error = get(&ca, &server.url("/"), LIMITS).await.unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_in_words() {
    let (ca, other) = (Ca::of_web("ca"), Ca::of_web("other"));
    let local = || vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let life = |from: i32, to: i32| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = local();
        params.extended_key_usages = vec![Eku::ServerAuth];
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        ca.server_of(params)
    };
    let elsewhere = ca.server(vec![SanType::DnsName("elsewhere.org".try_into().unwrap())]);
    let server = Server::start(Some(ca.local()), Reply::ok("")).await;
    for (name, shown, want) in [
        ("of another CA", other.local(), "is signed by none of the roots that are trusted for it"),
        ("for another name", elsewhere, "is not for 127.0.0.1"),
        ("over", life(2020, 2021), "has expired"),
        ("not yet", life(2043, 2044), "is not valid yet; check the clock"),
    ] {
        server.show(shown);
        let error = get(&ca, &server.url("/"), LIMITS).await.unwrap_err();
        let Error::Certificate { why, .. } = &error else { panic!("{name}: {error:?}") };
        assert!(why.contains(want), "{name}: {error}");
    }
    assert_eq!(server.asked(), Vec::<String>::new(), "nobody was told anything");
    // By a name instead of an address.
    server.show(ca.local());
    get(&ca, &server.url("/").replace("127.0.0.1", "localhost"), LIMITS).await.unwrap();
}

#[tokio::test]
async fn plain_http_is_taken_only_where_it_is_allowed() {
    let server = Server::start(None, Reply::ok("plain")).await;
    let url = Url::parse(&server.url("/")).unwrap();
    let ask =
        async |schemes| Client::new(trusting(&Ca::of_web("ca")), schemes, LIMITS).get(&url, &Headers::none()).await;
    assert_eq!(ask(Schemes::HttpsOnly).await.unwrap_err(), Error::Plain { url: url.clone() });
    assert_eq!(server.asked(), Vec::<String>::new());
    assert_eq!(ask(Schemes::HttpToo).await.unwrap().bytes(), b"plain");
    // Who speaks no TLS is no HTTPS server, whatever is allowed.
    let url = Url::parse(&url.to_string().replace("http", "https")).unwrap();
    let client = Client::new(trusting(&Ca::of_web("ca")), Schemes::HttpToo, LIMITS);
    let error = client.get(&url, &Headers::none()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. } | Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_name_of_the_node_itself_is_not_asked_for_those_who_may_not_have_it_asked() {
    let server = Server::start(None, Reply::ok("plain")).await;
    let url = Url::parse(&server.url("/").replace("127.0.0.1", "localhost")).unwrap();
    let ask = async |reach| {
        let client = Client::within(reach, trusting(&Ca::of_web("ca")), Schemes::HttpToo, LIMITS);
        client.get(&url, &Headers::none()).await
    };
    let said = ask(Reach::Away).await.unwrap_err().to_string();
    assert!(said.contains("localhost stands for ") && said.contains("which is the node itself"), "{said}");
    assert_eq!(server.asked(), Vec::<String>::new());
    assert_eq!(ask(Reach::Anywhere).await.unwrap().bytes(), b"plain");
}

#[tokio::test]
async fn no_redirect_is_followed_wherever_it_leads() {
    let ca = Ca::of_web("ca");
    let other = Server::start(None, Reply::ok("secret")).await;
    let server = Server::start(Some(ca.local()), Reply::ok("")).await;
    for (to, shown) in [
        (other.url("/next?token=hvs.secret"), other.url("/next?…")),
        (server.url("/here"), server.url("/here")),
        ("/relative".into(), "another place".into()),
    ] {
        for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
            server.reply(Reply::status(status, &format!("location: {to}\r\n"), ""));
            let error = get(&ca, &server.url("/"), LIMITS).await.unwrap_err();
            assert!(matches!(&error, Error::Redirect { to, .. } if *to == shown), "{status}: {error}");
        }
    }
    assert_eq!(other.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let server = Server::start(None, Reply::Deaf).await;
    let address = server.address;
    drop(server);
    let error = get(&Ca::of_web("ca"), &format!("https://{address}/x"), LIMITS).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("https://{address}/x: no connection: ")), "{error}");
}

#[tokio::test]
async fn a_server_is_verified_each_time_anew() {
    let ca = Ca::of_web("ca");
    let server = Server::start(Some(ca.local()), Reply::ok("")).await;
    let client = Client::new(trusting(&ca), Schemes::HttpsOnly, LIMITS);
    for _ in 0..3 {
        client.get(&Url::parse(&server.url("/")).unwrap(), &Headers::none()).await.unwrap();
    }
    assert_eq!((server.asked().len(), server.resumed()), (3, 0), "a session was resumed");
}

#[test]
fn a_file_of_roots_is_held_to_what_it_should_be() {
    let ca = Ca::of_web("ca").pem();
    assert_eq!(tls::roots(ca.repeat(2).as_bytes()).unwrap().len(), 2);
    for (name, text, want) in [
        ("empty", String::new(), "holds no certificate"),
        ("no PEM", "hello".into(), "holds no certificate"),
        ("cut off", ca[..ca.len() / 2].into(), "is no PEM"),
        ("garbage inside", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(), "certificate 1"),
        ("too many", ca.repeat(501), "holds more than 500 certificates"),
    ] {
        let why = tls::roots(text.as_bytes()).unwrap_err();
        assert!(why.contains(want), "{name}: {why}");
    }
}
