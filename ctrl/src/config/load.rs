//! Files of a directory to one [`Loaded`], or everything that is wrong with them.

use std::path::{Path, PathBuf};

use super::{Diagnostic, Gateway, Service, WorkloadIdentity};

/// A configuration that is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub gateway: Gateway,
    /// Sorted by name.
    pub identities: Vec<WorkloadIdentity>,
    pub services: Vec<Service>,
    pub warnings: Vec<Diagnostic>,
}

/// The same without the demand for a Gateway, for files of policy on their own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resources {
    pub gateway: Option<Gateway>,
    pub identities: Vec<WorkloadIdentity>,
    pub services: Vec<Service>,
    pub warnings: Vec<Diagnostic>,
}

/// Reads all `*.yaml` and `*.yml` of a directory, in the order of their names.
pub fn load_dir(dir: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    let _ = dir;
    Err(Vec::new())
}

/// Loads texts that were read already; exactly one Gateway must be among them.
pub fn load_files(files: &[(PathBuf, String)]) -> Result<Loaded, Vec<Diagnostic>> {
    let _ = files;
    Err(Vec::new())
}

/// As [`load_dir`], but the Gateway may be missing.
pub fn parse_dir(dir: &Path) -> Result<Resources, Vec<Diagnostic>> {
    let _ = dir;
    Err(Vec::new())
}

/// As [`load_files`], but the Gateway may be missing.
pub fn parse_files(files: &[(PathBuf, String)]) -> Result<Resources, Vec<Diagnostic>> {
    let _ = files;
    Err(Vec::new())
}
