//! Tests of policy: every sentence of decision D11, and that route, verdict, explanation and
//! captures agree.
//!
//! | D11 | held by |
//! |---|---|
//! | Selector entries are ORed, keys within one ANDed | ctrl `assemble`: a_selector_binds_the_addresses_… |
//! | No `inbound` list under MUTUAL: nobody; empty list: nobody | [`modes`]: inbound_each_mode_… |
//! | … with a warning from `validate` | ctrl `config_faults`: what_is_allowed_and_surprising_… |
//! | Outbound is `egress` AND `allowedSPIFFEIDs.outbound` | [`modes`]: egress_is_the_entrys_list_and_… |
//! | No `connection` on an egress entry: the workload's mode | [`modes`]: egress_each_mode_does_… |
//! | `unmatchedEgress`: workload, list, Gateway, else pass | ctrl `assemble`: an_unmatched_call_gets_… |
//! | … refuses or passes | [`modes`]: egress_that_no_entry_matches_… |
//! | … always counted and shown | `sim_policies`: what_policy_lets_pass_in_clear_…; `sim_refusals`; xdp-prog `steer` (passed_unmatched) |
//! | PERMISSIVE: a caller that offers TLS presents a certificate and passes policy | `netns_modes`: permissive_serves_…; `sim_modes`: permissive_refuses_… |
//! | … a plain caller is served and counted | `sim_policies`: what_policy_lets_pass_in_clear_… |
//! | … with an `inbound` list that is a warning | ctrl `config_faults`: what_is_allowed_and_surprising_… |
//! | SIMPLE inbound: server-only TLS, the caller is anonymous | `sim_modes`: simple_serves_anonymous_…; `netns_modes` |
//! | … an `inbound` list is an error | ctrl `config_faults`: each_fault_of_an_identity_… |
//! | SIMPLE egress: no client certificate | `sim_modes`: simple_serves_…; `netns_modes`: simple_egress_checks_… |
//! | DISABLE per port: untouched | `netns_modes`: a_disabled_port_is_…; [`views`]: steering_captures_… |
//! | Replaced addresses stay captured for twice their TTL | ctrl `resolve`: a_ttl_says_when_…, what_an_answer_replaces_… |
//!
//! Beyond D11, the rules of policies: [`policies`], and [`agreement`] with their [`words`]; plain callers of
//! MUTUAL ports: [`bypass`].

mod agreement;
mod bypass;
mod living;
mod modes;
mod policies;
mod processes;
mod replays;
mod views;
mod virtuals;
mod words;

use ::snapshot::Side;
use std::sync::Arc;

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
    Peer {
        spiffe_id: id.into(),
        serial: "01".into(),
        not_after: NOW + 60,
        root: Root::of_nobody(),
        issued: Arc::default(),
    }
}
