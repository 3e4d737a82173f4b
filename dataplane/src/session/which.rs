//! Which sessions a list is to hold.

use std::net::SocketAddr;

use super::Session;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those that a program of this node has with `peer`: as a service that sees its caller there, or as a
    /// caller that sees its server there. `local` is the program's own end, if it is asked about one connection.
    With {
        peer: SocketAddr,
        local: Option<SocketAddr>,
    },
}

impl Session {
    pub fn is(&self, which: Which) -> bool {
        let Which::With { peer, local } = which else { return true };
        let local = |own| local.is_none_or(|local| local == own);
        // The service sees what its leg calls from; one that was not called yet sees nobody.
        let as_service = self.up.as_ref().is_some_and(|up| up.local == peer) && local(self.destination());
        let as_caller = self.down.local == peer && local(self.down.remote);
        match self.plan.direction {
            snapshot::Direction::Inbound => as_service,
            snapshot::Direction::Egress => as_caller,
            snapshot::Direction::Local => as_service || as_caller,
        }
    }
}
