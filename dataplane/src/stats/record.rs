//! What a worker tells the agent, over a bounded queue that never makes it wait.

use std::net::IpAddr;

use snapshot::{CloseReason, ConnectionReport, EndpointLoad};

use crate::io::PortId;

#[derive(Debug)]
pub enum Report {
    /// A connection was refused, or ended after it stood.
    Ended(Box<ConnectionReport>),
    /// A connection stands: it was allowed, and both sides are connected.
    Stood {
        at_ms: u64,
        connection: Box<ConnectionReport>,
    },
    /// A connection that goes on, and that a rule in shadow would have refused.
    Shadow(Box<ConnectionReport>),
    /// A connection that goes on for a while, or on, though a change took its permission (`onChange`).
    Outlived(Box<ConnectionReport>),
    /// One live connection, for a [`crate::worker::Command::ListLive`].
    Live {
        query: u64,
        connection: Box<ConnectionReport>,
    },
    LiveEnd {
        query: u64,
    },
    /// One endpoint, for a [`crate::worker::Command::ListEndpoints`].
    Endpoint {
        query: u64,
        endpoint: Box<EndpointLoad>,
    },
    EndpointsEnd {
        query: u64,
    },
    /// A next hop without a neighbour entry.
    Resolve {
        port: PortId,
        address: IpAddr,
    },
}

impl Report {
    /// Whether it says how a call was decided: whoever keeps account of those has to know that one is lost.
    pub fn is_decision(&self) -> bool {
        match self {
            Self::Stood { .. } => true,
            Self::Ended(ended) => ended.refused.is_some() || ended.closed == Some(CloseReason::PolicyChanged),
            Self::Shadow(_)
            | Self::Outlived(_)
            | Self::Live { .. }
            | Self::LiveEnd { .. }
            | Self::Endpoint { .. }
            | Self::EndpointsEnd { .. }
            | Self::Resolve { .. } => false,
        }
    }
}
