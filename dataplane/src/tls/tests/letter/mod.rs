//! Peer verification to the letter: chains good and bad, each row with the clause that it stands on.
//!
//! A row bends a chain that is as it should be in two ways: once so that the clause is broken, and
//! once in the same place so that it is kept. Both go through real handshakes, as a caller and as a
//! server, with keys of each kind.

mod constraints;
pub mod forge;
mod issuers;
mod leaf;
mod oracle;
mod work;

use ::snapshot::{RefuseReason, SourceAddress, TlsMode};

use self::forge::{Draft, Kind, Plan};
use super::certs::NOW;
use super::stock::{self, ALL};
use super::world::{API, API_AT, FRONTEND, World, at, ends, inbound};
use crate::policy::Route;
use crate::snapshot::EndpointId;
use crate::tls::verified::Role;
use crate::tls::{Failure, TlsLeg};

pub struct Row {
    /// Where it is written.
    clause: &'static str,
    name: &'static str,
    wrong: fn(&mut Plan, Role),
    right: fn(&mut Plan, Role),
    want: RefuseReason,
    /// What the operator reads must name the certificate and the field.
    says: &'static str,
}

/// What came of a handshake with whoever presents the plan's chain in this role.
fn handshake(plan: &Plan, role: Role) -> Result<(), (RefuseReason, String)> {
    let mut world = World::new();
    world.snapshot.bundles[0] = plan.bundle();
    let compiled = world.compile();
    let leaf = plan.leaf();
    let (mut leg, mut stock) = match role {
        Role::Client => {
            let leg = TlsLeg::accept(&compiled, &inbound(1, 5432, TlsMode::Mutual), NOW).unwrap();
            (leg, stock::client(Some(&leaf), ALL))
        }
        Role::Server => {
            let endpoint = EndpointId { service: 0, endpoint: 0 };
            let (mode, source, ends) = (TlsMode::Mutual, SourceAddress::Preserve, ends(API_AT));
            let route = Route::Egress { workload: 0, endpoint, rule: 0, mode, source, ends };
            let leg = TlsLeg::originate(&compiled, &route, at(API_AT), NOW).unwrap();
            (leg, stock::server(&leaf, true, ALL))
        }
    };
    match stock::carry(&mut leg, &mut stock) {
        (None, None) if leg.established() => Ok(()),
        (Some(Failure::Refused(refusal)), Some(_)) => {
            assert!(!leg.established() && leg.peer().is_none() && leg.write(b"no") == 0);
            Err((refusal.reason, refusal.detail.unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

fn id(role: Role) -> &'static str {
    match role {
        Role::Client => FRONTEND,
        Role::Server => API,
    }
}

fn check(rows: &[Row]) {
    for row in rows {
        for role in [Role::Client, Role::Server] {
            for kind in [Kind::P256, Kind::Ed25519, Kind::Rsa] {
                let bent = |bend: fn(&mut Plan, Role)| {
                    let mut plan = Plan::good(id(role), kind);
                    bend(&mut plan, role);
                    handshake(&plan, role)
                };
                let whole = format!("{} ({}), {role:?}, {kind:?}", row.name, row.clause);
                assert_eq!(bent(row.right), Ok(()), "{whole}: kept");
                let (reason, detail) = bent(row.wrong).expect_err(&whole);
                assert_eq!(reason, row.want, "{whole}: {detail}");
                assert!(detail.contains(row.says), "{whole}: {detail}");
            }
        }
    }
}

#[test]
fn leaves_are_held_to_their_rules() {
    check(leaf::ROWS);
}

#[test]
fn issuers_and_roots_are_held_to_their_rules() {
    check(issuers::ROWS);
}

#[test]
fn name_constraints_are_held_to() {
    check(constraints::ROWS);
}

#[test]
fn leaves_and_roots_may_have_keys_of_each_kind() {
    for root in forge::KINDS {
        for leaf in forge::KINDS {
            for role in [Role::Client, Role::Server] {
                let mut plan = Plan::good(id(role), root);
                plan.leaf.kind = leaf;
                assert_eq!(handshake(&plan, role), Ok(()), "{leaf:?} under {root:?}");
            }
        }
    }
}

fn as_it_is(_: &mut Plan, _: Role) {}

/// The purpose that this role asks for, and the one that it does not.
fn purposes(role: Role) -> (u8, u8) {
    match role {
        Role::Client => (forge::CLIENT_AUTH, forge::SERVER_AUTH),
        Role::Server => (forge::SERVER_AUTH, forge::CLIENT_AUTH),
    }
}

fn keep_usage(draft: &mut Draft, bits: &[u8]) {
    draft.set(forge::USAGE, true, forge::usage(bits));
}
