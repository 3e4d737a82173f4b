//! Bugs that a test build can switch on, one at a time and per thread, to show that the suite
//! notices. Without the feature `planted` every question is a constant `false`.

/// Each breaks one promise of the gateway, at the place that keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Policy is not asked: everybody who has a certificate is allowed.
    VerdictSkipped,
    /// What should be sealed leaves in clear.
    PlaintextOut,
    /// The last bytes before a close are not delivered.
    LastBytesLost,
    /// An abort is told to the other side as an orderly end.
    FinForReset,
    /// A frame is not given back.
    FrameLeaked,
    /// A decision is made under a snapshot that is no longer in force.
    StaleSnapshot,
    /// A certificate's URI SANs after the first are not looked at.
    SecondSanUnchecked,
    /// Two records are sealed under one nonce.
    NonceRepeated,
    /// Explicit denies are not asked.
    DenySkipped,
    /// The last block of a range of ports is left out.
    RangeCutShort,
    /// A CIDR of one family is compared with addresses of the other.
    FamiliesMixed,
    /// A rule in shadow decides.
    ShadowEnforced,
    /// Deny lists are not asked.
    RevokedServed,
    /// CRLs are looked up by their serials alone, whoever has issued the certificate.
    IssuerIgnored,
    /// A CRL that is past its nextUpdate is as good as any.
    StaleServed,
    /// What chains to a root that is no longer trusted lives on.
    DroppedRootTrusted,
    /// `onChange` keeps whose identity is revoked or not believed any more.
    RevokedKept,
    /// What is to drain has no end.
    DrainEndless,
    /// A peer's expiry is reckoned once, and not again when the wall clock is set.
    ClockJumpMissed,
    /// An old connection is told an end while bytes are on their way.
    AgeCutsShort,
    /// Of several processes that hold a socket one has to match.
    OneHolderEnough,
    /// Of two identities for one flow the first is taken.
    FirstOfTwo,
    /// An answer about one SYN is taken for another of its 4-tuple.
    AnswerUnbound,
    /// A SYN waits for its process as long as it takes.
    HeldTooLong,
    /// Nobody is asked who listens: it is the first that may.
    UnaskedIsFirst,
    /// A listener is taken for that of any address.
    AnyListener,
    /// SYNs from the wire may take all places that there are for held ones.
    WireHoldsAll,
    /// A socket that no process holds matches everybody.
    NobodyIsEverybody,
    /// Of two endpoints that were drawn the first gets the call, however many it has.
    FirstDrawWins,
    /// However many are ejected, one more is.
    AllEjected,
    /// A call is decided for the virtual address's first endpoint, whichever it goes to.
    FirstEndpointDecides,
    /// A call that could not be connected is given to the same endpoint again.
    SameEndpointAgain,
    /// The leg to the endpoint keeps the sequence number that the caller chose for the virtual address.
    CallersNumberKept,
    /// A bypass of one port is one of all ports.
    BypassAnyPort,
    /// A bypass holds for whoever sends from its address, on an inside port too.
    BypassInside,
    /// What a bypass let in lives on when it is gone.
    BypassOutlived,
    /// A ticket is believed without asking the snapshot in force.
    ResumedUnjudged,
}

impl Bug {
    /// What the simulation's seeds have to catch.
    pub const ALL: [Self; 10] = [
        Self::VerdictSkipped,
        Self::PlaintextOut,
        Self::LastBytesLost,
        Self::FinForReset,
        Self::FrameLeaked,
        Self::StaleSnapshot,
        Self::SecondSanUnchecked,
        Self::NonceRepeated,
        Self::DenySkipped,
        Self::RevokedServed,
    ];

    /// What the interpreter of policy's words has to catch.
    pub const OF_RULES: [Self; 4] = [Self::DenySkipped, Self::RangeCutShort, Self::FamiliesMixed, Self::ShadowEnforced];

    /// What the tests of revocation and of roots have to catch.
    pub const OF_TRUST: [Self; 4] =
        [Self::RevokedServed, Self::IssuerIgnored, Self::StaleServed, Self::DroppedRootTrusted];

    /// What the tests of living connections have to catch.
    pub const OF_LIVING: [Self; 4] = [Self::RevokedKept, Self::DrainEndless, Self::ClockJumpMissed, Self::AgeCutsShort];

    /// What the tests of virtual addresses have to catch.
    pub const OF_BALANCE: [Self; 5] = [
        Self::FirstDrawWins,
        Self::AllEjected,
        Self::FirstEndpointDecides,
        Self::SameEndpointAgain,
        Self::CallersNumberKept,
    ];

    /// What the tests of attestation by process have to catch.
    pub const OF_PROCESSES: [Self; 5] =
        [Self::OneHolderEnough, Self::FirstOfTwo, Self::AnswerUnbound, Self::HeldTooLong, Self::NobodyIsEverybody];

    /// The same of listeners.
    pub const OF_LISTENERS: [Self; 3] = [Self::UnaskedIsFirst, Self::AnyListener, Self::WireHoldsAll];

    /// What the tests of bypasses have to catch.
    pub const OF_BYPASSES: [Self; 3] = [Self::BypassAnyPort, Self::BypassInside, Self::BypassOutlived];
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local!(static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) });

    /// Plants `bug` on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub fn active() -> Option<Bug> {
        PLANTED.get()
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    use super::Bug;

    pub const fn active() -> Option<Bug> {
        None
    }
}

pub use switch::*;

/// Whether `bug` is planted on this thread.
#[inline]
pub fn is(bug: Bug) -> bool {
    active() == Some(bug)
}
