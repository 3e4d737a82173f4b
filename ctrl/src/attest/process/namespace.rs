//! The network namespace that the workloads of an inside port are in.
//!
//! A veth's other end says so by a number that only this namespace understands; which namespace has that
//! number is asked of each that has a name or a process. What was found is remembered as a path and
//! looked at again each time: an open handle would keep alive a namespace whose workloads are gone, and
//! with it the port.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Netns, diag, netlink};

/// Named namespaces, and our own.
const NAMED: &str = "/run/netns";
const OWN: &str = "/proc/self/ns/net";

/// A way to ask about sockets of one namespace. It ends with the batch that it was opened for.
pub struct Namespace {
    pub inode: u64,
    pub sockets: diag::Sockets,
}

/// Where namespaces were found last, by interface.
#[derive(Debug, Default)]
pub struct Namespaces(HashMap<String, PathBuf>);

impl Namespaces {
    pub fn of(&mut self, interface: &str, said: Option<&Netns>) -> Result<Namespace, String> {
        let peer = Peer::of(interface).map_err(|error| format!("{interface} cannot be looked at: {error}"))?;
        let (file, path) = match said {
            Some(netns) => open(&netns.path())?,
            None => self.search(interface, &peer)?,
        };
        let inode = file.metadata().map_err(|error| format!("{}: {error}", path.display()))?.ino();
        let netlink = inside(&file).map_err(|error| format!("{} cannot be entered: {error}", path.display()))?;
        self.0.insert(interface.to_owned(), path);
        Ok(Namespace { inode, sockets: diag::Sockets { netlink, interface: peer.index } })
    }

    fn search(&self, interface: &str, peer: &Peer) -> Result<(File, PathBuf), String> {
        let Some(id) = peer.namespace else {
            return if peer.index == 0 {
                Err(format!("{interface} does not say where its other end is: give its port a netns"))
            } else {
                open(Path::new(OWN))
            };
        };
        let socket = Socket::new(NETLINK_ROUTE).map_err(|error| error.to_string())?;
        let mut seen = BTreeSet::new();
        let places = self.0.get(interface).cloned().into_iter().chain(named()).chain(of_processes());
        for path in places {
            let Ok(file) = File::open(&path) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            if seen.insert(metadata.ino()) && number(&socket, &file).is_ok_and(|number| number == id) {
                return Ok((file, path));
            }
        }
        Err(format!("no process and no name in {NAMED} is in the namespace behind {interface}: give its port a netns"))
    }
}

fn open(path: &Path) -> Result<(File, PathBuf), String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((file, path.to_owned()))
}

fn named() -> impl Iterator<Item = PathBuf> {
    fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn of_processes() -> impl Iterator<Item = PathBuf> {
    super::holders::pids().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")))
}

/// What a link says about its other end.
struct Peer {
    /// 0: it does not say.
    index: u32,
    /// None: in this namespace, if anywhere.
    namespace: Option<i32>,
}

impl Peer {
    fn of(interface: &str) -> io::Result<Self> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(interface.to_owned()));
        let socket = Socket::new(NETLINK_ROUTE)?;
        let RouteNetlinkMessage::NewLink(link) = netlink::ask(&socket, RouteNetlinkMessage::GetLink(request))? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"));
        };
        let mut peer = Self { index: 0, namespace: None };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Link(index) => peer.index = index,
                LinkAttribute::LinkNetNsId(id) => peer.namespace = Some(id),
                _ => {}
            }
        }
        Ok(peer)
    }
}

/// What this namespace calls another one; -1 is no name.
fn number(socket: &Socket, namespace: &File) -> io::Result<i32> {
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
    let RouteNetlinkMessage::NewNsId(answer) = netlink::ask(socket, RouteNetlinkMessage::GetNsId(request))? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"));
    };
    let id = answer.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(*id),
        _ => None,
    });
    id.filter(|id| *id >= 0).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A thread of its own enters, and ends there: a socket stays where it was opened, and no other thread of
/// this process is ever elsewhere.
fn inside(namespace: &File) -> io::Result<Socket> {
    std::thread::scope(|scope| {
        let entered = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Socket::new(NETLINK_SOCK_DIAG)
        })?;
        entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread that entered it panicked")))
    })
}
