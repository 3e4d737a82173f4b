//! Who is at the other end of a live connection: what `sluice whois` and `GET /v1/whois` answer.
//!
//! The question is a program's of this node: of a service about its caller, which it sees under the caller's
//! own address, or of a caller about the server that it called. Between two workloads of this node it may be
//! either's.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use snapshot::{ConnectionReport, Direction, TlsMode, Version};

use crate::view::Identity;

/// One connection, as the program at `local` sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Of whoever is at `peer`. None: nobody was verified.
    pub spiffe_id: Option<String>,
    pub known_by: KnownBy,
    /// Of the certificate that it showed; `not_after` in seconds since the epoch.
    pub serial: Option<String>,
    pub not_after: Option<u64>,
    /// The workload at `local`: `namespace/name`, and its SPIFFE ID.
    pub workload: Option<String>,
    pub local_id: Option<String>,
    pub direction: Direction,
    pub mode: Option<TlsMode>,
    pub tls: Option<String>,
    pub state: String,
    /// Seconds since the epoch.
    pub since: f64,
    /// What allowed it, with file and line.
    pub rule: Option<String>,
    /// The snapshot that it was last decided under.
    pub revision: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnownBy {
    /// It has shown one that was verified.
    Certificate,
    /// It is a workload of this node, told by its port, address and MAC.
    Attestation,
    /// It spoke plain, or showed none.
    Nothing,
}

impl KnownBy {
    fn of(report: &ConnectionReport, spiffe_id: Option<&String>) -> Self {
        match (spiffe_id, report.direction) {
            (None, _) => Self::Nothing,
            (Some(_), Direction::Local) => Self::Attestation,
            (Some(_), Direction::Inbound | Direction::Egress) => Self::Certificate,
        }
    }
}

impl Row {
    /// Of a connection with `peer`, an end of it. `identities` name the workloads of this node.
    pub fn of(report: ConnectionReport, peer: SocketAddr, identities: &[Identity]) -> Self {
        let seen_as = report.source.unwrap_or(report.client);
        let service = report.endpoint.unwrap_or(report.server);
        let (local, about_caller) = match report.direction {
            Direction::Inbound => (service, true),
            Direction::Egress => (report.client, false),
            Direction::Local if seen_as == peer => (service, true),
            Direction::Local => (report.client, false),
        };
        // A report is its local workload's, which between two of them is the caller.
        let (spiffe_id, local_id, workload) = match (report.direction, about_caller) {
            (Direction::Local, true) => {
                let callee = report.peer_id.clone();
                let name = callee.as_ref().and_then(|id| only_workload(identities, id));
                (report.local_id.clone(), callee, name)
            }
            _ => (report.peer_id.clone(), report.local_id.clone(), report.workload.clone()),
        };
        let tls = report.tls.as_ref();
        Self {
            peer,
            local,
            known_by: KnownBy::of(&report, spiffe_id.as_ref()),
            spiffe_id,
            serial: tls.and_then(|tls| tls.peer_serial.clone()),
            not_after: tls.and_then(|tls| tls.peer_not_after),
            workload,
            local_id,
            direction: report.direction,
            mode: report.mode,
            tls: tls.map(|tls| format!("{} {} {}", tls.version, tls.group, tls.cipher)),
            state: report.state,
            since: report.opened_at as f64 / 1000.0,
            rule: report.rule,
            revision: report.version,
        }
    }
}

/// The workload with this SPIFFE ID; replicas share theirs, and then no name is one's own.
fn only_workload(identities: &[Identity], id: &str) -> Option<String> {
    let mut named = identities.iter().filter(|identity| identity.spiffe_id == id);
    named.next().filter(|_| named.next().is_none()).map(|identity| identity.workload.clone())
}

/// `ADDR:PORT`, an IPv4 address in IPv6 clothes as the IPv4 address that it is.
pub fn end(name: &str, text: &str) -> Result<SocketAddr, String> {
    let end: SocketAddr =
        text.parse().map_err(|_| format!("{name}={text}: use ADDRESS:PORT, [ADDRESS]:PORT for IPv6"))?;
    match end.port() {
        0 => Err(format!("{name}={text}: no connection has port 0")),
        port => Ok(SocketAddr::new(end.ip().to_canonical(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "198.18.1.2:41326";
    const SERVICE: &str = "198.18.2.2:3000";

    fn report(direction: Direction, tls: bool) -> ConnectionReport {
        ConnectionReport {
            id: 1,
            core: 0,
            direction,
            client: CALLER.parse().unwrap(),
            server: SERVICE.parse().unwrap(),
            source: None,
            workload: Some("shop/own".into()),
            local_id: Some("spiffe://example.com/own".into()),
            peer_id: Some("spiffe://example.com/other".into()),
            mode: Some(TlsMode::Mutual),
            tls: tls.then(|| snapshot::TlsReport {
                version: "TLSv1.3".into(),
                group: "X25519".into(),
                cipher: "TLS13_AES_128_GCM_SHA256".into(),
                local_serial: Some("01".into()),
                peer_serial: Some("0a".into()),
                peer_not_after: Some(2_000),
                peer_root: None,
                resumed: false,
            }),
            state: "relaying".into(),
            refused: None,
            closed: None,
            detail: None,
            rule: Some("shop/own spec.allowedSPIFFEIDs.inbound (policy.yaml:31)".into()),
            shadow: None,
            version: Version(7),
            opened_at: 1_500,
            ended_at: None,
            sent: 1,
            received: 2,
            allowed_by: None,
            attested: None,
            endpoint: None,
            admitted: None,
        }
    }

    fn identity(workload: &str, spiffe_id: &str) -> Identity {
        Identity {
            workload: workload.into(),
            spiffe_id: spiffe_id.into(),
            mode: "MUTUAL".into(),
            places: vec![],
            evidence: vec![],
            serial: None,
            not_before: None,
            not_after: None,
            source: None,
            waiting: false,
            error: None,
        }
    }

    /// Who is there, how that is known, and who asks.
    fn told(
        report: ConnectionReport,
        peer: &str,
        identities: &[Identity],
    ) -> (String, KnownBy, String, Option<String>) {
        let row = Row::of(report, peer.parse().unwrap(), identities);
        let id = row.spiffe_id.unwrap_or_else(|| "nobody".into());
        (id, row.known_by, row.local.to_string(), row.workload)
    }

    #[test]
    fn each_end_is_told_of_the_other() {
        let (own, other) = ("spiffe://example.com/own", "spiffe://example.com/other");
        let shop = Some("shop/own".to_owned());
        let two = [identity("shop/own", own), identity("shop/other", other)];
        let replicas = [identity("shop/other", other), identity("shop/another", other)];
        let plain = ConnectionReport { peer_id: None, ..report(Direction::Inbound, false) };
        let local = || report(Direction::Local, false);
        for (name, report, peer, identities, want) in [
            (
                "a service of its caller",
                report(Direction::Inbound, true),
                CALLER,
                &two,
                (other, KnownBy::Certificate, SERVICE, shop.clone()),
            ),
            (
                "a caller of its server",
                report(Direction::Egress, true),
                SERVICE,
                &two,
                (other, KnownBy::Certificate, CALLER, shop.clone()),
            ),
            ("a service of a plain caller", plain, CALLER, &two, ("nobody", KnownBy::Nothing, SERVICE, shop.clone())),
            (
                "a service of its node's caller",
                local(),
                CALLER,
                &two,
                (own, KnownBy::Attestation, SERVICE, Some("shop/other".into())),
            ),
            ("the same, one of replicas", local(), CALLER, &replicas, (own, KnownBy::Attestation, SERVICE, None)),
            ("that caller of it", local(), SERVICE, &two, (other, KnownBy::Attestation, CALLER, shop.clone())),
        ] {
            let (id, known_by, at, workload) = want;
            assert_eq!(told(report, peer, identities), (id.into(), known_by, at.into(), workload), "{name}");
        }
    }

    #[test]
    fn the_answer_has_certificate_rule_and_revision_with_times_in_seconds() {
        let row = Row::of(report(Direction::Inbound, true), CALLER.parse().unwrap(), &[]);
        assert_eq!(
            serde_json::to_value(row).unwrap(),
            serde_json::json!({
                "peer": CALLER, "local": SERVICE, "spiffe_id": "spiffe://example.com/other", "known_by": "certificate",
                "serial": "0a", "not_after": 2_000, "workload": "shop/own", "local_id": "spiffe://example.com/own",
                "direction": "inbound", "mode": "MUTUAL", "tls": "TLSv1.3 X25519 TLS13_AES_128_GCM_SHA256",
                "state": "relaying", "since": 1.5, "revision": 7,
                "rule": "shop/own spec.allowedSPIFFEIDs.inbound (policy.yaml:31)",
            })
        );
    }

    #[test]
    fn an_end_is_an_address_with_a_port() {
        assert_eq!(end("peer", "[::ffff:198.18.1.2]:80").unwrap().to_string(), "198.18.1.2:80");
        assert_eq!(end("peer", "[2001:db8::1]:80").unwrap().to_string(), "[2001:db8::1]:80");
        for (text, why) in [
            ("198.18.1.2", "peer=198.18.1.2: use ADDRESS:PORT, [ADDRESS]:PORT for IPv6"),
            ("a.example:80", "peer=a.example:80: use ADDRESS:PORT, [ADDRESS]:PORT for IPv6"),
            ("198.18.1.2:0", "peer=198.18.1.2:0: no connection has port 0"),
        ] {
            assert_eq!(end("peer", text), Err(why.into()));
        }
    }
}
