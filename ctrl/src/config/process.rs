//! The `process:*` keys of a selector entry, and `ports[].netns`, where such processes are looked for.

use std::path::PathBuf;

use snapshot::process::{LONGEST_FACT, LONGEST_NAME};
use snapshot::{Cgroup, ProcessSelector};

use super::decode::{Faults, Field, allowed};
use super::tree::{Key, Value};
use crate::attest::process::Netns;

pub const KEYS: [&str; 5] = ["process:name", "process:path", "process:uid", "process:gid", "process:cgroup"];

/// One key. A value that is wrong leaves the selector asking for less, and its fault refuses the file.
pub fn decode(selector: &mut ProcessSelector, key: &Key, field: &Field<'_>, faults: &mut Faults<'_>) {
    match key.name.as_str() {
        "process:name" => {
            let help = "the name in /proc/PID/comm, which the kernel cuts to 15 bytes";
            selector.name = field.parsed(name, help, faults);
        }
        "process:path" => {
            let help = "the path that /proc/PID/exe leads to, with all symbolic links resolved";
            selector.path = field.parsed(absolute, help, faults);
        }
        "process:uid" => selector.uid = field.integer(0..=i128::from(u32::MAX - 1), faults),
        "process:gid" => selector.gid = field.integer(0..=i128::from(u32::MAX - 1), faults),
        "process:cgroup" => {
            let help = "a cgroup as /proc/PID/cgroup has it, or all below one: /kubepods.slice/*";
            selector.cgroup = field.parsed(cgroup, help, faults);
        }
        other => {
            let help = allowed(other, "process keys", KEYS.iter().copied());
            faults.error(key.at, &field.path, "there is no such selector key", help);
        }
    }
}

/// What is right and proves little.
pub fn lint(selector: &ProcessSelector, field: &Field<'_>, faults: &mut Faults<'_>) {
    if selector.is_hearsay() {
        let help = "add process:path, process:uid, process:gid or process:cgroup";
        faults.warning(
            field.at(),
            &field.path,
            "a process sets its own name, so process:name alone proves nothing",
            help,
        );
    }
}

pub fn netns(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<Netns> {
    match field.node.value {
        Value::Integer(_) => field.integer(1..=i128::from(i32::MAX), faults).map(Netns::Pid),
        _ => {
            let help = "a path such as /run/netns/web, or the PID of a process in it";
            field.parsed(absolute, help, faults).map(|path| Netns::Path(PathBuf::from(path)))
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("empty".into()),
        1..=LONGEST_NAME => Ok(text.to_owned()),
        length => Err(format!("{length} bytes, and no process's name has more than {LONGEST_NAME}")),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    match text.starts_with('/') && text.len() > 1 {
        true if text.len() <= LONGEST_FACT => Ok(text.to_owned()),
        true => Err(format!("{} bytes, over the limit of {LONGEST_FACT}", text.len())),
        false => Err("not an absolute path".into()),
    }
}

fn cgroup(text: &str) -> Result<Cgroup, String> {
    match text.strip_suffix("/*") {
        _ if !text.starts_with('/') => Err("a cgroup begins with /".into()),
        _ if text.len() > LONGEST_FACT => Err(format!("{} bytes, over the limit of {LONGEST_FACT}", text.len())),
        Some(parent) if parent.contains('*') => Err("one * at the end, and none elsewhere".into()),
        Some(parent) => Ok(Cgroup::Below(if parent.is_empty() { "/" } else { parent }.to_owned())),
        None if text.contains('*') => Err("a * stands for all below a cgroup, after its last /".into()),
        None => Ok(Cgroup::Exact(text.to_owned())),
    }
}
