//! Session tickets of real gateways: between the two, and with OpenSSL as the caller, until the caller may no
//! more.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pktgen_tests::netns::gateway::{BACKEND, Gateway};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Output, Service, run, wait_until};
use snapshot::{ConnectionReport, RefuseReason};

const PATIENCE: Duration = Duration::from_secs(30);
const FRONTEND: &str = "spiffe://example.com/myapp/app/frontend";

/// Both workloads of the demo, with tickets, as deploy/docs/resumption.md has it.
fn with_tickets() -> String {
    let (said, asked) = ("  connection:\n    tls:\n", "  connection:\n    resumption: tickets\n    tls:\n");
    let policy = policy();
    assert_eq!(policy.matches(said).count(), 2);
    policy.replace(said, asked)
}

fn start() -> (Pair, Service) {
    let policy = with_tickets();
    let pair = Pair::start(&Setup { files: &[("policy.yaml", &policy)], ..Setup::default() }).unwrap();
    let service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    (pair, service)
}

/// What has ended of calls from there, once there are `count`.
fn ended(gateway: &Gateway, from: Host, count: usize) -> Vec<ConnectionReport> {
    wait_until(&format!("{count} calls have ended"), PATIENCE, || {
        let all = gateway.connections().ok()?;
        let all: Vec<_> = all.into_iter().filter(|c| c.client.ip() == from.v4() && c.closed.is_some()).collect();
        (all.len() == count).then_some(all)
    })
    .unwrap()
}

fn resumed(all: &[ConnectionReport]) -> Vec<bool> {
    all.iter().map(|call| call.tls.as_ref().is_some_and(|tls| tls.resumed)).collect()
}

#[test]
fn a_second_call_between_the_gateways_is_resumed_and_shown_as_such() {
    let (pair, _service) = start();
    for count in 1..=3 {
        let mut command = pair.site.frontend.command("curl");
        command.args(["-sS", "--max-time", "10", "-H", "X-Marker: again", "--resolve"]);
        command.arg(format!("{BACKEND}:3000:{}", Host::Backend.v4())).arg(format!("http://{BACKEND}:3000/"));
        assert!(run(command, PATIENCE).unwrap().ok().unwrap().contains("you said: again"));
        for gateway in [&pair.node_a, &pair.node_b] {
            let want: Vec<bool> = (0..count).map(|nth| nth > 0).collect();
            let all = ended(gateway, Host::Frontend, count);
            assert_eq!(resumed(&all), want, "{}", gateway.name());
            assert!(all.iter().all(|call| call.peer_id == all[0].peer_id && call.rule == all[0].rule));
        }
    }
    for gateway in [&pair.node_a, &pair.node_b] {
        assert_eq!(gateway.metric("sluice_resumed_total", "").unwrap(), 2.0, "{}", gateway.name());
        let table = gateway.sluice(&["connections", "--closed", "-o", "wide"]).unwrap();
        assert!(table.stdout.contains("TLS13_AES_128_GCM_SHA256 resumed"), "{table:?}");
    }
}

/// An SVID of the frontend's, by the root itself, as a client without a gateway has it: `who.crt`, `who.key`.
fn svid(authority: &Path) {
    let script = format!(
        "cd {} && printf 'subjectAltName = URI:{FRONTEND}\\nbasicConstraints = critical, CA:FALSE\\n\
         keyUsage = critical, digitalSignature\\nextendedKeyUsage = clientAuth, serverAuth\\n' > ext &&\n\
         openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=who -keyout who.key -out csr &&\n\
         openssl x509 -req -days 1 -in csr -CA root.crt -CAkey root.key -CAcreateserial -extfile ext -out who.crt",
        authority.display()
    );
    let log = File::create(authority.join("made.log")).unwrap();
    let status = Command::new("sh").args(["-c", &script]).stderr(log).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(authority.join("made.log")).unwrap());
}

/// As the page has it. `session`: the option with which a ticket is read or written, and its file.
fn call(pair: &Pair, session: &[(&str, &str)]) -> Output {
    let file = |name: &str| pair.authority.join(name).display().to_string();
    let session: String = session.iter().map(|(option, name)| format!(" {option} {}", file(name))).collect();
    let mut command = pair.site.legacy.command("sh");
    command.arg("-c").arg(format!(
        "printf 'GET / HTTP/1.0\\r\\nX-Marker: openssl\\r\\n\\r\\n' | openssl s_client -ign_eof -tls1_3 \
         -verify_return_error -connect {}:3000 -servername {BACKEND} -cert {} -key {} -CAfile {}{session}",
        Host::Backend.v4(),
        file("who.crt"),
        file("who.key"),
        file("root.crt"),
    ));
    run(command, PATIENCE).unwrap()
}

#[test]
fn openssl_resumes_as_long_as_it_may_call_and_each_ticket_once() {
    let (pair, service) = start();
    svid(&pair.authority);
    let first = call(&pair, &[("-sess_out", "one")]);
    assert!(first.stdout.contains("you said: openssl") && first.stdout.contains("New, TLSv1.3"), "{first:?}");
    let second = call(&pair, &[("-sess_in", "one"), ("-sess_out", "two")]);
    assert!(second.stdout.contains("you said: openssl") && second.stdout.contains("Reused, TLSv1.3"), "{second:?}");
    let again = call(&pair, &[("-sess_in", "one")]);
    assert!(again.stdout.contains("you said: openssl") && again.stdout.contains("New, TLSv1.3"), "{again:?}");
    let all = ended(&pair.node_b, Host::Legacy, 3);
    assert_eq!(resumed(&all), [false, true, false]);
    assert!(all.iter().all(|call| call.peer_id.as_deref() == Some(FRONTEND)), "{all:#?}");
    assert_eq!(pair.node_b.metric("sluice_resumption_refused_unknown_total", "").unwrap(), 1.0);

    let before = service.accepted().unwrap();
    let unlisted = with_tickets().replacen(&format!("      - {FRONTEND}\n"), "      - spiffe://example.com/other\n", 1);
    pair.node_b.apply("policy.yaml", &unlisted).unwrap();
    let late = call(&pair, &[("-sess_in", "two")]);
    assert!(!late.stdout.contains("you said"), "{late:?}");
    assert!(!late.stdout.contains("Reused"), "{late:?}");
    let refused = || pair.node_b.refused().ok()?.into_iter().find(|c| c.client.ip() == Host::Legacy.v4())?.refused;
    assert_eq!(wait_until("it is refused", PATIENCE, refused).unwrap(), RefuseReason::NotAllowedInbound);
    assert_eq!(pair.node_b.metric("sluice_resumption_refused_not_allowed_total", "").unwrap(), 1.0);
    assert_eq!(service.accepted().unwrap(), before);
}
