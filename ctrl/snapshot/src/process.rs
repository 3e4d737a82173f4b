//! Workloads told apart by their processes: what a selector asks for, what is found out about who holds
//! the socket that calls or listens, and whether the two fit.
//!
//! ctrl finds facts and never judges them; the dataplane judges them by the snapshot in force, for a new
//! flow and again for a living one when a newer snapshot came.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Most processes that hold one socket and differ in more than their PIDs; more are no answer.
pub const MOST_HOLDERS: usize = 32;

/// Longest path or cgroup of a process, in bytes: [`MOST_HOLDERS`] of both fit into one message.
pub const LONGEST_FACT: usize = 1_024;

/// `TASK_COMM_LEN` without its zero: the kernel cuts longer names.
pub const LONGEST_NAME: usize = 15;

/// The `process:*` keys of one selector entry: all that are given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessSelector {
    /// Where the entry stands: `policy.yaml:12`.
    pub place: String,
    /// What the process calls itself.
    pub name: Option<String>,
    /// Of its executable, absolute.
    pub path: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub cgroup: Option<Cgroup>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cgroup {
    Exact(String),
    /// Everything below: `/kubepods` for `/kubepods/*`.
    Below(String),
}

impl Cgroup {
    pub fn matches(&self, cgroup: &str) -> bool {
        match self {
            Self::Exact(want) => want == cgroup,
            Self::Below(parent) => {
                let parent = parent.strip_suffix('/').unwrap_or(parent);
                cgroup.strip_prefix(parent).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
            }
        }
    }
}

impl ProcessSelector {
    pub fn of(place: String) -> Self {
        Self { place, name: None, path: None, uid: None, gid: None, cgroup: None }
    }

    /// One that asks for nothing would match everybody.
    pub fn is_empty(&self) -> bool {
        *self == Self::of(self.place.clone())
    }

    /// Whether all that it asks for is what a process says of itself.
    pub fn is_hearsay(&self) -> bool {
        self.name.is_some() && *self == Self { name: self.name.clone(), ..Self::of(self.place.clone()) }
    }

    pub fn matches(&self, process: &Process) -> bool {
        self.name.as_ref().is_none_or(|name| *name == process.name)
            && self.path.as_ref().is_none_or(|path| process.path.as_ref() == Some(path))
            && self.uid.is_none_or(|uid| uid == process.uid)
            && self.gid.is_none_or(|gid| gid == process.gid)
            && self.cgroup.as_ref().is_none_or(|cgroup| cgroup.matches(&process.cgroup))
    }
}

impl std::fmt::Display for ProcessSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut said = Vec::new();
        said.extend(self.name.as_ref().map(|name| format!("process:name {name}")));
        said.extend(self.path.as_ref().map(|path| format!("process:path {path}")));
        said.extend(self.uid.map(|uid| format!("process:uid {uid}")));
        said.extend(self.gid.map(|gid| format!("process:gid {gid}")));
        said.extend(self.cgroup.as_ref().map(|cgroup| match cgroup {
            Cgroup::Exact(cgroup) => format!("process:cgroup {cgroup}"),
            Cgroup::Below(cgroup) => format!("process:cgroup {}/*", cgroup.trim_end_matches('/')),
        }));
        f.write_str(&said.join(" and "))
    }
}

/// A process that holds the socket, as it was found twice in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// In clock ticks since the system's start: with the PID it names a process for good.
    pub started: u64,
    pub name: String,
    /// None: the file of that name, as ctrl sees it, is not the one that runs.
    pub path: Option<String>,
    /// Device and inode of the executable.
    pub executable: (u64, u64),
    /// Effective ones.
    pub uid: u32,
    pub gid: u32,
    pub cgroup: String,
}

impl Process {
    /// Whether no selector tells them apart.
    pub fn is_like(&self, other: &Self) -> bool {
        let facts = |of: &Self| (of.name.clone(), of.path.clone(), of.executable, of.uid, of.gid, of.cgroup.clone());
        facts(self) == facts(other)
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, name, path, executable: (device, inode), uid, gid, cgroup, .. } = self;
        let path = path.as_deref().unwrap_or("an executable that is not at its path").escape_debug();
        let cgroup = cgroup.escape_debug();
        write!(f, "pid {pid} ({name:?}, {path}, inode {inode} on {device:#x}, uid {uid}, gid {gid}, cgroup {cgroup})")
    }
}

/// Everybody who holds a socket, or those that share its port: at least one, at most [`MOST_HOLDERS`]. Of those
/// that are alike one stands for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Of the socket.
    pub inode: u64,
    pub processes: Vec<Process>,
}

/// Which end of a call a process is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Party {
    /// Who calls: the socket that has sent the SYN.
    Caller,
    /// Who is called: the socket that listens.
    Listener,
}

/// Whose socket is that? Asked for a SYN that is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Question {
    /// The inside port that the process is behind.
    pub interface: String,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub party: Party,
}

/// Why nobody was found, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unfound {
    /// There is nobody: no socket makes the call, or listens.
    #[error("{0}")]
    Nobody(String),
    /// It could not be found out.
    #[error("{0}")]
    Unknown(String),
}

impl From<String> for Unfound {
    fn from(why: String) -> Self {
        Self::Unknown(why)
    }
}

impl From<&str> for Unfound {
    fn from(why: &str) -> Self {
        Self::Unknown(why.into())
    }
}

pub type Found = Result<Owner, Unfound>;

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process {
            pid: 12,
            started: 1,
            name: "curl".into(),
            path: Some("/usr/bin/curl".into()),
            executable: (8, 9),
            uid: 1000,
            gid: 100,
            cgroup: "/system.slice/a.service".into(),
        }
    }

    #[test]
    fn all_that_is_asked_for_has_to_hold() {
        let none = || ProcessSelector::of("p.yaml:1".into());
        let text = |text: &str| Some(text.to_owned());
        let cgroup = |cgroup| Some(cgroup);
        let below = |text: &str| cgroup(Cgroup::Below(text.into()));
        for (selector, matches) in [
            (ProcessSelector { name: text("curl"), ..none() }, true),
            (ProcessSelector { name: text("cur"), ..none() }, false),
            (ProcessSelector { path: text("/usr/bin/curl"), uid: Some(1000), ..none() }, true),
            (ProcessSelector { path: text("/usr/bin/curl"), uid: Some(0), ..none() }, false),
            (ProcessSelector { path: text("/usr/bin"), ..none() }, false),
            (ProcessSelector { gid: Some(100), ..none() }, true),
            (ProcessSelector { gid: Some(1000), ..none() }, false),
            (ProcessSelector { cgroup: cgroup(Cgroup::Exact("/system.slice/a.service".into())), ..none() }, true),
            (ProcessSelector { cgroup: cgroup(Cgroup::Exact("/system.slice".into())), ..none() }, false),
            (ProcessSelector { cgroup: below("/system.slice"), ..none() }, true),
            (ProcessSelector { cgroup: below("/"), ..none() }, true),
            (ProcessSelector { cgroup: below("/system"), ..none() }, false),
            (ProcessSelector { cgroup: below("/system.slice/a.service"), ..none() }, false),
        ] {
            assert_eq!(selector.matches(&process()), matches, "{selector}");
        }
        let hidden = Process { path: None, ..process() };
        assert!(!ProcessSelector { path: text("/usr/bin/curl"), ..none() }.matches(&hidden));
    }

    #[test]
    fn a_name_alone_is_hearsay() {
        let named = ProcessSelector { name: Some("a".into()), ..ProcessSelector::of("p.yaml:1".into()) };
        assert!(named.is_hearsay() && !named.is_empty());
        assert!(!ProcessSelector { uid: Some(1), ..named }.is_hearsay());
        let empty = ProcessSelector::of("p.yaml:1".into());
        assert!(empty.is_empty() && !empty.is_hearsay());
    }
}
