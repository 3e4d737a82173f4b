//! Peers without a gateway: curl, OpenSSL and Python speak mTLS with one gateway, as clients and as
//! servers, with SVIDs that OpenSSL made. What is wrong with a certificate is refused by its name.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use pktgen_tests::netns::gateway::{BACKEND, Gateway};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, Output, Service, run, wait_until};
use snapshot::RefuseReason;

const FRONTEND_ID: &str = "spiffe://example.com/myapp/app/frontend";
const BACKEND_ID: &str = "spiffe://example.com/myapp/app/backend-api";
const INTRUDER_ID: &str = "spiffe://example.com/myapp/app/intruder";
const PATIENCE: Duration = Duration::from_secs(15);

/// Two ports of the legacy host, behind the labels that the frontend's egress rule selects.
const DIRECT: &str = "apiVersion: core.riptides.io/v1alpha1
kind: Service
metadata: { name: direct, namespace: riptides-system }
spec:
  addresses:
    - { address: 198.18.30.2, port: 4433 }
    - { address: 198.18.30.2, port: 4434 }
    - { address: 198.18.30.2, port: 4435 }
  labels: { app: myapp, service: backend-api }
";

/// What an X.509-SVID says beside its name, as OpenSSL writes it.
const LEAF: &str = "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
                    extendedKeyUsage = serverAuth, clientAuth\n";

/// Where the files of a certificate are.
struct Svid {
    certificate: PathBuf,
    key: PathBuf,
}

/// Signs a certificate with these SANs by the root in `authority`, valid now.
fn svid(authority: &Path, name: &str, sans: &str) -> Svid {
    extended(authority, name, &format!("{LEAF}subjectAltName = {sans}\n"))
}

/// The same with whatever extensions.
fn extended(authority: &Path, name: &str, extensions: &str) -> Svid {
    let date = |what: &str| {
        let output = Command::new("date").args(["-u", "-d", what, "+%Y%m%d%H%M%SZ"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    sign(authority, name, extensions, &date("-1 hour"), &date("+1 day"))
}

/// The validity as ASN.1 writes it: `20200101000000Z`.
fn sign(authority: &Path, name: &str, extensions: &str, begins: &str, ends: &str) -> Svid {
    let path = |end: &str| authority.join(format!("{name}.{end}"));
    let directory = authority.display();
    let ca = format!(
        "[ca]\ndefault_ca = root\n[root]\ndatabase = {directory}/index\nunique_subject = no\nrand_serial = yes\n\
         new_certs_dir = {directory}\ndefault_md = sha256\npolicy = any\n[any]\norganizationName = optional\n"
    );
    fs::write(path("ext"), extensions).unwrap();
    fs::write(path("ca"), ca).unwrap();
    File::options().create(true).append(true).open(authority.join("index")).unwrap();
    let (key, request, certificate) = (path("key"), path("csr"), path("crt"));
    openssl(&["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=peer"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&request)
        .succeed();
    openssl(&["ca", "-batch", "-notext", "-startdate", begins, "-enddate", ends, "-config"])
        .arg(path("ca"))
        .arg("-in")
        .arg(request)
        .arg("-cert")
        .arg(authority.join("root.crt"))
        .arg("-keyfile")
        .arg(authority.join("root.key"))
        .arg("-extfile")
        .arg(path("ext"))
        .arg("-out")
        .arg(&certificate)
        .succeed();
    Svid { certificate, key }
}

trait Succeed {
    fn succeed(&mut self);
}

impl Succeed for Command {
    fn succeed(&mut self) {
        let output = self.output().unwrap();
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}

#[test]
fn direct_clients_are_served_by_their_svid_and_refused_by_what_is_wrong_with_it() {
    let pair = Pair::start(&Setup::default()).unwrap();
    let service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let good = svid(&pair.authority, "frontend", &format!("URI:{FRONTEND_ID}"));

    let curl = call_with_curl(&pair, Some(&good)).unwrap();
    assert!(curl.ok().unwrap().contains("you said: from-curl"), "{curl:?}");
    let python = call_with_python(&pair, &good).unwrap();
    assert!(python.ok().unwrap().contains("you said: from-python"), "{python:?}");
    assert!(python.stdout.contains(BACKEND_ID), "{python:?}");
    let openssl = call_with_openssl(&pair, &good).unwrap();
    assert!(openssl.stdout.contains("you said: from-openssl"), "{openssl:?}");
    assert!(
        openssl.stderr.contains("Verify return code: 0") || openssl.stderr.contains("verify return:1"),
        "{openssl:?}"
    );

    let before = service.accepted().unwrap();
    let foreign = pair.site.rig.directory().join("foreign-ca");
    pktgen_tests::netns::gateway::authority(&foreign).unwrap();
    let bad = |name: &str, sans: &str| Some(svid(&pair.authority, name, sans));
    let (begins, ends) = ("20240101000000Z", "20240102000000Z");
    let named = |lines: &str| format!("{lines}subjectAltName = URI:{FRONTEND_ID}\n");
    let late = sign(&pair.authority, "late", &named(LEAF), begins, ends);
    let cases = [
        ("not in the list", bad("intruder", &format!("URI:{INTRUDER_ID}")), RefuseReason::NotAllowedInbound),
        ("two IDs", bad("two", &format!("URI:{FRONTEND_ID}, URI:{INTRUDER_ID}")), RefuseReason::PeerNoSpiffeId),
        ("no ID", bad("none", "DNS:frontend.example.com"), RefuseReason::PeerNoSpiffeId),
        ("another domain", bad("other", "URI:spiffe://example.org/x"), RefuseReason::PeerTrustDomainUnknown),
        ("another root", Some(svid(&foreign, "frontend", &format!("URI:{FRONTEND_ID}"))), RefuseReason::PeerUntrusted),
        ("expired", Some(late), RefuseReason::PeerExpired),
        ("no certificate", None, RefuseReason::NoClientCertificate),
    ];
    for (name, svid, reason) in cases {
        let output = call_with_curl(&pair, svid.as_ref()).unwrap();
        assert!(!output.status.success(), "{name}: {output:?}");
        refused(&pair.node_b, Host::Legacy, reason, "").unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    // Signed by the very root, and still no SVIDs: what it says is in the detail, with its field.
    let rules = [
        ("unused", "basicConstraints = critical, CA:FALSE\n", "leaf: it has no keyUsage"),
        ("lenient", "keyUsage = digitalSignature\n", "leaf: its keyUsage is not critical"),
        ("signer", "keyUsage = critical, digitalSignature, keyCertSign\n", "leaf: its keyUsage has keyCertSign"),
        ("server", "keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\n", "lacks clientAuth"),
        ("authority", "basicConstraints = critical, CA:TRUE\n", "leaf: basicConstraints make it a CA"),
    ];
    for (name, lines, says) in rules {
        let svid = extended(&pair.authority, name, &named(lines));
        let output = call_with_curl(&pair, Some(&svid)).unwrap();
        assert!(!output.status.success(), "{name}: {output:?}");
        refused(&pair.node_b, Host::Legacy, RefuseReason::PeerBadCertificate, says)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    assert_eq!(service.accepted().unwrap(), before, "the service saw a connection");
}

#[test]
fn direct_servers_are_called_with_the_workloads_svid_and_refused_by_theirs() {
    let pair = Pair::start(&Setup { files: &[("direct.yaml", DIRECT)], ..Setup::default() }).unwrap();
    let directory = pair.site.rig.directory();
    let good = svid(&pair.authority, "backend", &format!("URI:{BACKEND_ID}, IP:198.18.30.2"));
    let bad = svid(&pair.authority, "intruder", &format!("URI:{INTRUDER_ID}, IP:198.18.30.2"));
    let root = pair.authority.join("root.crt");
    let script = directory.join("server.py");
    fs::write(&script, include_str!("peers/server.py")).unwrap();
    let files = |svid: &Svid| format!("{} {} {}", svid.certificate.display(), svid.key.display(), root.display());
    let openssl = format!(
        "openssl s_server -accept 4433 -www -tls1_3 -Verify 2 -verify_return_error -cert {} -key {} -CAfile {}",
        good.certificate.display(),
        good.key.display(),
        root.display()
    );
    let log = directory.join("servers.log");
    let _servers = [
        pair.site.legacy.spawn(&openssl, &log).unwrap(),
        pair.site.legacy.spawn(&format!("python3 {} 4434 {}", script.display(), files(&good)), &log).unwrap(),
        pair.site.legacy.spawn(&format!("python3 {} 4435 {}", script.display(), files(&bad)), &log).unwrap(),
    ];
    for port in [4433, 4434, 4435] {
        let address = SocketAddr::new(Host::Legacy.v4(), port);
        // From the host itself, past any gateway.
        let open = || pair.site.legacy.enter(|| TcpStream::connect(address).ok()).ok().flatten();
        wait_until("the servers listen", PATIENCE, open).unwrap();
    }
    let call = |port: u16| {
        let line = format!("curl -sS --max-time 10 http://{}:{port}/", Host::Legacy.v4());
        pair.site.frontend.run(&line, PATIENCE).unwrap()
    };
    assert!(call(4433).ok().unwrap().contains("TLSv1.3"), "openssl s_server");
    assert!(call(4434).ok().unwrap().contains(FRONTEND_ID), "Python");
    let output = call(4435);
    assert!(!output.status.success(), "{output:?}");
    refused(&pair.node_a, Host::Frontend, RefuseReason::NotAllowedOutbound, "").unwrap();
}

fn call_with_curl(pair: &Pair, svid: Option<&Svid>) -> Result<Output> {
    let mut command = pair.site.legacy.command("curl");
    command.args(["-sS", "--max-time", "10", "-H", "X-Marker: from-curl"]);
    command.arg("--resolve").arg(format!("{BACKEND}:3000:{}", Host::Backend.v4()));
    command.arg("--cacert").arg(pair.authority.join("root.crt"));
    if let Some(svid) = svid {
        command.arg("--cert").arg(&svid.certificate).arg("--key").arg(&svid.key);
    }
    command.arg(format!("https://{BACKEND}:3000/"));
    run(command, PATIENCE)
}

fn call_with_python(pair: &Pair, svid: &Svid) -> Result<Output> {
    let script = pair.site.rig.directory().join("client.py");
    fs::write(&script, include_str!("peers/client.py"))?;
    let mut command = pair.site.legacy.command("python3");
    command.arg(script).args([&Host::Backend.v4().to_string(), "3000", BACKEND]);
    command.arg(&svid.certificate).arg(&svid.key).arg(pair.authority.join("root.crt"));
    run(command, PATIENCE)
}

fn call_with_openssl(pair: &Pair, svid: &Svid) -> Result<Output> {
    let mut command = pair.site.legacy.command("sh");
    command.arg("-c").arg(format!(
        "printf 'GET / HTTP/1.0\\r\\nX-Marker: from-openssl\\r\\n\\r\\n' | openssl s_client -quiet -tls1_3 \
         -verify_return_error -verify_hostname {BACKEND} -connect {}:3000 -cert {} -key {} -CAfile {}",
        Host::Backend.v4(),
        svid.certificate.display(),
        svid.key.display(),
        pair.authority.join("root.crt").display(),
    ));
    run(command, PATIENCE)
}

/// The newest refusal of `host` has this reason, and `says` is in its detail.
fn refused(gateway: &Gateway, host: Host, reason: RefuseReason, says: &str) -> Result<()> {
    let mut last = None;
    let newest = wait_until(&format!("a refusal with {reason}"), Duration::from_secs(5), || {
        last = gateway.refused().ok()?.into_iter().rev().find(|c| c.client.ip() == host.v4());
        let told = |detail: &Option<String>| detail.as_deref().unwrap_or("").contains(says);
        last.as_ref().is_some_and(|c| c.refused == Some(reason) && told(&c.detail)).then_some(())
    });
    newest.map_err(|error| error.context(format!("the newest is {last:#?}")))
}
