//! Paths that the Gateway names: the directory of the audit log, the network namespaces of ports.

use super::Line;
use crate::config::{Loaded, Selector};
use crate::named;

/// A namespace that no selector needs is wrong all the same, and stops nothing.
pub fn check(loaded: &Loaded) -> Vec<Line> {
    let audit = named::audit(&loaded.gateway).filter(named::Named::is_absent);
    let audit = audit.map(|named| Line::wrong("audit", named.problem));
    let selectors = || loaded.identities.iter().flat_map(|identity| &identity.selectors);
    let needed = |port: &str| selectors().any(|selector| by_process(selector, port));
    let namespaces = named::namespaces(&loaded.gateway).filter(|(_, named)| named.is_absent());
    let namespaces = namespaces.map(|(port, named)| match needed(port) {
        true => Line::wrong(format!("port {port}"), named.problem),
        false => Line::note(format!("port {port}"), named.problem),
    });
    audit.into_iter().chain(namespaces).collect()
}

/// Whether it may tell processes apart behind that port.
fn by_process(selector: &Selector, port: &str) -> bool {
    selector.process.is_some() && selector.interface.as_deref().is_none_or(|interface| interface == port)
}
