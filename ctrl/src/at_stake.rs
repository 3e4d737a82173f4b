//! Roots that a change of the configuration would drop while living connections chain to them.
//!
//! Dropping such a root cuts those connections, which may be half of a node's for one forgotten
//! certificate. `sluice apply` says how many before it does that, and does it with `--force` only.

use snapshot::ConnectionReport;

use crate::bundles::Row;

/// A root that is trusted now and would not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    pub trust_domain: String,
    pub subject: String,
    id: String,
}

/// `now` is what the gateway trusts, `then` what it would trust with the change.
pub fn dropped(now: &[Row], then: &[Row]) -> Vec<Dropped> {
    let mut dropped: Vec<Dropped> = Vec::new();
    for row in now {
        let of_then = then.iter().filter(|other| other.trust_domain == row.trust_domain);
        let kept: Vec<_> = of_then.flat_map(|other| &other.roots).map(|root| &root.id).collect();
        for root in row.roots.iter().filter(|root| !kept.contains(&&root.id)) {
            if dropped.iter().all(|known| (&known.trust_domain, &known.id) != (&row.trust_domain, &root.id)) {
                let (trust_domain, subject, id) = (row.trust_domain.clone(), root.subject.clone(), root.id.clone());
                dropped.push(Dropped { trust_domain, subject, id });
            }
        }
    }
    dropped
}

/// How many of the living connections each of them would cut; those that cut none are left out.
pub fn cut<'d>(dropped: &'d [Dropped], live: &[ConnectionReport]) -> Vec<(&'d Dropped, usize)> {
    let chains = |root: &Dropped, connection: &ConnectionReport| {
        root_of(connection) == Some(&root.id) && is_of(connection, &root.trust_domain)
    };
    let counted = dropped.iter().map(|root| (root, live.iter().filter(|connection| chains(root, connection)).count()));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// The root that its peer's chain led to, by its name.
pub fn root_of(connection: &ConnectionReport) -> Option<&String> {
    connection.tls.as_ref()?.peer_root.as_ref()
}

/// Whether its peer has shown an identity of that trust domain by TLS.
pub fn is_of(connection: &ConnectionReport, trust_domain: &str) -> bool {
    let domain = connection.peer_id.as_deref().and_then(|id| id.split('/').nth(2));
    connection.tls.is_some() && domain == Some(trust_domain)
}

/// What is said instead of doing it, with a line for each root. None: nothing would be cut.
pub fn refusal(cut: &[(&Dropped, usize)]) -> Option<crate::view::Failure> {
    let all: usize = cut.iter().map(|(_, count)| count).sum();
    let (connections, they) = if all == 1 { ("connection chains", "it") } else { ("connections chain", "they") };
    let error = format!(
        "{all} living {connections} to roots that this would drop, and {they} would be cut; nothing was changed. \
         Use --force if that is meant"
    );
    let details = cut.iter().map(|(root, count)| format!("root {} of {}: {count}", root.subject, root.trust_domain));
    (all > 0).then(|| crate::view::Failure { error, details: details.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_whose_peer_chains_to_a_dropped_root_are_counted() {
        let root = |trust_domain: &str, id: &str| Dropped {
            trust_domain: trust_domain.into(),
            subject: format!("CN={id}"),
            id: id.into(),
        };
        let live = |peer: &str, root: &str| {
            let tls = serde_json::json!({ "version": "", "group": "", "cipher": "", "local_serial": null,
                "peer_serial": null, "peer_not_after": null, "peer_root": root, "resumed": false });
            let report = serde_json::json!({ "id": 1, "core": 0, "direction": "inbound", "client": "198.18.9.9:1",
                "server": "198.18.1.2:2", "source": null, "workload": null, "local_id": null, "peer_id": peer,
                "mode": "MUTUAL", "tls": tls, "state": "relaying", "refused": null, "closed": null, "detail": null,
                "rule": null, "version": 1, "opened_at": 1.0, "ended_at": null, "from_client": 0, "to_client": 0 });
            serde_json::from_value::<ConnectionReport>(report).unwrap()
        };
        let dropped = [root("partner.org", "aa"), root("example.com", "bb"), root("example.com", "cc")];
        let all = [
            live("spiffe://partner.org/x", "aa"),
            live("spiffe://partner.org/y", "aa"),
            // The same root, of a trust domain that keeps it.
            live("spiffe://other.org/x", "aa"),
            live("spiffe://example.com/x", "bb"),
            live("spiffe://example.com/x", "dd"),
        ];
        let cut = cut(&dropped, &all);
        assert_eq!(cut, [(&dropped[0], 2), (&dropped[1], 1)]);
        let said = refusal(&cut).unwrap();
        assert!(said.error.starts_with("3 living connections chain to roots that this would drop"), "{}", said.error);
        assert_eq!(said.details, ["root CN=aa of partner.org: 2", "root CN=bb of example.com: 1"]);
        assert_eq!(refusal(&[]), None);
    }
}
