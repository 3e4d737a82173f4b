//! Reports as workers make them, for the tests of what reads them.

use ::snapshot::{Admitted, CloseReason, ConnectionReport, Direction, RefuseReason, TlsMode, TlsReport, Version};

/// A caller's mTLS connection to a workload of this node.
pub fn accepted() -> ConnectionReport {
    ConnectionReport {
        id: 7,
        core: 1,
        direction: Direction::Inbound,
        client: "198.18.1.2:41326".parse().unwrap(),
        server: "198.18.2.2:3000".parse().unwrap(),
        source: None,
        workload: Some("shop/backend".into()),
        local_id: Some("spiffe://example.com/shop/backend".into()),
        peer_id: Some("spiffe://example.com/shop/frontend".into()),
        mode: Some(TlsMode::Permissive),
        tls: Some(TlsReport {
            version: "TLSv1.3".into(),
            group: String::new(),
            cipher: String::new(),
            local_serial: Some("0a".into()),
            peer_serial: Some("0b".into()),
            peer_not_after: Some(1_800_000_000),
            peer_root: None,
            resumed: false,
        }),
        state: "relaying".into(),
        refused: None,
        closed: None,
        detail: None,
        rule: Some("shop/backend spec.allowedSPIFFEIDs.inbound (policy.yaml:34)".into()),
        shadow: None,
        version: Version(3),
        opened_at: 1_700_000_000_000,
        ended_at: None,
        sent: 0,
        received: 0,
        allowed_by: None,
        attested: None,
        endpoint: None,
        admitted: Some(Admitted::Identity),
    }
}

pub fn plain() -> ConnectionReport {
    ConnectionReport { peer_id: None, tls: None, admitted: Some(Admitted::Mode), ..accepted() }
}

pub fn refused(reason: RefuseReason) -> ConnectionReport {
    ConnectionReport { refused: Some(reason), admitted: None, ended_at: Some(1_700_000_000_250), ..accepted() }
}

pub fn closed(reason: CloseReason) -> ConnectionReport {
    ConnectionReport { closed: Some(reason), ended_at: Some(1_700_000_000_250), ..accepted() }
}
