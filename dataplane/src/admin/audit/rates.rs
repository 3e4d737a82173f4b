//! How many lines of each kind are written a second, and exactly how many were not.

use ::snapshot::{CloseReason, ConnectionReport, RefuseReason};

use crate::time::{Duration, Instant};

/// What a line is about, and what it is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// It stands: policy allowed it, and both sides are connected.
    Accepted,
    /// It stood, and a newer snapshot does not allow it.
    Cut,
    /// A decision whose report was lost before it got here.
    Unknown,
    Refused(RefuseReason),
}

impl Topic {
    const COUNT: usize = 3 + RefuseReason::COUNT;

    /// Of a connection that ended. None: nothing was decided about it then.
    pub fn of(ended: &ConnectionReport) -> Option<Self> {
        match (ended.refused, ended.closed) {
            (Some(reason), _) => Some(Self::Refused(reason)),
            (None, Some(CloseReason::PolicyChanged)) => Some(Self::Cut),
            (None, _) => None,
        }
    }

    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Accepted, Self::Cut, Self::Unknown]
            .into_iter()
            .chain(RefuseReason::ALL.iter().copied().map(Self::Refused))
    }

    const fn index(self) -> usize {
        match self {
            Self::Accepted => 0,
            Self::Cut => 1,
            Self::Unknown => 2,
            Self::Refused(reason) => 3 + reason as usize,
        }
    }

    /// `accepted`, `cut`, `refused`.
    pub const fn decision(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Cut => "cut",
            Self::Unknown => "unknown",
            Self::Refused(_) => "refused",
        }
    }

    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Accepted | Self::Unknown => None,
            Self::Cut => Some(CloseReason::PolicyChanged.name()),
            Self::Refused(reason) => Some(reason.name()),
        }
    }

    /// Unique among them.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted | Self::Cut | Self::Unknown => self.decision(),
            Self::Refused(reason) => reason.name(),
        }
    }
}

pub struct Rates {
    second: Instant,
    written: [u32; Topic::COUNT],
    /// Left out since the last line of the kind, and since the start.
    unsaid: [u64; Topic::COUNT],
    omitted: [u64; Topic::COUNT],
}

impl Rates {
    pub fn new(now: Instant) -> Self {
        let none = [0; Topic::COUNT];
        Self { second: now, written: [0; Topic::COUNT], unsaid: none, omitted: none }
    }

    /// Some: it is to be written, after a line about so many that were not.
    pub fn admit(&mut self, topic: Topic, per_second: u32, now: Instant) -> Option<u64> {
        if now - self.second >= Duration::from_secs(1) {
            (self.second, self.written) = (now, [0; Topic::COUNT]);
        }
        let written = &mut self.written[topic.index()];
        if *written >= per_second {
            self.omit(topic, 1);
            return None;
        }
        *written += 1;
        Some(self.take(topic))
    }

    pub fn omit(&mut self, topic: Topic, count: u64) {
        self.unsaid[topic.index()] += count;
        self.omitted[topic.index()] += count;
    }

    pub fn take(&mut self, topic: Topic) -> u64 {
        std::mem::take(&mut self.unsaid[topic.index()])
    }

    /// An admitted one that was not written after all, nor what it would have said.
    pub fn put_back(&mut self, topic: Topic, unsaid: u64) {
        self.omit(topic, 1);
        self.return_unsaid(topic, unsaid);
    }

    pub fn return_unsaid(&mut self, topic: Topic, unsaid: u64) {
        self.unsaid[topic.index()] += unsaid;
    }

    pub fn omitted(&self, topic: Topic) -> u64 {
        self.omitted[topic.index()]
    }

    pub fn total(&self) -> u64 {
        self.omitted.iter().sum()
    }
}
