//! One interface with the steering program on it, in native mode, held by a pinned link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use libbpf_rs::{Xdp, XdpFlags};

use crate::{Error, Result, pin, sys};

/// The interface's index in this network namespace.
pub fn interface_index(interface: &str) -> Result<u32> {
    let none = |_| Error::NoInterface { interface: interface.to_owned() };
    let socket = sys::any_socket().map_err(Error::system("opening a socket"))?;
    rustix::net::netdevice::name_to_index(socket, interface).map_err(none)
}

/// Puts the program on the interface: under the pinned link if it still holds this interface, else
/// by a new one. True if the link was adopted.
pub fn attach(program: BorrowedFd, directory: &Path, interface: &str, index: u32) -> Result<bool> {
    let path = pin::link_path(directory, interface);
    if let Some(link) = pin::open_link(&path)? {
        let holds = sys::link_interface(link.as_fd())
            .map_err(Error::system(format!("{interface}: reading the pinned link")))?;
        if holds == Some(index) {
            sys::update_link(link.as_fd(), program)
                .map_err(Error::system(format!("{interface}: replacing the steering program")))?;
            return Ok(true);
        }
        // The interface came back as another one; the link holds nothing.
        pin::unpin(&path)?;
    }
    let link = sys::attach_native(program, index).map_err(|error| explain(program, interface, index, error))?;
    sys::pin(link.as_fd(), &path).map_err(Error::system(format!("{interface}: pinning the link")))?;
    Ok(false)
}

/// The kernel's errno in words that name the cure.
fn explain(program: BorrowedFd, interface: &str, index: u32, error: io::Error) -> Error {
    let interface = interface.to_owned();
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => Error::Busy { program: attached(program, index), interface },
        Some(libc::EOPNOTSUPP) => Error::NotNative { interface },
        Some(libc::ENOSPC) => {
            let (rx, max) = sys::rx_queues(&interface).unwrap_or((1, 1));
            Error::Queues { interface, rx, max }
        }
        Some(libc::ERANGE) => Error::Mtu { interface },
        _ => Error::System { what: format!("{interface}: attaching the steering program"), source: error },
    }
}

/// The program that is attached to an interface in whichever mode, 0 if it has gone meanwhile.
fn attached(any_program: BorrowedFd, index: u32) -> u32 {
    let Ok(found) = Xdp::new(any_program).query(index as i32, XdpFlags::NONE) else { return 0 };
    [found.prog_id, found.drv_prog_id, found.hw_prog_id, found.skb_prog_id].into_iter().find(|&id| id != 0).unwrap_or(0)
}
