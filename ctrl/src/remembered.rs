//! What outlives a restart of this process: whom its identity sources had peers verified by, which CRLs were
//! taken, what was fetched, which pods this node had, and where Services of its cluster led.
//!
//! None of it is secret. SVIDs are not in it, since their keys are in no file: the dataplane goes on with
//! those that it has ([`snapshot::Workload::svid`]). What is here decides who is trusted, so a file that
//! others could have written is not read.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snapshot::codec::{from_state, to_state};
use tracing::warn;

use crate::attest::pods::Pods;
use crate::services::cluster::AllLed;
use crate::source::OfSource;
use crate::{crls, fetch};

/// Some sources of 100 roots, a hundred federated bundles: far below it.
const MOST: u64 = 64 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub trusted: Vec<OfSource>,
    pub crls: crls::Known,
    /// Of this node, as the Kubernetes API had them last.
    pub pods: Pods,
    pub services: AllLed,
    pub fetched: fetch::Known,
}

/// Keeps a [`Memory`] in `<admin socket>.trust`.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    last: Memory,
    /// The last write failed, which has been said.
    failed: bool,
}

impl Remembered {
    /// With what the process before has kept. A file that is missing is the first start; one that is damaged,
    /// of another build or somebody else's counts as missing, with a warning.
    pub fn open(admin: &Path) -> (Self, Memory) {
        let mut path = admin.as_os_str().to_owned();
        path.push(".trust");
        let path = PathBuf::from(path);
        let last = match read(&path) {
            Ok(memory) => memory,
            Err(Unread::Missing) => Memory::default(),
            Err(Unread::Bad(why)) => {
                warn!(path = %path.display(), why, "what was trusted before the restart is not known");
                Memory::default()
            }
        };
        (Self { path, last: last.clone(), failed: false }, last)
    }

    /// Writes what differs from what is there. A disk that is full costs no snapshot.
    pub fn keep(&mut self, memory: Memory) {
        if memory == self.last {
            return;
        }
        match self.write(&memory) {
            Ok(()) => (self.last, self.failed) = (memory, false),
            Err(why) => {
                if !std::mem::replace(&mut self.failed, true) {
                    warn!(path = %self.path.display(), %why, "a restart will not know what is trusted now");
                }
            }
        }
    }

    fn write(&self, memory: &Memory) -> anyhow::Result<()> {
        Ok(crate::version::replace(&self.path, &to_state(memory)?)?)
    }
}

enum Unread {
    Missing,
    Bad(String),
}

fn read(path: &Path) -> Result<Memory, Unread> {
    let bad = |why: io::Error| Unread::Bad(why.to_string());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Missing),
        Err(error) => return Err(bad(error)),
    };
    let about = file.metadata().map_err(bad)?;
    if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o022 != 0 {
        return Err(Unread::Bad(format!(
            "others may have written it (owner {}, mode {:04o})",
            about.uid(),
            about.mode() & 0o7777
        )));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(bad)?;
    from_state(&bytes).map_err(|why| Unread::Bad(why.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use snapshot::Bundle;

    use super::*;
    use crate::source::Trusted;

    fn memory() -> Memory {
        let federated = vec![Bundle { trust_domain: "partner.org".into(), roots: vec![vec![9]] }];
        let trusted = Trusted { roots: vec![vec![1, 2], vec![3]], federated };
        let of = OfSource { source: "spire".into(), trust_domain: "example.com".into(), trusted };
        Memory { trusted: vec![of], ..Memory::default() }
    }

    #[test]
    fn what_was_trusted_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let admin = directory.path().join("a.sock");
        let (mut first, before) = Remembered::open(&admin);
        assert_eq!(before, Memory::default());
        first.keep(memory());
        assert_eq!(Remembered::open(&admin).1, memory());
        first.keep(Memory::default());
        assert_eq!(Remembered::open(&admin).1, Memory::default(), "what is trusted no more is not kept");
    }

    #[test]
    fn a_file_that_is_torn_or_open_to_others_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let admin = directory.path().join("a.sock");
        Remembered::open(&admin).0.keep(memory());
        let path = directory.path().join("a.sock.trust");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o620)).unwrap();
        assert_eq!(Remembered::open(&admin).1, Memory::default());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(Remembered::open(&admin).1, memory());
        for length in [0, 12, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(Remembered::open(&admin).1, Memory::default(), "{length} bytes");
        }
    }
}
