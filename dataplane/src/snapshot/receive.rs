//! The dataplane's end of the channel to ctrl: messages, and sealed memfds beside them.
//!
//! A state is only read from a descriptor that nobody can change any more: what was checked is what
//! is used.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::SealFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};
use serde::de::DeserializeOwned;
use snapshot::channel::MAX_MESSAGE;
use snapshot::codec::{self, MAX_BODY};
use snapshot::{ToCtrl, ToDataplane};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the channel to sluice-ctrl failed: {0}")]
    Io(#[from] Errno),
    #[error("sluice-ctrl closed the channel")]
    Closed,
    #[error("a message from sluice-ctrl cannot be read: {0}")]
    Message(#[from] codec::Error),
    #[error("a message of over {MAX_MESSAGE} bytes came")]
    TooLarge,
    #[error("the message says that a descriptor comes with it, and none did")]
    NoDescriptor,
    #[error("the descriptor is not sealed against writing, growing and shrinking")]
    NotSealed,
}

pub struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Channel {
    /// Connects to ctrl's socket. Errors with ENOENT or ECONNREFUSED mean that it does not run.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket, buffer: vec![0; MAX_MESSAGE] })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// False: the socket has no room now; ctrl is slow.
    pub fn send(&self, message: &ToCtrl) -> Result<bool, Error> {
        let bytes = codec::to_message(message)?;
        let mut no_fds = SendAncillaryBuffer::default();
        match sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut no_fds, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message, if one waits, with the descriptor that came with it.
    pub fn receive(&mut self) -> Result<Option<(ToDataplane, Option<OwnedFd>)>, Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let received = match recvmsg(&self.socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
            return Err(Error::TooLarge);
        }
        if received.bytes == 0 {
            return Err(Error::Closed);
        }
        let message = codec::from_message(&self.buffer[..received.bytes]);
        // Keys come through here.
        zeroize::Zeroize::zeroize(&mut self.buffer[..received.bytes]);
        Ok(Some((message?, descriptor)))
    }
}

/// Reads a whole state out of a sealed memfd.
pub fn read_state<T: DeserializeOwned>(descriptor: Option<OwnedFd>) -> Result<T, Error> {
    let descriptor = descriptor.ok_or(Error::NoDescriptor)?;
    let sealed = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    if !rustix::fs::fcntl_get_seals(&descriptor).is_ok_and(|seals| seals.contains(sealed)) {
        return Err(Error::NotSealed);
    }
    let length = rustix::fs::fstat(&descriptor)?.st_size as u64;
    if length > MAX_BODY {
        return Err(codec::Error::TooLarge(length).into());
    }
    let mut bytes = vec![0; length as usize];
    let mut at = 0;
    while at < bytes.len() {
        match rustix::io::pread(&descriptor, &mut bytes[at..], at as u64)? {
            0 => return Err(Error::NotSealed),
            count => at += count,
        }
    }
    Ok(codec::from_state(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};
    use snapshot::Network;

    fn memfd(bytes: &[u8], seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, bytes).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn a_state_is_read_from_a_sealed_descriptor_only() {
        let network = Network { revision: 9, ..Network::default() };
        let bytes = codec::to_state(&network).unwrap();
        let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        assert_eq!(read_state::<Network>(Some(memfd(&bytes, all))).unwrap(), network);
        let open = memfd(&bytes, SealFlags::GROW | SealFlags::SHRINK);
        assert!(matches!(read_state::<Network>(Some(open)), Err(Error::NotSealed)));
        assert!(matches!(read_state::<Network>(None), Err(Error::NoDescriptor)));
        let torn = memfd(&bytes[..bytes.len() - 1], all);
        assert!(matches!(read_state::<Network>(Some(torn)), Err(Error::Message(_))));
    }
}
