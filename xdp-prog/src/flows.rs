//! The flows map as workers see it: a handle that costs one system call an entry.

use std::sync::Arc;

use crate::maps::{Table, flow_key, read_flow};
use crate::{Error, FlowTuple, Result};

/// Connections of ours. Each leg is one entry, as its port receives it.
#[derive(Debug, Clone)]
pub struct Flows {
    pub(crate) table: Arc<Table>,
}

impl Flows {
    /// False if the map is full: the connection must be refused. No allocation.
    pub fn insert(&self, flow: &FlowTuple) -> Result<bool> {
        match self.table.put(&flow_key(flow), &[0; 4]) {
            Ok(()) => Ok(true),
            Err(Error::Full { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn remove(&self, flow: &FlowTuple) -> Result<()> {
        self.table.remove(&flow_key(flow))
    }

    /// What is in the map: after a restart, the flows of the process before.
    pub fn list(&self) -> Result<Vec<FlowTuple>> {
        Ok(self.table.entries()?.keys().filter_map(|key| read_flow(key)).collect())
    }

    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }
}
