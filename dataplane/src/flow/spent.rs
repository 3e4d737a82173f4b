//! Flows whose session is over, until nothing of them can be on the wire any more.
//!
//! A session's memory is worth more than its name: once both legs are done it is freed, and only
//! its two keys stay, in steering and in the table, for TIME-WAIT. A late FIN is answered from
//! here; nothing of an old connection ever reaches the kernel and leaves in clear.

use std::collections::VecDeque;

use super::FlowKey;
use crate::time::Instant;

#[derive(Debug)]
pub struct Spent {
    /// In the order in which they end, since all stay equally long.
    queue: VecDeque<(Instant, [FlowKey; 2])>,
    capacity: usize,
}

impl Spent {
    pub fn new(capacity: usize) -> Self {
        Self { queue: VecDeque::with_capacity(capacity), capacity }
    }

    /// Keeps two keys until `until`. Full: gives back the pair that would have ended first.
    pub fn keep(&mut self, until: Instant, keys: [FlowKey; 2]) -> Option<(Instant, [FlowKey; 2])> {
        let oldest = if self.queue.len() == self.capacity { self.queue.pop_front() } else { None };
        self.queue.push_back((until, keys));
        oldest
    }

    /// The next pair that is over at `now`.
    pub fn expire(&mut self, now: Instant) -> Option<(Instant, [FlowKey; 2])> {
        if self.queue.front()?.0 > now {
            return None;
        }
        self.queue.pop_front()
    }

    /// The pair that ends first, whenever that is.
    pub fn oldest(&mut self) -> Option<(Instant, [FlowKey; 2])> {
        self.queue.pop_front()
    }

    /// When [`expire`](Self::expire) has something to give.
    pub fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(until, _)| *until)
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::PortId;

    fn keys(port: u16) -> [FlowKey; 2] {
        let (a, b) = (([198, 18, 1, 2], port).into(), ([198, 18, 2, 2], 80).into());
        [FlowKey::new(PortId(0), a, b), FlowKey::new(PortId(1), b, a)]
    }

    #[test]
    fn keys_come_back_in_order_when_their_time_is_over_or_room_is_needed() {
        let mut spent = Spent::new(2);
        assert_eq!(spent.keep(Instant::from_secs(10), keys(1)), None);
        assert_eq!(spent.keep(Instant::from_secs(11), keys(2)), None);
        assert_eq!(spent.keep(Instant::from_secs(12), keys(3)), Some((Instant::from_secs(10), keys(1))));
        assert_eq!(spent.next(), Some(Instant::from_secs(11)));
        assert_eq!(spent.expire(Instant::from_millis(10_999)), None);
        assert_eq!(spent.expire(Instant::from_secs(11)), Some((Instant::from_secs(11), keys(2))));
        assert_eq!(spent.expire(Instant::from_secs(11)), None);
    }
}
