//! Why a packet was dropped, a connection refused, a connection closed: closed enums (D10).
//!
//! Each variant has a name (counter label, log field), a meaning and what to do about it; the CLI
//! prints the same words. Peers never see any of this, only the right TLS alert or RST.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $meaning:literal, $remedy:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $meaning] $variant,)* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            pub const COUNT: usize = Self::ALL.len();

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// One sentence: what happened.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// One sentence: what an operator looks at next.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            pub fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|r| r.name() == name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

reasons! {
    /// Why a packet went no further.
    DropReason {
        FrameTooShort => "the frame ends before its headers do", "look for a broken driver or a fuzzer on the segment";
        NotIp => "the frame is neither IPv4 nor IPv6", "none: steering should not have sent it here";
        BadIpHeader => "the IP header contradicts itself or the frame's length", "look for a broken or hostile sender";
        IpFragment => "an IP fragment to a captured destination", "lower the sender's MTU or MSS; TCP does not need fragments";
        NotTcp => "neither TCP nor an ICMP error about a known flow", "none: steering should not have sent it here";
        BadTcpHeader => "the TCP header contradicts itself or the packet's length", "look for a broken or hostile sender";
        BadChecksum => "the TCP checksum is wrong", "look for corruption on the path; on a veth keep `checksum: auto`";
        BadIcmp => "an ICMP error whose quoted packet is no segment that we sent", "look for forged ICMP (RFC 5927)";
        SourceSpoofed => "source address, port and MAC do not belong together", "find who sends with another workload's address";
        UnknownFlow => "no session has this 4-tuple; it was answered with RST", "normal after a restart";
        NoNextHop => "no neighbour entry for the next hop yet", "check the route and the neighbour with `ip route get`";
        PortDown => "the port cannot send at present", "check the link; it is taken up again by itself";
        TransmitBacklogFull => "the port's backlog of frames to send is full", "the link is slower than what is sent; TCP repairs it";
        NoFrame => "no free frame in the UMEM", "raise limits.frames";
        TooLarge => "the packet is larger than the port's MTU", "check the MTU on both ends of the link";
        NotOurs => "a SYN for an address that is no workload's by the snapshot in force", "none if it passes: steering is brought in step with a new snapshot first";
        HandoffFull => "the ring to the core that owns the flow is full", "the core is overloaded: add cores or spread the queues";
    }
}

reasons! {
    /// Why a connection was refused. Nothing of the caller's reached the service.
    RefuseReason {
        NoIdentity => "the caller's address has no WorkloadIdentity on this node", "add a WorkloadIdentity whose selectors match the caller";
        NoSvid => "the workload's SVID is missing or expired", "see `sluice identities`; check the identity source";
        NotAttested => "the process that calls from, or listens at, an address that processes tell apart is no workload's, or could not be found out in time", "see the detail, and `sluice describe workload`: compare process:* selectors with what was found; sluice-ctrl has to run";
        AttestationsFull => "too many calls wait for their process to be found out", "look for a flood of SYNs behind the port, or a sluice-ctrl that is stuck";
        UnmatchedEgress => "no egress rule of the caller matches the destination", "add an egress entry whose selectors match the Service, or set unmatchedEgress: pass";
        NotAllowedOutbound => "the server's SPIFFE ID is in no outbound list that applies", "add it to allowedSPIFFEIDs.outbound and to the egress entry's list";
        NotAllowedInbound => "the caller's SPIFFE ID is not in the workload's inbound list", "add it to allowedSPIFFEIDs.inbound";
        NoInboundList => "the workload has no inbound list, so nobody may call it under MUTUAL", "add allowedSPIFFEIDs.inbound";
        DeniedByRule => "a deny of a Policy matches the call", "see the rule, and `sluice explain`; take the caller off it or narrow it";
        PlaintextRefused => "the caller spoke plain where mTLS is required", "give the caller an identity, or set the mode to PERMISSIVE while migrating";
        NoClientCertificate => "the caller offered TLS without a certificate", "configure a client certificate at the caller";
        PeerNoSpiffeId => "the peer's certificate has no SPIFFE ID, or more than one URI SAN", "issue the peer an X.509-SVID with exactly one URI SAN";
        PeerTrustDomainUnknown => "no bundle for the peer's trust domain", "federate with the trust domain (TrustBundle)";
        PeerUntrusted => "the peer's chain does not lead to a root of its trust domain, or an issuer in it had no right to sign what it signed", "compare the roots of both sides with `sluice identities`; the detail names the certificate and the field";
        PeerExpired => "a certificate of the peer's chain is not valid now", "check the peer's renewal and both clocks";
        PeerRevoked => "the SPIFFE ID of an end, or a certificate of the peer's chain, is revoked", "see the TrustBundle or the CRL that the rule names; give the workload a new identity, or take the entry out";
        CrlStale => "a CRL of the peer's trust domain is past its nextUpdate, and says onStale: fail", "have its CA issue the next CRL and put it in place; see `sluice bundle`, and `onStale: warn`";
        PeerBadCertificate => "a certificate of the peer's chain is malformed or breaks the rules of X.509-SVID", "have it issued anew as the detail says, which names the certificate and the field";
        PeerBadSignature => "the peer does not hold the key of its certificate", "look for a key that does not match its certificate at the peer";
        TlsProtocol => "the peer broke the TLS protocol or shares no version, group or cipher with us", "the peer needs TLS 1.3";
        RefusedByPeer => "the far side refused us with an alert", "look at the far side's `sluice connections --refused`";
        ConnectRefused => "the destination answered with RST", "check that the service listens";
        ConnectTimeout => "the destination did not answer in time", "check the route, and that the far node is up";
        Unreachable => "the network says the destination cannot be reached", "check routes and firewalls on the path";
        NoNodeAddress => "the call is to leave from the node's own address (source: node), and the outgoing interface has none of the destination's family", "give the interface a global address of that family, or give the route a src";
        NodePortsFull => "every port of the node towards the destination is in use (source: node)", "raise limits.sourcePorts, or see which calls do not end";
        HandshakeTimeout => "the TLS handshake did not finish in time", "look for loss or an overloaded peer";
        SynReceivedTimeout => "the caller did not finish the TCP handshake", "look for a SYN flood or loss";
        SessionsFull => "the table of sessions is full", "raise limits.sessions or add cores";
        HandshakesFull => "too many handshakes are under way", "raise limits.handshakes or add cores";
        FlowsFull => "the flows map is full", "raise limits.flows";
        CallerGone => "the caller gave up before the connection stood", "look at the caller's timeouts";
        PolicyChanged => "a newer snapshot does not allow the connection", "compare the snapshot's versions with `sluice explain`";
        NoSnapshot => "no snapshot is in force yet", "start sluice-ctrl, then see `sluice status`";
        NoEndpoint => "the virtual address has no endpoint that takes calls", "see `sluice services`: whether its names resolve, and which endpoints are ready";
        Draining => "the gateway is stopping and takes no new connections", "call again when it runs; see `sluice status`";
    }
}

reasons! {
    /// How an established connection ended.
    CloseReason {
        Finished => "both sides closed in order", "none";
        ResetByClient => "the caller reset the connection", "look at the caller";
        ResetByServer => "the server reset the connection", "look at the server";
        Truncated => "TLS ended without close_notify", "look for an attacker or a peer that does not close TLS properly";
        TlsError => "a record did not decrypt or broke the protocol", "look for corruption or an attacker on the path";
        ClosedByPeer => "the far side sent a fatal alert", "look at the far side's log";
        IdleTimeout => "no answer to keep-alives", "look for a peer that vanished";
        UserTimeout => "sent data was not acknowledged in time", "look for loss or a peer that vanished";
        HalfCloseTimeout => "one side closed and the other stayed silent too long", "raise timeouts.halfClose if this is wanted";
        PolicyChanged => "a newer snapshot does not allow the connection", "compare the snapshot's versions with `sluice explain`";
        Drained => "the gateway stopped before the connection had ended", "raise timeouts.drain to give connections longer";
        Unreachable => "the network says the destination cannot be reached", "check routes and firewalls on the path";
        PeerExpired => "the certificate by which the peer proved itself has ended since", "normal with onPeerExpiry: close or grace, and the peer calls again; see that its SVID is renewed";
        MaxAge => "the connection has lived for maxConnectionAge", "normal where that is set; the caller calls again";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_unique_name_that_leads_back_to_it() {
        for &reason in RefuseReason::ALL {
            assert_eq!(RefuseReason::by_name(reason.name()), Some(reason));
            assert!(!reason.meaning().is_empty() && !reason.remedy().is_empty());
        }
        assert_eq!(DropReason::by_name("SourceSpoofed"), Some(DropReason::SourceSpoofed));
        assert_eq!(CloseReason::by_name("NoSuchReason"), None);
    }
}
