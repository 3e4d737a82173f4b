//! The last connections that were refused, and the last that were closed.

use std::collections::VecDeque;

use snapshot::ConnectionReport;

/// Two rings of fixed size: a flood of one kind does not push out the other.
#[derive(Debug)]
pub struct History {
    refused: VecDeque<ConnectionReport>,
    closed: VecDeque<ConnectionReport>,
    capacity: usize,
}

impl History {
    pub fn new(capacity: usize) -> Self {
        Self { refused: VecDeque::new(), closed: VecDeque::new(), capacity: capacity.max(1) }
    }

    pub fn add(&mut self, report: ConnectionReport) {
        let ring = if report.refused.is_some() { &mut self.refused } else { &mut self.closed };
        if ring.len() == self.capacity {
            ring.pop_front();
        }
        ring.push_back(report);
    }

    /// Newest first.
    pub fn refused(&self) -> Vec<ConnectionReport> {
        self.refused.iter().rev().cloned().collect()
    }

    /// Newest first.
    pub fn closed(&self) -> Vec<ConnectionReport> {
        self.closed.iter().rev().cloned().collect()
    }
}
