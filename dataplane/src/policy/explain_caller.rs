//! A call from an address of workloads that their processes tell apart: who asks by the address alone has not said
//! who calls, and is told whom to ask about.

use std::net::SocketAddr;

use ::snapshot::{Explanation, Side};

use super::explain::{Position, SHOWN, Story};
use crate::snapshot::Shared;

/// Neither yes nor no, unless no process would be let through.
pub(super) fn explain_undecided(
    shared: &Shared,
    to: SocketAddr,
    position: &Position,
    mut story: Story<'_>,
) -> Explanation {
    let Position { interface, address, .. } = position;
    let compiled = story.compiled;
    let members = shared.members.iter().take(SHOWN).map(|&member| &compiled.workloads[member]);
    let names = members.clone().map(|workload| &*workload.name).collect::<Vec<_>>().join(", ");
    let more = shared.members.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    story.say(format!("{address} on {interface} is an address of {names}{more}: the process that calls decides."));
    if let Some(route) = compiled.hopeless(Side::Inside, interface, *address, to) {
        story.tell_route(&route, to, None);
        return story.told;
    }
    story.told.undecided = members.map(|workload| workload.spiffe_id.to_string()).collect();
    let ids = story.told.undecided.join(" or ");
    story.say(format!("Undecided: the process that calls decides; ask for a SPIFFE ID instead, {ids}{more}."));
    story.told
}
