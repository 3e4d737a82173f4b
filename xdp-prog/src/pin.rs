//! What outlives the process: maps and links with names in a bpffs, and how they go away.
//!
//! A gateway has one directory: each map under its own name, each port's link as `link-INTERFACE`.
//! Maps found there are taken over as they are, if their layout is ours to the byte.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel};

use crate::maps::{self, LAYOUT, NAMES};
use crate::tc::Filter;
use crate::{Error, Options, Result, namespace, sys};

/// ELF structures are read in place: they want alignment, which bytes alone do not have.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o")));

const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// Mounts a bpffs at `path`, unless it is on one already.
pub fn ensure_bpffs(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::system(format!("creating {}", path.display())))?;
    if is_bpffs(path)? {
        return Ok(());
    }
    sys::mount_bpffs(path).map_err(Error::system(format!("mounting a bpffs at {}", path.display())))
}

fn is_bpffs(path: &Path) -> Result<bool> {
    let stat = rustix::fs::statfs(path)
        .map_err(|error| Error::system(format!("looking at {}", path.display()))(error.into()))?;
    Ok(stat.f_type as u64 == BPFFS_MAGIC)
}

/// The programs, with maps that were pinned before or now are.
#[derive(Debug)]
pub struct Loaded {
    pub object: Object,
    pub adopted: bool,
}

pub fn load(options: &Options) -> Result<Loaded> {
    let directory = &options.pin_directory;
    std::fs::create_dir_all(directory).map_err(Error::system(format!("creating {}", directory.display())))?;
    if !is_bpffs(directory)? {
        return Err(Error::NotBpffs { path: directory.clone() });
    }
    namespace::is_ours(directory)?;
    hush();
    let mut object =
        ObjectBuilder::default().open_memory(&OBJECT.0).map_err(Error::bpf("opening the steering programs"))?;
    let adopted = reuse_maps(&mut object, options)?;
    let mut object = object.load().map_err(Error::bpf(
        "loading the steering programs (needed: Linux 6.6 or later, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)",
    ))?;
    for mut map in object.maps_mut() {
        if let Some(name) = name_of(&map)
            && !directory.join(name).exists()
        {
            map.pin(directory.join(name)).map_err(Error::bpf(format!("pinning the map {name}")))?;
        }
    }
    Ok(Loaded { object, adopted })
}

/// libbpf reports what is none of an operator's business, such as a qdisc that exists already, or a filter that is
/// gone already.
fn hush() {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |_, text| tracing::debug!("libbpf: {}", text.trim_end()))));
}

/// True if there was anything to reuse.
fn reuse_maps(object: &mut OpenObject, options: &Options) -> Result<bool> {
    let directory = &options.pin_directory;
    let mut adopted = false;
    for mut map in object.maps_mut() {
        let Some(name) = NAMES.iter().find(|name| map.name() == **name) else { continue };
        if *name == "flows" {
            map.set_max_entries(options.flows).map_err(Error::bpf("sizing the map flows"))?;
        }
        let path = directory.join(name);
        if !path.exists() {
            continue;
        }
        let layout = |what: String| Error::Layout { directory: directory.clone(), map: (*name).into(), what };
        let pinned = MapHandle::from_pinned_path(&path).map_err(Error::bpf(format!("opening {}", path.display())))?;
        if *name == "settings" {
            check_version(&pinned).map_err(layout)?;
        }
        let ours = (map.map_type(), sys::sizes(&map), map.max_entries());
        let theirs = (pinned.map_type(), (pinned.key_size(), pinned.value_size()), pinned.max_entries());
        if ours != theirs {
            let what = format!("type, sizes, entries are {theirs:?}, now {ours:?}");
            return Err(layout(what));
        }
        map.reuse_fd(pinned.as_fd()).map_err(Error::bpf(format!("reusing the map {name}")))?;
        adopted = true;
    }
    Ok(adopted)
}

fn check_version(settings: &MapHandle) -> Result<(), String> {
    let value = settings.lookup(&[0; 4], libbpf_rs::MapFlags::ANY).ok().flatten().unwrap_or_default();
    match value.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes) {
        // Zero: a process that died between pinning and writing.
        Some(0 | LAYOUT) => Ok(()),
        Some(other) => Err(format!("layout {other}, now {LAYOUT}")),
        None => Err("it has no version".into()),
    }
}

fn name_of(map: &impl MapCore) -> Option<&'static str> {
    NAMES.iter().find(|name| map.name() == **name).copied()
}

/// A handle of a loaded map.
pub fn table(object: &Object, name: &'static str) -> Result<maps::Table> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .ok_or_else(|| Error::Invalid { what: format!("the steering object has no map {name}") })?;
    let handle = MapHandle::try_from(&map).map_err(Error::bpf(format!("opening the map {name}")))?;
    Ok(maps::Table { name, handle })
}

/// Where an interface's link is pinned. A bpffs allows no dots in names, interfaces have them.
pub fn link_path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("link-{}", interface.replace('%', "%25").replace('.', "%2e")))
}

/// The pinned link of an interface, if there is one.
pub fn open_link(path: &Path) -> Result<Option<OwnedFd>> {
    match sys::open(path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system(format!("opening {}", path.display()))(error)),
    }
}

/// Every pinned link: file and interface, the latter None if the interface is gone.
pub fn links(directory: &Path) -> Result<Vec<(PathBuf, Option<u32>)>> {
    let mut links = Vec::new();
    for path in files(directory)? {
        let is_link = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link-"));
        if is_link && let Some(link) = open_link(&path)? {
            let interface =
                sys::link_interface(link.as_fd()).map_err(Error::system(format!("reading {}", path.display())))?;
            links.push((path, interface));
        }
    }
    Ok(links)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = || Error::system(format!("listing {}", directory.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed())? {
        files.push(entry.map_err(failed())?.path());
    }
    files.sort();
    Ok(files)
}

/// Takes the program of a pinned link off its interface, and the name away.
pub fn take_off(path: &Path) -> Result<()> {
    if let Some(link) = open_link(path)? {
        // No error if the interface is gone: it has taken its program along.
        sys::detach_link(link.as_fd()).map_err(Error::system(format!("taking off {}", path.display())))?;
    }
    unpin(path)
}

/// Removes a pinned name. The link or map goes with its last holder.
pub fn unpin(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system(format!("removing {}", path.display()))(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes a gateway's programs off its interfaces and its maps out of the bpffs, and says what it
/// took. From then on the kernel sees every packet. Nothing there is nothing to do. To be called in
/// the network namespace of the interfaces, unless that one is gone.
pub fn detach(pin_directory: &Path) -> Result<Vec<String>, Error> {
    hush();
    let mut removed = Vec::new();
    if !pin_directory.exists() {
        return Ok(removed);
    }
    if !is_bpffs(pin_directory)? {
        return Err(Error::NotBpffs { path: pin_directory.to_owned() });
    }
    let ports = pin_directory.join("ports");
    // Filters go with their interfaces: those of a namespace that is gone are gone.
    if namespace::is_ours(pin_directory)?
        && ports.exists()
        && let Ok(map) = MapHandle::from_pinned_path(&ports)
    {
        for key in map.keys() {
            let Some(interface) = key.try_into().ok().map(u32::from_ne_bytes) else { continue };
            for filter in Filter::ALL.into_iter().filter(|filter| filter.detach(interface)) {
                let (name, direction) = (filter.name(), filter.direction());
                removed.push(format!("{name} on tc {direction} of interface {}", interface_label(interface)));
            }
        }
    }
    for (path, interface) in links(pin_directory)? {
        take_off(&path)?;
        removed.push(match interface {
            Some(interface) => format!("steering program on interface {}", interface_label(interface)),
            None => format!("{} of an interface that is gone", path.display()),
        });
    }
    for path in files(pin_directory)? {
        if NAMES.iter().any(|name| path.file_name().is_some_and(|file| file == *name)) {
            unpin(&path)?;
            removed.push(format!("map {}", path.display()));
        }
    }
    namespace::forget(pin_directory)?;
    // Another gateway's directory, or an operator's file in it, is not ours to remove.
    if std::fs::remove_dir(pin_directory).is_ok() {
        removed.push(format!("directory {}", pin_directory.display()));
    }
    Ok(removed)
}

fn interface_label(index: u32) -> String {
    let socket = sys::any_socket();
    let name = socket.ok().and_then(|socket| rustix::net::netdevice::index_to_name(socket, index).ok());
    name.unwrap_or_else(|| format!("number {index}"))
}
