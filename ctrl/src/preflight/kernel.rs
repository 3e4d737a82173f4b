//! Kernel, privileges, memory, cores, clock.

use rustix::thread::CapabilitySet;
use snapshot::PortRange;

use super::{Line, read};
use crate::config::{Gateway, IdentitySource, NamedSource};
use crate::source;

/// statfs(2) of a mounted bpffs.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Multi-buffer AF_XDP came with 6.6.
const OLDEST: (u32, u32) = (6, 6);

pub fn check(gateway: &Gateway) -> Vec<Line> {
    let own = [memlock(gateway), bpffs(gateway), cores(gateway), source_ports(gateway), clock()];
    [kernel(), jit(), capabilities()].into_iter().chain(own).chain(identity_sources(gateway)).collect()
}

fn kernel() -> Line {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version >= OLDEST {
        true => Line::fine("kernel", release),
        false => Line::wrong(
            "kernel",
            format!("{release}: AF_XDP with several buffers a packet needs {}.{} or later", OLDEST.0, OLDEST.1),
        ),
    }
}

fn jit() -> Line {
    match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Line::note("bpf jit", "off: steering is slow; sysctl net.core.bpf_jit_enable=1"),
        Some(_) => Line::fine("bpf jit", "on"),
        None => Line::note("bpf jit", "cannot be told here"),
    }
}

fn capabilities() -> Line {
    let wanted = [
        (CapabilitySet::NET_ADMIN, "NET_ADMIN"),
        (CapabilitySet::BPF, "BPF"),
        (CapabilitySet::PERFMON, "PERFMON"),
        (CapabilitySet::NET_RAW, "NET_RAW"),
        (CapabilitySet::IPC_LOCK, "IPC_LOCK"),
    ];
    let held = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |c| c.effective);
    let missing: Vec<_> = wanted.iter().filter(|(one, _)| !held.contains(*one)).map(|(_, name)| *name).collect();
    match missing.is_empty() {
        true => Line::fine("capabilities", wanted.map(|(_, name)| name).join(", ")),
        false => Line::wrong("capabilities", format!("missing {}: run as root or grant them", missing.join(", "))),
    }
}

fn memlock(gateway: &Gateway) -> Line {
    let held = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |c| c.effective);
    let umem = u64::from(gateway.limits.frames) * 4096 * gateway.cores.len() as u64;
    let mib = umem >> 20;
    match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
        _ if held.contains(CapabilitySet::IPC_LOCK) => {
            Line::fine("memlock", format!("IPC_LOCK covers {mib} MiB of frames"))
        }
        Some(limit) if limit < umem => {
            Line::wrong("memlock", format!("the limit is {} MiB, frames take {mib} MiB: ulimit -l", limit >> 20))
        }
        Some(_) | None => Line::fine("memlock", format!("enough for {mib} MiB of frames")),
    }
}

fn bpffs(gateway: &Gateway) -> Line {
    let pins = std::path::Path::new(&gateway.pin_directory);
    let standing = pins.ancestors().find(|p| p.exists()).unwrap_or(std::path::Path::new("/"));
    match rustix::fs::statfs(standing) {
        Ok(fs) if fs.f_type == BPF_FS_MAGIC => Line::fine("bpffs", gateway.pin_directory.clone()),
        Ok(_) => Line::note(
            "bpffs",
            format!("{} is not on a bpffs yet: mount -t bpf bpf /sys/fs/bpf", gateway.pin_directory),
        ),
        Err(e) => Line::wrong("bpffs", format!("{}: {e}", standing.display())),
    }
}

fn cores(gateway: &Gateway) -> Line {
    let online = read("/sys/devices/system/cpu/online").map(|text| ranges(&text)).unwrap_or_default();
    let list = |cores: &[u32]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let missing: Vec<u32> = gateway.cores.iter().copied().filter(|c| !online.contains(c)).collect();
    if !missing.is_empty() && !online.is_empty() {
        return Line::wrong("cores", format!("spec.cores has {}, online are {}", list(&missing), list(&online)));
    }
    if gateway.waiting == snapshot::Waiting::Busy && gateway.cores.len() >= online.len() {
        return Line::note("cores", "waiting: busy on every core leaves none for the kernel and the workloads");
    }
    Line::fine("cores", format!("{} of {}", list(&gateway.cores), list(&online)))
}

/// `0-3,8` as numbers.
fn ranges(text: &str) -> Vec<u32> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
        })
        .flatten()
        .collect()
}

/// Calls under `source: node` share addresses with the node's own sockets, so not their ports too.
fn source_ports(gateway: &Gateway) -> Line {
    let sysctl = |name| read(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let ours = gateway.limits.source_ports;
    shared_ports(ours, &sysctl("ip_local_port_range"), &sysctl("ip_local_reserved_ports"))
}

/// `local` as the kernel writes its range, `reserved` as it writes the ports it leaves out of it.
fn shared_ports(ours: PortRange, local: &str, reserved: &str) -> Line {
    const SUBJECT: &str = "source ports";
    let mut ends = local.split_whitespace().map_while(|end| end.parse::<u16>().ok());
    let (Some(first), Some(last)) = (ends.next(), ends.next()) else {
        return Line::note(SUBJECT, "net.ipv4.ip_local_port_range cannot be told here");
    };
    let reserved = ranges(reserved);
    match ours.ports().any(|port| (first..=last).contains(&port) && !reserved.contains(&port.into())) {
        false => Line::fine(SUBJECT, format!("{ours} is outside the node's own {first}-{last}")),
        true => Line::note(
            SUBJECT,
            format!(
                "{ours} overlaps the node's own {first}-{last}: a call under `source: node` could take the packets \
                 of a socket of the node; sysctl net.ipv4.ip_local_reserved_ports={ours}, or limits.sourcePorts"
            ),
        ),
    }
}

/// Certificates of minutes need a clock that is right to seconds.
fn clock() -> Line {
    let running = |names: &[&str]| {
        std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .any(|process| read(process.path().join("comm")).is_some_and(|comm| names.contains(&comm.as_str())))
    };
    if std::path::Path::new("/run/systemd/timesync/synchronized").exists() {
        return Line::fine("clock", "synchronised by systemd-timesyncd");
    }
    match running(&["chronyd", "ntpd", "ntpd-rs", "systemd-timesyn", "ptp4l"]) {
        true => Line::fine("clock", "a time service runs"),
        false => Line::note("clock", "no time service was found: SVIDs of minutes need clocks that agree"),
    }
}

/// One line a source; files of workloads, which may be of another node, are looked for and not read.
fn identity_sources(gateway: &Gateway) -> impl Iterator<Item = Line> {
    let asked = |named: &&NamedSource| matches!(named.source, IdentitySource::Vault(_));
    gateway.identity.iter().filter(move |named| !asked(named)).map(|named| {
        let several = gateway.identity.len() > 1;
        let what = if several { format!("identity source {}", named.name) } else { "identity source".into() };
        let opened = source::open(named, &gateway.trust_domain, &source::News::default());
        let looked = match &named.source {
            IdentitySource::Files(files) => files
                .single_directory()
                .map(|directory| source::files::look(files, directory).map_err(|fault| fault.to_string())),
            IdentitySource::Spire(spire) => Some(source::spire::look(spire)),
            // One that has to be asked has a line of its own.
            IdentitySource::Embedded { .. } | IdentitySource::Vault(_) => None,
        };
        match (opened, looked) {
            (Err(error), _) => Line::wrong(what, error.to_string()),
            (Ok(_), Some(Err(fault))) => Line::note(what, fault),
            (Ok(source), _) => match source.warnings(crate::clock::now()).as_slice() {
                [] => Line::fine(what, "opens"),
                warnings => Line::note(what, warnings.join("; ")),
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn source_ports_that_the_nodes_sockets_use_too_are_named_unless_they_are_reserved() {
        let ours: PortRange = "61000-65535".parse().unwrap();
        for (name, local, reserved, overlaps) in [
            ("as Linux comes", "32768\t60999", "", false),
            ("one port of ours", "32768\t61000", "", true),
            ("that one is reserved", "32768\t61000", "8080,61000", false),
            ("a range that is common", "1024\t65535", "", true),
            ("all of ours are reserved", "1024\t65535", "61000-65535", false),
            ("all but one", "1024\t65535", "61000-65534", true),
        ] {
            let line = shared_ports(ours, local, reserved);
            assert_eq!(line.outcome == Outcome::Note, overlaps, "{name}: {}", line.found);
        }
        assert_eq!(shared_ports(ours, "", "").outcome, Outcome::Note);
    }

    #[test]
    fn ranges_of_cpus_are_read_as_the_kernel_writes_them() {
        assert_eq!(ranges("0-3,8,10-11"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(ranges("0"), [0]);
        assert_eq!(ranges(""), [0; 0]);
    }
}
