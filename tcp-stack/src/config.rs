//! What a connection is given for all its lives: the size of its rings and its patience.

use smoltcp::time::Duration;

/// The settings of a [`Connection`](crate::Connection).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes of each of the two rings, receive and send. The receive ring is also the window.
    pub buffer: usize,
    /// After this long without a segment from the peer, ask whether it is still there.
    pub keep_alive: Option<Duration>,
    /// How long the peer may stay silent while something of ours is unanswered: data, SYN, FIN, a
    /// window probe, a keep-alive. A peer that answers, even with a closed window, is alive.
    pub user_timeout: Option<Duration>,
    /// How long the acknowledgement of a lone segment may wait for data to travel with. `None`
    /// acknowledges at each `transmit`. Outside ESTABLISHED nothing waits.
    pub ack_delay: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            buffer: 256 * 1024,
            keep_alive: Some(Duration::from_secs(60)),
            user_timeout: Some(Duration::from_secs(60)),
            ack_delay: Some(Duration::from_millis(10)),
        }
    }
}
