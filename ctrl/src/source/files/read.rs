//! The bytes of a file, whatever somebody has put in its place.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::source::svid::Fault;

/// What a file holds, wiped when dropped: there may be a key in it.
pub struct Content {
    pub bytes: Zeroizing<Vec<u8>>,
    pub mode: u32,
}

pub fn read(path: &Path) -> Result<Content, Fault> {
    let io = |error: std::io::Error| Fault::Io { path: path.to_owned(), reason: error.to_string() };
    let file = open(path).map_err(io)?;
    // Of the opened file, not of the name: it cannot be swapped in between.
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile { path: path.to_owned() });
    }
    let size = metadata.len();
    if size > LARGEST {
        return Err(Fault::TooLarge { path: path.to_owned(), size, most: LARGEST });
    }
    // One allocation with room to see that there is more: growing would leave copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 1));
    file.take(size + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 != size {
        return Err(Fault::Changing { path: path.to_owned() });
    }
    Ok(Content { bytes, mode: metadata.permissions().mode() & 0o7777 })
}

/// Does not wait for the other end if it is a FIFO.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// A thousand roots take 2 MiB; they are then refused by their number.
const LARGEST: u64 = 4 << 20;
