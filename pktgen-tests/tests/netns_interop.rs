//! Interop: the clients and servers that users have speak mTLS with a gateway, without one of their
//! own: curl, Envoy with its SPIFFE validator, Go, Java, nginx, Node and Python, by RSA and ECDSA.
//!
//! Their programs are in `tests/peers`, and are what `deploy/docs/interop.md` shows.

mod interop;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use interop::pki::{Kind, Pki, Svid};
use interop::runtime::{Runtime, sources};
use interop::stage::{Answer, BACKEND_ID, FRONTEND_ID, PATIENCE, Stage, answer, hex, peer_id, refusals};
use pktgen_tests::netns::gateway::{BACKEND, Gateway};
use pktgen_tests::netns::{Host, run};
use snapshot::{ConnectionReport, RefuseReason};

/// Kinds of the gateway's certificate and its peers', so that each is on both sides, and they differ.
const ROUNDS: [(Kind, Kind); 3] = [(Kind::P256, Kind::Rsa2048), (Kind::Rsa2048, Kind::P384), (Kind::P384, Kind::P256)];
/// Whom a program stands for that is run with URL, CHAIN, KEY, ROOT and BODY.
const CLIENTS: [Runtime; 5] = [Runtime::Curl, Runtime::Go, Runtime::Java, Runtime::Node, Runtime::Python];
const SERVERS: [Runtime; 4] = [Runtime::Go, Runtime::Java, Runtime::Node, Runtime::Python];
/// Those that are configured instead.
const PROXIES: [Runtime; 2] = [Runtime::Envoy, Runtime::Nginx];

/// Ports of Envoy's plain listeners, by kind, from this one on.
const CALL: u16 = 9000;
const HALF_CLOSE: u16 = 4700;

/// Where a server of this runtime listens with a certificate of this kind.
fn port(runtime: Runtime, kind: Kind) -> u16 {
    4400 + 10 * runtime as u16 + kind as u16
}

/// The same with an ID that nobody allows, and with a root that nobody knows.
fn bad_ports(runtime: Runtime) -> [u16; 2] {
    [4408, 4409].map(|port| port + 10 * runtime as u16)
}

/// Peers whose certificate is of P-384 also share one group only with the gateway, and not the first one:
/// servers have no other, so that the gateway is asked anew (HelloRetryRequest), and clients send a share
/// of P-521, which the gateway does not have, so that they are.
fn groups(kind: Kind) -> Option<&'static str> {
    (kind == Kind::P384).then_some("P-521:P-256")
}

fn group(kind: Kind) -> Option<&'static str> {
    (kind == Kind::P384).then_some("P-256")
}

/// Envoy's and nginx's configuration with its words filled in, as a file.
fn configured(stage: &Stage, source: &str, name: &str, words: &[(&str, String)]) -> String {
    let mut text = fs::read_to_string(sources().join(source)).unwrap();
    // The comment names the words too.
    text = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    for (word, value) in words {
        text = text.replace(word, value);
    }
    let file = stage.pair.site.rig.directory().join(name);
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn envoy(stage: &mut Stage, kind: Kind) -> Svid {
    let svid = stage.pki.issue(kind, "envoy", &peer_id(Runtime::Envoy));
    let words = [
        ("PORT", port(Runtime::Envoy, kind).to_string()),
        ("CALL", (CALL + kind as u16).to_string()),
        ("GATEWAY", Host::Backend.v4().to_string()),
        ("CHAIN", svid.chain.display().to_string()),
        ("KEY", svid.key.display().to_string()),
        ("ROOT", stage.pki.root.display().to_string()),
        ("GROUPS", group(kind).unwrap_or("X25519").to_owned()),
    ];
    let file = configured(stage, "envoy/envoy.yaml", &format!("envoy-{kind:?}.yaml"), &words);
    let program = Runtime::Envoy.program().display().to_string();
    let options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c", &file];
    stage.spawn(&[&[program][..], &options.map(str::to_owned)].concat());
    stage.wait_for(Host::Legacy, port(Runtime::Envoy, kind));
    svid
}

fn nginx(stage: &mut Stage, kind: Kind) -> Svid {
    let svid = stage.pki.issue(kind, "nginx", &peer_id(Runtime::Nginx));
    let words = [
        ("PORT", port(Runtime::Nginx, kind).to_string()),
        ("CHAIN", svid.chain.display().to_string()),
        ("KEY", svid.key.display().to_string()),
        ("ROOT", stage.pki.root.display().to_string()),
        ("GROUPS", group(kind).map_or("auto", |_| "prime256v1").to_owned()),
        ("DIRECTORY", stage.pki.root.parent().unwrap().display().to_string()),
    ];
    let file = configured(stage, "nginx/nginx.conf", &format!("nginx-{kind:?}.conf"), &words);
    stage.spawn(&[Runtime::Nginx.program().display().to_string(), "-c".into(), file]);
    svid
}

fn envoy_version(stage: &Stage) {
    let program = Runtime::Envoy.program().display().to_string();
    let said = run(stage.legacy(&[program, "--version".into()]), PATIENCE).unwrap();
    // `envoy  version: 2c2f…/1.40.0/Clean/RELEASE/BoringSSL`
    let version = said.ok().unwrap().split("version: ").nth(1).and_then(|text| text.split('/').nth(1));
    println!("interop: Envoy is {}", version.unwrap());
}

/// What both sides saw of one call is what it was.
fn check(stage: &Stage, gateway: &Gateway, runtime: Runtime, (own, svid): (&Svid, &Svid), saw: &Answer, expect: &str) {
    let name = runtime.name();
    assert_eq!(saw.body, stage.digest, "{name}: what came back is not what was sent: {saw:?}");
    assert_eq!(saw.peer, expect, "{name}");
    let seen = report(gateway, svid);
    let tls = seen.tls.as_ref().unwrap();
    assert_eq!((seen.peer_id.as_ref(), tls.version.as_str()), (Some(&svid.id), "TLSv1.3"), "{name}");
    assert_eq!(tls.local_serial.as_ref(), Some(&own.serial), "{name}");
    println!("interop: {:<50} {:<15} {}", saw.runtime, tls.group, tls.cipher);
}

/// The connection on which the peer has shown this certificate.
fn report(gateway: &Gateway, svid: &Svid) -> ConnectionReport {
    let shows = |c: &ConnectionReport| c.tls.as_ref().is_some_and(|tls| tls.peer_serial.as_ref() == Some(&svid.serial));
    let all = gateway.connections().unwrap();
    all.iter().rfind(|c| shows(c)).unwrap_or_else(|| panic!("nobody has shown {svid:?}: {all:#?}")).clone()
}

#[test]
fn clients_of_every_runtime_call_a_gateway_and_are_refused_by_the_right_name() {
    CLIENTS.iter().chain(&PROXIES).for_each(|runtime| drop(runtime.program()));
    let mut stage = Stage::start([4400].into_iter());
    stage.serve_plainly(Host::Backend);
    let envoys = Kind::ALL.map(|kind| envoy(&mut stage, kind));
    envoy_version(&stage);
    for (own, theirs) in ROUNDS {
        let shown = stage.pki.issue(own, "backend", BACKEND_ID);
        let probe = stage.pki.issue(Kind::P256, "probe", &peer_id(Runtime::Curl));
        let curl = || stage.call(stage.built.client(Runtime::Curl, None), "/", &probe, None);
        stage.show(&stage.pair.node_b, &shown, || curl().status.success());
        std::thread::scope(|scope| {
            for runtime in CLIENTS {
                let (stage, shown) = (&stage, &shown);
                scope.spawn(move || {
                    let svid = stage.pki.issue(theirs, runtime.name(), &peer_id(runtime));
                    let words = stage.built.client(runtime, groups(theirs));
                    // Java is told by a property, and Python's ssl takes one group only.
                    let told = !matches!(runtime, Runtime::Java | Runtime::Python);
                    let output = stage.call(words, "/", &svid, groups(theirs).filter(|_| told));
                    check(stage, &stage.pair.node_b, runtime, (shown, &svid), &answer(&output), BACKEND_ID);
                    if theirs == Kind::P384 && runtime != Runtime::Python {
                        assert_eq!(report(&stage.pair.node_b, &svid).tls.unwrap().group, "secp256r1", "{runtime:?}");
                    }
                });
            }
        });
        let saw = stage.post(&stage.pair.site.legacy, &format!("http://127.0.0.1:{}/", CALL + theirs as u16)).unwrap();
        check(&stage, &stage.pair.node_b, Runtime::Envoy, (&shown, &envoys[theirs as usize]), &saw, BACKEND_ID);
    }
    stage.pair.ensure_nothing_refused().unwrap();
    key_updates_of_a_client(&stage);
    half_close_of_a_client(&stage);
    refused_clients(&stage);
}

/// Java takes a new key after so many bytes; here twelve times in one upload instead of each 128 GiB.
fn key_updates_of_a_client(stage: &Stage) {
    let svid = stage.pki.issue(Kind::P256, "update", &peer_id(Runtime::Java));
    let mut words = stage.built.client(Runtime::Java, None);
    words.insert(1, format!("-Djava.security.properties={}", stage.key_limits().display()));
    let saw = answer(&stage.call(words, "/digest", &svid, None));
    assert_eq!(saw.body, hex(stage.digest.as_bytes()), "{saw:?}");
}

/// Nothing of this is in an HTTP client: the caller ends its direction, and is answered after that.
fn half_close_of_a_client(stage: &Stage) {
    let backend = &stage.pair.site.backend;
    let listener = backend.enter(|| TcpListener::bind(SocketAddr::new(Host::Backend.v4(), 3001)).unwrap()).unwrap();
    let service = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(hex(&all).as_bytes()).unwrap();
    });
    let svid = stage.pki.issue(Kind::P256, "half", &peer_id(Runtime::Go));
    let mut words = stage.built.half_close();
    words.push(format!("https://{BACKEND}:3001"));
    words.extend([&svid.chain, &svid.key, &stage.pki.root, &stage.body].map(|path| path.display().to_string()));
    let output = run(stage.legacy(&words), PATIENCE).unwrap();
    assert_eq!(output.ok().unwrap(), stage.digest);
    service.join().unwrap();
}

fn refused_clients(stage: &Stage) {
    let stranger = Pki::new(stage.pair.site.rig.directory().join("stranger-pki"));
    let bad = |runtime: Runtime| {
        let id = format!("spiffe://example.com/intruder/{}", runtime.name());
        let intruder = stage.pki.issue(Kind::P256, &format!("intruder-{}", runtime.name()), &id);
        [intruder, stranger.issue(Kind::P256, runtime.name(), &peer_id(runtime))]
    };
    let said = std::thread::scope(|scope| {
        let call = |runtime: Runtime, svid: Svid| {
            let output = stage.call(stage.built.client(runtime, None), "/", &svid, None);
            assert!(!output.status.success(), "served with {svid:?}: {output:?}");
            (svid, output)
        };
        let start = |(runtime, svid)| scope.spawn(move || call(runtime, svid));
        let calls: Vec<_> =
            CLIENTS.into_iter().flat_map(|runtime| bad(runtime).map(|svid| start((runtime, svid)))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>()
    });
    let not_allowed = refusals(&stage.pair.node_b, RefuseReason::NotAllowedInbound, CLIENTS.len());
    let untrusted = refusals(&stage.pair.node_b, RefuseReason::PeerUntrusted, CLIENTS.len());
    for (svid, output) in &said {
        println!("interop: {} is told: {}", svid.id, told(&output.stderr));
        if svid.id.contains("/intruder/") {
            assert!(not_allowed.iter().any(|c| c.peer_id.as_ref() == Some(&svid.id)), "{svid:?}: {not_allowed:#?}");
        }
    }
    assert_eq!(not_allowed.len() + untrusted.len(), stage.pair.node_b.refused().unwrap().len(), "and nothing else");
}

/// The line of an error that says most: of a trace the one about TLS, else the last.
fn told(stderr: &str) -> &str {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().find(|line| line.to_lowercase().contains("alert")).or_else(|| lines().next_back()).unwrap_or_default()
}

#[test]
fn what_the_page_shows_is_in_the_programs_that_ran() {
    let page = sources().join("../../../deploy/docs/interop.md");
    let page = fs::read_to_string(page).unwrap();
    let mut blocks = 0;
    // ```js node/client.js
    for block in page.split("```").skip(1).step_by(2) {
        let (head, code) = block.split_once('\n').unwrap();
        let Some((_, file)) = head.split_once(' ') else { continue };
        let source = fs::read_to_string(sources().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        // Pieces, with what lies between them left out.
        for piece in code.split("…\n") {
            assert!(source.contains(piece.trim_end()), "{file} has not what the page shows:\n{piece}");
        }
        blocks += 1;
    }
    assert!(blocks >= 7, "the page shows {blocks} of the programs");
}

#[test]
fn servers_of_every_runtime_are_called_by_a_gateway_and_refused_by_the_right_name() {
    SERVERS.iter().chain(&PROXIES).for_each(|runtime| drop(runtime.program()));
    let all = || SERVERS.iter().chain(&PROXIES);
    let good = all().flat_map(|runtime| Kind::ALL.map(|kind| port(*runtime, kind)));
    let mut stage = Stage::start(good.chain(SERVERS.into_iter().flat_map(bad_ports)).chain([HALF_CLOSE]));
    let stranger = Pki::new(stage.pair.site.rig.directory().join("stranger-pki"));
    let svids = SERVERS.map(|runtime| serve(&mut stage, &stranger, runtime));
    stage.serve_plainly(Host::Legacy);
    let envoys = Kind::ALL.map(|kind| envoy(&mut stage, kind));
    let nginxes = Kind::ALL.map(|kind| nginx(&mut stage, kind));
    all().for_each(|runtime| Kind::ALL.iter().for_each(|kind| stage.wait_for(Host::Legacy, port(*runtime, *kind))));
    SERVERS.into_iter().flat_map(bad_ports).for_each(|port| stage.wait_for(Host::Legacy, port));
    let call = |port: u16| stage.post(&stage.pair.site.frontend, &format!("http://{}:{port}/", Host::Legacy.v4()));
    for (own, theirs) in ROUNDS {
        let shown = stage.pki.issue(own, "frontend", FRONTEND_ID);
        stage.show(&stage.pair.node_a, &shown, || call(port(Runtime::Go, theirs)).is_ok());
        // nginx has no variable for a URI SAN.
        let serial = shown.serial.to_uppercase();
        let proxies = [(Runtime::Envoy, &envoys, FRONTEND_ID), (Runtime::Nginx, &nginxes, serial.as_str())];
        let servers = SERVERS.iter().zip(&svids).map(|(runtime, svids)| (*runtime, svids, FRONTEND_ID));
        for (runtime, svids, expect) in servers.chain(proxies) {
            let saw = call(port(runtime, theirs)).unwrap_or_else(|error| panic!("{}: {error:#}", runtime.name()));
            let svid = &svids[theirs as usize];
            check(&stage, &stage.pair.node_a, runtime, (&shown, svid), &saw, expect);
            if theirs == Kind::P384 {
                assert_eq!(report(&stage.pair.node_a, svid).tls.unwrap().group, "secp256r1", "{}", runtime.name());
            }
        }
    }
    half_close_of_a_workload(&stage);
    stage.pair.ensure_nothing_refused().unwrap();
    for (place, reason) in [RefuseReason::NotAllowedOutbound, RefuseReason::PeerUntrusted].into_iter().enumerate() {
        let ports = SERVERS.map(|runtime| bad_ports(runtime)[place]);
        assert!(ports.iter().all(|port| call(*port).is_err()), "one of {ports:?} was called");
        let refused = refusals(&stage.pair.node_a, reason, SERVERS.len());
        assert_eq!(refused.iter().map(|c| c.server.port()).collect::<Vec<_>>(), ports, "{reason}");
    }
}

/// Starts a runtime's server with a certificate of each kind, and with two that are refused.
fn serve(stage: &mut Stage, stranger: &Pki, runtime: Runtime) -> [Svid; 3] {
    let name = runtime.name();
    let svids = Kind::ALL.map(|kind| stage.pki.issue(kind, name, &peer_id(runtime)));
    let intruder = stage.pki.issue(Kind::P256, &format!("bad-{name}"), "spiffe://example.com/intruder");
    let foreign = stranger.issue(Kind::P256, name, &peer_id(runtime));
    let listener = |port: u16, svid: &Svid| format!("{port},{},{}", svid.chain.display(), svid.key.display());
    let mut listeners: Vec<String> = Kind::ALL.map(|kind| listener(port(runtime, kind), &svids[kind as usize])).into();
    let [no_one, nowhere] = bad_ports(runtime);
    listeners.extend([listener(no_one, &intruder), listener(nowhere, &foreign)]);
    let last = Kind::P384 as usize;
    let root = stage.pki.root.display().to_string();
    match runtime {
        Runtime::Java => {
            let apart = listeners.remove(last);
            stage.spawn(&[stage.built.server(runtime, group(Kind::P384)), vec![root.clone(), apart]].concat());
        }
        Runtime::Python => listeners[last].push_str(",prime256v1"),
        Runtime::Go | Runtime::Node => listeners[last].push_str(",P-256"),
        Runtime::Curl | Runtime::Envoy | Runtime::Nginx => unreachable!("{name} is none of SERVERS"),
    }
    if runtime == Runtime::Go {
        listeners.push(listener(HALF_CLOSE, &svids[0]) + ",half-close");
    }
    let mut words = stage.built.server(runtime, None);
    if runtime == Runtime::Java {
        // New keys also where a server sends.
        words.insert(1, format!("-Djava.security.properties={}", stage.key_limits().display()));
    }
    stage.spawn(&[words, vec![root], listeners].concat());
    svids
}

fn half_close_of_a_workload(stage: &Stage) {
    let address = SocketAddr::new(Host::Legacy.v4(), HALF_CLOSE);
    let content = fs::read(&stage.body).unwrap();
    let answer = stage.pair.site.frontend.enter(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&content)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    assert_eq!(answer.unwrap().unwrap().trim(), stage.digest);
}
