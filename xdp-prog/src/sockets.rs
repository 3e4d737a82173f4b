//! The socket map as whoever opens AF_XDP sockets sees it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use crate::maps::Table;
use crate::{Error, MAX_PORTS, MAX_QUEUES, Result};

/// Which socket a port's queue leads to. A cheap handle, as [`crate::Flows`] is.
#[derive(Debug, Clone)]
pub struct Sockets {
    pub(crate) table: Arc<Table>,
}

impl Sockets {
    /// Gives a queue's captured frames to an AF_XDP socket. It leaves by itself when it closes.
    pub fn set(&self, port: u16, queue: u32, socket: BorrowedFd) -> Result<()> {
        self.table.put(&slot(port, queue)?, &socket.as_raw_fd().to_ne_bytes())
    }

    pub fn clear(&self, port: u16, queue: u32) -> Result<()> {
        self.table.remove(&slot(port, queue)?)
    }
}

fn slot(port: u16, queue: u32) -> Result<[u8; 4]> {
    if port >= MAX_PORTS || queue >= MAX_QUEUES {
        let what = format!("queue {queue} of port {port}: use 0 to {} of 0 to {}", MAX_QUEUES - 1, MAX_PORTS - 1);
        return Err(Error::Invalid { what });
    }
    Ok((u32::from(port) * MAX_QUEUES + queue).to_ne_bytes())
}
