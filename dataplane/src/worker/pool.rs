//! TCP connections that wait to be used: their rings are the largest memory there is.
//!
//! The last one given back is the first one taken, since its rings are still in the caches.
//! Connections are made when they are first needed, up to the limit, and never freed.

use tcp_stack::{Config, Connection};

pub struct Pool {
    /// Boxed, since a session moves and its connections should not.
    #[allow(clippy::vec_box)]
    free: Vec<Box<Connection>>,
    made: usize,
    limit: usize,
    config: Config,
}

/// Made before the first packet, so that the first callers do not pay for it.
const WARM: usize = 64;

impl Pool {
    pub fn new(config: Config, limit: usize) -> Self {
        let mut free = Vec::with_capacity(limit);
        let made = WARM.min(limit);
        free.extend((0..made).map(|_| Box::new(Connection::new(&config))));
        Self { free, made, limit, config }
    }

    /// None: all are in use.
    pub fn take(&mut self) -> Option<Box<Connection>> {
        if let Some(connection) = self.free.pop() {
            return Some(connection);
        }
        if self.made == self.limit {
            return None;
        }
        self.made += 1;
        Some(Box::new(Connection::new(&self.config)))
    }

    pub fn give(&mut self, mut connection: Box<Connection>) {
        connection.reset();
        self.free.push(connection);
    }

    pub fn in_use(&self) -> usize {
        self.made - self.free.len()
    }
}
