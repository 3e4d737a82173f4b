//! Services that are told who calls them: the delivered example and HAProxy behind a gateway, and
//! `sluice whois`, which says the same of the living connection.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use pktgen_tests::netns::gateway::Gateway;
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Namespace, Process, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(15);
const SCRIPT: &str = include_str!("../../deploy/examples/whoami.py");
const FRONTEND: &str = "spiffe://example.com/myapp/app/frontend";
const BACKEND: &str = "spiffe://example.com/myapp/app/backend-api";

/// HAProxy refuses a connection whose header is missing, malformed, or not the one that its CRC-32C is of.
const HAPROXY: &str = r#"
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend told
    bind :::3002 v4v6 accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority]"
"#;

/// The frontend may call HAProxy's port too.
const SERVICE: &str = "apiVersion: core.riptides.io/v1alpha1
kind: Service
metadata: { name: told, namespace: riptides-system }
spec:
  addresses:
    - { address: 198.18.2.2, port: 3002 }
    - { address: \"2001:db8:2::2\", port: 3002 }
  labels: { app: myapp, service: backend-api }
";

fn backend_is(mode: &str) -> String {
    let (policy, said) = (policy(), "      mode: MUTUAL\n");
    assert!(policy.contains(said), "the backend comes first");
    policy.replacen(said, &format!("      mode: {mode}\n    proxyProtocol:\n      version: v2\n"), 1)
}

/// The services of the backend's host, as they are stopped with it.
fn services(pair: &Pair) -> [Process; 2] {
    let directory = pair.site.rig.directory();
    let path = |name: &str| directory.join(name);
    fs::write(path("whoami.py"), SCRIPT).unwrap();
    fs::write(path("haproxy.cfg"), HAPROXY).unwrap();
    let spawn = |line: String, log: &str| pair.site.backend.spawn(&line, &path(log)).unwrap();
    let all = [
        spawn(format!("python3 {}", path("whoami.py").display()), "whoami.log"),
        spawn(format!("haproxy -db -f {}", path("haproxy.cfg").display()), "haproxy.log"),
    ];
    let open = |port| pair.site.backend.enter(|| TcpStream::connect(("127.0.0.1", port)).ok()).ok().flatten();
    for port in [3000, 3001, 3002] {
        wait_until(&format!("port {port} is open"), PATIENCE, || open(port)).unwrap();
    }
    all
}

fn connect(from: &Namespace, address: IpAddr, port: u16) -> TcpStream {
    let stream = from.enter(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One request; the connection stays.
fn ask(stream: &TcpStream) -> String {
    (&*stream).write_all(b"GET / HTTP/1.1\r\nHost: told\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = said.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

fn told(stream: &TcpStream) -> Value {
    serde_json::from_str(&ask(stream)).unwrap()
}

/// What `sluice whois` says, and its exit code.
fn whois(gateway: &Gateway, arguments: &[&str]) -> (Vec<Value>, Option<i32>) {
    let output = gateway.sluice(&[&["whois", "-o", "json"], arguments].concat()).unwrap();
    let rows = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (rows, output.status.code())
}

fn serial(gateway: &Gateway, id: &str) -> Value {
    let report = gateway.report().unwrap();
    let identity = report.identities.into_iter().find(|identity| identity.spiffe_id == id).unwrap();
    json!([identity.serial.unwrap(), identity.not_after.unwrap()])
}

/// Where the backend's inbound list stands.
fn rule(policy: &str) -> String {
    let line = policy.lines().position(|line| line.contains("inbound:")).unwrap() + 2;
    format!("riptides-system/backend-api spec.allowedSPIFFEIDs.inbound (policy.yaml:{line})")
}

#[test]
fn a_service_reads_who_calls_from_its_header_and_whois_says_the_same() {
    let policy = backend_is("MUTUAL");
    let files = [("policy.yaml", policy.as_str()), ("service.yaml", SERVICE)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let _services = services(&pair);
    for v6 in [false, true] {
        let address = Host::Backend.address(v6);
        let stream = connect(&pair.site.frontend, address, 3000);
        let (own, server) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let tls = json!({ "verified": true, "version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256" });
        let header = told(&stream);
        assert_eq!(
            header,
            json!({
                "source": own.ip().to_string(), "source_port": own.port(),
                "destination": server.ip().to_string(), "destination_port": server.port(),
                "spiffe_id": FRONTEND, "server_name": "backend-api.myapp.svc.cluster.local", "tls": tls,
            })
        );
        assert_eq!(told(&stream), header, "and what comes after it is the caller's");

        let (own, server) = (own.to_string(), server.to_string());
        let (found, code) = whois(&pair.node_b, &[&own]);
        assert_eq!((found.len(), code), (1, Some(0)), "{found:#?}");
        let one = &found[0];
        assert_eq!((&one["peer"], &one["local"]), (&json!(own), &json!(server)));
        assert_eq!((&one["spiffe_id"], &one["known_by"]), (&json!(FRONTEND), &json!("certificate")));
        assert_eq!(json!([one["serial"], one["not_after"]]), serial(&pair.node_a, FRONTEND));
        assert_eq!((&one["workload"], &one["local_id"]), (&json!("riptides-system/backend-api"), &json!(BACKEND)));
        assert_eq!((&one["mode"], &one["state"]), (&json!("MUTUAL"), &json!("relaying")));
        assert_eq!(one["rule"], json!(rule(&policy)));
        assert_eq!(one["revision"], json!(pair.node_b.status().unwrap().in_force));
        let age = ctrl::clock::now() as f64 - one["since"].as_f64().unwrap();
        assert!((-1.0..60.0).contains(&age), "{age} s: {one:#}");
        assert_eq!(whois(&pair.node_b, &[&own, "--local", &server]), (found.clone(), Some(0)));
        assert_eq!(whois(&pair.node_b, &[&own, "--local", "198.18.2.2:3009"]), (vec![], Some(1)));
        assert_eq!(whois(&pair.node_b, &[&server]), (vec![], Some(1)), "node-b's own end is nobody's peer");
        let text = pair.node_b.sluice(&["whois", &own]).unwrap();
        assert!(text.ok().unwrap().starts_with(&format!("{own} is {FRONTEND}\n")), "{text:?}");
        let url = format!("http://sluice/v1/whois?peer={own}");
        let line = format!("curl -sS --unix-socket {} {url}", pair.node_b.socket().display());
        let answer = pair.node_b.namespace().run(&line, PATIENCE).unwrap();
        assert_eq!(serde_json::from_str::<Value>(answer.ok().unwrap()).unwrap(), json!(found));
        let name = "backend-api.myapp.svc.cluster.local:3000";
        let line = format!("curl -sS --resolve {name}:{address} http://{name}/");
        let body = pair.site.frontend.run(&line, PATIENCE).unwrap();
        assert!(body.ok().unwrap().contains(&format!("\"spiffe_id\": \"{FRONTEND}\"")), "{body:?}");
        // The caller's node knows whom it calls, on how many connections it may be.
        let second = connect(&pair.site.frontend, address, 3000);
        told(&second);
        let (found, code) = whois(&pair.node_a, &[&server]);
        let of = |row: &&Value, stream: &TcpStream| row["local"] == json!(stream.local_addr().unwrap());
        for stream in [&stream, &second] {
            let row = found.iter().find(|row| of(row, stream)).unwrap_or_else(|| panic!("{found:#?}"));
            assert_eq!((&row["spiffe_id"], code), (&json!(BACKEND), Some(0)));
        }

        let proxied = connect(&pair.site.frontend, address, 3002);
        let from = proxied.local_addr().unwrap().port();
        let want = format!("{} {from} {address} 3002 ", Host::Frontend.address(v6));
        assert_eq!(ask(&proxied), want, "HAProxy reads the same, and there is no name for this port");

        drop(stream);
        let gone = || (whois(&pair.node_b, &[&own]) == (vec![], Some(1))).then_some(());
        wait_until("nobody is there any more", PATIENCE, gone).unwrap();
    }
    pair.ensure_nothing_refused().unwrap();
}

#[test]
fn a_plain_caller_under_permissive_is_told_of_by_its_address_and_is_nobody() {
    let policy = backend_is("PERMISSIVE");
    let pair = Pair::start(&Setup { files: &[("policy.yaml", &policy)], ..Setup::default() }).unwrap();
    let _services = services(&pair);
    for v6 in [false, true] {
        let address = Host::Backend.address(v6);
        let plain = connect(&pair.site.legacy, address, 3000);
        let header = told(&plain);
        let own = plain.local_addr().unwrap();
        assert_eq!((&header["source"], &header["source_port"]), (&json!(own.ip()), &json!(own.port())));
        assert_eq!((&header["spiffe_id"], &header["tls"]), (&Value::Null, &Value::Null));
        let (found, code) = whois(&pair.node_b, &[&own.to_string()]);
        assert_eq!((found.len(), code), (1, Some(1)), "there is a connection, and nobody was verified");
        assert_eq!((&found[0]["spiffe_id"], &found[0]["known_by"]), (&Value::Null, &json!("nothing")));
        let sealed = connect(&pair.site.frontend, address, 3000);
        assert_eq!(told(&sealed)["spiffe_id"], json!(FRONTEND));
        // HAProxy takes the header of a plain caller too.
        let proxied = connect(&pair.site.legacy, address, 3002);
        let want = format!("{} {} {address} 3002 ", Host::Legacy.address(v6), proxied.local_addr().unwrap().port());
        assert_eq!(ask(&proxied), want);
        let mut line = String::new();
        BufReader::new(connect(&pair.site.legacy, address, 3001)).read_line(&mut line).unwrap();
        assert_eq!(line, "220 hello, whoever you are\r\n", "the service speaks first, behind its header");
    }
}
