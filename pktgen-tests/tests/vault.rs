//! The identity source `vault` against a real OpenBao, and against one that lies, breaks off and is silent.

mod openbao;

use ctrl::clock::now;
use ctrl::config::SpiffeId;
use ctrl::rotate::Identities;
use openbao::Bao;
use openbao::rig::{BACKEND, FRONTEND, Place};

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// The public keys of all that is held.
fn keys(identities: &Identities) -> Vec<snapshot::KeyId> {
    identities.iter().map(|(_, svid)| svid.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn svids_are_signed_for_keys_of_our_own_and_renewed_at_half_of_their_life() {
    let place = Place::new(Bao::shared(), "renewed");
    let mut rig = place.rig(&[FRONTEND, BACKEND], ", ttl: 6s");
    assert!(!rig.identities.settled() || rig.identities.iter().count() == 0);
    rig.until_well().await;
    assert!(rig.identities.settled());
    assert_eq!(rig.identities.bundle(now()).roots.len(), 1);
    let mut seen = keys(&rig.identities);
    let mut serial = rig.serial(BACKEND);
    for round in 0..3 {
        let (held, key) = rig.identities.svid(&id(BACKEND)).unwrap();
        assert!(!key.pkcs8().is_empty());
        let (began, life) = (held.not_before, held.not_after - held.not_before);
        serial = rig.until_renewed(BACKEND, &serial).await;
        // It is dated back by half a minute, so that its life is six seconds of that.
        assert!((6..=40).contains(&life) && now() < began + life, "round {round}: {life}");
        assert_eq!(rig.identities.errors(), [], "round {round}");
        seen.extend(keys(&rig.identities));
    }
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert!(distinct.len() >= 5, "each SVID has a key of its own: {seen:?}");
}
