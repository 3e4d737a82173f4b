//! Both gateways with an OpenBao as their identity source: SVIDs that it has signed are renewed under calls,
//! it is stopped, nobody notices, it is started again, and renewal goes on.

mod openbao;

use std::net::SocketAddr;
use std::time::Duration;

use openbao::{Bao, put_secret};
use pktgen_tests::calls::Calls;
use pktgen_tests::load::{Server, call, complete, open};
use pktgen_tests::netns::gateway::{Gateway, Identity};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, wait_until};
use serde_json::json;

const FRONTEND: &str = "spiffe://example.com/myapp/app/frontend";
const BACKEND: &str = "spiffe://example.com/myapp/app/backend-api";
const PATIENCE: Duration = Duration::from_secs(60);

/// An OpenBao beyond the wire, with an AppRole of its own for each node.
struct World {
    bao: Bao,
    role_ids: Vec<String>,
    pair: Pair,
}

impl World {
    fn configure() -> Self {
        let pair = Pair::configure(&Setup::default()).unwrap();
        let bao = Bao::kept(&pair.site.legacy, Host::Legacy.v4(), &pair.site.rig.directory().join("bao"));
        bao.pki("pki");
        bao.policy("sluice", "pki/sign/node");
        let mut role_ids = Vec::new();
        for gateway in [&pair.node_a, &pair.node_b] {
            let (role_id, secret_id) = bao.app_role(gateway.name(), "sluice", json!({}));
            put_secret(&gateway.directory().join("secret-id"), &secret_id);
            std::fs::copy(&bao.ca, gateway.directory().join("bao-ca.pem")).unwrap();
            role_ids.push(role_id);
        }
        let world = Self { bao, role_ids, pair };
        world.live_for("10s");
        world
    }

    /// SVIDs live that long from now on, beginning with new ones.
    fn live_for(&self, ttl: &str) {
        for (gateway, role_id) in self.both().into_iter().zip(&self.role_ids) {
            let file = gateway.directory().join("gateway.yaml");
            let text = std::fs::read_to_string(&file).unwrap();
            let line = text.lines().find(|line| line.trim_start().starts_with("identity:")).unwrap();
            let identity = format!(
                "  identity: {{ source: vault, vault: {{ server: '{}', caBundle: bao-ca.pem, path: pki/sign/node, \
                 ttl: {ttl}, refresh: 1s, auth: {{ appRole: {{ path: {}, roleId: {role_id}, secretIdFile: secret-id }} }} }} }}",
                self.bao.server,
                gateway.name()
            );
            let aside = gateway.directory().join(".gateway.aside");
            std::fs::write(&aside, text.replace(line, &identity)).unwrap();
            std::fs::rename(aside, file).unwrap();
        }
    }

    fn both(&self) -> [&Gateway; 2] {
        [&self.pair.node_a, &self.pair.node_b]
    }

    /// Until what each gateway says of its workload is so.
    fn until(&self, what: &str, is: impl Fn(&Identity) -> bool) -> Vec<Identity> {
        let one = |(gateway, id): (&Gateway, &str)| {
            wait_until(&format!("{} {what}; its log:\n{}", gateway.name(), gateway.tail()), PATIENCE, || {
                let all = gateway.report().ok()?.identities;
                all.into_iter().find(|identity| identity.spiffe_id == id && is(identity))
            })
        };
        self.both().into_iter().zip([FRONTEND, BACKEND]).map(one).collect::<Result<_, _>>().unwrap()
    }

    fn until_renewed(&self, before: &[Identity]) -> Vec<Identity> {
        let serials: Vec<_> = before.iter().map(|identity| identity.serial.clone()).collect();
        self.until("has a newer SVID", |now| now.serial.is_some() && !serials.contains(&now.serial))
    }

    fn until_status(&self, words: &str) {
        for gateway in self.both() {
            let says = || gateway.sluice(&["status"]).ok().filter(|output| output.stdout.contains(words));
            wait_until(&format!("{} says {words}", gateway.name()), PATIENCE, says).unwrap();
        }
    }
}

#[test]
fn svids_that_an_openbao_signs_rotate_under_calls_and_outlive_its_restart() {
    let mut world = World::configure();
    world.pair.node_a.launch().unwrap();
    world.pair.node_b.launch().unwrap();
    let first = world.until("has an SVID", |identity| identity.serial.is_some());
    assert!(first.iter().all(|identity| identity.source.as_deref() == Some("vault")), "{first:?}");
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&world.pair.site.backend, address).unwrap();
    let a_call = |number: u64| world.pair.site.frontend.enter(|| call(address, number, 1000)).unwrap();
    wait_until("they call each other", PATIENCE, || a_call(1).ok()).unwrap();
    let held = world.pair.site.frontend.enter(|| open(address, 2)).unwrap().unwrap();
    let calls = Calls::start(&world.pair.site.frontend, address, 50);
    let second = world.until_renewed(&first);

    // An outage of any length that is shorter than an SVID's life.
    world.live_for("10m");
    let ends = second.iter().filter_map(|identity| identity.not_after).max().unwrap();
    let long = world.until("has one for long", |now| now.not_after.is_some_and(|end| end > ends + 120));
    world.bao.stop();
    world.until_status("no connection: ");
    world.live_for("10s");
    let away = world.until("cannot renew", |now| now.error.as_ref().is_some_and(|why| why.contains("no connection: ")));
    let serials = |all: &[Identity]| all.iter().map(|identity| identity.serial.clone()).collect::<Vec<_>>();
    assert_eq!(serials(&away), serials(&long), "what there was stays in force");
    (100..120).for_each(|number| {
        world.pair.site.frontend.enter(|| call(address, number, 1000)).unwrap().unwrap();
    });

    world.bao.start();
    world.until_status("503, Vault is sealed; unseal it");
    world.bao.unseal();
    let third = world.until_renewed(&long);
    world.until_renewed(&third);
    let (count, failures) = calls.finish();
    println!("{count} calls");
    assert_eq!(failures, Vec::<String>::new());
    complete(&held, 2, 100_000).expect("the connection from before all of it");
    assert_eq!(server.failures(), Vec::<String>::new());
    let fine = world.until("is well", |identity| identity.error.is_none());
    assert!(fine.iter().all(|identity| identity.serial.is_some()));
}
