//! A file that lines are put to, and that is put aside when it is full: `audit.jsonl`, then `audit.jsonl.1`
//! (the youngest), `.2` and on.
//!
//! A line is in it whole or not at all. Whatever goes wrong is the answer to that line; the next one tries
//! again, from opening the file on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// Only who runs the gateway reads who calls whom.
const MODE: u32 = 0o600;

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    max_size: u64,
    keep: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    size: u64,
    /// A piece of a line is at its end, and could not be cut off.
    torn: bool,
}

impl LogFile {
    pub fn new(path: &Path, max_size: u64, keep: u32) -> Self {
        Self { path: path.to_owned(), max_size, keep: keep.max(1), open: None }
    }

    /// Lines with their ends.
    pub fn append(&mut self, text: &str) -> io::Result<()> {
        let size = self.current()?.size;
        if size > 0 && size + text.len() as u64 > self.max_size {
            self.put_aside()?;
        }
        self.current()?.write(text)
    }

    /// Opened again if somebody else moved or removed it: lines would go where nobody looks.
    fn current(&mut self) -> io::Result<&mut Open> {
        let there = fs::symlink_metadata(&self.path).map(|there| (there.dev(), there.ino())).ok();
        let open = match self.open.take().filter(|open| Some(open.id) == there) {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        Ok(self.open.insert(open))
    }

    /// If it cannot be, the file takes no more: it never grows beyond its size.
    fn put_aside(&mut self) -> io::Result<()> {
        for nth in (1..self.keep).rev() {
            match fs::rename(self.aside(nth), self.aside(nth + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, self.aside(1))
    }

    fn aside(&self, nth: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{nth}"));
        path.into()
    }
}

impl Open {
    /// No link is followed, no pipe waited for, and nothing taken that others can read, write or hold.
    fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = i32::try_from(flags.bits()).expect("flags are an int");
        let file = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
        let is = file.metadata()?;
        if !is.is_file() || is.nlink() > 1 || is.uid() != rustix::process::geteuid().as_raw() {
            let why = "is there and is no file of this user's alone: name another, or remove it";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        let held = |error| io::Error::new(io::ErrorKind::ResourceBusy, format!("another process writes it ({error})"));
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(held)?;
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        Ok(Self { id: (is.dev(), is.ino()), size: is.len(), torn: false, file })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.size)?;
            self.torn = false;
        }
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.size += text.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A full disk takes a part, and gives it back.
                self.torn = self.file.set_len(self.size).is_err();
                Err(error)
            }
        }
    }
}
