//! One workload's files, looked at whenever they change, and once a minute in any case: a file
//! system may be mounted over them, or tell nobody (NFS). What is wrong is looked at again after
//! 1, 2, 4, … 60 s.
//!
//! Reading is on a thread of its own, and nobody waits for it: a file system that hangs, hangs alone.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::layout::Paths;
use super::watch::{Subscription, Touch, Watch};
use super::{Config, Expected, Fault, Identity, check};
use crate::clock;
use crate::source::News;
use crate::source::found::Taken;

pub struct Follower {
    expected: Expected,
    config: Config,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    found: Mutex<Found>,
    /// Rung to have the files looked at now.
    look: Notify,
}

type Found = crate::source::found::Found<Identity, Fault>;

impl Follower {
    pub fn start(config: Config, expected: Expected, watch: Arc<Watch>, news: News) -> Self {
        let shared = Arc::<Shared>::default();
        let (sender, touches) = mpsc::channel(QUEUE);
        let eye = Eye { config: config.clone(), expected: expected.clone(), subscription: watch.subscribe(sender) };
        let task = tokio::spawn(follow(eye, touches, shared.clone(), news));
        Self { expected, config, shared, task }
    }

    pub fn workload(&self) -> &str {
        &self.expected.workload
    }

    /// What the files are now; what was good before is not asked for here.
    pub fn identity(&self) -> Result<Arc<Identity>, Fault> {
        match self.shared.found().now() {
            Some(Ok(identity)) => Ok(identity.clone()),
            Some(Err(fault)) => Err(fault.clone()),
            None => Err(Fault::NotRead { directory: self.config.directory_of(&self.expected.workload) }),
        }
    }

    pub fn last_good(&self) -> Option<Arc<Identity>> {
        self.shared.found().last_good().cloned()
    }

    /// Whether [`Self::identity`] says something else than when this was last asked.
    pub fn has_news(&self) -> bool {
        self.shared.found().has_news()
    }

    pub fn has_looked(&self) -> bool {
        self.shared.found().has_looked()
    }

    pub fn look_now(&self) {
        self.shared.look.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect("no holder panics")
    }

    /// True: this is news.
    fn take(&self, workload: &str, seen: Result<Identity, Fault>) -> bool {
        let mut found = self.found();
        if found.take(seen) == Taken::Same {
            return false;
        }
        match found.now() {
            Some(Ok(identity)) => {
                let certificate = identity.certificate.display();
                let (serial, until) =
                    (&identity.issued.svid.serial, crate::rotate::utc(identity.issued.svid.not_after));
                info!(workload, %certificate, serial, until, "the files of an identity are taken");
            }
            Some(Err(fault)) => {
                warn!(workload, %fault, "the files of an identity are not right; the last good stays in force");
            }
            None => {}
        }
        true
    }
}

/// What looks; it goes to the reading thread and comes back.
struct Eye {
    config: Config,
    expected: Expected,
    subscription: Subscription,
}

impl Eye {
    /// Watched before they are read: a change in between is seen twice rather than never.
    fn look(mut self) -> (Self, Result<Identity, Fault>) {
        let directory = self.config.directory_of(&self.expected.workload);
        let found = Paths::find(&self.config, &self.expected.workload);
        let mut directories = BTreeSet::from([canonical(directory)]);
        for path in found.iter().flat_map(Paths::all) {
            // Where the name stands, and where the file itself is.
            let places = [
                path.parent().map(PathBuf::from),
                path.canonicalize().ok().and_then(|p| p.parent().map(PathBuf::from)),
            ];
            directories.extend(places.into_iter().flatten().map(canonical));
        }
        let watched = self.subscription.watch(directories.into_iter().collect());
        // Found again: what came after the first look was not yet watched.
        let seen = Paths::find(&self.config, &self.expected.workload);
        let mut seen = seen.and_then(|paths| check::check(&paths, &self.expected, clock::now()));
        // What is wrong with a directory that is not there, reading it says.
        if let (Err(reason), Ok(identity)) = (watched, &mut seen) {
            let every = LOOK_EVERY.as_secs();
            identity.warnings.push(format!("{reason}: cannot be watched, and is looked at every {every} s"));
        }
        (self, seen)
    }
}

fn canonical(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or(path)
}

async fn follow(mut eye: Eye, mut touches: mpsc::Receiver<Touch>, shared: Arc<Shared>, news: News) {
    let workload = eye.expected.workload.clone();
    let mut failures = 0u32;
    loop {
        let Ok((back, seen)) = spawn_blocking(|| eye.look()).await else { return };
        eye = back;
        failures = if seen.is_ok() { 0 } else { failures.saturating_add(1) };
        if shared.take(&workload, seen) {
            news.notify_one();
        }
        let wait = match failures {
            0 => LOOK_EVERY,
            n => Duration::from_secs(1u64.checked_shl(n - 1).unwrap_or(u64::MAX)).min(LOOK_EVERY),
        };
        tokio::select! {
            Some(touch) = touches.recv() => {
                failures = 0;
                settle(touch, &mut touches).await;
            }
            () = shared.look.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Until the writers rest: a moment without any event, and no file that was written to still open.
async fn settle(first: Touch, touches: &mut mpsc::Receiver<Touch>) {
    let latest = Instant::now() + AT_MOST;
    let mut open = BTreeSet::new();
    let mut touch = Some(first);
    while let Some(one) = touch {
        match one {
            Touch::Written(path) => drop(open.insert(path)),
            Touch::Done(path) => drop(open.remove(&path)),
        }
        let rest = if open.is_empty() { (Instant::now() + QUIET).min(latest) } else { latest };
        touch = timeout_at(rest, touches.recv()).await.ok().flatten();
    }
}

/// In any case, and at the latest if something is wrong.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_millis(50);
/// A directory that never rests is read this often, and a file that is never closed after so long.
const AT_MOST: Duration = Duration::from_secs(2);
const QUEUE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_still_written_to_is_waited_for() {
        let path = |name: &str| PathBuf::from(name);
        let (sender, mut touches) = mpsc::channel(QUEUE);
        let settled = tokio::spawn(async move { settle(Touch::Written(path("tls.crt")), &mut touches).await });
        // Others that are whole do not end the wait.
        sender.send(Touch::Done(path("tls.key"))).await.unwrap();
        sleep(QUIET * 4).await;
        assert!(!settled.is_finished(), "tls.crt is half written");
        sender.send(Touch::Done(path("tls.crt"))).await.unwrap();
        settled.await.unwrap();
        // Nor is a writer that never closes waited for without end.
        let (_sender, mut touches) = mpsc::channel(QUEUE);
        settle(Touch::Written(path("tls.crt")), &mut touches).await;
    }
}
