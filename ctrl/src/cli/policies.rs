//! `sluice policies`: the rules of policies, and how many calls each has decided.

use clap::Args;

use super::Done;
use super::output::{Output, or_dash, table, yellow};
use super::place::Place;
use crate::view::PolicyRow;

/// List the rules of policies, with how many calls each has decided, or in shadow would have.
///
/// A rule counts from when it first stood as it does, and the dataplane was last started. Which calls it
/// were: `sluice connections -o wide` (RULE, SHADOW), and the log.
///
/// Examples:
///   sluice policies
///   sluice policies --shadow -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Policies {
    /// Only rules in shadow.
    #[arg(long)]
    shadow: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Policies {
    pub async fn run(self) -> Done {
        let mut rules: Vec<PolicyRow> = self.place.client()?.get("/v1/policies").await?;
        rules.retain(|rule| !self.shadow || rule.enforcement == "shadow");
        self.output.show(&rules, |wide| show(&rules, wide))?;
        Ok(true)
    }
}

pub fn show(rules: &[PolicyRow], _: bool) -> String {
    let row = |rule: &PolicyRow| {
        let enforcement = if rule.enforcement == "shadow" { yellow("shadow") } else { rule.enforcement.clone() };
        let workloads = rule.workloads.join(", ");
        vec![rule.rule.clone(), workloads, rule.says.clone(), enforcement, or_dash(rule.hits)]
    };
    table(&["RULE", "WORKLOADS", "SAYS", "ENFORCEMENT", "CALLS"], rules.iter().map(row))
}
