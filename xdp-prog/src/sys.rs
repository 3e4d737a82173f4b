//! The few system calls that libbpf-rs does not offer, or whose errno it does not pass on.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::Mode;
use libbpf_rs::libbpf_sys;
use libbpf_rs::{AsRawLibbpf, MapCore, MapHandle, OpenMapMut};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Attaches an XDP program in this mode or fails: libbpf-rs would let the kernel choose the generic
/// mode where the driver has no other.
pub fn attach(program: BorrowedFd, interface: u32, mode: Mode) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: match mode {
            Mode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            Mode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        },
        ..Default::default()
    };
    // SAFETY: `options` outlives the call and says its own size; the descriptor is open (borrowed).
    let link =
        unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), interface as i32, libbpf_sys::BPF_XDP, &options) };
    let link = check(link)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Gives a BPF object a name in a bpffs.
pub fn pin(object: BorrowedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: `path` is a C string that outlives the call; the descriptor is open (borrowed).
    check(unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// Opens what is pinned at `path`.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: `path` is a C string that outlives the call.
    let object = check(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(object) })
}

/// Puts another program under a link, without a packet in between that meets none.
pub fn update_link(link: BorrowedFd, program: BorrowedFd) -> io::Result<()> {
    let (link, program) = (link.as_raw_fd(), program.as_raw_fd());
    // SAFETY: both descriptors are open (borrowed); no options are given.
    check(unsafe { libbpf_sys::bpf_link_update(link, program, std::ptr::null()) }).map(drop)
}

/// Takes a link's program off its interface now. Closing the last descriptor does so too, but later, from
/// a work queue of the kernel.
pub fn detach_link(link: BorrowedFd) -> io::Result<()> {
    // SAFETY: takes a descriptor, which is open (borrowed), and no pointer.
    check(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// The interface that an XDP link is on; None if it is gone.
pub fn link_interface(link: BorrowedFd) -> io::Result<Option<u32>> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: `info` is writable for `length` bytes, all zero is a valid value of it.
    check(unsafe { libbpf_sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &mut info, &mut length) })?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_XDP {
        return Ok(None);
    }
    // SAFETY: the kernel says that it filled in the XDP member of the union.
    let interface = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    Ok((interface != 0).then_some(interface))
}

/// How many instructions the verifier walked to accept a program.
pub fn verified_instructions(program: BorrowedFd) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: `info` is writable for `length` bytes, and all zero asks for nothing by pointer.
    check(unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length) })?;
    Ok(info.verified_insns)
}

/// Sets one entry. libbpf-rs hides the errno that tells a full map from any other failure.
pub fn update(map: &MapHandle, key: &[u8], value: &[u8]) -> io::Result<()> {
    assert_eq!(key.len(), map.key_size() as usize, "key size of {:?}", map.name());
    assert_eq!(value.len(), map.value_size() as usize, "value size of {:?}", map.name());
    // SAFETY: the kernel reads as many bytes as the map's key and value have, which the slices
    // have (asserted), and keeps neither pointer. No caller has a per-CPU map.
    check(unsafe {
        libbpf_sys::bpf_map_update_elem(map.as_fd().as_raw_fd(), key.as_ptr().cast(), value.as_ptr().cast(), 0)
    })
    .map(drop)
}

/// Key and value size of a map that is not loaded yet.
pub fn sizes(map: &OpenMapMut) -> (u32, u32) {
    let map = map.as_libbpf_object().as_ptr();
    // SAFETY: the map lives as long as its borrow, and both calls only read.
    unsafe { (libbpf_sys::bpf_map__key_size(map), libbpf_sys::bpf_map__value_size(map)) }
}

/// Mounts a bpffs.
pub fn mount_bpffs(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all strings are C strings that outlive the call.
    let result =
        unsafe { libc::mount(c"bpf".as_ptr(), path.as_ptr(), c"bpf".as_ptr(), flags, c"mode=0700".as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket to ask about interfaces with, whatever it is.
pub fn any_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// Receive queues of an interface: in use, and at most.
pub fn rx_queues(interface: &str) -> io::Result<(u32, u32)> {
    /// `struct ethtool_channels` of <linux/ethtool.h>.
    #[repr(C)]
    struct Channels {
        command: u32,
        max: [u32; 4],
        now: [u32; 4],
    }
    const GCHANNELS: u32 = 0x3c;
    const RX: usize = 0;
    const COMBINED: usize = 3;
    let socket = any_socket()?;
    let mut channels = Channels { command: GCHANNELS, max: [0; 4], now: [0; 4] };
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: the name is terminated.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the request names an interface and points at `channels`, which outlives the call and
    // has the layout that the command asks for.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((channels.now[RX].max(channels.now[COMBINED]), channels.max[RX].max(channels.max[COMBINED])))
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// libbpf's low-level calls return a negative errno.
fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
