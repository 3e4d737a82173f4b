//! TCP connections that wait to be used: their rings are the largest memory there is.
//!
//! The last one given back is the first one taken, since its rings are still in the caches.
//! Connections are made when they are first needed, up to the limit; after a peak, most go back to the
//! system, some a turn.

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

/// Kept beside as many as are in use, so that a steady coming and going asks the system for nothing.
const SPARE: usize = 256;

/// Given back in one turn: each costs two system calls.
const TRIM: usize = 8;

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

    /// Gives some of what is spare back to the system after a peak. True: there is more.
    pub fn trim(&mut self) -> bool {
        for _ in 0..TRIM {
            if !self.is_over() {
                return false;
            }
            // The one that was used longest ago.
            drop(self.free.swap_remove(0));
            self.made -= 1;
        }
        self.is_over()
    }

    pub fn is_over(&self) -> bool {
        self.free.len() > SPARE + self.in_use()
    }

    pub fn in_use(&self) -> usize {
        self.made - self.free.len()
    }
}
