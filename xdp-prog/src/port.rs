//! One interface with the steering program on it, in the mode that was asked for, held by a pinned
//! link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use libbpf_rs::libbpf_sys;
use libbpf_rs::{Xdp, XdpFlags};

use crate::{Error, Mode, Port, Result, pin, sys};

/// The interface's index in this network namespace.
pub fn interface_index(interface: &str) -> Result<u32> {
    let none = |_| Error::NoInterface { interface: interface.to_owned() };
    let socket = sys::any_socket().map_err(Error::system("opening a socket"))?;
    rustix::net::netdevice::name_to_index(socket, interface).map_err(none)
}

/// Puts the program on the interface: under the pinned link if it still holds this interface, else
/// by a new one. True if the link was adopted, with the mode that it has.
pub fn attach(program: BorrowedFd, directory: &Path, port: &Port, index: u32) -> Result<bool> {
    let interface = port.interface.as_str();
    let path = pin::link_path(directory, interface);
    if let Some(link) = pin::open_link(&path)? {
        let holds = sys::link_interface(link.as_fd())
            .map_err(Error::system(format!("{interface}: reading the pinned link")))?;
        if holds == Some(index) {
            sys::update_link(link.as_fd(), program)
                .map_err(Error::system(format!("{interface}: replacing the steering program")))?;
            let mode = mode(program, index);
            if mode.is_some_and(|mode| mode != port.mode) {
                let (is, wanted) = (mode.map_or("", Mode::name), port.mode.name());
                tracing::error!(interface, "its XDP mode stays {is} until `sluice detach`; {wanted} is configured");
            }
            return Ok(true);
        }
        // The interface came back as another one; the link holds nothing.
        pin::unpin(&path)?;
    }
    let link = sys::attach(program, index, port.mode).map_err(|error| explain(program, interface, index, error))?;
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

/// The mode in which an interface has an XDP program. None: it has none.
pub fn mode(any_program: BorrowedFd, index: u32) -> Option<Mode> {
    let found = Xdp::new(any_program).query(index as i32, XdpFlags::NONE).ok()?;
    match u32::from(found.attach_mode) {
        libbpf_sys::XDP_ATTACHED_DRV => Some(Mode::Native),
        libbpf_sys::XDP_ATTACHED_SKB => Some(Mode::Generic),
        _ => None,
    }
}

/// The program that is attached to an interface in whichever mode, 0 if it has gone meanwhile.
fn attached(any_program: BorrowedFd, index: u32) -> u32 {
    let Ok(found) = Xdp::new(any_program).query(index as i32, XdpFlags::NONE) else { return 0 };
    [found.prog_id, found.drv_prog_id, found.hw_prog_id, found.skb_prog_id].into_iter().find(|&id| id != 0).unwrap_or(0)
}
