//! The processes that hold a socket, from /proc: found by its inode, and looked at twice.
//!
//! A PID may be another process's a moment later. A handle on its directory is not: what is read through
//! it is of that process, or fails.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use snapshot::Process;
use snapshot::process::LONGEST_FACT;

/// Processes that may hold one socket: each is a descriptor of ours while it is looked at.
pub const MOST_SEEN: usize = 256;

/// A process, by a handle that outlives its PID, and the descriptor by which it holds the socket.
#[derive(Debug)]
pub struct Holder {
    pid: u32,
    directory: File,
    descriptor: String,
    inode: u64,
}

pub fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// All holders of each socket among the processes of one network namespace.
pub fn of(inodes: &BTreeSet<u64>, namespace: u64, until: Instant) -> Result<HashMap<u64, Vec<Holder>>, String> {
    let mut found: HashMap<u64, Vec<Holder>> = HashMap::new();
    if inodes.is_empty() {
        return Ok(found);
    }
    for pid in pids() {
        if fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|net| net.ino() == namespace) {
            look(pid, inodes, until, &mut found)?;
        }
        in_time(until)?;
    }
    Ok(found)
}

pub fn in_time(until: Instant) -> Result<(), String> {
    match Instant::now() < until {
        true => Ok(()),
        false => Err("it took too long to look through /proc: too many processes, or descriptors".into()),
    }
}

/// A process that is gone holds nothing.
fn look(pid: u32, inodes: &BTreeSet<u64>, until: Instant, found: &mut HashMap<u64, Vec<Holder>>) -> Result<(), String> {
    let Ok(directory) = File::open(format!("/proc/{pid}")) else { return Ok(()) };
    let Ok(descriptors) = fs::read_dir(path(&directory).join("fd")) else { return Ok(()) };
    for (nth, descriptor) in descriptors.flatten().enumerate() {
        if nth % 256 == 255 {
            in_time(until)?;
        }
        let Some(inode) = socket(&descriptor.path()).filter(|inode| inodes.contains(inode)) else { continue };
        let holders = found.entry(inode).or_default();
        // Another descriptor of the same process says nothing new, and one too many is enough to refuse.
        if holders.last().is_some_and(|holder| holder.pid == pid) || holders.len() > MOST_SEEN {
            continue;
        }
        let descriptor = descriptor.file_name().to_string_lossy().into_owned();
        let Ok(directory) = directory.try_clone() else { return Err("out of descriptors".into()) };
        holders.push(Holder { pid, directory, descriptor, inode });
    }
    Ok(())
}

/// `socket:[4711]`.
fn socket(descriptor: &Path) -> Option<u64> {
    let link = fs::read_link(descriptor).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Our own handle, as a path that leads through it.
fn path(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

impl Holder {
    /// None: it has ended, and holds nothing any more. The same twice: it may just be starting another program, or
    /// be moved, or let go of the socket.
    pub fn facts(&self) -> Result<Option<Process>, String> {
        let (first, second) = (self.read(), self.read());
        let holds = socket(&path(&self.directory).join("fd").join(&self.descriptor)) == Some(self.inode);
        match (first, second) {
            _ if self.has_ended() => Ok(None),
            (Some(first), Some(second)) if first == second && holds => Ok(Some(first)),
            (Some(first), Some(second)) => {
                Err(format!("pid {} changed while it was looked at: {first}, then {second}", self.pid))
            }
            _ => Err(format!("pid {} cannot be looked at", self.pid)),
        }
    }

    fn has_ended(&self) -> bool {
        let stat = fs::read(path(&self.directory).join("stat"));
        stat.map_or(true, |stat| name_and_start(&String::from_utf8_lossy(&stat)).is_none())
    }

    fn read(&self) -> Option<Process> {
        let directory = path(&self.directory);
        let stat = String::from_utf8_lossy(&fs::read(directory.join("stat")).ok()?).into_owned();
        let (name, started) = name_and_start(&stat)?;
        let status = String::from_utf8_lossy(&fs::read(directory.join("status")).ok()?).into_owned();
        let cgroups = fs::read_to_string(directory.join("cgroup")).ok()?;
        let executable = fs::metadata(directory.join("exe")).ok()?;
        let executable = (executable.dev(), executable.ino());
        Some(Process {
            pid: self.pid,
            started,
            name: name.to_owned(),
            path: real_path(&directory.join("exe"), executable),
            executable,
            uid: effective(&status, "Uid:")?,
            gid: effective(&status, "Gid:")?,
            cgroup: cgroup(&cgroups).filter(|cgroup| cgroup.len() <= LONGEST_FACT)?.to_owned(),
        })
    }
}

/// Of `12 (name) S 1 ...`: a name may have blanks and parentheses. None: it has ended.
fn name_and_start(stat: &str) -> Option<(&str, u64)> {
    let (begin, end) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat[end + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    // Field 22, counted as proc(5) does; the state is the third.
    let started = fields.nth(18)?.parse().ok()?;
    (!["Z", "X"].contains(&state)).then(|| (&stat[begin + 1..end], started))
}

/// The second of `Uid: real effective saved of-files`.
fn effective(status: &str, key: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Of the unified hierarchy; systemd's where there is none.
fn cgroup(cgroups: &str) -> Option<&str> {
    let of = |prefix| cgroups.lines().find_map(|line: &str| line.strip_prefix(prefix));
    of("0::").or_else(|| of("1:name=systemd:"))
}

/// What the kernel calls the executable, if the file of that name is the one that runs: in a mount
/// namespace of its own a process gives any file any name.
fn real_path(link: &Path, executable: (u64, u64)) -> Option<String> {
    let path = fs::read_link(link).ok()?;
    let there = fs::metadata(&path).ok()?;
    let same = (there.dev(), there.ino()) == executable && path.as_os_str().as_bytes().len() <= LONGEST_FACT;
    same.then(|| path.to_str().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_may_hold_what_divides_fields_and_what_has_ended_is_nobody() {
        let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(name_and_start(&format!("12 (a) S) (b) R {rest}")), Some(("a) S) (b", 4711)));
        assert_eq!(name_and_start(&format!("12 (a) Z {rest}")), None);
        assert_eq!(name_and_start("12 (a) S 1 2"), None);
        assert_eq!(effective("Name:\tx\nUid:\t1000\t1001\t1002\t1003\n", "Uid:"), Some(1001));
        assert_eq!(cgroup("2:cpu:/x\n1:name=systemd:/y\n0::/a.slice\n"), Some("/a.slice"));
        assert_eq!(cgroup("2:cpu:/x\n1:name=systemd:/y\n"), Some("/y"));
        assert_eq!(cgroup("2:cpu:/x\n"), None);
    }

    #[test]
    fn a_holder_is_found_by_its_socket_and_told_by_what_it_runs_and_a_file_of_another_inode_has_no_path() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let namespace = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let until = Instant::now() + Duration::from_secs(10);
        let found = of(&BTreeSet::from([inode]), namespace, until).unwrap();
        let own = found[&inode].iter().find(|holder| holder.pid == std::process::id()).unwrap();
        let facts = own.facts().unwrap().unwrap();
        let executable = std::env::current_exe().unwrap();
        assert_eq!(facts.path.as_deref(), executable.to_str());
        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert_eq!(real_path(Path::new("/proc/self/exe"), (facts.executable.0, facts.executable.1 + 1)), None);
        assert!(of(&BTreeSet::from([inode]), namespace + 1, until).unwrap().is_empty());
        let late = of(&BTreeSet::from([inode]), namespace, Instant::now());
        assert!(late.unwrap_err().contains("too long"));
        // What it no longer holds it no longer vouches for.
        drop(socket);
        assert!(own.facts().unwrap_err().contains("changed"));
    }
}
