//! The socket that calls, or that a call would go to, as the kernel's sock_diag knows it.
//!
//! The 4-tuple is looked up, not searched for: it costs the same however many sockets there are. The
//! kernel finds an IPv6 socket that speaks IPv4 under its IPv4 addresses too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_LISTEN, TCP_SYN_SENT};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use snapshot::Unfound;

use super::netlink;

/// Sockets that share one port number: a prefork server has one a worker.
const MOST_LISTENERS: usize = 1_024;

/// One socket for good: its cookie is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    pub inode: u64,
    cookie: [u8; 8],
}

/// The way to the sockets of one namespace.
#[derive(Debug)]
pub struct Sockets {
    pub netlink: netlink_sys::Socket,
    /// The workload's end of its port, for sockets that are bound to it; 0 if it is not known.
    pub interface: u32,
}

impl Sockets {
    pub fn calling(&self, from: SocketAddr, to: SocketAddr) -> Result<Socket, Unfound> {
        let nobody = "the workload's network namespace has no socket that makes this call";
        let (from, to) = (canonical(from), canonical(to));
        let answer = self.ask(from, to).map_err(|error| Unfound::Nobody(format!("{nobody} ({error})")))?;
        let id = &answer.socket_id;
        let ends = [(id.source_address, id.source_port), (id.destination_address, id.destination_port)];
        let ends = ends.map(|(address, port)| SocketAddr::new(address.to_canonical(), port));
        // Where no socket has the 4-tuple, the kernel names one that listens on the port; and a SYN of a
        // connection that stands is not its socket's.
        if ends != [from, to] || answer.state != TCP_SYN_SENT {
            return Err(Unfound::Nobody(nobody.into()));
        }
        socket(&answer)
    }

    /// All that share the port at the address that a call to `at` would go to: which of a `SO_REUSEPORT` group
    /// takes it, a hash says, or a program of theirs.
    pub fn listening(&self, at: SocketAddr) -> Result<Vec<Socket>, Unfound> {
        let at = canonical(at);
        let nobody = format!("the workload's network namespace has no socket that listens at {at}");
        // Of no connection, and so of none that stands.
        let anybody: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let answer = self.ask(at, SocketAddr::new(anybody, 0));
        let first = answer.map_err(|error| Unfound::Nobody(format!("{nobody} ({error})")))?;
        if first.state != TCP_LISTEN || first.socket_id.source_port != at.port() {
            return Err(Unfound::Nobody(nobody));
        }
        let group = |header: &InetResponseHeader| {
            let SocketId { source_address, source_port, interface_id, .. } = header.socket_id;
            (source_address, source_port, interface_id)
        };
        let any = SocketId {
            source_port: at.port(),
            ..if first.family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() }
        };
        let request = request(first.family, StateFlags::LISTEN, any);
        let all = netlink::dump(&self.netlink, SockDiagMessage::InetRequest(request), MOST_LISTENERS);
        let all = all.map_err(|error| format!("those that listen cannot be listed: {error}"))?;
        let headers = all.into_iter().filter_map(|answer| match answer {
            SockDiagMessage::InetResponse(answer) => Some(answer.header),
            _ => None,
        });
        let mut found: Vec<_> = headers
            .filter(|header| group(header) == group(&first))
            .map(|header| socket(&header))
            .collect::<Result<_, _>>()?;
        found.sort_unstable();
        match found.contains(&socket(&first)?) {
            true => Ok(found),
            false => Err(format!("what listens at {at} changed while it was looked at").into()),
        }
    }

    /// Whoever calls `from` on this very 4-tuple would be given the connection, and not who listens.
    pub fn is_in_the_way(&self, from: SocketAddr, at: SocketAddr) -> Result<(), Unfound> {
        let (from, at) = (canonical(from), canonical(at));
        match self.ask(at, from) {
            Ok(answer) if answer.state == TCP_SYN_SENT => {
                Err(Unfound::Nobody(format!("a socket at {at} is calling {from} itself, and would be given the call")))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn ask(&self, own: SocketAddr, other: SocketAddr) -> Result<InetResponseHeader, String> {
        let socket_id = SocketId {
            source_port: own.port(),
            destination_port: other.port(),
            source_address: own.ip(),
            destination_address: other.ip(),
            interface_id: self.interface,
            // Any.
            cookie: [0xff; 8],
        };
        let family = if own.is_ipv4() { AF_INET } else { AF_INET6 };
        let request = request(family, StateFlags::all(), socket_id);
        match netlink::ask(&self.netlink, SockDiagMessage::InetRequest(request)).map_err(|error| error.to_string())? {
            SockDiagMessage::InetResponse(answer) => Ok(answer.header),
            _ => Err("an answer to another question".into()),
        }
    }
}

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id }
}

fn socket(answer: &InetResponseHeader) -> Result<Socket, Unfound> {
    match answer.inode {
        0 => Err("the socket was closed".into()),
        inode => Ok(Socket { inode: inode.into(), cookie: answer.socket_id.cookie }),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
