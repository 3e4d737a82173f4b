//! The number of the next snapshot: it only ever counts up, over restarts too.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use snapshot::Version;

/// Keeps the last number given out in `<state>.version`: of [`Admin`](crate::config::gateway::Admin).
#[derive(Debug)]
pub struct Versions {
    path: PathBuf,
    last: u64,
}

impl Versions {
    /// A file that is missing or damaged counts as zero: a dataplane that runs says what it has
    /// in force ([`Versions::raise`]).
    pub fn open(state: &Path) -> Self {
        let mut path = state.as_os_str().to_owned();
        path.push(".version");
        let path = PathBuf::from(path);
        let last = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { path, last }
    }

    /// Somebody has seen this number.
    pub fn raise(&mut self, seen: Version) {
        self.last = self.last.max(seen.0);
    }

    /// The number after the last, once it is on disk.
    pub fn advance(&mut self) -> io::Result<Version> {
        let next = self.last + 1;
        replace(&self.path, format!("{next}\n").as_bytes())?;
        self.last = next;
        Ok(Version(next))
    }
}

/// Makes the directory (0700) if it is missing. Where others could put files into it, what is read from there
/// after a restart would be theirs.
pub fn keep_directory(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("cannot make {name}"))?;
    let about = std::fs::metadata(path).with_context(|| format!("cannot look at {name}"))?;
    let (own, mode) = (rustix::process::geteuid().as_raw(), about.mode() & 0o7777);
    if about.uid() != own || mode & 0o022 != 0 {
        bail!(
            "{name}: others can write there (owner {}, mode {mode:04o}); wanted are owner {own} and mode 0700",
            about.uid()
        );
    }
    Ok(())
}

/// Puts these bytes at `path`, for this user alone: all of them or, on failure, none.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, |_| Ok(()))
}

/// And so that they are there, or those from before, after the machine itself broke off.
pub fn replace_for_good(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, File::sync_all)
}

fn put(path: &Path, bytes: &[u8], written: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    written(&file)?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_after_a_restart_and_after_a_dataplane_that_knows_more() {
        let directory = tempfile::tempdir().unwrap();
        let admin = directory.path().join("a.sock");
        let mut versions = Versions::open(&admin);
        assert_eq!(versions.advance().unwrap(), Version(1));
        assert_eq!(versions.advance().unwrap(), Version(2));
        let mut again = Versions::open(&admin);
        again.raise(Version(1));
        assert_eq!(again.advance().unwrap(), Version(3));
        again.raise(Version(40));
        assert_eq!(again.advance().unwrap(), Version(41));
        std::fs::write(directory.path().join("a.sock.version"), "no number").unwrap();
        assert_eq!(Versions::open(&admin).advance().unwrap(), Version(1));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("var/sluice");
        keep_directory(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        keep_directory(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o770)).unwrap();
        let said = keep_directory(&path).unwrap_err().to_string();
        assert!(said.contains("others can write there") && said.contains("mode 0770"), "{said}");
    }
}
