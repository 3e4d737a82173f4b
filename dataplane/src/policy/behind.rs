//! Virtual addresses: what policy says where there is no endpoint, and why it says nothing else of them.
//!
//! A call to a virtual address is decided like one to the endpoint that it was given, by that one's address and
//! port ([`Compiled::route_of`]): rules and lists speak of who is really called. Where there is none, nobody is.

use std::net::SocketAddr;

use ::snapshot::{PolicyRule, RefuseReason, TlsMode};

use super::Route;
use super::attest::Proof;
use super::captures::{Outbound, exactly, protects};
use crate::snapshot::{Compiled, Virtual};

impl Compiled {
    /// The call of whoever calls from there to a virtual address without endpoints.
    pub fn leads_nowhere(&self, of: &Virtual, interface: &str, client: SocketAddr, proof: Proof<'_>) -> Route {
        let service = &self.services[of.service as usize].name;
        Route::Refuse {
            reason: RefuseReason::NoEndpoint,
            workload: self.caller(interface, client.ip().to_canonical(), proof).ok().flatten(),
            rule: None,
            detail: Some(format!("{} is a virtual address of service {service}", of.address)),
        }
    }

    /// The virtual addresses that lead to where a rule denies calls whoever answers them: somebody else than we
    /// may lead them there too, and would lead around the rule.
    pub(super) fn virtual_denials(&self, rule: &PolicyRule, set: u32, out: &mut Vec<Outbound>) {
        let denies = |endpoint: &SocketAddr| {
            let address = rule.cidrs.is_empty() || rule.cidrs.iter().any(|cidr| cidr.contains(endpoint.ip()));
            address && (rule.ports.is_empty() || rule.ports.iter().any(|range| range.contains(endpoint.port())))
        };
        for of in self.services.iter().flat_map(|service| &service.virtual_addresses) {
            let behind = self.virtuals.find(of.address).expect("compiled from the same list");
            if behind.endpoints.iter().any(denies) {
                out.push(exactly(set, of.address, true));
            }
        }
    }

    /// What steering has to hand over of a workload's calls to the virtual addresses of services that its egress
    /// entries select: all but what is DISABLE towards every endpoint.
    pub(super) fn virtual_captures(&self, workload: usize, set: u32, out: &mut Vec<Outbound>) {
        let caller = &self.workloads[workload];
        for (entry, service) in caller.egress.iter().flat_map(|entry| entry.services.iter().map(move |s| (entry, *s))) {
            for address in &self.services[service as usize].virtual_addresses {
                let of = self.virtuals.find(address.address).expect("compiled from the same list");
                let towards =
                    |&endpoint: &SocketAddr| self.egress(workload, endpoint).map(|(rule, _)| &caller.egress[rule]);
                let mut all: Vec<_> = of.endpoints.iter().filter_map(towards).collect();
                all.push(entry);
                if all.iter().any(|entry| entry.mode != TlsMode::Disable) {
                    let listed = caller.outbound.is_some() || all.iter().any(|entry| entry.allowed.is_some());
                    let protected = listed || all.iter().any(|entry| protects(entry.mode));
                    out.push(exactly(set, of.address, protected));
                }
            }
        }
    }
}
