//! `sluice ca`: the embedded certificate authority.

use std::path::PathBuf;

use clap::Subcommand;

use super::output::put;
use super::{Done, Failure};
use crate::clock;
use crate::config::TrustDomain;
use crate::source::embedded_ca;

/// Make the embedded certificate authority: a root once, an intermediate for each node.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Make the root: root.crt and root.key. Keep the key off the nodes.
    ///
    /// Example:
    ///   sluice ca init --directory ca --trust-domain example.com
    #[command(verbatim_doc_comment)]
    Init {
        /// Where root.crt and root.key are written; made if it is missing.
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        /// The trust domain of all its identities, such as example.com; each Gateway's spec.trustDomain.
        #[arg(long, value_name = "NAME")]
        trust_domain: String,
    },
    /// Make a node's intermediate: node.crt, node.key and bundle.pem.
    ///
    /// Example:
    ///   sluice ca issue-node --root ca --node node-a --out config/ca/node-a
    #[command(verbatim_doc_comment)]
    IssueNode {
        /// Directory with root.crt and root.key.
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// The Gateway's metadata.name.
        #[arg(long, value_name = "NAME")]
        node: String,
        /// The directory that spec.identity.embedded.directory names.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

impl Ca {
    pub fn run(self) -> Done {
        match self {
            Self::Init { directory, trust_domain } => {
                let domain: TrustDomain = TrustDomain::parse(&trust_domain)
                    .map_err(|e| Failure::Usage(format!("--trust-domain {trust_domain}: {e}")))?;
                embedded_ca::init(&directory, &domain, clock::now()).map_err(anyhow::Error::from)?;
                put(&format!("made the root of {domain} in {}", directory.display()));
            }
            Self::IssueNode { root, node, out } => {
                embedded_ca::issue_node(&root, &node, &out, clock::now()).map_err(anyhow::Error::from)?;
                put(&format!("made the intermediate of {node} in {}", out.display()));
            }
        }
        Ok(true)
    }
}
