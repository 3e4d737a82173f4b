//! Services with virtual addresses: what does not load, what the snapshot has of them, and what is shown.

mod words;

use std::collections::HashSet;
use std::net::SocketAddr;

use ctrl::config::Loaded;
use ctrl::resolve::{Answer, Found, Resolved, of_hosts};
use ctrl::services::{assemble, full, rows, shown};
use snapshot::EndpointLoad;
use snapshot::balance::MOST_ENDPOINTS;
use words::{GATEWAY, load, words};

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n{spec}")
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

const GOOD: &str = "  addresses:
    - { address: 198.18.2.3, port: 3000 }
    - { address: 198.18.2.2, port: 3000 }
    - { address: 198.18.2.4, port: 3000, ready: false }
    - { address: 198.18.2.2, port: 9000 }
    - { address: \"2001:db8:2::2\", port: 3000 }
    - { address: moving.test, port: 3000 }
  virtualAddresses:
    - { address: 203.0.113.10, port: 80, targetPorts: [3000] }
    - { address: \"2001:db8::10\", port: 3000 }
    - { address: 203.0.113.10, port: 90, targetPorts: [9000, 3000] }
";

fn good() -> Loaded {
    load(&[("s.yaml", &service("s", GOOD)), ("g.yaml", GATEWAY)]).unwrap_or_else(|f| panic!("{:#?}", words(&f)))
}

#[test]
fn what_contradicts_itself_is_an_error_and_what_leads_nowhere_a_warning() {
    let identity = "apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: { name: w }\nspec:\n  \
                    workloadID: w\n  selectors: [{ net:ip: 203.0.113.12 }]\n  allowedSPIFFEIDs: { inbound: [] }\n";
    let one = "  addresses: [{ address: 198.18.2.2, port: 3000 }]\n";
    let of = |virtuals: &str| format!("{one}  virtualAddresses: [{virtuals}]\n");
    let mut wrong = String::new();
    for (spec, want) in [
        (
            of("{ address: 203.0.113.10, port: 3000 }, { address: 203.0.113.10, port: 3000 }"),
            "s.yaml:6:61: error: spec.virtualAddresses: 203.0.113.10:3000 is given twice, first in s.yaml:6 [a virtual \
             address is one Service's]",
        ),
        (
            of("{ address: 198.18.2.2, port: 3000 }"),
            "s.yaml:6:22: error: spec.virtualAddresses: 198.18.2.2:3000 is an address of service default/s [nobody \
             listens at a virtual address: take a free one]",
        ),
        (
            of("{ address: 203.0.113.12, port: 3000 }"),
            "s.yaml:6:22: error: spec.virtualAddresses: 203.0.113.12:3000 is an address of workload default/w \
             (w.yaml:1) [nobody listens at a virtual address: take a free one]",
        ),
        (
            of("{ address: 203.0.113.10, port: 80 }"),
            "s.yaml:6:22: warning: spec.virtualAddresses: 203.0.113.10:80 leads nowhere: default/s has no address of its \
             family with port 80",
        ),
        (
            of("{ address: \"2001:db8::10\", port: 3000 }"),
            "s.yaml:6:22: warning: spec.virtualAddresses: [2001:db8::10]:3000 leads nowhere: default/s has no address of \
             its family with port 3000",
        ),
        (
            of("{ address: backend.test, port: 80, targetPort: 3000 }"),
            "s.yaml:6:57: error: spec.virtualAddresses[0].targetPort: there is no such field [did you mean targetPorts? \
             fields here: address, port, targetPorts]",
        ),
        (
            of("{ address: 203.0.113.10, port: 0, targetPorts: [3000] }"),
            "s.yaml:6:53: error: spec.virtualAddresses[0].port: 0 is out of range [use 1 to 65535]",
        ),
    ] {
        let found = load(&[("s.yaml", &service("s", &spec)), ("w.yaml", identity), ("g.yaml", GATEWAY)]);
        let found = found.map_or_else(|faults| words(&faults), |loaded| words(&loaded.warnings));
        if !found.iter().any(|words| words == want) {
            wrong += &format!("{want}\n{found:#?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let denies = "apiVersion: sluice.dev/v1alpha1\nkind: Policy\nmetadata: { name: p }\nspec:\n  workloads: [default/w]\n  \
                  rules:\n    - { action: deny, direction: outbound, cidrs: [203.0.113.10/32] }\n";
    let text = service("s", &of("{ address: 203.0.113.10, port: 3000 }"));
    let loaded = load(&[("s.yaml", &text), ("p.yaml", denies), ("w.yaml", identity), ("g.yaml", GATEWAY)]);
    let warnings = words(&loaded.unwrap_or_else(|f| panic!("{:#?}", words(&f))).warnings);
    assert!(warnings.iter().any(|w| w.contains("203.0.113.10/32 is a virtual address of default/s")), "{warnings:#?}");
}

#[test]
fn behind_a_virtual_address_is_what_is_ready_current_and_of_its_port_and_family() {
    let loaded = good();
    let mut resolved = of_hosts(&loaded);
    let answer = |list: &[&str]| Answer {
        v4: Found::Addresses(list.iter().map(|ip| (ip.parse().unwrap(), std::time::Duration::from_secs(60))).collect()),
        v6: Found::None("none".into()),
    };
    resolved.take("moving.test", &answer(&["198.18.2.8"]), 1_000);
    resolved.take("moving.test", &answer(&["198.18.2.9", "198.18.2.2"]), 2_000);
    let services = made(&loaded, &resolved);
    let of = |nth: usize| -> Vec<String> {
        let endpoints = &services[0].virtual_addresses[nth].endpoints;
        endpoints.iter().map(|&index| services[0].endpoints[index as usize].address.to_string()).collect()
    };
    assert_eq!(of(0), ["198.18.2.2:3000", "198.18.2.3:3000", "198.18.2.9:3000"], "one that has two names is one");
    assert_eq!(of(1), ["[2001:db8:2::2]:3000"]);
    assert_eq!(of(2), ["198.18.2.2:3000", "198.18.2.2:9000", "198.18.2.3:3000", "198.18.2.9:3000"]);
    let all: Vec<_> = services[0].endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert!(all.contains(&"198.18.2.4:3000".to_owned()), "not ready, and still an endpoint by its own address");
    assert!(all.contains(&"198.18.2.8:3000".to_owned()), "replaced, and still captured");
}

/// Where nothing is left out.
fn made(loaded: &Loaded, resolved: &Resolved) -> Vec<snapshot::Service> {
    let (services, warnings) = assemble(loaded, resolved, &HashSet::new());
    assert_eq!(words(&warnings), Vec::<String>::new());
    services
}

/// In a cluster the name of a Service is its virtual address.
#[test]
fn a_name_or_a_workload_that_is_a_virtual_address_costs_the_endpoint_or_the_address_and_no_more() {
    let spec = "  addresses: [{ address: web.test, port: 80 }, { address: 198.18.2.2, port: 80 }]\n  \
                virtualAddresses: [{ address: 203.0.113.10, port: 80 }, { address: 203.0.113.11, port: 80 }]\n";
    let loaded = load(&[("s.yaml", &service("s", spec)), ("g.yaml", GATEWAY)]).unwrap_or_else(|f| panic!("{f:?}"));
    let mut resolved = Resolved::default();
    let v4 = Found::Addresses(vec![("203.0.113.10".parse().unwrap(), std::time::Duration::from_secs(60))]);
    resolved.take("web.test", &Answer { v4, v6: Found::None("none".into()) }, 1_000);
    let owned = ["203.0.113.11".parse().unwrap()].into_iter().collect();
    let (services, warnings) = assemble(&loaded, &resolved, &owned);
    let endpoints: Vec<_> = services[0].endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(endpoints, ["198.18.2.2:80"]);
    let virtuals: Vec<_> = services[0].virtual_addresses.iter().map(|v| v.address.to_string()).collect();
    assert_eq!(virtuals, ["203.0.113.10:80"]);
    let warnings = words(&warnings);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("web.test is 203.0.113.10:80, which is a virtual address"), "{warnings:?}");
    assert!(warnings[1].contains("203.0.113.11:80 is a workload's own"), "{warnings:?}");
}

#[test]
fn more_endpoints_than_a_virtual_address_takes_do_not_cost_the_snapshot() {
    let entries: String = (0..MOST_ENDPOINTS as u32 + 5)
        .map(|n| format!("    - {{ address: {}, port: 80 }}\n", std::net::Ipv4Addr::from(0xc612_0000 + n)))
        .collect();
    let spec = format!("  addresses:\n{entries}  virtualAddresses: [{{ address: 203.0.113.10, port: 80 }}]\n");
    let loaded = load(&[("s.yaml", &service("s", &spec)), ("g.yaml", GATEWAY)]).unwrap_or_else(|f| panic!("{f:?}"));
    let services = made(&loaded, &Resolved::default());
    assert_eq!(services[0].virtual_addresses[0].endpoints.len(), MOST_ENDPOINTS);
    assert_eq!(services[0].endpoints.len(), MOST_ENDPOINTS + 5);
    let warnings = words(&full(&loaded, &services));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("203.0.113.10:80 has 1024 endpoints: any more are given no calls"), "{warnings:?}");
    assert_eq!(full(&good(), &made(&good(), &Resolved::default())), []);
}

#[test]
fn what_the_cores_know_of_an_endpoint_is_summed_and_its_ejection_is_the_last_to_end() {
    let loaded = good();
    let services = made(&loaded, &of_hosts(&loaded));
    let load = |core, address, until| EndpointLoad {
        core,
        address: at(address),
        active: 2,
        connected: 10,
        failed: 5,
        streak: 0,
        ejections: 1,
        ejected_until: until,
    };
    let loads = [
        load(1, "198.18.2.2:3000", Some(1_700_000_031_001)),
        load(0, "198.18.2.2:3000", Some(1_700_000_030_000)),
        load(0, "198.18.2.3:3000", None),
        load(0, "203.0.113.99:1", None),
    ];
    let rows = rows(&shown(&loaded, &services), &loads);
    let row = |address: &str| rows[0].endpoints.iter().find(|row| row.address == at(address)).expect("it is there");
    let both = row("198.18.2.2:3000");
    assert_eq!((both.active, both.connected, both.failed, both.ejections), (4, 20, 10, 2));
    assert_eq!((both.ejected_on.as_slice(), both.ejected_until), (&[0, 1][..], Some(1_700_000_032)));
    assert_eq!((row("198.18.2.3:3000").active, row("198.18.2.3:3000").ejected_until), (2, None));
    assert_eq!((row("198.18.2.4:3000").active, row("198.18.2.4:3000").ready), (0, false));
    assert_eq!(rows[0].virtual_addresses.len(), 3);
}
