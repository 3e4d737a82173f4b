//! Changes of trust in a snapshot: who is revoked, and by which roots peers are verified.

use snapshot::{Bundle, Crl, IdPattern, Revoked, RuleId, RuleSource, Snapshot};

use super::pki::TRUST_DOMAIN;

/// Revokes what matches, of the nodes' own trust domain or of another.
pub fn revoke_id(snapshot: &mut Snapshot, pattern: IdPattern) {
    let domain = pattern.to_string().split('/').nth(2).expect("a SPIFFE ID has a trust domain").to_owned();
    let rule = rule(snapshot, "spiffeIDs");
    list(snapshot, &domain).ids.push((pattern, rule));
}

/// Revokes the certificates of the nodes' own trust domain that have this serial.
pub fn revoke_serial(snapshot: &mut Snapshot, serial: &str) {
    let rule = rule(snapshot, "serials");
    list(snapshot, TRUST_DOMAIN).serials.push((serial.to_owned(), rule));
}

/// Puts a CRL of an issuer in the trust domain into force.
pub fn revoke_by_crl(snapshot: &mut Snapshot, trust_domain: &str, crl: Crl) {
    let rule = rule(snapshot, "crls");
    list(snapshot, trust_domain).crls.push(Crl { rule, ..crl });
}

/// Verifies peers of the bundles' trust domain by all of their roots from now on, and by no others.
pub fn trust(snapshot: &mut Snapshot, bundles: &[Bundle]) {
    let trust_domain = bundles[0].trust_domain.clone();
    let roots = bundles.iter().flat_map(|bundle| bundle.roots.clone()).collect();
    snapshot.bundles.retain(|bundle| bundle.trust_domain != trust_domain);
    snapshot.bundles.push(Bundle { trust_domain, roots });
}

fn rule(snapshot: &mut Snapshot, which: &str) -> RuleId {
    let place = format!("trust.yaml:{}", snapshot.rules.len());
    snapshot.rules.push(RuleSource { name: format!("TrustBundle default/test spec.revoked.{which}"), place });
    RuleId(snapshot.rules.len() as u32 - 1)
}

fn list<'s>(snapshot: &'s mut Snapshot, trust_domain: &str) -> &'s mut Revoked {
    let known = snapshot.revoked.iter().position(|list| list.trust_domain == trust_domain);
    let at = known.unwrap_or_else(|| {
        snapshot.revoked.push(Revoked { trust_domain: trust_domain.to_owned(), ..Revoked::default() });
        snapshot.revoked.len() - 1
    });
    &mut snapshot.revoked[at]
}
