//! Unix sockets of the control process: bound privately, and packets with a descriptor beside them.
//!
//! A socket is bound, narrowed to its owner and only then listened on, so that nobody else can
//! connect in between. Who may remove a stale socket file is settled by a lock file, not by
//! guessing whether somebody still answers.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags};
use snapshot::channel::MAX_MESSAGE;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

pub use rustix::net::SocketType;

/// Holds the right to the sockets of one Gateway for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock ends when the file is closed")] std::fs::File);

/// Why a lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is in use by another sluice-ctrl (pid {pid})", admin.display())]
    Held { admin: PathBuf, pid: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Makes the directory of `admin` (0700) if it is missing and takes the lock `<admin>.lock`, for the
/// one control process that serves there.
pub fn lock(admin: &Path) -> Result<Lock, LockError> {
    hold(admin, ".lock")
}

/// The same for the one `sluice up`: `<admin>.up.lock`. Its children come and go, this stays.
pub fn lock_up(admin: &Path) -> Result<Lock, LockError> {
    hold(admin, ".up.lock")
}

fn hold(admin: &Path, suffix: &str) -> Result<Lock, LockError> {
    let mut path = admin.as_os_str().to_owned();
    path.push(suffix);
    let path = PathBuf::from(path);
    match take(admin, &path) {
        Ok(Ok(file)) => Ok(Lock(file)),
        Ok(Err(pid)) => Err(LockError::Held { admin: admin.to_owned(), pid }),
        Err(source) => Err(LockError::Io { path, source }),
    }
}

/// The file, locked and with our PID in it, or else the PID of the process that holds it.
fn take(admin: &Path, path: &Path) -> io::Result<Result<std::fs::File, String>> {
    if let Some(directory) = admin.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0)?;
            file.write_all(std::process::id().to_string().as_bytes())?;
            Ok(Ok(file))
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            Ok(Err(pid))
        }
        Err(e) => Err(e.into()),
    }
}

/// A listening socket at `path`, mode 0600. A file that an earlier process left is replaced: the
/// caller holds the [`Lock`].
pub fn listen(path: &Path, kind: SocketType, _held: &Lock) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 16)?;
    UnixListener::from_std(socket.into())
}

/// The other end of an accepted socket, if it is of our own user (or root).
pub fn peer(socket: impl AsFd) -> io::Result<i32> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    let ours = rustix::process::geteuid();
    if peer.uid == ours || peer.uid.is_root() {
        Ok(peer.pid.as_raw_nonzero().get())
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("uid {} is not ours ({})", peer.uid.as_raw(), ours.as_raw()),
        ))
    }
}

/// A memfd with `bytes` that nobody can change any more.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(&fd, &bytes[written..], written as u64)?;
    }
    rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// One end of a SOCK_SEQPACKET connection. tokio has no type for it; its stream only waits for
/// readiness here, every read and write is ours.
#[derive(Debug)]
pub struct Packets(UnixStream);

impl Packets {
    pub fn new(socket: UnixStream) -> Self {
        Self(socket)
    }

    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
        UnixStream::from_std(socket.into()).map(Self)
    }

    /// Waits for room, then sends one packet whole.
    pub async fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || send_now(self.0.as_fd(), bytes, descriptor)).await
    }

    /// The next packet; None when the other side has closed.
    pub async fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let receive_now = || Ok(rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::TRUNC)?.1);
        match self.0.async_io(Interest::READABLE, receive_now).await? {
            0 => Ok(None),
            length if length > buffer.len() => {
                let text = format!("a message of {length} bytes is over the limit of {MAX_MESSAGE}");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            length => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
        }
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn send_now(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: &[BorrowedFd<'_>] = &descriptor.map_or(vec![], |fd| vec![fd]);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "the space is for one descriptor");
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
