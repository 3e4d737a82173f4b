//! Sees that the tasks of a source go on: none ends by itself, so one that did has panicked, and what it was for
//! would never happen again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::error;

use crate::source::News;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// One has ended; the others go on.
    Broken,
    /// That was a while ago.
    Due,
}

/// The tasks end with it.
pub struct Warden {
    state: watch::Receiver<State>,
    _task: JoinSet<()>,
}

impl Warden {
    pub fn has_lost_one(&self) -> bool {
        *self.state.borrow() != State::Whole
    }

    /// Not at once: what panics always would otherwise be all that this process does.
    pub fn wants_a_start(&self) -> bool {
        *self.state.borrow() == State::Due
    }
}

/// Rings `news` when one ends, and again when all are to be begun anew.
pub fn watch_over(mut tasks: JoinSet<()>, news: News) -> Warden {
    let (sender, state) = watch::channel(State::Whole);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let _ended = tasks.join_next().await;
        error!("a task of an identity source broke off; all of them are begun anew in {} s", REST.as_secs());
        sender.send_replace(State::Broken);
        news.notify_one();
        sleep(REST).await;
        sender.send_replace(State::Due);
        news.notify_one();
        // What still runs is of use until then.
        while tasks.join_next().await.is_some() {}
    });
    Warden { state, _task: task }
}

const REST: Duration = Duration::from_secs(5);
