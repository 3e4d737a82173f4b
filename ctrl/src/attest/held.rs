//! Routes of ports that lost theirs a moment ago: a flap of an interface is no change of who is where.
//!
//! With its interface the kernel forgets a port's routes, and by them its workloads would be attested
//! nowhere and their connections cut. While a port has no route that claims anybody, the last ones it
//! had stand in for them, for a while: nothing can come from behind it meanwhile. What another port has
//! a route for by now is not held here; nor does the dataplane send by these routes.

use std::collections::HashMap;

use snapshot::{Link, Network, Route};

use super::routes::claims;

/// How long (seconds): as long as TCP waits for a peer that is silent.
const PATIENCE: u64 = 60;

/// What each port had last.
#[derive(Debug, Default)]
pub struct Held {
    ports: HashMap<String, Last>,
}

#[derive(Debug)]
struct Last {
    link: Link,
    routes: Vec<Route>,
    /// Seconds since the epoch; None: it has routes.
    without_since: Option<u64>,
}

impl Held {
    /// `network` with the routes that stand in, at `now`.
    pub fn view(&mut self, network: &Network, ports: &[String], now: u64) -> Network {
        let mut view = network.clone();
        self.ports.retain(|name, _| ports.contains(name));
        for name in ports {
            let link = network.links.iter().find(|link| link.name == *name);
            let routes = |link: &Link| -> Vec<Route> {
                let of_port = network.routes.iter().filter(|route| route.interface == link.index);
                of_port.filter(|route| claims(route.prefix)).cloned().collect()
            };
            match link.map(|link| (link, routes(link))).filter(|(_, routes)| !routes.is_empty()) {
                Some((link, routes)) => {
                    self.ports.insert(name.clone(), Last { link: link.clone(), routes, without_since: None });
                }
                None => self.stand_in(name, link, &mut view, now),
            }
        }
        view
    }

    fn stand_in(&mut self, name: &str, link: Option<&Link>, view: &mut Network, now: u64) {
        let Some(last) = self.ports.get_mut(name) else { return };
        if now.saturating_sub(*last.without_since.get_or_insert(now)) > PATIENCE {
            self.ports.remove(name);
            return;
        }
        let index = match link {
            Some(link) => link.index,
            // Its number may be another interface's by now.
            None if view.links.iter().any(|link| link.index == last.link.index) => return,
            None => {
                view.links.push(Link { up: false, ..last.link.clone() });
                last.link.index
            }
        };
        let moved = |held: &Route| {
            let elsewhere = |route: &&Route| route.interface != index && route.prefix.length >= held.prefix.length;
            view.routes.iter().filter(elsewhere).any(|route| held.prefix.contains(route.prefix.address))
        };
        let stay: Vec<_> = last.routes.iter().filter(|held| !moved(held)).cloned().collect();
        view.routes.extend(stay.into_iter().map(|route| Route { interface: index, ..route }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(index: u32, routes: &[&str]) -> Network {
        let link = Link { name: "in0".into(), index, mac: [2; 6], mtu: 1500, up: true, addresses: vec![] };
        let route = |text: &&str| {
            let (address, length) = text.split_once('/').unwrap();
            let prefix = snapshot::Prefix::new(address.parse().unwrap(), length.parse().unwrap());
            Route { prefix, interface: index, gateway: None, metric: 0, mtu: None, source: None }
        };
        Network { links: vec![link], routes: routes.iter().map(route).collect(), ..Network::default() }
    }

    fn prefixes(network: &Network, index: u32) -> Vec<String> {
        let of_port = network.routes.iter().filter(|route| route.interface == index);
        of_port.map(|route| route.prefix.to_string()).collect()
    }

    #[test]
    fn the_last_routes_stand_in_for_a_while_and_not_longer() {
        let (mut held, ports) = (Held::default(), ["in0".to_owned()]);
        let there = network(3, &["198.18.1.0/24"]);
        assert_eq!(held.view(&there, &ports, 1000), there);
        let without = network(3, &[]);
        assert_eq!(prefixes(&held.view(&without, &ports, 1010), 3), ["198.18.1.0/24"]);
        assert_eq!(prefixes(&held.view(&without, &ports, 1070), 3), ["198.18.1.0/24"]);
        assert_eq!(prefixes(&held.view(&without, &ports, 1071), 3), [""; 0]);
        assert_eq!(prefixes(&held.view(&without, &ports, 1072), 3), [""; 0]);
    }

    #[test]
    fn an_interface_that_is_gone_stands_in_as_one_that_is_down_and_its_successor_takes_over() {
        let (mut held, ports) = (Held::default(), ["in0".to_owned()]);
        held.view(&network(3, &["198.18.1.0/24"]), &ports, 1000);
        let view = held.view(&Network::default(), &ports, 1001);
        assert_eq!((prefixes(&view, 3), view.links[0].up), (vec!["198.18.1.0/24".to_owned()], false));
        // Made again under another number, without routes yet, then with others.
        assert_eq!(prefixes(&held.view(&network(9, &[]), &ports, 1002), 9), ["198.18.1.0/24"]);
        assert_eq!(prefixes(&held.view(&network(9, &["198.18.7.0/24"]), &ports, 1003), 9), ["198.18.7.0/24"]);
        assert_eq!(prefixes(&held.view(&network(9, &[]), &ports, 1004), 9), ["198.18.7.0/24"]);
    }

    #[test]
    fn the_link_local_range_that_comes_first_is_no_word_about_workloads() {
        let (mut held, ports) = (Held::default(), ["in0".to_owned()]);
        held.view(&network(3, &["fe80::/64", "198.18.1.0/24"]), &ports, 1000);
        for now in [1001, 1002] {
            let view = held.view(&network(3, &["fe80::/64"]), &ports, now);
            assert_eq!(prefixes(&view, 3), ["fe80::/64", "198.18.1.0/24"]);
        }
    }

    #[test]
    fn what_another_port_has_a_route_for_by_now_is_not_held() {
        let (mut held, ports) = (Held::default(), ["in0".to_owned()]);
        held.view(&network(3, &["198.18.1.0/24", "198.18.5.0/24"]), &ports, 1000);
        let mut moved = network(3, &[]);
        let there = Link { name: "in1".into(), index: 4, ..moved.links[0].clone() };
        moved.links.push(there);
        moved.routes = network(4, &["198.18.1.2/32"]).routes;
        let view = held.view(&moved, &ports, 1001);
        assert_eq!(
            (prefixes(&view, 3), prefixes(&view, 4)),
            (vec!["198.18.5.0/24".into()], vec!["198.18.1.2/32".into()])
        );
    }

    #[test]
    fn what_never_had_routes_or_is_no_port_has_none() {
        let (mut held, ports) = (Held::default(), ["in0".to_owned()]);
        assert_eq!(held.view(&network(3, &[]), &ports, 1000), network(3, &[]));
        held.view(&network(3, &["198.18.1.0/24"]), &ports, 1000);
        assert_eq!(held.view(&network(3, &[]), &[], 1001), network(3, &[]));
    }

    #[test]
    fn a_number_that_another_interface_has_by_now_is_left_to_it() {
        let (mut held, ports) = (Held::default(), ["in0".to_owned()]);
        held.view(&network(3, &["198.18.1.0/24"]), &ports, 1000);
        let mut other = network(3, &[]);
        other.links[0].name = "eth7".into();
        assert_eq!(held.view(&other, &ports, 1001), other);
    }
}
