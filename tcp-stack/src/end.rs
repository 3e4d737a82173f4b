//! Where a connection stands, and how it came to its end.

use smoltcp::socket::tcp;

/// The state of a connection, in the words of RFC 9293 §3.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Closed,
    SynSent,
    SynReceived,
    Established,
    /// FIN-WAIT-1: our FIN is queued or on its way.
    FinWait1,
    /// FIN-WAIT-2: our FIN is acknowledged, the peer still sends.
    FinWait2,
    /// CLOSE-WAIT: the peer's FIN is here, we still send.
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Both FINs are exchanged and acknowledged, and our last acknowledgement is out.
    Finished,
    /// The peer refused or reset it.
    Reset,
    /// The peer was silent for longer than [`Config::user_timeout`](crate::Config::user_timeout).
    UserTimeout,
    /// We aborted it, and the RST is out.
    Aborted,
}

impl From<tcp::State> for State {
    fn from(state: tcp::State) -> Self {
        match state {
            // A socket listens only inside `accept`: outside of it, it is one without a peer.
            tcp::State::Closed | tcp::State::Listen => Self::Closed,
            tcp::State::SynSent => Self::SynSent,
            tcp::State::SynReceived => Self::SynReceived,
            tcp::State::Established => Self::Established,
            tcp::State::FinWait1 => Self::FinWait1,
            tcp::State::FinWait2 => Self::FinWait2,
            tcp::State::CloseWait => Self::CloseWait,
            tcp::State::Closing => Self::Closing,
            tcp::State::LastAck => Self::LastAck,
            tcp::State::TimeWait => Self::TimeWait,
        }
    }
}

impl State {
    /// Whether each end has acknowledged the other's SYN.
    pub(crate) fn synchronized(self) -> bool {
        match self {
            Self::Closed | Self::SynSent | Self::SynReceived => false,
            Self::Established
            | Self::FinWait1
            | Self::FinWait2
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => true,
        }
    }

    /// Whether the peer's FIN has been taken in sequence.
    pub(crate) fn after_peers_fin(self) -> bool {
        match self {
            Self::CloseWait | Self::Closing | Self::LastAck | Self::TimeWait => true,
            Self::Closed | Self::SynSent | Self::SynReceived | Self::Established | Self::FinWait1 | Self::FinWait2 => {
                false
            }
        }
    }
}
