//! HAProxy as a pair of TCP proxies with mutual TLS between them.
//!
//! Not transparent: the client calls gateway A's own address, A calls B's, and B the server. Its
//! certificates hang on the same authority, root and one intermediate, and each connection is a
//! full handshake, as Sluice's are.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pktgen_tests::netns::gateway::binary;
use pktgen_tests::netns::{Namespace, Process, Site, run};

/// Where the client finds gateway A, and A finds B.
pub const PLAIN: &str = "198.18.1.1:3000";
const SEALED: &str = "198.18.20.1:3443";

const TLS: &str = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 verify required";

/// One side's process and its log.
pub struct Proxy {
    pub process: Process,
    pub log: PathBuf,
}

pub fn start(site: &Site, authority: &Path, server: SocketAddr) -> Result<[Proxy; 2]> {
    let directory = site.rig.directory();
    let root = authority.join("root.crt").display().to_string();
    let mut proxies = Vec::new();
    for (name, namespace) in [("a", &site.node_a), ("b", &site.node_b)] {
        let pem = certificate(directory, authority, name)?;
        let tls = format!("ssl {TLS} ca-file {root} crt {}", pem.display());
        let (listen, call) = match name {
            // `no-ssl-reuse`: no resumption, so that each connection pays for what it claims to be.
            "a" => (format!("bind {PLAIN}"), format!("server b {SEALED} {tls} no-ssl-reuse")),
            _ => (format!("bind {SEALED} {tls} no-tls-tickets"), format!("server s {server}")),
        };
        proxies.push(launch(namespace, directory, name, &configuration(&listen, &call))?);
    }
    proxies.try_into().ok().context("two proxies")
}

/// As Debian ships it, but for one thread, and no HTTP.
fn configuration(listen: &str, call: &str) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 4000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
         listen relay\n    {listen}\n    {call}\n"
    )
}

fn launch(namespace: &Namespace, directory: &Path, name: &str, text: &str) -> Result<Proxy> {
    let (file, log) = (directory.join(format!("haproxy-{name}.cfg")), directory.join(format!("haproxy-{name}.log")));
    fs::write(&file, text)?;
    let mut check = Command::new("haproxy");
    check.arg("-c").arg("-f").arg(&file);
    run(check, Duration::from_secs(10))?.ok().with_context(|| format!("haproxy refuses its configuration:\n{text}"))?;
    let process = namespace.spawn(&format!("haproxy -db -f {}", file.display()), &log)?;
    Ok(Proxy { process, log })
}

/// Leaf, intermediate and key in one file, as `crt` takes them.
fn certificate(directory: &Path, authority: &Path, name: &str) -> Result<PathBuf> {
    let own = directory.join(format!("haproxy-{name}"));
    let mut issue = Command::new(binary("sluice")?);
    issue.args(["ca", "issue-node", "--node", name, "--root"]).arg(authority).arg("--out").arg(&own);
    run(issue, Duration::from_secs(20))?.ok()?;
    let extensions = "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
                      extendedKeyUsage = serverAuth, clientAuth\n";
    fs::write(own.join("leaf.ext"), format!("{extensions}subjectAltName = URI:spiffe://example.com/haproxy/{name}\n"))?;
    openssl(
        &own,
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=haproxy -keyout leaf.key -out leaf.csr",
    )?;
    openssl(
        &own,
        "x509 -req -days 1 -set_serial 1 -in leaf.csr -CA node.crt -CAkey node.key -extfile leaf.ext -out leaf.crt",
    )?;
    let mut pem = String::new();
    for part in ["leaf.crt", "node.crt", "leaf.key"] {
        pem += &fs::read_to_string(own.join(part)).with_context(|| format!("read {part}"))?;
    }
    // Beside the keys, in a directory that only root reads.
    let path = own.join("haproxy.pem");
    fs::write(&path, pem)?;
    Ok(path)
}

fn openssl(directory: &Path, line: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(line.split_whitespace()).current_dir(directory);
    run(command, Duration::from_secs(20))?.ok().map(drop)
}

/// HAProxy's and its TLS library's version.
pub fn version() -> Result<String> {
    let mut command = Command::new("haproxy");
    command.arg("-vv");
    let output = run(command, Duration::from_secs(10)).context("haproxy is not installed: apt-get install haproxy")?;
    let text = output.ok()?;
    let find = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).map(str::trim);
    let Some(version) = find("HAProxy version ") else { bail!("`haproxy -vv` names no version") };
    let version = version.split_whitespace().next().unwrap_or_default();
    Ok(format!("HAProxy {version}, {}", find("Running on OpenSSL version : ").unwrap_or("without OpenSSL")))
}
