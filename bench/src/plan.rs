//! What is measured, and in which order.
//!
//! Contenders take turns within each layout, and the whole is repeated: a machine that grows slower
//! or noisier then does so for all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contender::Contender;

/// What a user may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    Bulk,
    Connections,
    RoundTrip,
}

/// What the load generator does in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One stream from the client to the server, nothing back.
    Upload,
    /// One stream from the server to the client.
    Download,
    /// One request and one answer on each of many connections.
    Connections,
    /// Requests and answers in turn on one connection.
    RoundTrip,
}

/// MTUs of the cables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Layout {
    pub outside: u32,
    pub inside: u32,
}

/// One contender in its place, and the tasks that it then does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub layout: Layout,
    pub contender: Contender,
    pub tasks: Vec<Task>,
}

/// Where everything is measured; the others are about bulk only.
pub const BASE: Layout = Layout { outside: 1500, inside: 1500 };

const LAYOUTS: [Layout; 4] = [
    BASE,
    Layout { outside: 1500, inside: 65535 },
    Layout { outside: 9000, inside: 9000 },
    Layout { outside: 9000, inside: 65535 },
];

/// The turns of one run.
pub fn turns(cases: &[Case], contenders: &[Contender]) -> Vec<Turn> {
    let mut turns = Vec::new();
    for layout in LAYOUTS {
        let here = |case: &&Case| layout == BASE || **case == Case::Bulk;
        let tasks: Vec<Task> = cases.iter().filter(here).flat_map(|case| case.tasks()).copied().collect();
        for contender in contenders {
            if !tasks.is_empty() && (contender.ends_tcp() || layout.inside == layout.outside) {
                turns.push(Turn { layout, contender: *contender, tasks: tasks.clone() });
            }
        }
    }
    turns
}

impl Case {
    pub const ALL: [Self; 3] = [Self::Bulk, Self::Connections, Self::RoundTrip];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Connections => "connections",
            Self::RoundTrip => "roundtrip",
        }
    }

    pub fn tasks(self) -> &'static [Task] {
        match self {
            Self::Bulk => &[Task::Upload, Task::Download],
            Self::Connections => &[Task::Connections],
            Self::RoundTrip => &[Task::RoundTrip],
        }
    }
}

impl Task {
    pub const ALL: [Self; 4] = [Self::Upload, Self::Download, Self::Connections, Self::RoundTrip];

    pub fn title(self) -> &'static str {
        match self {
            Self::Upload => "bulk, one stream, client to server",
            Self::Download => "bulk, one stream, server to client",
            Self::Connections => "new connections, 16 clients at once, each connection one request of 64 bytes",
            Self::RoundTrip => "round trip of 64 bytes on one connection",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MTU {} outside, {} inside", self.outside, self.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_take_turns_in_each_layout_and_none_is_left_out() {
        let turns = turns(&Case::ALL, &Contender::ALL);
        let order: Vec<_> =
            turns.iter().map(|turn| (turn.layout.outside, turn.layout.inside, turn.contender)).collect();
        use Contender::{Haproxy, None, Sluice};
        let want = [
            (1500, 1500, None),
            (1500, 1500, Haproxy),
            (1500, 1500, Sluice),
            // The kernel alone cannot make small segments of large ones on the way.
            (1500, 65535, Haproxy),
            (1500, 65535, Sluice),
            (9000, 9000, None),
            (9000, 9000, Haproxy),
            (9000, 9000, Sluice),
            (9000, 65535, Haproxy),
            (9000, 65535, Sluice),
        ];
        assert_eq!(order, want);
        assert_eq!(turns[0].tasks, Task::ALL);
        assert!(turns[3..].iter().all(|turn| turn.tasks == [Task::Upload, Task::Download]));
    }

    #[test]
    fn a_case_of_the_base_layout_is_not_laid_elsewhere() {
        assert_eq!(turns(&[Case::RoundTrip], &Contender::ALL).len(), 3);
    }
}
