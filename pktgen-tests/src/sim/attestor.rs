//! Who says which process calls: what ctrl and the kernel are to a gateway, as an argument.

use std::sync::Arc;

use dataplane::worker::{Asked, Mailbox, Told};
use snapshot::{Found, Owner, Process};

/// What comes of one question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Before the next turn.
    AtOnce(Found),
    /// So many microseconds later.
    After(i64, Found),
    Never,
}

type Say = Box<dyn FnMut(&Asked) -> Answer>;

/// Answers as a test says, and keeps what it was asked.
pub struct Attestor {
    say: Say,
    pub asked: Vec<Asked>,
    due: Vec<(i64, Told)>,
}

impl Default for Attestor {
    fn default() -> Self {
        Self::new(|_| Answer::Never)
    }
}

impl Attestor {
    pub fn new(say: impl FnMut(&Asked) -> Answer + 'static) -> Self {
        Self { say: Box::new(say), asked: Vec::new(), due: Vec::new() }
    }

    /// After a turn of the worker's, as the agent does.
    pub fn serve(&mut self, mailbox: &Mailbox, now: i64) {
        while let Some(asked) = mailbox.asked.pop() {
            let told = |found: Found| Told {
                token: asked.token,
                party: asked.party,
                found: found.map(Arc::new).map_err(Arc::new),
            };
            match (self.say)(&asked) {
                Answer::AtOnce(found) => self.due.push((now, told(found))),
                Answer::After(delay, found) => self.due.push((now + delay, told(found))),
                Answer::Never => {}
            }
            self.asked.push(asked);
        }
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        for (_, told) in due {
            mailbox.told.push(told).expect("as much room as SYNs are held");
        }
    }

    pub fn next(&self) -> Option<i64> {
        self.due.iter().map(|(at, _)| *at).min()
    }
}

/// A process that is nothing but its user.
pub fn process(uid: u32) -> Process {
    Process {
        pid: 100 + uid,
        started: 1,
        name: "client".into(),
        path: Some("/usr/bin/client".into()),
        executable: (1, 2),
        uid,
        gid: uid,
        cgroup: "/".into(),
    }
}

pub fn owner(uids: &[u32]) -> Found {
    Ok(Owner { inode: 4711, processes: uids.iter().map(|uid| process(*uid)).collect() })
}
