//! Which session a packet belongs to: keys, the table, and what is left of flows that ended.

mod key;
mod spent;
mod table;

pub use key::{FlowKey, owner};
pub use spent::Spent;
pub use table::{FlowRef, FlowTable, Leg};
