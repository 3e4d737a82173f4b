//! One inotify for the directories of all identities: the kernel allows a user few of them.
//!
//! Directories are watched, not files: `..data` and renames replace files. Each is watched by its
//! canonical path, since two watches on one inode are one to the kernel.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Something happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// Somebody writes to it, and has not closed it.
    Written(PathBuf),
    /// It is there whole: closed, renamed, linked; or it is gone.
    Done(PathBuf),
}

pub struct Watch {
    /// Apart from the routes: the watcher's own thread takes those, and answers to this one.
    watcher: Mutex<Option<notify::RecommendedWatcher>>,
    /// Why there is no watcher. Apart: who asks must not wait for one that hangs.
    broken: Option<String>,
    routes: Arc<Mutex<Routes>>,
}

#[derive(Default)]
struct Routes {
    directories: HashMap<PathBuf, Directory>,
    next: u64,
}

struct Directory {
    /// Device and inode that are watched: something else may be mounted there later.
    inode: (u64, u64),
    subscribers: HashMap<u64, mpsc::Sender<Touch>>,
}

/// What one identity is watched by. Ends when it is dropped.
pub struct Subscription {
    watch: Arc<Watch>,
    id: u64,
    sender: mpsc::Sender<Touch>,
    directories: Vec<PathBuf>,
}

impl Watch {
    pub fn new() -> Self {
        let routes = Arc::<Mutex<Routes>>::default();
        let deliver = routes.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            deliver.lock().expect("no holder panics").deliver(event);
        });
        let broken = watcher.as_ref().err().map(ToString::to_string);
        Self { watcher: Mutex::new(watcher.ok()), broken, routes }
    }

    /// Why nothing is watched.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// `sender` hears of what happens in the directories that [`Subscription::watch`] names.
    pub fn subscribe(self: &Arc<Self>, sender: mpsc::Sender<Touch>) -> Subscription {
        let mut routes = self.routes();
        routes.next += 1;
        Subscription { watch: self.clone(), id: routes.next, sender, directories: Vec::new() }
    }

    /// Watches a directory that was not, or that is another one now.
    fn arm(&self, directory: &Path, id: u64, sender: &mpsc::Sender<Touch>) -> Result<(), String> {
        let metadata = std::fs::metadata(directory).map_err(|error| error.to_string())?;
        let inode = (metadata.dev(), metadata.ino());
        // Held all the while, so that nobody else's arming or disarming of it comes in between.
        let mut watcher = self.watcher.lock().expect("no holder panics");
        let before = {
            let mut routes = self.routes();
            let entry = routes.directories.entry(directory.to_owned());
            let known = entry.or_insert_with(|| Directory { inode: NONE, subscribers: HashMap::new() });
            known.subscribers.insert(id, sender.clone());
            std::mem::replace(&mut known.inode, inode)
        };
        let Some(watcher) = watcher.as_mut() else { return Ok(()) };
        if before == inode {
            return Ok(());
        }
        // Of the inode that was there, if any.
        let _ = watcher.unwatch(directory);
        watcher.watch(directory, RecursiveMode::NonRecursive).map_err(|error| {
            if let Some(known) = self.routes().directories.get_mut(directory) {
                known.inode = NONE;
            }
            error.to_string()
        })
    }

    fn disarm(&self, directory: &Path, id: u64) {
        let mut watcher = self.watcher.lock().expect("no holder panics");
        let unused = {
            let mut routes = self.routes();
            let Some(known) = routes.directories.get_mut(directory) else { return };
            known.subscribers.remove(&id);
            let unused = known.subscribers.is_empty();
            if unused {
                routes.directories.remove(directory);
            }
            unused
        };
        if let (true, Some(watcher)) = (unused, watcher.as_mut()) {
            let _ = watcher.unwatch(directory);
        }
    }

    /// Never held while the watcher is spoken to: its thread takes them, and answers.
    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().expect("no holder panics")
    }
}

impl Subscription {
    /// These directories from now on, before what is in them is read. Err: of one, which changes
    /// therefore tell nobody about, and why.
    pub fn watch(&mut self, directories: Vec<PathBuf>) -> Result<(), String> {
        let gone: Vec<_> = self.directories.iter().filter(|one| !directories.contains(one)).cloned().collect();
        gone.iter().for_each(|one| self.watch.disarm(one, self.id));
        self.directories = directories;
        let mut result = Ok(());
        for directory in &self.directories {
            if let Err(reason) = self.watch.arm(directory, self.id, &self.sender) {
                result = Err(format!("{}: {reason}", directory.display()));
            }
        }
        result
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.directories.iter().for_each(|one| self.watch.disarm(one, self.id));
    }
}

impl Routes {
    fn deliver(&mut self, event: notify::Result<Event>) {
        let Ok(event) = event else { return self.everybody() };
        if event.need_rescan() {
            return self.everybody();
        }
        let touch: fn(PathBuf) -> Touch = match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => Touch::Written,
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Touch::Done,
            // Reading a file is no change.
            EventKind::Access(_) => return,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => {
                Touch::Done
            }
        };
        for path in event.paths {
            if let (EventKind::Remove(_), Some(gone)) = (event.kind, self.directories.get_mut(&path)) {
                // One that takes its place may well get the same inode.
                gone.inode = NONE;
            }
            // Of the directory itself, or of something in it.
            let parents = [Some(path.as_path()), path.parent()];
            for directory in parents.into_iter().flatten().filter_map(|one| self.directories.get(one)) {
                directory.tell(&touch(path.clone()));
            }
        }
    }

    /// Events were lost: anybody's files may have changed.
    fn everybody(&self) {
        self.directories.iter().for_each(|(path, directory)| directory.tell(&Touch::Done(path.clone())));
    }
}

impl Directory {
    fn tell(&self, touch: &Touch) {
        // Who has a full queue has reason enough to look.
        self.subscribers.values().for_each(|sender| drop(sender.try_send(touch.clone())));
    }
}

/// No inode: nothing is watched.
const NONE: (u64, u64) = (0, 0);
