//! The socket of a flow, as the kernel's sock_diag knows it.
//!
//! The 4-tuple is looked up, not searched for: it costs the same however many sockets there are. The
//! kernel finds an IPv6 socket that speaks IPv4 under its IPv4 addresses too.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_SYN_SENT};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use snapshot::Question;

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
    let socket_id = SocketId {
        source_port: client.port(),
        destination_port: server.port(),
        source_address: client.ip(),
        destination_address: server.ip(),
        interface_id: interface,
        // Any.
        cookie: [0xff; 8],
    };
    let family = if client.is_ipv4() { AF_INET } else { AF_INET6 };
    let (extensions, states) = (ExtensionFlags::empty(), StateFlags::all());
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
    let answer = netlink::ask(netlink, SockDiagMessage::InetRequest(request))
        .map_err(|error| format!("the workload's network namespace has no socket of this flow ({error})"))?;
    let SockDiagMessage::InetResponse(answer) = answer else { return Err("an answer to another question".into()) };
    let id = &answer.header.socket_id;
    let ends = [(id.source_address, id.source_port), (id.destination_address, id.destination_port)];
    let ends = ends.map(|(address, port)| SocketAddr::new(address.to_canonical(), port));
    // Where no socket has the 4-tuple, the kernel names one that listens on the port; and a SYN of a
    // connection that stands is not its socket's.
    if ends != [client, server] || answer.header.state != TCP_SYN_SENT {
        return Err("the workload's network namespace has no socket that makes this call".into());
    }
    match answer.header.inode {
        0 => Err("the socket of this flow was closed".into()),
        inode => Ok(Socket { inode: inode.into(), cookie: id.cookie }),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
