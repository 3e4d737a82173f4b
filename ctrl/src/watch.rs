//! Says when something in the configuration directory changed.
//!
//! The directory is watched, not its files: editors and `..data` symlinks (Kubernetes volumes)
//! replace files, and a watch on a replaced file sees nothing more. What is below it counts too: an
//! identity source may keep its certificates there. Events are held until they pause, so that a
//! change of several files is read once, whole.

use std::path::Path;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

const QUIET: Duration = Duration::from_millis(200);
/// A directory that never rests is read this often.
const AT_MOST: Duration = Duration::from_secs(2);

/// Counts up after each burst of changes. Dropping the watcher ends it.
#[derive(Debug)]
pub struct Changes {
    pub count: watch::Receiver<u64>,
    _watcher: notify::RecommendedWatcher,
}

pub fn watch(directory: &Path) -> Result<Changes, notify::Error> {
    let (raw, raw_out) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        // Reading a file is no change; an error may have lost one.
        if event.map_or(true, |e| !matches!(e.kind, EventKind::Access(_))) {
            // A full channel says already that there is something to look at.
            let _ = raw.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::Recursive)?;
    let (count, count_out) = watch::channel(0);
    tokio::spawn(debounce(raw_out, count));
    Ok(Changes { count: count_out, _watcher: watcher })
}

async fn debounce(mut raw: mpsc::Receiver<()>, count: watch::Sender<u64>) {
    while raw.recv().await.is_some() {
        let latest = Instant::now() + AT_MOST;
        while let Ok(Some(())) = timeout_at((Instant::now() + QUIET).min(latest), raw.recv()).await {}
        count.send_modify(|n| *n += 1);
    }
}
