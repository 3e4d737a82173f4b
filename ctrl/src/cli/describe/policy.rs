//! `sluice describe policy`: whom it means, its rules in the order that they are asked, and what is left to decide
//! where none of them does.

use clap::Args;
use snapshot::Enforcement;

use super::{fact, last_facts, section};
use crate::cli::Done;
use crate::cli::complete;
use crate::cli::output::{Output, Rows, or_dash, red, yellow};
use crate::cli::place::Place;
use crate::client::escape;
use crate::describe::policy::{self as described, Admits, Otherwise};

/// Describe a Policy: whom it means, its rules in the order that they are asked, and what decides where none of
/// them does.
///
/// ASKED says when: `at the SYN` from addresses alone, `of the peer` once it is known who that is, `after the list`
/// where the workload's own list does not admit, `in shadow` in a second decision that changes nothing. CALLS counts
/// calls that the rule decided, in shadow would have.
///
/// Exit code 0: there is such a Policy. 1: there is none of that name here, or several.
///
/// Examples:
///   sluice describe policy shop/partners
///   sluice describe policy partners -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Policy {
    /// Of the Policy; the name alone where that is clear.
    #[arg(value_name = "NAMESPACE/NAME", add = complete::policies())]
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Policy {
    pub async fn run(self) -> Done {
        let path = format!("/v1/describe/policy?name={}", escape(&self.name));
        let policy: described::Policy = self.place.client()?.get(&path).await?;
        self.output.show(&policy, |wide| show(&policy, wide))?;
        Ok(true)
    }
}

fn show(policy: &described::Policy, wide: bool) -> String {
    let mut lines = vec![fact("policy", format!("{} ({})", policy.name, policy.place))];
    lines.extend(last_facts(&policy.revision, &policy.problems, policy.not_counted.as_ref()));
    lines.extend(section("selects", selects(policy)));
    lines.extend(section("rules, in the order that they are asked", rules(policy)));
    lines.extend(section("where no rule decides", otherwise(policy, wide)));
    if !policy.unnamed.is_empty() {
        let (few, more) = (policy.unnamed.iter().take(SHOWN), policy.unnamed.len().saturating_sub(SHOWN));
        let few = few.map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if more > 0 { format!(" and {more} more (-o json)") } else { String::new() };
        lines.extend([String::new(), format!("named by no policy: {few}{more}")]);
    }
    lines.join("\n")
}

fn selects(policy: &described::Policy) -> Rows {
    let row = |named: &described::NamedRow| {
        let few = named.workloads.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let means = match named.workloads.len() {
            0 => red("nobody"),
            count if count > SHOWN => format!("{few} and {} more", count - SHOWN),
            _ => few,
        };
        vec![named.entry.clone(), means, named.place.clone()]
    };
    (&["WORKLOADS", "MEANS", "PLACE"], policy.selects.iter().map(row).collect())
}

fn rules(policy: &described::Policy) -> Rows {
    let row = |rule: &described::RuleRow| {
        let asked = rule.asked.says();
        let asked = if rule.enforcement == Enforcement::Shadow { yellow(asked) } else { asked.to_owned() };
        vec![asked, rule.says.clone(), or_dash(rule.calls), rule.rule.clone()]
    };
    (&["ASKED", "SAYS", "CALLS", "RULE"], policy.rules.iter().map(row).collect())
}

fn otherwise(policy: &described::Policy, wide: bool) -> Rows {
    let row = |workload: &described::WorkloadRow| {
        let here = if workload.is_here { "yes" } else { "no" };
        let mut row = vec![workload.workload.clone(), here.to_owned(), admits(&workload.inbound)];
        row.push(admits(&workload.outbound));
        if wide {
            let others = (!workload.others.is_empty()).then(|| workload.others.join(", "));
            row.extend([workload.spiffe_id.clone(), or_dash(others)]);
        }
        row
    };
    let header: &'static [&'static str] = &["WORKLOAD", "HERE", "INBOUND", "OUTBOUND", "SPIFFE ID", "OTHER POLICIES"];
    (if wide { header } else { &header[..4] }, policy.workloads.iter().map(row).collect())
}

fn admits(otherwise: &Otherwise) -> String {
    match otherwise.admits {
        Admits::Nobody => format!("{}: {}", yellow("nobody"), otherwise.says),
        Admits::Everybody => format!("everybody: {}", otherwise.says),
        Admits::Listed => otherwise.says.clone(),
    }
}

/// Most workloads that are named in one line.
const SHOWN: usize = 8;
