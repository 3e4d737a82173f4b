//! Private key files: written atomically and unreadable for others, refused when others can read them.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Error;

/// Writes a new file whole or not at all; an existing one is left as it is.
pub fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    if path.symlink_metadata().is_ok() {
        return Err(Error::Exists(path.to_owned()));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    // A leftover of a crash is of nobody's use.
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(io)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    // hard_link, unlike rename, fails if somebody made the file meanwhile.
    let placed = written.and_then(|()| std::fs::hard_link(&temporary, path));
    let _ = std::fs::remove_file(&temporary);
    placed.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => io(source),
    })
}

/// Reads a private key whose mode keeps others out.
pub fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    use std::io::Read as _;
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    // Of the opened file, not of the name: it cannot be swapped in between.
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::KeyPermissions { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(LARGEST_KEY));
    file.take(LARGEST_KEY as u64).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// A PEM key is some hundreds of bytes; reading into one allocation leaves no copies behind.
const LARGEST_KEY: usize = 16 * 1024;
