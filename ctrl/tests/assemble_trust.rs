//! From TrustBundles to the roots and deny lists of a snapshot.

mod certs;
mod counting;
mod example;

use std::path::PathBuf;

use certs::{Says, YEAR, inline, trust_bundle};
use counting::{NOW, identities};
use ctrl::assemble::assemble;
use ctrl::bundles;
use ctrl::config::{Loaded, load_files};
use ctrl::rotate::{Identities, Wanted};
use ctrl::source::{Error, IssuedSvid, Source};
use example::{GATEWAY, by_address, network, resolved};
use snapshot::{Bundle, RuleId, Version};

fn load_with(bundles: &[String]) -> Loaded {
    let mut files = vec![(PathBuf::from("policy.yaml"), by_address()), (PathBuf::from("gateway.yaml"), GATEWAY.into())];
    let named = bundles.iter().enumerate().map(|(nth, text)| (PathBuf::from(format!("t{nth}.yaml")), text.clone()));
    files.extend(named);
    load_files(&files).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

#[tokio::test]
async fn trust_bundles_add_to_the_own_roots_and_are_all_there_is_of_other_trust_domains() {
    let (own, partner) = (certs::root("example.com"), certs::root("partner.org"));
    let over = Says { life: (NOW - YEAR, NOW - 1), ..Says::root("partner.org") }.sign();
    let roots = |pem: &str, domain: &str| format!("trustDomain: {domain}\n{}", inline(pem));
    let of_own = format!(
        "{}revoked:\n  spiffeIDs: [spiffe://example.com/gone]\n  serials:\n  - \"4F:3A\"\n",
        roots(&own.pem(), "example.com")
    );
    let of_partner = roots(&format!("{}{}", over.pem(), partner.pem()), "partner.org");
    let loaded = load_with(&[trust_bundle("own", &of_own), trust_bundle("partner", &of_partner)]);
    let (resolved, identities) = (resolved(&loaded).await, identities());
    let (snapshot, _, warnings) = assemble(&loaded, &network(), &resolved, &identities, Version(1), NOW).unwrap();
    let bundle = |domain: &str, roots: &[&[u8]]| Bundle {
        trust_domain: domain.into(),
        roots: roots.iter().map(|root| root.to_vec()).collect(),
    };
    assert_eq!(
        snapshot.bundles,
        [bundle("example.com", &[&[1], own.der()]), bundle("partner.org", &[partner.der()])],
        "the root that is over is left out"
    );
    assert!(warnings.iter().any(|warning| warning.message.contains("expired at")), "{warnings:?}");
    let [list] = snapshot.revoked.as_slice() else { panic!("{:?}", snapshot.revoked) };
    let rule = |rule: RuleId| &snapshot.rules[rule.0 as usize];
    assert_eq!((list.trust_domain.as_str(), list.ids.len(), list.serials[0].0.as_str()), ("example.com", 1, "4f3a"));
    assert_eq!(rule(list.ids[0].1).name, "TrustBundle default/own spec.revoked.spiffeIDs[0]");
    assert_eq!(rule(list.serials[0].1).name, "TrustBundle default/own spec.revoked.serials[0]");
    // In another order, and partly in another file, they are the same roots.
    let moved = roots(&format!("{}{}", partner.pem(), over.pem()), "partner.org");
    let again = load_with(&[trust_bundle("own", &of_own), trust_bundle("partner", &moved)]);
    let (same, ..) = assemble(&again, &network(), &resolved, &identities, Version(1), NOW).unwrap();
    assert_eq!(same.bundles, snapshot.bundles);
}

/// A source that brings a bundle of another trust domain, as an agent does.
struct Federating(counting::Counting, Vec<u8>);

impl Source for Federating {
    fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        self.0.issue(wanted, now)
    }

    fn bundle(&self) -> Bundle {
        self.0.bundle()
    }

    fn federated(&self) -> Vec<Bundle> {
        vec![Bundle { trust_domain: "partner.org".into(), roots: vec![self.1.clone()] }]
    }

    fn warnings(&self, now: u64) -> Vec<String> {
        self.0.warnings(now)
    }
}

#[tokio::test]
async fn a_bundle_that_a_source_brings_counts_where_no_trust_bundle_gives_roots() {
    let (brought, listed) = (certs::root("partner.org"), certs::root("partner.org"));
    let source: Box<dyn Source> = Box::new(Federating(counting::Counting::default(), brought.der().to_vec()));
    let identities = Identities::new(source, 1);
    let of_partner = |loaded: &Loaded, bundles: &[Bundle]| {
        let roots = bundles.iter().filter(|bundle| bundle.trust_domain == "partner.org").map(|bundle| &bundle.roots);
        let roots: Vec<_> = roots.cloned().collect();
        let rows = bundles::rows(loaded, &identities.bundle(NOW), &identities.federated(NOW));
        let shown = rows.into_iter().filter(|row| row.trust_domain == "partner.org").map(|row| row.roots.len());
        (roots, shown.collect::<Vec<_>>())
    };
    let with_roots = trust_bundle("partner", &format!("trustDomain: partner.org\n{}", inline(&listed.pem())));
    let revoking = "trustDomain: partner.org\nrevoked:\n  spiffeIDs: [spiffe://partner.org/gone]\n";
    for (name, more, root) in [("no TrustBundle", vec![], &brought), ("one with roots", vec![with_roots], &listed)] {
        let loaded = load_with(&more);
        let resolved = resolved(&loaded).await;
        let (snapshot, ..) = assemble(&loaded, &network(), &resolved, &identities, Version(1), NOW).unwrap();
        let want = (vec![vec![root.der().to_vec()]], vec![1]);
        assert_eq!(of_partner(&loaded, &snapshot.bundles), want, "{name}");
    }
    // One that only revokes is for an agent's trust domains, too: it is no fault with such a source.
    let agent = GATEWAY.replace(
        "identity: { source: embedded, embedded: { directory: ca/node-a, ttl: 1h } }",
        "identity: { source: spire, spire: { socket: /run/spire/api.sock } }",
    );
    assert_ne!(agent, GATEWAY);
    let files = [("policy.yaml", by_address()), ("gateway.yaml", agent), ("t.yaml", trust_bundle("partner", revoking))];
    let loaded = load_files(&files.map(|(name, text)| (PathBuf::from(name), text))).unwrap();
    let resolved = resolved(&loaded).await;
    let (snapshot, ..) = assemble(&loaded, &network(), &resolved, &identities, Version(1), NOW).unwrap();
    assert_eq!(of_partner(&loaded, &snapshot.bundles), (vec![vec![brought.der().to_vec()]], vec![1]));
    assert_eq!(snapshot.revoked.len(), 1);
}
