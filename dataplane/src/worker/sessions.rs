//! The sessions of a core: a slab of fixed size, the list of those that want to be stepped, and the
//! queue of those whose crypto waits for its turn.

use std::collections::VecDeque;

use crate::session::{Session, State};

pub struct Sessions {
    slots: Vec<Option<Session>>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
    /// First come, first served. A session that ended may still be in it, or another one in its slot:
    /// that one is stepped once too often.
    queue: VecDeque<u32>,
    is_queued: Vec<bool>,
    /// Sessions in a TCP or TLS handshake.
    opening: usize,
}

impl Sessions {
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity).map(|_| None).collect(),
            free: (0..capacity as u32).rev().collect(),
            dirty: Vec::with_capacity(capacity),
            is_dirty: vec![false; capacity],
            queue: VecDeque::with_capacity(capacity),
            is_queued: vec![false; capacity],
            opening: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub fn opening(&self) -> usize {
        self.opening
    }

    /// The index that the next [`insert`](Self::insert) gives. None: full.
    pub fn vacant(&self) -> Option<u32> {
        self.free.last().copied()
    }

    pub fn insert(&mut self, session: Session) -> u32 {
        let index = self.free.pop().expect("`vacant` was asked");
        self.opening += usize::from(is_opening(&session));
        self.slots[index as usize] = Some(session);
        index
    }

    pub fn remove(&mut self, index: u32) -> Option<Session> {
        let session = self.slots[index as usize].take()?;
        self.opening -= usize::from(is_opening(&session));
        self.free.push(index);
        Some(session)
    }

    pub fn find(&mut self, index: u32) -> Option<&mut Session> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Calls `change` and keeps count of those that open.
    pub fn update<R>(&mut self, index: u32, change: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let session = self.slots.get_mut(index as usize)?.as_mut()?;
        let before = is_opening(session);
        let result = change(session);
        let after = is_opening(session);
        self.opening = self.opening + usize::from(after) - usize::from(before);
        Some(result)
    }

    /// Steps it in this turn or the next.
    pub fn mark(&mut self, index: u32) {
        if !std::mem::replace(&mut self.is_dirty[index as usize], true) {
            self.dirty.push(index);
        }
    }

    /// Whether any is marked or queued.
    pub fn any_due(&self) -> bool {
        !self.dirty.is_empty() || self.any_queued()
    }

    /// Puts it at the end of the queue, unless it has its place there.
    pub fn queue(&mut self, index: u32) {
        if !std::mem::replace(&mut self.is_queued[index as usize], true) {
            self.queue.push_back(index);
        }
    }

    pub fn any_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The one that has waited longest.
    pub fn next_queued(&mut self) -> Option<u32> {
        let index = self.queue.pop_front()?;
        self.is_queued[index as usize] = false;
        Some(index)
    }

    /// All that are marked, into `out`; they are unmarked.
    pub fn take_dirty(&mut self, out: &mut Vec<u32>) {
        std::mem::swap(&mut self.dirty, out);
        for &index in out.iter() {
            self.is_dirty[index as usize] = false;
        }
    }
}

fn is_opening(session: &Session) -> bool {
    match session.state {
        State::Dialing | State::HandshakeUp | State::Accepting | State::HandshakeDown => true,
        // A plain caller may connect ahead of time and be silent: that is no handshake, and has no limit.
        State::Detecting | State::Relaying | State::Closing => false,
    }
}
