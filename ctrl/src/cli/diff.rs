//! `sluice diff`: what applying a file would change.

use clap::Args;

use super::file::File;
use super::output::{Output, green, red, yellow};
use super::place::Place;
use super::{Done, Failure, as_usage};
use crate::config::Known;
use crate::difference::{Change, Field, What};
use crate::{apply, clock, view};

/// Show what applying a file would change, resource by resource and field by field.
///
/// Against the file of the same name in the configuration directory, with the whole checked as `apply` does.
///
/// Exit code 0: nothing would change. 1: something would. 2: the file cannot be read, or the configuration would
/// not be right.
///
/// Examples:
///   sluice diff -f policy.yaml
///   sluice diff -f policy.yaml --config /etc/sluice -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Diff {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Diff {
    pub async fn run(self) -> Done {
        let (file, text) = (self.file.name()?, self.file.text().map_err(Failure::other_is_usage)?);
        let changes: Vec<Change> = match &self.place.config {
            Some(directory) => {
                let change = view::Apply { file, text, dry_run: true, force: false };
                let plan = apply::plan(directory, &change, &mut Known::default());
                let changes = plan.and_then(|plan| plan.changes());
                changes.map_err(|error| as_usage(error.into()))?
            }
            None => {
                let trial = view::Trial { file, text, since: clock::now() };
                self.place.client()?.post("/v1/diff", &trial).await.map_err(Failure::refused_is_usage)?
            }
        };
        self.output.show(&changes, |_| show(&changes))?;
        Ok(changes.is_empty())
    }
}

fn show(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "nothing would change".into();
    }
    changes
        .iter()
        .flat_map(|change| std::iter::once(head(change)).chain(change.fields.iter().map(line)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn head(change: &Change) -> String {
    let of = format!("{} {}", change.kind, change.name);
    match change.what {
        What::Added => green(&format!("+ {of}")),
        What::Removed => red(&format!("- {of}")),
        What::Changed => yellow(&format!("~ {of}")),
    }
}

fn line(field: &Field) -> String {
    let Field { path, before, after } = field;
    match (before, after) {
        (None, Some(after)) => green(&format!("    + {path}: {after}")),
        (Some(before), None) => red(&format!("    - {path}: {before}")),
        (Some(before), Some(after)) => format!("    ~ {path}: {before} -> {after}"),
        (None, None) => format!("    ~ {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_like_one() {
        let field = |before: Option<&str>, after: Option<&str>| Field {
            path: "spec.x".into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        let change = |what, fields| Change { kind: "Policy".into(), name: "shop/p".into(), what, fields };
        let fields = vec![field(Some("1"), Some("2")), field(None, Some("3")), field(Some("4"), None)];
        assert_eq!(
            show(&[change(What::Changed, fields), change(What::Added, vec![]), change(What::Removed, vec![])]),
            "~ Policy shop/p\n    ~ spec.x: 1 -> 2\n    + spec.x: 3\n    - spec.x: 4\n+ Policy shop/p\n- Policy shop/p"
        );
        assert_eq!(show(&[]), "nothing would change");
    }
}
