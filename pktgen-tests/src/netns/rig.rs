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
    afterwards: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
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
        let shared = Arc::new(Shared { prefix, directory, lock: Mutex::new(Some(lock)), afterwards: Mutex::default() });
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

    /// Leaves everything up when the rig is dropped. The next rig sweeps it away.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// To be done when everything else has been stopped and removed, in whatever way the run ends.
    pub fn afterwards(&self, what: impl FnOnce() + Send + 'static) {
        self.shared.afterwards.lock().expect("no holder panics").push(Box::new(what));
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
        for what in self.afterwards.lock().expect("no holder panics").drain(..) {
            what();
        }
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
    Ok(())
}

fn remove(prefix: &str) {
    let names: Vec<String> = fs::read_dir("/run/netns")
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok())
                .filter(|n| n.starts_with(prefix))
                .collect()
        })
        .unwrap_or_default();
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
