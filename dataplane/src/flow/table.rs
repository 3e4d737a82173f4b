//! The flow table of a core: from a key to a session's leg. Fixed capacity; full is an answer.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::FlowKey;
use crate::time::Instant;

/// Which side of a session: `Down` faces the caller, `Up` faces the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    Down,
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowRef {
    /// A live session, by its index in the slab.
    Live { session: u32, leg: Leg },
    /// The session is gone and the flow rests in TIME-WAIT.
    Spent { until: Instant },
    /// It ended out of order, or its state died with the process before this one: whatever still
    /// comes of it is answered with RST.
    Dead { until: Instant },
}

#[derive(Debug)]
pub struct FlowTable {
    flows: HashMap<FlowKey, FlowRef, FixedState>,
    capacity: usize,
}

impl FlowTable {
    /// Room for `capacity` flows. Twice as many places are reserved, so that the map cleans up
    /// after removals in place and never has to grow.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let flows = HashMap::with_capacity_and_hasher(2 * capacity, FixedState::with_seed(seed));
        Self { flows, capacity }
    }

    pub fn find(&self, key: &FlowKey) -> Option<FlowRef> {
        self.flows.get(key).copied()
    }

    /// Whether `more` flows fit.
    pub fn has_room(&self, more: usize) -> bool {
        self.flows.len() + more <= self.capacity
    }

    /// The caller has asked [`has_room`](Self::has_room).
    pub fn insert(&mut self, key: FlowKey, flow: FlowRef) {
        assert!(self.has_room(1), "a flow past the table's capacity of {}", self.capacity);
        self.flows.insert(key, flow);
    }

    pub fn remove(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}
