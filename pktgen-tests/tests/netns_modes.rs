//! PERMISSIVE, SIMPLE and DISABLE, as the wire and the peers see them, in both families.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use pktgen_tests::netns::gateway::BACKEND;
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Capture, Host, Namespace, Output, Service, run, wait_until};
use pktgen_tests::stream::holds_marker;
use snapshot::RefuseReason;

const PATIENCE: Duration = Duration::from_secs(15);

/// The backend's own mode, and modes of single ports of it.
fn backend_is(mode: &str, ports: &str) -> String {
    let policy = policy();
    assert!(policy.contains("      mode: MUTUAL\n"), "the backend comes first");
    let policy = policy.replacen("      mode: MUTUAL\n", &format!("      mode: {mode}\n{ports}"), 1);
    let list = "  allowedSPIFFEIDs:\n    inbound:\n      - spiffe://example.com/myapp/app/frontend\n";
    assert!(policy.contains(list), "the backend has an inbound list");
    // SIMPLE knows no callers, so a list of them is an error.
    if mode == "SIMPLE" { policy.replacen(list, "", 1) } else { policy }
}

fn curl(from: &Namespace, scheme: &str, address: IpAddr, marker: &str, extra: &[&str]) -> Result<Output> {
    let mut command = from.command("curl");
    command.args(["-sS", "--max-time", "10", "-H"]).arg(format!("X-Marker: {marker}")).args(extra);
    command.arg("--resolve").arg(format!("{BACKEND}:3000:{address}")).arg(format!("{scheme}://{BACKEND}:3000/"));
    run(command, PATIENCE)
}

fn greeting(from: &Namespace, address: IpAddr) -> Result<String> {
    from.enter(|| {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(address, 3001), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    })?
}

#[test]
fn permissive_serves_plain_callers_and_holds_tls_callers_to_their_certificate() {
    let policy = backend_is("PERMISSIVE", "");
    let pair = Pair::start(&Setup { files: &[("policy.yaml", &policy)], ..Setup::default() }).unwrap();
    let service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let root = pair.authority.join("root.crt").display().to_string();
    for v6 in [false, true] {
        let address = Host::Backend.address(v6);
        let capture = Capture::start(&pair.site.wire, "b0").unwrap();
        let reply = curl(&pair.site.legacy, "http", address, "in-clear", &[]).unwrap();
        assert!(reply.ok().unwrap().contains("you said: in-clear"), "IPv6 {v6}: {reply:?}");
        assert!(holds_marker(&capture.finish().unwrap(), b"in-clear"), "IPv6 {v6}");
        assert!(
            greeting(&pair.site.legacy, address).unwrap().starts_with("220 "),
            "IPv6 {v6}: the service speaks first"
        );

        let capture = Capture::start(&pair.site.wire, "b0").unwrap();
        let reply = curl(&pair.site.frontend, "http", address, "sealed", &[]).unwrap();
        assert!(reply.ok().unwrap().contains("you said: sealed"), "IPv6 {v6}: {reply:?}");
        assert!(greeting(&pair.site.frontend, address).is_err(), "no service of that port, so egress refuses it");
        assert!(!holds_marker(&capture.finish().unwrap(), b"sealed"), "IPv6 {v6}");

        let before = service.accepted().unwrap();
        let reply = curl(&pair.site.legacy, "https", address, "anonymous", &["--cacert", &root]).unwrap();
        assert!(!reply.status.success(), "IPv6 {v6}: TLS without a certificate: {reply:?}");
        let newest = |c: &snapshot::ConnectionReport| c.client.ip() == Host::Legacy.address(v6);
        wait_until("NoClientCertificate", PATIENCE, || {
            let refused = pair.node_b.refused().ok()?;
            refused.iter().rev().find(|c| newest(c))?.refused.filter(|r| *r == RefuseReason::NoClientCertificate)
        })
        .unwrap();
        let requests = service.events("request").unwrap();
        assert!(!requests.iter().any(|r| r["marker"] == "anonymous"), "after {before} connections: {requests:?}");
    }
}

#[test]
fn simple_serves_anonymous_tls_and_nothing_plain() {
    let policy = backend_is("SIMPLE", "");
    let pair = Pair::start(&Setup { files: &[("policy.yaml", &policy)], ..Setup::default() }).unwrap();
    let service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let root = pair.authority.join("root.crt").display().to_string();
    for v6 in [false, true] {
        let address = Host::Backend.address(v6);
        let reply = curl(&pair.site.legacy, "https", address, "anonymous", &["--cacert", &root]).unwrap();
        assert!(reply.ok().unwrap().contains("you said: anonymous"), "IPv6 {v6}: {reply:?}");
        let reply = curl(&pair.site.legacy, "http", address, "plain", &[]).unwrap();
        assert!(!reply.status.success(), "IPv6 {v6}: {reply:?}");
        let requests = service.events("request").unwrap();
        assert!(!requests.iter().any(|r| r["marker"] == "plain"), "IPv6 {v6}: {requests:?}");
    }
}

#[test]
fn a_disabled_port_is_not_touched_beside_one_that_is() {
    let policy = backend_is("MUTUAL", "      ports: { \"3001\": DISABLE }\n");
    let pair = Pair::start(&Setup { files: &[("policy.yaml", &policy)], ..Setup::default() }).unwrap();
    let _service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    for v6 in [false, true] {
        let address = Host::Backend.address(v6);
        assert!(greeting(&pair.site.legacy, address).unwrap().starts_with("220 "), "IPv6 {v6}");
        let seen = pair.node_b.connections().unwrap();
        assert!(seen.iter().all(|c| c.server.port() != 3001), "IPv6 {v6}: the gateway had it: {seen:#?}");
        let reply = curl(&pair.site.legacy, "http", address, "plain", &[]).unwrap();
        assert!(!reply.status.success(), "IPv6 {v6}: {reply:?}");
        let reply = curl(&pair.site.frontend, "http", address, "sealed", &[]).unwrap();
        assert!(reply.ok().unwrap().contains("you said: sealed"), "IPv6 {v6}: {reply:?}");
    }
}

/// A server of the legacy host that asks for no certificate, behind labels of its own.
const PUBLIC: &str = "apiVersion: core.riptides.io/v1alpha1
kind: Service
metadata: { name: public, namespace: riptides-system }
spec:
  addresses:
    - { address: 198.18.30.2, port: 4433 }
  labels: { app: public }
";

#[test]
fn simple_egress_checks_the_server_and_shows_no_certificate() {
    let entry = "  egress:\n";
    let simple = "    - selectors:\n        - app: public\n      connection: { tls: { mode: SIMPLE } }\n      \
                  allowedSPIFFEIDs: [spiffe://example.com/myapp/app/backend-api]\n";
    let policy = policy();
    assert_eq!(policy.matches(entry).count(), 1);
    let policy = policy.replacen(entry, &format!("{entry}{simple}"), 1);
    let files = [("policy.yaml", policy.as_str()), ("public.yaml", PUBLIC)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    // Signed by the root, as a server of the trust domain that has no use for client certificates.
    let directory = pair.site.rig.directory();
    let script = format!(
        "cd {}; echo 'subjectAltName = URI:spiffe://example.com/myapp/app/backend-api, IP:198.18.30.2\n\
         basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature' > ext\n\
         openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=public -keyout key -out csr &&\n\
         openssl x509 -req -days 1 -in csr -CA {root}.crt -CAkey {root}.key -CAcreateserial -extfile ext -out crt",
        directory.display(),
        root = pair.authority.join("root").display(),
    );
    let made = directory.join("make.sh");
    fs::write(&made, script).unwrap();
    pair.site.legacy.run(&format!("sh {}", made.display()), PATIENCE).unwrap().ok().unwrap();
    let line = format!("openssl s_server -accept 4433 -www -tls1_3 -cert {0}/crt -key {0}/key", directory.display());
    let _server = pair.site.legacy.spawn(&line, &directory.join("server.log")).unwrap();
    let address = SocketAddr::new(Host::Legacy.v4(), 4433);
    let open = || pair.site.legacy.enter(|| TcpStream::connect(address).ok()).ok().flatten();
    wait_until("the server listens", PATIENCE, open).unwrap();

    let reply = pair.site.frontend.run("curl -sS --max-time 10 http://198.18.30.2:4433/", PATIENCE).unwrap();
    let page = reply.ok().unwrap();
    assert!(page.contains("TLSv1.3") && page.contains("no client certificate available"), "{page}");
}
