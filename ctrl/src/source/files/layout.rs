//! Which file of a directory is what.
//!
//! | written by | certificate | key | bundle |
//! |---|---|---|---|
//! | cert-manager, csi-driver-spiffe | tls.crt | tls.key | ca.crt |
//! | spiffe-helper | svid.pem | svid_key.pem | svid_bundle.pem |
//! | OpenSSL, Vault agent | cert.pem | key.pem | ca.pem |
//! | Vault agent, one template | the only *.pem there is, with all of it | | |

use std::path::{Path, PathBuf};

use crate::config::identity::Files;
use crate::source::svid::Fault;

/// Two or all of them may be one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub bundle: PathBuf,
}

impl Paths {
    /// The files of a workload.
    pub fn find(config: &Files, workload: &str) -> Result<Self, Fault> {
        Self::within(config, &config.directory_of(workload))
    }

    /// What the configuration names is where it says; the rest is found by what is there.
    pub fn within(config: &Files, directory: &Path) -> Result<Self, Fault> {
        if let Some(certificate) = &config.certificate {
            // Who names one file only has all in it.
            let path = |name: &Option<PathBuf>| directory.join(name.as_ref().unwrap_or(certificate));
            return Ok(Self {
                certificate: directory.join(certificate),
                key: path(&config.key),
                bundle: path(&config.bundle),
            });
        }
        let found = detect(directory)?;
        match &config.bundle {
            Some(bundle) => Ok(Self { bundle: directory.join(bundle), ..found }),
            None if found.bundle.exists() => Ok(found),
            None => Err(Fault::Missing {
                path: found.bundle,
                role: "the trust bundle",
                beside: found.certificate.display().to_string(),
            }),
        }
    }

    /// Each file once.
    pub fn all(&self) -> Vec<&Path> {
        let mut all = vec![self.certificate.as_path(), &self.key, &self.bundle];
        all.dedup();
        all
    }
}

fn detect(directory: &Path) -> Result<Paths, Fault> {
    let names = names(directory)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let mut known = KNOWN.iter().filter(|layout| has(layout.certificate));
    match (known.next(), known.next()) {
        (Some(first), Some(second)) => {
            let directory = directory.to_owned();
            Err(Fault::TwoLayouts { directory, first: first.certificate, second: second.certificate })
        }
        (Some(layout), None) => {
            let path = |name| directory.join(name);
            if !has(layout.key) {
                let (path, beside) = (path(layout.key), layout.certificate.to_owned());
                return Err(Fault::Missing { path, role: "the private key", beside });
            }
            Ok(Paths { certificate: path(layout.certificate), key: path(layout.key), bundle: path(layout.bundle) })
        }
        (None, _) => {
            let mut pem = names.iter().filter(|name| name.ends_with(".pem"));
            let (Some(only), None) = (pem.next(), pem.next()) else {
                let found = names.iter().take(MOST_NAMED).cloned().collect();
                return Err(Fault::Layout { directory: directory.to_owned(), wanted: WANTED, found });
            };
            let path = directory.join(only);
            Ok(Paths { certificate: path.clone(), key: path.clone(), bundle: path })
        }
    }
}

/// Sorted, without what is hidden (`..data` and its like).
fn names(directory: &Path) -> Result<Vec<String>, Fault> {
    let fault = |error: std::io::Error| Fault::Io { path: directory.to_owned(), reason: error.to_string() };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fault)?.take(MOST_ENTRIES) {
        let name = entry.map_err(fault)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

struct Layout {
    certificate: &'static str,
    key: &'static str,
    bundle: &'static str,
}

const KNOWN: [Layout; 3] = [
    Layout { certificate: "tls.crt", key: "tls.key", bundle: "ca.crt" },
    Layout { certificate: "svid.pem", key: "svid_key.pem", bundle: "svid_bundle.pem" },
    Layout { certificate: "cert.pem", key: "key.pem", bundle: "ca.pem" },
];
const WANTED: &str = "tls.crt with tls.key and ca.crt; svid.pem with svid_key.pem and svid_bundle.pem; cert.pem with \
                      key.pem and ca.pem; or one *.pem with all of it";
const MOST_NAMED: usize = 8;
/// A directory that was named by mistake may hold anything.
const MOST_ENTRIES: usize = 10_000;
