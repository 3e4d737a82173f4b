//! A packet socket that takes large packets and has the kernel cut them into segments.
//!
//! AF_XDP sends frames as they are; what it lacks is segmentation offload. This socket has it
//! (packet(7), PACKET_VNET_HDR): a `virtio_net_hdr` before each packet says where to cut. It only
//! ever sends; its protocol is 0, so nothing is received.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::coalesce::Cut;
use super::xsk::Kick;

/// Bytes that may be on their way, as the kernel counts (twice this, with its overhead): few enough
/// that a veth's queue of 256 packets holds what they are cut into.
const SEND_BUFFER: usize = 128 << 10;

pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// On the interface with this index. Needs CAP_NET_RAW.
    pub fn open(index: u32) -> Result<Self, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        const PACKET_VNET_HDR: libc::c_int = 15;
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open; the pointer and the length are of `on`, which outlives the
        // call; the kernel only reads it.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: as above, of `address`.
        let bound = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        if set != 0 || bound != 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
        }
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        Ok(Self(socket))
    }

    /// Sends one frame, to be cut as `cut` says.
    pub fn send(&self, frame: &[u8], cut: Cut) -> Kick {
        let header = virtio_header(cut);
        match rustix::io::writev(self.0.as_fd(), &[IoSlice::new(&header), IoSlice::new(frame)]) {
            Ok(_) => Kick::Done,
            Err(Errno::AGAIN | Errno::INTR) => Kick::Again,
            Err(Errno::NETDOWN | Errno::NXIO | Errno::NODEV) => Kick::Down,
            Err(_) => Kick::Refused,
        }
    }
}

/// `struct virtio_net_hdr` of linux/virtio_net.h, in the machine's byte order.
fn virtio_header(cut: Cut) -> [u8; 10] {
    const NEEDS_CSUM: u8 = 1;
    const GSO_NONE: u8 = 0;
    const GSO_TCPV4: u8 = 1;
    const GSO_TCPV6: u8 = 4;
    const TCP_CHECKSUM: u16 = 16;
    let kind = match (cut.segment, cut.v6) {
        (0, _) => GSO_NONE,
        (_, false) => GSO_TCPV4,
        (_, true) => GSO_TCPV6,
    };
    let mut header = [0; 10];
    header[0] = NEEDS_CSUM;
    header[1] = kind;
    header[2..4].copy_from_slice(&(cut.headers as u16).to_ne_bytes());
    header[4..6].copy_from_slice(&(cut.segment as u16).to_ne_bytes());
    header[6..8].copy_from_slice(&(cut.transport as u16).to_ne_bytes());
    header[8..10].copy_from_slice(&TCP_CHECKSUM.to_ne_bytes());
    header
}
