//! The task that asks for one source. It answers whatever becomes of it: a source that is being asked is asked by
//! nobody else, so silence would be for ever.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::Key;
use super::ask::Came;
use crate::source::News;

/// Ends with its owner.
#[derive(Debug)]
pub struct Task {
    pub nth: u64,
    handle: JoinHandle<()>,
}

#[derive(Debug)]
pub struct Done {
    pub key: Key,
    pub nth: u64,
    pub answer: Result<Came, String>,
}

impl Task {
    pub fn start(
        (key, nth): (Key, u64),
        asking: impl Future<Output = Result<Came, String>> + Send + 'static,
        done: UnboundedSender<Done>,
        news: News,
    ) -> Self {
        let handle = tokio::spawn(async move {
            // What came is hostile, and what reads it is large.
            let answer = AssertUnwindSafe(asking).catch_unwind().await.unwrap_or_else(|_| Err(PANICKED.into()));
            // Who has wanted it may have gone.
            let _ = done.send(Done { key, nth, answer });
            news.notify_one();
        });
        Self { nth, handle }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

const PANICKED: &str = "a fault of the gateway's own in reading what came (the log has it); please report it";
