//! Paths of this machine that a Gateway names, and what comes of it while they are not there.
//!
//! Looked at when somebody asks: who makes a directory or a namespace need tell nobody.

use std::path::{Path, PathBuf};

use snapshot::Workload;

use crate::config::{Gateway, Loaded};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What has to be there.
    path: PathBuf,
    pub problem: String,
}

impl Named {
    pub fn is_absent(&self) -> bool {
        !self.path.exists()
    }
}

/// All that is needed by what is in force.
pub fn of(loaded: &Loaded, workloads: &[Workload]) -> Vec<Named> {
    let by_process = |interface: &str, workload: &Workload| {
        workload.places.iter().any(|place| place.interface == interface && !place.processes.is_empty())
    };
    let needed = |interface: &str| workloads.iter().any(|workload| by_process(interface, workload));
    let namespaces = namespaces(&loaded.gateway).filter(|(interface, _)| needed(interface));
    audit(&loaded.gateway).into_iter().chain(namespaces.map(|(_, named)| named)).collect()
}

/// The directory of the audit log.
pub fn audit(gateway: &Gateway) -> Option<Named> {
    let directory = Path::new(&gateway.audit.as_ref()?.file).parent()?;
    let problem = format!("spec.audit.file: there is no directory {}: no line is written", directory.display());
    Some(Named { path: directory.to_owned(), problem })
}

/// By interface, those that processes are looked for in.
pub fn namespaces(gateway: &Gateway) -> impl Iterator<Item = (&str, Named)> {
    gateway.namespaces.iter().map(|(interface, netns)| {
        let path = netns.path();
        let problem = format!(
            "the netns of port {interface}: there is no {}: calls that process:* selectors decide are refused \
             (NotAttested)",
            path.display()
        );
        (interface.as_str(), Named { path, problem })
    })
}
