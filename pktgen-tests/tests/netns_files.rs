//! A workload whose SVID comes out of files calls one of the embedded CA, through both gateways:
//! files are replaced in every way that writers have while calls run, and nobody notices.
//!
//! The two sources have different roots. Peers verify each other because both gateways have both:
//! node-a's files bring the second root in their bundle, node-b's CA has it in its `bundle.pem`.
//!
//! `SLUICE_ROTATION_SECONDS=180 cargo test --test netns_files` rotates for longer.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use pktgen_tests::calls::{Calls, rest_until};
use pktgen_tests::load::{Server, call, complete, open};
use pktgen_tests::netns::gateway::{self, Identity};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, wait_until};

const FRONTEND_ID: &str = "spiffe://example.com/myapp/app/frontend";
const PATIENCE: Duration = Duration::from_secs(30);
const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
const RSA: &[&str] = &["-newkey", "rsa:2048"];
const ED25519: &[&str] = &["-newkey", "ed25519"];

/// An issuer that neither gateway knows but by its root, and the volume that it writes to.
struct Issuer {
    authority: PathBuf,
    /// The roots of both sources.
    bundle: String,
    volume: PathBuf,
    generation: AtomicU64,
}

struct Leaf {
    certificate: String,
    key: String,
    serial: String,
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Issuer {
    fn new(directory: &Path, other_root: &str) -> Self {
        let authority = directory.join("issuer");
        gateway::authority(&authority).unwrap();
        let bundle = fs::read_to_string(authority.join("root.crt")).unwrap() + other_root;
        let config = format!(
            "[req]\ndistinguished_name = dn\nprompt = no\nx509_extensions = svid\n[dn]\nO = SPIFFE\n[svid]\n\
             basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
             extendedKeyUsage = serverAuth, clientAuth\nsubjectAltName = URI:{FRONTEND_ID}\n"
        );
        fs::write(authority.join("svid.cnf"), config).unwrap();
        Self { authority, bundle, volume: directory.join("certs"), generation: AtomicU64::new(0) }
    }

    fn leaf(&self, key: &[&str]) -> Leaf {
        let file = |name: &str| self.authority.join(name).display().to_string();
        let [config, ca, ca_key, certificate, own_key] =
            ["svid.cnf", "root.crt", "root.key", "leaf.crt", "leaf.key"].map(file);
        let fixed = ["req", "-x509", "-new", "-nodes", "-days", "1", "-config", &config, "-CA", &ca, "-CAkey", &ca_key];
        openssl(&[&fixed[..], key, &["-out", &certificate, "-keyout", &own_key]].concat());
        let serial = openssl(&["x509", "-noout", "-serial", "-in", &certificate]);
        let read = |path: &str| fs::read_to_string(path).unwrap();
        Leaf {
            certificate: read(&certificate),
            key: read(&own_key),
            serial: serial.trim().trim_start_matches("serial=").to_lowercase(),
        }
    }

    /// One that ends so soon. `openssl req` counts in days, `openssl ca` in seconds.
    fn short_lived(&self, left: Duration) -> Leaf {
        let leaf = self.leaf(P256);
        let file = |name: &str| self.authority.join(name).display().to_string();
        let ca = format!(
            "[ca]\ndefault_ca = root\n[root]\ndatabase = {}\nunique_subject = no\nrand_serial = yes\n\
             new_certs_dir = {}\ndefault_md = sha256\npolicy = any\n[any]\norganizationName = optional\n",
            file("index"),
            self.authority.display()
        );
        fs::write(file("ca.cnf"), ca).unwrap();
        fs::write(file("index"), "").unwrap();
        let at = |what: &str| {
            let output = Command::new("date").args(["-u", "-d", what, "+%Y%m%d%H%M%SZ"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let (from, until) = (at("-1 minute"), at(&format!("+{} seconds", left.as_secs())));
        openssl(&["req", "-new", "-key", &file("leaf.key"), "-config", &file("svid.cnf"), "-out", &file("leaf.csr")]);
        openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            &file("ca.cnf"),
            "-startdate",
            &from,
            "-enddate",
            &until,
            "-in",
            &file("leaf.csr"),
            "-cert",
            &file("root.crt"),
            "-keyfile",
            &file("root.key"),
            "-extfile",
            &file("svid.cnf"),
            "-extensions",
            "svid",
            "-out",
            &file("leaf.crt"),
        ]);
        let serial = openssl(&["x509", "-noout", "-serial", "-in", &file("leaf.crt")]);
        let certificate = fs::read_to_string(file("leaf.crt")).unwrap();
        Leaf { certificate, serial: serial.trim().trim_start_matches("serial=").to_lowercase(), ..leaf }
    }

    fn files<'a>(&'a self, leaf: &'a Leaf) -> [(&'static str, &'a str); 3] {
        [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), ("ca.crt", &self.bundle)]
    }

    /// As the kubelet does it: all files anew, then one link is swapped.
    fn swap(&self, leaf: &Leaf) {
        let number = self.generation.fetch_add(1, Ordering::Relaxed);
        let own = format!("..{number}");
        fs::create_dir_all(self.volume.join(&own)).unwrap();
        for (name, content) in self.files(leaf) {
            let path = self.volume.join(&own).join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        }
        let [data, aside] = ["..data", "..data_tmp"].map(|name| self.volume.join(name));
        symlink(&own, &aside).unwrap();
        fs::rename(aside, data).unwrap();
        match number.checked_sub(1) {
            Some(before) => fs::remove_dir_all(self.volume.join(format!("..{before}"))).unwrap(),
            None => self.files(leaf).iter().for_each(|(name, _)| {
                symlink(format!("..data/{name}"), self.volume.join(name)).unwrap();
            }),
        }
    }

    /// One file after the other, each emptied and written again.
    fn truncate(&self, leaf: &Leaf) {
        self.files(leaf).iter().for_each(|(name, content)| fs::write(self.volume.join(name), content).unwrap());
    }
}

/// Both gateways up, node-a's frontend with the files that `issuer` writes, all else of embedded CAs.
fn start(setup: &Setup<'_>, key: &[&str]) -> (Pair, Issuer, Leaf) {
    let mut pair = Pair::configure(setup).unwrap();
    let root = fs::read_to_string(pair.authority.join("root.crt")).unwrap();
    let issuer = Issuer::new(pair.site.rig.directory(), &root);
    let leaf = issuer.leaf(key);
    issuer.swap(&leaf);
    let file = pair.node_a.directory().join("gateway.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with("identity:")).unwrap();
    let embedded = line.trim().trim_start_matches("identity:").trim().trim_start_matches('{');
    let sources = format!(
        "  identity:\n    sources:\n      - {{ name: certs, source: files, files: {{ directory: {} }}, workloads: \
         [riptides-system/frontend] }}\n      - {{ name: node-ca,{embedded}",
        issuer.volume.display()
    );
    fs::write(&file, text.replace(line, &sources)).unwrap();
    // The set-up's part of the trust: a root that only node-a's files know would be a stranger's to node-b.
    fs::write(pair.node_b.directory().join("ca/bundle.pem"), &issuer.bundle).unwrap();
    pair.node_a.launch().unwrap();
    pair.node_b.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    (pair, issuer, leaf)
}

/// What node-a says about the frontend, once `want` holds of it.
fn frontend(pair: &Pair, what: &str, want: impl Fn(&Identity) -> bool) -> Identity {
    let mut last = None;
    let found = wait_until(what, PATIENCE, || {
        let identities = pair.node_a.report().ok()?.identities;
        last = identities.into_iter().find(|identity| identity.spiffe_id == FRONTEND_ID);
        last.take_if(|identity| want(identity))
    });
    found.unwrap_or_else(|error| panic!("{error:#}; last {last:?}"))
}

/// The SVID is in force for node-b too: new handshakes show it.
fn in_force(pair: &Pair, leaf: &Leaf) {
    frontend(pair, "the files are taken", |i| i.serial.as_ref() == Some(&leaf.serial) && i.error.is_none());
    wait_until("node-b sees the serial on a new connection", PATIENCE, || {
        serials(pair).contains(&leaf.serial).then_some(())
    })
    .unwrap();
}

fn serials(pair: &Pair) -> BTreeSet<String> {
    let connections = pair.node_b.connections().unwrap();
    connections.into_iter().filter_map(|connection| connection.tls?.peer_serial).collect()
}

#[test]
fn files_are_replaced_in_every_way_under_calls_and_a_torn_write_is_named_and_changes_nothing() {
    let (pair, issuer, first) = start(&Setup::default(), P256);
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    let held = pair.site.frontend.enter(|| open(address, 1)).unwrap().unwrap();
    let calls = Calls::start(&pair.site.frontend, address, 50);
    let known = frontend(&pair, "the first SVID", |identity| identity.serial.is_some());
    assert_eq!((known.serial, known.source.as_deref()), (Some(first.serial.clone()), Some("certs")));
    in_force(&pair, &first);

    for key in [RSA, P384, ED25519, P256] {
        let leaf = issuer.leaf(key);
        issuer.swap(&leaf);
        in_force(&pair, &leaf);
    }
    let leaf = issuer.leaf(P256);
    issuer.truncate(&leaf);
    in_force(&pair, &leaf);

    let (torn, other) = (issuer.volume.join("tls.key"), issuer.leaf(P256));
    fs::write(&torn, &other.key).unwrap();
    let named = frontend(&pair, "the torn write is named", |identity| identity.error.is_some());
    let error = named.error.unwrap();
    assert!(error.starts_with(&format!("{}: public key: ", torn.display())), "{error}");
    assert!(error.contains(&format!("is not that of the certificate in {}", issuer.volume.join("tls.crt").display())));
    assert_eq!(named.serial.as_ref(), Some(&leaf.serial), "the old one stays in force");
    let problems = pair.node_a.report().unwrap().problems;
    assert!(problems.iter().any(|p| p.contains(FRONTEND_ID) && p.contains("tls.key")), "{problems:?}");
    pair.site.frontend.enter(|| call(address, 2, 1000)).unwrap().expect("a new handshake by the old one");
    issuer.truncate(&other);
    in_force(&pair, &other);

    let (count, failures) = calls.finish();
    println!("{count} calls");
    assert_eq!(failures, Vec::<String>::new());
    complete(&held, 1, 100_000).expect("the connection from before all of it");
    assert_eq!(server.failures(), Vec::<String>::new());
    pair.ensure_nothing_refused().unwrap();
}

#[test]
fn an_svid_of_files_that_ends_ends_for_its_workload_alone() {
    let (pair, issuer, first) = start(&Setup::default(), P256);
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    in_force_after_a_call(&pair, address, &first);
    let short = issuer.short_lived(Duration::from_secs(10));
    issuer.swap(&short);
    in_force_after_a_call(&pair, address, &short);
    let gone = frontend(&pair, "it has ended", |identity| identity.serial.is_none());
    let error = gone.error.expect("why there is none");
    assert!(error.contains("tls.crt: notAfter of"), "{error}");
    let refused = pair.site.frontend.enter(|| call(address, 7, 1000)).unwrap();
    assert!(refused.is_err(), "nobody calls without an SVID");
    wait_until("node-a tells why", PATIENCE, || {
        let refusals = pair.node_a.refused().ok()?;
        refusals.iter().any(|c| c.refused == Some(snapshot::RefuseReason::NoSvid)).then_some(())
    })
    .unwrap();
    let others = pair.node_b.report().unwrap().identities;
    assert!(others.iter().any(|identity| identity.serial.is_some()), "the backend's is untouched");
    let next = issuer.leaf(P256);
    issuer.swap(&next);
    in_force_after_a_call(&pair, address, &next);
    assert_eq!(server.failures(), Vec::<String>::new());
}

fn in_force_after_a_call(pair: &Pair, address: SocketAddr, leaf: &Leaf) {
    frontend(pair, "the files are taken", |i| i.serial.as_ref() == Some(&leaf.serial) && i.error.is_none());
    wait_until("a call shows the serial", PATIENCE, || {
        pair.site.frontend.enter(|| call(address, 3, 1000)).ok()?.ok()?;
        serials(pair).contains(&leaf.serial).then_some(())
    })
    .unwrap();
}

#[test]
fn a_rotation_every_second_fails_no_handshake_and_drops_no_connection() {
    let seconds = std::env::var("SLUICE_ROTATION_SECONDS").ok().map_or(8, |text| text.parse::<u32>().unwrap());
    // The embedded side renews at half of its life: every three seconds.
    let (pair, issuer, first) = start(&Setup { ttl: "6s", ..Setup::default() }, P256);
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    let hold = || {
        let opened = pair.site.frontend.enter(|| (1..=20).map(|n| open(address, n)).collect::<Result<Vec<_>>>());
        opened.unwrap().expect("connections that are held")
    };
    let end = |held: Vec<TcpStream>| {
        for (number, stream) in (1..).zip(&held) {
            complete(stream, number, 10_000).expect("a connection from before forty rotations");
        }
    };
    let mut held = hold();
    let calls = Calls::start(&pair.site.frontend, address, 200);
    let (began, mut shown) = (Instant::now(), BTreeSet::from([first.serial]));
    for second in 1..=seconds {
        let leaf = issuer.leaf(P256);
        issuer.swap(&leaf);
        rest_until(began + Duration::from_secs(1) * second);
        shown.extend(serials(&pair));
        // The server gives up on who says nothing for a minute.
        if second % 40 == 0 {
            end(std::mem::replace(&mut held, hold()));
        }
    }
    let took = began.elapsed();
    let (count, failures) = calls.finish();
    let rate = count as f64 / took.as_secs_f64();
    println!("{count} calls in {took:.1?}, {rate:.0}/s, over {} SVIDs, {seconds} were written", shown.len());
    assert_eq!(failures, Vec::<String>::new());
    assert!(shown.len() as u32 > seconds / 2, "of {seconds} SVIDs, {} were seen", shown.len());
    end(held);
    assert_eq!(server.failures(), Vec::<String>::new());
    pair.ensure_nothing_refused().unwrap();
}
