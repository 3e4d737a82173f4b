//! Private key files: written atomically and unreadable for others, refused when others can read them.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Error;

/// Fails with the first of these that exists.
pub fn absent(paths: &[&Path]) -> Result<(), Error> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(Error::Exists(path.to_path_buf())),
        None => Ok(()),
    }
}

/// Makes a directory for keys, unreadable for others; one that exists is taken as it is.
pub fn create_dir(dir: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|reason| Error::Io { path: dir.to_owned(), reason })
}

/// Writes a new file whole or not at all; an existing one is left as it is.
pub fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let io = |reason| Error::Io { path: path.to_owned(), reason };
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
    let io = |reason| Error::Io { path: path.to_owned(), reason };
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

/// Reads a file of certificates.
pub fn read_public(path: &Path) -> Result<String, Error> {
    let io = |reason| Error::Io { path: path.to_owned(), reason };
    let mut text = String::new();
    std::fs::File::open(path).map_err(io)?.take(LARGEST_BUNDLE).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// PKCS#8 in PEM (RFC 7468 §10), wiped when dropped.
pub fn pem(pkcs8: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Room for all of it at once: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(pkcs8.len() * 2 + 128));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    // 48 bytes are a line of 64 characters.
    for line in pkcs8.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for nth in 0..4 {
                match nth <= group.len() {
                    true => text.push(char::from(ALPHABET[(bits >> (18 - 6 * nth)) as usize & 63])),
                    false => text.push('='),
                }
            }
        }
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

/// A PEM key is some hundreds of bytes; reading into one allocation leaves no copies behind.
const LARGEST_KEY: usize = 16 * 1024;
const LARGEST_BUNDLE: u64 = 4 << 20;
