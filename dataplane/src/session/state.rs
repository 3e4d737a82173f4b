//! The states of a session, and when each gives up.

use snapshot::{RefuseReason, Timeouts};

/// In the order in which a session goes through them; which ones it visits is its
/// [`Plan`](super::plan::Plan)'s to say.
///
/// ```text
///   up first:    Dialing ─▶ HandshakeUp ─▶ Accepting ─▶ Relaying ─▶ Closing
///   down first:  Accepting ─▶ (Detecting) ─▶ HandshakeDown ─▶ Dialing ─▶ Relaying ─▶ Closing
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Our SYN to the service is out.
    Dialing,
    /// TLS with the far side, which has to prove who it is.
    HandshakeUp,
    /// Our SYN-ACK to the caller is out.
    Accepting,
    /// PERMISSIVE: whoever speaks first decides what is spoken. The service is being dialed.
    Detecting,
    /// TLS with the caller, who has to prove who it is.
    HandshakeDown,
    Relaying,
    /// The last segments (an alert and a FIN, or a RST) are on their way out.
    Closing,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dialing => "dialing",
            Self::HandshakeUp | Self::HandshakeDown => "handshake",
            Self::Accepting => "accepting",
            Self::Detecting => "detecting",
            Self::Relaying => "relaying",
            Self::Closing => "closing",
        }
    }

    /// Whether asymmetric crypto may be spent in it, which is what the handshake budget is about.
    pub const fn is_handshake(self) -> bool {
        match self {
            Self::HandshakeUp | Self::HandshakeDown => true,
            Self::Dialing | Self::Accepting | Self::Detecting | Self::Relaying | Self::Closing => false,
        }
    }

    /// Whether it has come to stand, or will not any more: nothing that it does costs asymmetric crypto.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Relaying | Self::Closing => true,
            Self::Dialing | Self::HandshakeUp | Self::Accepting | Self::Detecting | Self::HandshakeDown => false,
        }
    }

    /// How long it may last, and what it is called if it lasts longer.
    pub fn limit(self, timeouts: &Timeouts) -> Option<(std::time::Duration, RefuseReason)> {
        match self {
            Self::Dialing => Some((timeouts.handshake, RefuseReason::ConnectTimeout)),
            Self::HandshakeUp | Self::HandshakeDown => Some((timeouts.handshake, RefuseReason::HandshakeTimeout)),
            Self::Accepting => Some((timeouts.syn_received, RefuseReason::SynReceivedTimeout)),
            Self::Detecting | Self::Relaying | Self::Closing => None,
        }
    }
}
