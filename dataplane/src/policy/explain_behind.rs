//! What would become of a call to a virtual address: what becomes of it at each endpoint, those alike together.

use std::net::SocketAddr;

use ::snapshot::Explanation;

use super::explain::{Position, SHOWN, Story};
use crate::snapshot::{Compiled, Virtual};

/// `story` has said who calls from where. The answer is yes if it is at every endpoint.
pub(super) fn explain(
    compiled: &Compiled,
    of: &Virtual,
    position: &Position,
    mut story: Story<'_>,
    now: u64,
) -> Explanation {
    let service = &compiled.services[of.service as usize].name;
    let client = SocketAddr::new(position.address, 0);
    if of.endpoints.is_empty() {
        let route = compiled.leads_nowhere(of, &position.interface, client, position.proof);
        story.tell_route(&route, of.address, None);
        return story.told;
    }
    let count = of.endpoints.len();
    story.say(format!(
        "{} is a virtual address of service {service}: a call is given to one of its {count} endpoints, and decided by \
         that one's own address.",
        of.address
    ));
    let mut groups: Vec<(Explanation, Vec<SocketAddr>)> = Vec::new();
    for &endpoint in &of.endpoints {
        let mut told = Story::new(compiled);
        let route = compiled.route_of(position.proof, position.side, &position.interface, client, endpoint, now);
        told.tell_route(&route, endpoint, None);
        match groups.iter_mut().find(|(other, _)| is_alike(other, &told.told)) {
            Some((_, alike)) => alike.push(endpoint),
            None => groups.push((told.told, vec![endpoint])),
        }
    }
    let mut steps = std::mem::take(&mut story.told.steps);
    let decisive = groups.iter().position(|(told, _)| !told.allowed).unwrap_or(0);
    for (told, alike) in &mut groups {
        let names: Vec<_> = alike.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = alike.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        steps.push(format!("At {}{more}:", names.join(", ")));
        steps.append(&mut told.steps);
    }
    Explanation { steps, ..groups.swap_remove(decisive).0 }
}

fn is_alike(a: &Explanation, b: &Explanation) -> bool {
    let verdict = |of: &Explanation| {
        (of.direction, of.allowed, of.only_with.clone(), of.passed, of.mode, of.refused, of.rule.clone())
    };
    verdict(a) == verdict(b)
}
