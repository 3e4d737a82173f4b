//! What would become of a call that may be several: to a virtual address, or to one where the process that
//! listens decides. What becomes of each, those alike together.

use std::net::SocketAddr;

use ::snapshot::Explanation;

use super::explain::{Position, SHOWN, Story};
use super::{Known, Proof};
use crate::snapshot::{Compiled, Shared, Virtual};

/// One of the calls that it may be.
struct Case {
    name: String,
    to: SocketAddr,
    proof: Proof<'static>,
}

/// `story` has said who calls from where. The answer is yes if it is at every endpoint.
pub(super) fn explain_virtual(
    compiled: &Compiled,
    of: &Virtual,
    position: &Position,
    mut story: Story<'_>,
    now: u64,
) -> Explanation {
    let service = &compiled.services[of.service as usize].name;
    let client = SocketAddr::new(position.address, 0);
    if of.endpoints.is_empty() {
        let route = compiled.leads_nowhere(of, &position.interface, client, Proof::of_caller(position.caller));
        story.tell_route(&route, of.address, None);
        return story.told;
    }
    let count = of.endpoints.len();
    story.say(format!(
        "{} is a virtual address of service {service}: a call is given to one of its {count} endpoints, and decided by \
         that one's own address.",
        of.address
    ));
    let cases = of.endpoints.iter().flat_map(|&to| cases(compiled, to, position)).collect();
    of_each(story, position, cases, now)
}

/// The same of an address of several workloads. The answer is yes if it is for each of them.
pub(super) fn explain_shared(
    shared: &Shared,
    to: SocketAddr,
    position: &Position,
    mut story: Story<'_>,
    now: u64,
) -> Explanation {
    let compiled = story.compiled;
    let count = shared.members.len();
    story.say(format!("{} is an address of {count} workloads: the process that listens decides.", to.ip()));
    let cases = cases(compiled, to, position);
    of_each(story, position, cases, now)
}

/// A call to that address: to each of those that may listen there, if several may.
fn cases(compiled: &Compiled, to: SocketAddr, position: &Position) -> Vec<Case> {
    let caller = position.caller;
    let Some(shared) = compiled.told_apart(to).filter(|shared| shared.alone().is_none()) else {
        return vec![Case { name: to.to_string(), to, proof: Proof::of_caller(caller) }];
    };
    let case = |&member: &usize| {
        let own = shared.selectors.iter().filter(|(index, _)| *index == member);
        let by: Vec<_> = own.map(|(_, selector)| selector.to_string()).collect();
        let name = format!("{to} where {} listens ({})", compiled.workloads[member].name, by.join(", or "));
        Case { name, to, proof: Proof { caller, listener: Known::Supposed(member) } }
    };
    shared.members.iter().map(case).collect()
}

fn of_each(mut story: Story<'_>, position: &Position, cases: Vec<Case>, now: u64) -> Explanation {
    let client = SocketAddr::new(position.address, 0);
    let mut groups: Vec<(Explanation, Vec<String>)> = Vec::new();
    for Case { name, to, proof } in cases {
        let mut told = Story::new(story.compiled);
        let listener = match proof.listener {
            Known::Nothing => told.suppose_listener(to),
            known => known,
        };
        let proof = Proof { listener, ..proof };
        let route = story.compiled.route_of(proof, position.side, &position.interface, client, to, now);
        told.tell_route(&route, to, position.id.as_deref());
        match groups.iter_mut().find(|(other, _)| is_alike(other, &told.told)) {
            Some((_, alike)) => alike.push(name),
            None => groups.push((told.told, vec![name])),
        }
    }
    let mut steps = std::mem::take(&mut story.told.steps);
    let decisive = groups.iter().position(|(told, _)| !told.allowed).unwrap_or(0);
    for (told, alike) in &mut groups {
        let more = alike.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        alike.truncate(SHOWN);
        steps.push(format!("At {}{more}:", alike.join(", ")));
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
