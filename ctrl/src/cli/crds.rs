//! `sluice crds`: what a Kubernetes cluster has to know to hold our resources.

use clap::Args;

use super::Done;
use crate::crds;

/// Print the CustomResourceDefinitions of the kinds that a cluster may hold.
///
/// The Gateway is none of them: it is a node's, and stays a file.
///
/// Examples:
///   sluice crds | kubectl apply -f -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Crds {}

impl Crds {
    pub fn run(self) -> Done {
        let all: Vec<_> = crds::all().iter().map(crds::yaml).collect();
        print!("{}", all.join("---\n"));
        Ok(true)
    }
}
