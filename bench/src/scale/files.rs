//! The configuration of a large node.
//!
//! Every workload has an address of its own behind the one inside port, an inbound list of one caller,
//! and the Policy of its group; the rules of a Policy name an ID, a network and a port each, a third of
//! them denies.

use std::fmt::Write;
use std::net::Ipv4Addr;

/// Rules of one Policy: one file each.
pub const EACH: usize = 1_000;

pub fn identities(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let _ = write!(
            text,
            "---\napiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\n\
             metadata: {{ name: w{n}, namespace: shop }}\nspec:\n  workloadID: shop/w{n}\n  \
             selectors:\n    - {{ net:interface: in0, net:ip: {} }}\n  \
             allowedSPIFFEIDs: {{ inbound: [spiffe://example.com/shop/caller] }}\n",
            address(n)
        );
    }
    text
}

/// Out of 198.18.128.0/17.
pub fn address(workload: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 128, 0).to_bits() + workload as u32)
}

/// Name and text of each Policy's file.
pub fn policies(rules: usize, identities: usize) -> Vec<(String, String)> {
    let count = rules.div_ceil(EACH);
    let policy = |at: usize| (file(at), policy(at, count, rules.min((at + 1) * EACH) - at * EACH, identities, 0));
    (0..count).map(policy).collect()
}

pub fn file(policy: usize) -> String {
    format!("policy-{policy:04}.yaml")
}

/// `edition` is what a change changes: the port of the first rule.
pub fn policy(at: usize, count: usize, rules: usize, identities: usize, edition: usize) -> String {
    let workloads: Vec<_> = (at..identities).step_by(count).map(|n| format!("shop/w{n}")).collect();
    // Without workloads of its own it is about the first.
    let workloads = if workloads.is_empty() { "shop/w0".into() } else { workloads.join(", ") };
    let mut text = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: Policy\nmetadata: {{ name: p{at}, namespace: shop }}\n\
         spec:\n  workloads: [{workloads}]\n  rules:\n"
    );
    for rule in 0..rules {
        let action = if rule % 3 == 0 { "deny" } else { "allow" };
        let port = 1_000 + rule + if rule == 0 { edition } else { 0 };
        let _ = writeln!(
            text,
            "    - {{ action: {action}, direction: inbound, peers: [spiffe://example.com/p{at}/caller{rule}], \
             cidrs: [10.{}.{}.0/24], ports: [{port}] }}",
            at % 256,
            rule % 256
        );
    }
    text
}
