//! What refuses a call whoever its processes turn out to be: then nobody is asked.

use std::net::{IpAddr, SocketAddr};

use ::snapshot::{Action, RuleDirection, Side, TlsMode};

use super::Route;
use super::route::Svids;
use super::rules::{Ends, Trial};
use crate::snapshot::{Compiled, Whose};

impl Compiled {
    /// The refusal of a call that no answer would help: by denies of addresses alone, or since a caller without
    /// identity calls where all ask for one.
    pub fn hopeless(&self, side: Side, interface: &str, client: IpAddr, server: SocketAddr) -> Option<Route> {
        let ends =
            Ends { client: client.to_canonical(), server: SocketAddr::new(server.ip().to_canonical(), server.port()) };
        let source = self.places.source(interface, ends.client);
        let callee = self.places.destination(ends.server.ip());
        let denied = |whose, direction| {
            let seen = ends.seen(direction, None);
            let says = |index| self.first_rule(index, Action::Deny, Trial::Enforced, &seen).is_some();
            first_of_all(whose, says).and_then(|index| self.denied(index, direction, ends))
        };
        let outbound = || if side == Side::Inside { denied(source, RuleDirection::Outbound) } else { None };
        let stranger = side == Side::Inside && matches!(source, Whose::Nobody);
        let unidentified = || {
            let asks = |index: usize| stranger && self.workloads[index].mode_of(ends.server.port()) == TlsMode::Mutual;
            first_of_all(callee, asks).map(|index| self.unidentified_local(Svids::AsTheyAre, index, ends))
        };
        outbound().or_else(|| denied(callee, RuleDirection::Inbound)).or_else(unidentified)
    }
}

/// The first of those that it may be, if this holds for every one.
fn first_of_all(whose: Whose<'_>, holds: impl Fn(usize) -> bool) -> Option<usize> {
    match whose {
        Whose::Nobody => None,
        Whose::One(index) => holds(index).then_some(index),
        Whose::Shared(_, shared) => {
            shared.members.iter().all(|&member| holds(member)).then(|| shared.members.first().copied()).flatten()
        }
    }
}
