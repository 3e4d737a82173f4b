//! The namespaces of one run and their cables: made together, removed together.
//!
//! Each rig has a prefix of its own for the names of its namespaces, so that rigs run beside each
//! other, and a lock file that the kernel unlocks when its process dies in whatever way. A rig
//! whose lock is free has no owner any more: the next one to start removes it.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use super::{Namespace, run, signal, wait_until};

const REGISTRY: &str = "/run/sluice-rig";

/// Where gateways of rigs pin their programs, in directories that begin with the rig's prefix, and
/// where their processes lock those.
const PINS: &str = "/sys/fs/bpf/sluice";
const PIN_LOCKS: &str = "/run/lock";

pub struct Rig {
    shared: Arc<Shared>,
    keep: bool,
}

/// What cleaning up needs to know; the thread that waits for signals holds it too.
pub(super) struct Shared {
    prefix: String,
    directory: PathBuf,
    /// Held for its lock. Cleaning up drops it last.
    lock: Mutex<Option<File>>,
}

/// One end of a cable.
pub struct End<'a> {
    pub namespace: &'a Namespace,
    pub interface: &'a str,
    /// With the length of the prefix: `198.18.1.1/24`, `2001:db8:1::1/64`.
    pub addresses: &'a [&'a str],
}

impl Rig {
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root: run this with sudo");
        fs::create_dir_all(REGISTRY).context("make the registry of rigs")?;
        sweep()?;
        let prefix = format!("sl-{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(REGISTRY).join(&prefix);
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        // Locked before it has the name that sweepers look for.
        let unnamed = Path::new(REGISTRY).join(format!("{prefix}.new"));
        let lock = File::create(&unnamed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).context("lock the rig")?;
        fs::rename(&unnamed, lock_path(&prefix))?;
        let shared = Arc::new(Shared { prefix, directory, lock: Mutex::new(Some(lock)) });
        signal::clean_up_on_signal(&shared)?;
        Ok(Self { shared, keep: false })
    }

    /// For files of this run: configuration, sockets, logs. Removed with the rig.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Begins the name of each namespace, and of whatever else should not meet another run's.
    pub fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// Where one gateway of the rig may pin its programs. Removed with the rig.
    pub fn pins(&self, name: &str) -> String {
        format!("{PINS}/{}{name}", self.shared.prefix)
    }

    /// Leaves everything up when the rig is dropped. The next rig sweeps it away.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let namespace = Namespace::named(&format!("{}{name}", self.shared.prefix));
        ip(&["netns", "add", namespace.name()])?;
        namespace.ip("link set lo up")?;
        // Duplicate address detection would keep an IPv6 address unusable for its first seconds.
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        Ok(namespace)
    }

    /// Lays a veth cable, both ends up.
    pub fn cable(&self, a: &End<'_>, b: &End<'_>, mtu: u32, queues: u32) -> Result<()> {
        let (mtu, queues) = (mtu.to_string(), queues.to_string());
        let queues = ["numtxqueues", &queues, "numrxqueues", &queues];
        ip(&[
            &["link", "add", a.interface, "mtu", &mtu, "netns", a.namespace.name()][..],
            &queues,
            &["type", "veth", "peer", "name", b.interface, "mtu", &mtu, "netns", b.namespace.name()],
            &queues,
        ]
        .concat())?;
        for end in [a, b] {
            for address in end.addresses {
                end.namespace.ip(&format!("address add {address} dev {} nodad", end.interface))?;
            }
            end.namespace.ip(&format!("link set {} up", end.interface))?;
        }
        Ok(())
    }
}

impl<'a> End<'a> {
    pub fn new(namespace: &'a Namespace, interface: &'a str, addresses: &'a [&'a str]) -> Self {
        Self { namespace, interface, addresses }
    }

    /// The end's first address of the given family.
    pub fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().filter_map(|a| a.split('/').next()?.parse::<IpAddr>().ok()).find(|a| a.is_ipv6() == v6)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        signal::forget(&self.shared);
        if !self.keep {
            self.shared.clean_up();
        }
    }
}

impl Shared {
    /// Stops all that runs in the namespaces, then removes them. May be called twice.
    pub(super) fn clean_up(&self) {
        let Some(lock) = self.lock.lock().expect("no holder panics").take() else { return };
        remove(&self.prefix);
        drop(lock);
    }
}

/// Removes the rigs whose process is gone.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(REGISTRY)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let Some(prefix) = name.strip_suffix(".lock") else { continue };
        let Ok(lock) = File::open(lock_path(prefix)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(prefix);
        }
    }
    // Pins outlive everything by design, also a rig that was not swept when it should have been.
    for name in names_in(PINS) {
        let prefix: String = name.split_inclusive('-').take(3).collect();
        if prefix.starts_with("sl-") && !lock_path(&prefix).exists() {
            unpin(&prefix);
        }
    }
    Ok(())
}

fn names_in(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes what gateways of a rig have pinned; their namespaces are gone, and so are the interfaces.
fn unpin(prefix: &str) {
    for name in names_in(PINS).iter().filter(|name| name.starts_with(prefix)) {
        if let Err(error) = fs::remove_dir_all(Path::new(PINS).join(name)) {
            eprintln!("rig: remove the pins of {name}: {error}");
        }
    }
    let locks = format!("sluice{}-{prefix}", PINS.replace('/', "-"));
    for name in names_in(PIN_LOCKS).iter().filter(|name| name.starts_with(&locks)) {
        let _ = fs::remove_file(Path::new(PIN_LOCKS).join(name));
    }
}

fn remove(prefix: &str) {
    let names: Vec<String> = names_in("/run/netns").into_iter().filter(|name| name.starts_with(prefix)).collect();
    // Asked to end first, so that programs with state outside (pins, sockets) take it away.
    for (signal, patience) in [(rustix::process::Signal::TERM, 3000), (rustix::process::Signal::KILL, 1000)] {
        let pids = || names.iter().flat_map(|name| Namespace::named(name).pids()).collect::<Vec<_>>();
        for pid in pids() {
            let _ = rustix::process::kill_process(pid, signal);
        }
        let ended = wait_until("its programs end", Duration::from_millis(patience), || pids().is_empty().then_some(()));
        if ended.is_ok() {
            break;
        }
    }
    for name in &names {
        if let Err(error) = ip(&["netns", "del", name]) {
            eprintln!("rig: {error:#}");
        }
    }
    unpin(prefix);
    let _ = fs::remove_dir_all(Path::new(REGISTRY).join(prefix));
    let _ = fs::remove_file(lock_path(prefix));
}

fn lock_path(prefix: &str) -> PathBuf {
    Path::new(REGISTRY).join(format!("{prefix}.lock"))
}

pub(super) fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, Duration::from_secs(10))?.ok().map(drop)
}
