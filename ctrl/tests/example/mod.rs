//! The example with addresses for selectors, and the network of the node that its caller runs on.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use ctrl::config::Loaded;
use ctrl::resolve::{Dns, Lookups, Resolved};
use snapshot::{Link, Neighbour, Network, Prefix, Route};

pub const GATEWAY: &str = include_str!("../data/gateway.yaml");
pub const EXAMPLE: &str = include_str!("../data/frontend-backend.yaml");
pub const MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// The example with its selectors replaced, as an operator without Kubernetes writes it.
pub fn by_address() -> String {
    let selectors =
        |app: &str| format!("    - k8s:label:app: {app}\n      k8s:pod:namespace: myapp\n      process:name: node\n");
    let mut text = EXAMPLE.to_owned();
    for (app, address) in [("frontend", "198.18.1.2"), ("backend-api", "198.18.2.2")] {
        assert!(text.contains(&selectors(app)));
        text = text.replace(&selectors(app), &format!("    - net:ip: {address}\n"));
    }
    text
}

pub fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), length.parse().unwrap())
}

/// Node a: 198.18.1.0/24 and 2001:db8:1::/64 behind in0, all else over out0.
pub fn network() -> Network {
    let link = |name: &str, index| Link {
        name: name.into(),
        index,
        mac: [2, 0, 0, 0, 0, index as u8],
        mtu: 1500,
        up: true,
        addresses: vec![],
    };
    let route = |to: &str, interface| Route {
        prefix: prefix(to),
        interface,
        gateway: None,
        metric: 0,
        mtu: None,
        source: None,
    };
    Network {
        revision: 1,
        links: vec![link("in0", 5), link("out0", 6)],
        routes: vec![
            route("0.0.0.0/0", 6),
            route("198.18.1.0/24", 5),
            route("198.18.9.0/24", 5),
            route("198.18.9.128/25", 6),
            route("2001:db8:1::/64", 5),
            route("fe80::/64", 5),
        ],
        neighbours: vec![Neighbour { interface: 5, address: "198.18.1.2".parse().unwrap(), mac: MAC }],
    }
}

pub async fn resolved(loaded: &Loaded) -> Resolved {
    let mut lookups = Lookups::new(Dns::new(&[]));
    lookups.want(loaded);
    lookups.await_first(loaded, Duration::from_secs(1)).await;
    lookups.of(loaded)
}
