//! Which network namespace a gateway's programs are in, written down beside their pins.
//!
//! Interfaces are numbers there, and the same numbers in another namespace are other interfaces: who
//! detaches or adopts from the wrong one would take somebody else's guard away and leave ours. The
//! kernel does not say where a link's interface is, so a symbolic link in the pin directory does: its
//! target is the namespace's inode number.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result, pin};

const FILE: &str = "netns";

/// Writes down that the programs are in the caller's namespace.
pub fn record(directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    pin::unpin(&path)?;
    std::os::unix::fs::symlink(own()?.to_string(), &path).map_err(Error::system(format!("making {}", path.display())))
}

/// Whether what is pinned in a directory is of the caller's namespace, as far as that was written
/// down. False: of one that is gone. One that is not gone is an error that names it.
pub fn is_ours(directory: &Path) -> Result<bool> {
    let Some(theirs) = recorded(directory) else { return Ok(true) };
    if theirs == own()? {
        return Ok(true);
    }
    // A link loses its interface with the namespace.
    match pin::links(directory)?.iter().any(|(_, interface)| interface.is_some()) {
        true => Err(Error::OtherNamespace { directory: directory.to_owned(), way: way_to(theirs) }),
        false => Ok(false),
    }
}

/// Removes what [`record`] wrote.
pub fn forget(directory: &Path) -> Result<()> {
    pin::unpin(&directory.join(FILE))
}

fn recorded(directory: &Path) -> Option<u64> {
    std::fs::read_link(directory.join(FILE)).ok()?.to_str()?.parse().ok()
}

/// Of the thread, which may have entered another than its process.
fn own() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    inode(Path::new(path)).map_err(Error::system(format!("looking at {path}")))
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

/// How to run something in a namespace: by the name that `ip netns` knows, or else by a process.
fn way_to(namespace: u64) -> String {
    let named = |directory: &str| -> Option<PathBuf> {
        let entries = std::fs::read_dir(directory).ok()?;
        entries.flatten().map(|entry| entry.path()).find(|path| inode(path).is_ok_and(|found| found == namespace))
    };
    match named("/run/netns") {
        Some(path) => format!("nsenter --net={}", path.display()),
        None => format!("nsenter --net -t PID (a process of net:[{namespace}]; `lsns -t net` lists them)"),
    }
}
