//! Tests of policy: every sentence of decision D11, and that route, verdict, explanation and
//! captures agree.

mod living;
mod modes;
mod views;

use ::snapshot::Side;

use super::Route;
use crate::snapshot::Compiled;
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::at;
use crate::tls::{Peer, Root};

pub const OUTSIDE: (Side, &str, &str) = (Side::Outside, "out0", "198.18.9.9:40000");
pub const FROM_FRONTEND: (Side, &str, &str) = (Side::Inside, "in0", "198.18.1.2:40000");
pub const FROM_NOBODY: (Side, &str, &str) = (Side::Inside, "in0", "198.18.1.99:40000");

pub type Way = (Side, &'static str, &'static str);

pub fn route(compiled: &Compiled, (side, interface, client): Way, to: &str) -> Route {
    compiled.route(side, interface, at(client), at(to), NOW)
}

pub fn peer(id: &str) -> Peer {
    Peer { spiffe_id: id.into(), serial: "01".into(), not_after: NOW + 60, root: Root::of_nobody() }
}
