//! Raw frames of one interface, sent and received by an AF_PACKET socket.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};

use anyhow::{Context, Result, ensure};

use super::Namespace;

#[derive(Debug)]
pub struct PacketSocket {
    socket: File,
}

impl PacketSocket {
    /// Hears every frame of `interface`, both ways.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::with_protocol(namespace, interface, (libc::ETH_P_ALL as u16).to_be())
    }

    /// Only sends.
    pub fn sender(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::with_protocol(namespace, interface, 0)
    }

    fn with_protocol(namespace: &Namespace, interface: &str, protocol: u16) -> Result<Self> {
        namespace.enter(|| open(interface, protocol))?.with_context(|| format!("packet socket on {interface}"))
    }

    /// The frame as it goes over the wire, from the Ethernet header to the last byte before the FCS.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = (&self.socket).write(frame).with_context(|| format!("send a frame of {} bytes", frame.len()))?;
        ensure!(sent == frame.len(), "sent {sent} of {} bytes", frame.len());
        Ok(())
    }

    /// A frame that is there already, cut to the buffer's length. None: there is none.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        match rustix::net::recv(&self.socket, &mut *buffer, rustix::net::RecvFlags::DONTWAIT) {
            Ok((length, _)) => Ok(Some(&buffer[..length])),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error).context("receive a frame"),
        }
    }

    /// Makes room for `bytes` of frames that nobody has read yet.
    pub(super) fn buffer(&self, bytes: i32) -> Result<()> {
        self.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes).context("enlarge the socket's buffer")
    }

    pub(super) fn file(&self) -> &File {
        &self.socket
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Frames that did not fit the buffer since the last call.
    pub(super) fn dropped(&self) -> Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the pointers are to locals that live through the call, `length` is the size of the first.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        check(result).context("read the socket's statistics")?;
        Ok(statistics.tp_drops)
    }

    fn option<T>(&self, level: i32, name: i32, value: &T) -> Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: `value` lives through the call, and `length` is its size.
        check(unsafe { libc::setsockopt(self.socket.as_raw_fd(), level, name, (&raw const *value).cast(), length) })
    }
}

fn open(interface: &str, protocol: u16) -> Result<PacketSocket> {
    // SAFETY: no pointers. Protocol 0: nothing is heard before the bind below says where.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    check(fd).context("open")?;
    // SAFETY: the descriptor is fresh and nobody else's.
    let socket = PacketSocket { socket: unsafe { File::from_raw_fd(fd) } };
    let name = CString::new(interface)?;
    // SAFETY: `name` is a C string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "there is no interface {interface}");
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` lives through the call, and `length` is its size.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), length) }).context("bind")?;
    Ok(socket)
}

fn check(result: i32) -> Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}
