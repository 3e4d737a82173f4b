//! What a dataplane that the tests play answers to queries: one connection that lives, one that was refused.

use snapshot::report::{Caller, PortReport};
use snapshot::{
    ConnectionReport, CoreReport, Counters, Direction, Explanation, Query, RefuseReason, Reply, Side, TlsMode,
    TlsReport, Version,
};

/// Workloads have it that their processes tell apart.
const SHARED: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 4, 2));

fn refusal() -> ConnectionReport {
    ConnectionReport {
        id: 7,
        core: 0,
        direction: Direction::Egress,
        client: "198.18.1.2:4000".parse().unwrap(),
        server: "198.18.2.2:3000".parse().unwrap(),
        source: None,
        workload: Some("shop/frontend".into()),
        local_id: Some("spiffe://example.com/myapp/app/frontend".into()),
        peer_id: Some("spiffe://example.com/myapp/app/evil".into()),
        mode: Some(TlsMode::Mutual),
        tls: None,
        state: "Closed".into(),
        refused: Some(RefuseReason::NotAllowedOutbound),
        closed: None,
        detail: Some("the server is spiffe://example.com/myapp/app/evil".into()),
        rule: Some("shop/frontend spec.egress[0]".into()),
        shadow: None,
        version: Version(1),
        opened_at: 1_700_000_000_000,
        ended_at: Some(1_700_000_000_500),
        sent: 0,
        received: 0,
        allowed_by: None,
        attested: None,
        endpoint: None,
        admitted: None,
    }
}

pub fn live() -> ConnectionReport {
    let tls = TlsReport {
        version: "TLSv1.3".into(),
        group: "X25519MLKEM768".into(),
        cipher: "TLS13_AES_128_GCM_SHA256".into(),
        local_serial: None,
        peer_serial: None,
        peer_root: None,
        resumed: false,
        peer_not_after: None,
    };
    let peer_id = Some("spiffe://example.com/myapp/app/backend-api".into());
    ConnectionReport { refused: None, tls: Some(tls), state: "Relaying".into(), peer_id, ended_at: None, ..refusal() }
}

pub fn answer(query: &Query, in_force: Version) -> Reply {
    let connections = |part| Reply::Connections { part, more: false };
    match query {
        Query::Status => Reply::Status(snapshot::Status {
            pid: 4242,
            build: "fake".into(),
            started_at: 1_700_000_000,
            in_force: Some(in_force),
            network_revision: 1,
            ports: vec![PortReport {
                interface: "in0".into(),
                side: Side::Inside,
                up: true,
                xdp: "native, copy".into(),
                mtu: 65535,
                queues: 1,
            }],
            cores: vec![CoreReport {
                core: 0,
                sessions: 3,
                handshakes: 1,
                frames_free: 100,
                frames: 128,
                flows: 6,
                turns: 9,
                version: Some(in_force),
            }],
            last_nack: None,
            unusable: vec![],
            audit: None,
        }),
        Query::Counters => Reply::Counters(Counters {
            refused: vec![("NoIdentity".into(), 5)],
            totals: vec![("bytes_sent".into(), 77), ("sessions".into(), 3)],
            ..Counters::default()
        }),
        Query::Live => connections(vec![live()]),
        Query::Refused => connections(vec![refusal()]),
        Query::Closed => connections(vec![]),
        Query::With { peer, local } => {
            let ends = |c: &ConnectionReport| c.server == *peer && local.is_none_or(|local| c.client == local);
            connections([live()].into_iter().filter(ends).collect())
        }
        Query::Rules => Reply::Rules { part: vec![], more: false },
        Query::Bypasses => Reply::Bypasses { part: vec![], more: false },
        Query::Replay { .. } => Reply::Failed("nobody calls in this test".into()),
        Query::Callers { .. } => Reply::Callers { since: 0, lost: 0, part: vec![], more: false },
        Query::Endpoints => Reply::Endpoints { part: vec![], more: false },
        Query::Explain { from: Caller::Id(_) | Caller::IdAt(..), .. } => Reply::Explanation(Explanation {
            direction: Some(Direction::Egress),
            allowed: false,
            only_with: None,
            passed: false,
            mode: Some(TlsMode::Mutual),
            refused: Some(RefuseReason::NotAllowedOutbound),
            rule: Some("shop/frontend spec.egress[0]".into()),
            version: in_force,
            steps: vec!["the destination is shop/backend-api-svc".into()],
            undecided: vec![],
        }),
        Query::Explain { from: Caller::Address(from), .. } if from.is_ipv6() => Reply::Explanation(Explanation {
            direction: Some(Direction::Inbound),
            allowed: true,
            only_with: Some("spiffe://example.com/myapp/app/*".into()),
            passed: false,
            mode: Some(TlsMode::Mutual),
            refused: None,
            rule: None,
            version: in_force,
            steps: vec![],
            undecided: vec![],
        }),
        Query::Explain { from: Caller::Address(from), .. } if *from == SHARED => Reply::Explanation(Explanation {
            direction: None,
            allowed: false,
            only_with: None,
            passed: false,
            mode: None,
            refused: None,
            rule: None,
            version: in_force,
            steps: vec![],
            undecided: vec!["spiffe://example.com/shop/web".into(), "spiffe://example.com/shop/batch".into()],
        }),
        Query::Explain { from: Caller::Address(_), .. } => Reply::Failed("no core answers".into()),
    }
}
