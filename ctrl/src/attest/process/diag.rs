//! The socket that calls, or that a call would go to, as the kernel's sock_diag knows it.
//!
//! The 4-tuple is looked up, not searched for: it costs the same however many sockets there are. The
//! kernel finds an IPv6 socket that speaks IPv4 under its IPv4 addresses too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_LISTEN, TCP_SYN_SENT};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use snapshot::{Party, Question};

use super::netlink;

/// One socket for good: its cookie is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    pub inode: u64,
    cookie: [u8; 8],
}

/// `interface`: the workload's end of its port, for sockets that are bound to it; 0 if it is not known.
pub fn find(netlink: &netlink_sys::Socket, question: &Question, interface: u32) -> Result<Socket, String> {
    let (client, server) = (canonical(question.client), canonical(question.server));
    match question.party {
        Party::Caller => calling(netlink, client, server, interface),
        Party::Listener => listening(netlink, client, server, interface),
    }
}

fn calling(netlink: &netlink_sys::Socket, from: SocketAddr, to: SocketAddr, interface: u32) -> Result<Socket, String> {
    let nobody = "the workload's network namespace has no socket that makes this call";
    let answer = ask(netlink, from, to, interface).map_err(|error| format!("{nobody} ({error})"))?;
    let id = &answer.socket_id;
    let ends = [(id.source_address, id.source_port), (id.destination_address, id.destination_port)];
    let ends = ends.map(|(address, port)| SocketAddr::new(address.to_canonical(), port));
    // Where no socket has the 4-tuple, the kernel names one that listens on the port; and a SYN of a
    // connection that stands is not its socket's.
    if ends != [from, to] || answer.state != TCP_SYN_SENT {
        return Err(nobody.into());
    }
    socket(&answer)
}

/// Of several that share the port (`SO_REUSEPORT`, all of one user's) the one that this call would go to. What
/// is left of an earlier call of the same 4-tuple is in the way; the port then has to do.
fn listening(
    netlink: &netlink_sys::Socket,
    from: SocketAddr,
    at: SocketAddr,
    interface: u32,
) -> Result<Socket, String> {
    let anybody: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let nobody = || format!("the workload's network namespace has no socket that listens at {at}");
    for other in [from, SocketAddr::new(anybody, 0)] {
        let answer = ask(netlink, at, other, interface).map_err(|error| format!("{} ({error})", nobody()))?;
        if answer.state == TCP_LISTEN && answer.socket_id.source_port == at.port() {
            return socket(&answer);
        }
    }
    Err(nobody())
}

fn ask(
    netlink: &netlink_sys::Socket,
    own: SocketAddr,
    other: SocketAddr,
    interface: u32,
) -> Result<InetResponseHeader, String> {
    let socket_id = SocketId {
        source_port: own.port(),
        destination_port: other.port(),
        source_address: own.ip(),
        destination_address: other.ip(),
        interface_id: interface,
        // Any.
        cookie: [0xff; 8],
    };
    let family = if own.is_ipv4() { AF_INET } else { AF_INET6 };
    let (extensions, states) = (ExtensionFlags::empty(), StateFlags::all());
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
    match netlink::ask(netlink, SockDiagMessage::InetRequest(request)).map_err(|error| error.to_string())? {
        SockDiagMessage::InetResponse(answer) => Ok(answer.header),
        _ => Err("an answer to another question".into()),
    }
}

fn socket(answer: &InetResponseHeader) -> Result<Socket, String> {
    match answer.inode {
        0 => Err("the socket was closed".into()),
        inode => Ok(Socket { inode: inode.into(), cookie: answer.socket_id.cookie }),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
