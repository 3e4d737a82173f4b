//! What a simulation can be made of, and what its direct TLS clients can show.

use snapshot::{Limits, Timeouts};

use super::host::Tuning;

/// What a simulation is made of, besides its seed.
#[derive(Debug, Clone)]
pub struct Setup {
    pub seed: u64,
    /// Of the inside links and of the wire.
    pub mtus: [usize; 2],
    /// Microseconds, by [`Segment::index`].
    pub delays: [i64; 3],
    /// One fault of a kind in so many frames of a link. 0: none.
    pub faults: u64,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub tuning: Tuning,
    /// The provider of production instead of the seeded one: no two runs are the same.
    pub real_crypto: bool,
}

impl Setup {
    /// A quiet network, and gateways of a size that a test can fill.
    pub fn new(seed: u64) -> Self {
        let limits = Limits {
            sessions: 256,
            handshakes: 256,
            flows: 2_048,
            frames: 4_096,
            buffer: 64 << 10,
            history: 64,
            pre_existing_grace: std::time::Duration::ZERO,
            ..Limits::default()
        };
        let timeouts = Timeouts { keep_alive: std::time::Duration::from_secs(20), ..Timeouts::default() };
        Self {
            seed,
            mtus: [1500, 1500],
            delays: [50, 50, 500],
            faults: 0,
            limits,
            timeouts,
            tuning: Tuning::default(),
            real_crypto: false,
        }
    }
}

/// A certificate that the direct peer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    Own,
    /// Two URI SANs, the first of which is allowed.
    TwoNames,
    Nothing,
    Expired,
    /// Of a root that nobody here knows, for the same trust domain.
    OtherRoot,
    /// Of a trust domain without a bundle.
    OtherDomain,
    NoSpiffeId,
    /// Of an identity that is in no list.
    Stranger,
    /// A leaf that may sign certificates.
    CaLeaf,
    /// A leaf that does not say what its key is for.
    NoKeyUsage,
    /// A certificate for servers only.
    ServerOnly,
    /// Signed by the holder of another leaf.
    ByALeaf,
    /// A certificate whose key it does not hold.
    WrongKey,
    /// Its own, over TLS 1.2.
    OldTls,
}
