//! Whom the identity source `vault` trusts, against a real OpenBao: roots that change, an intermediate, and the CA of
//! the server itself.

mod openbao;

use ctrl::clock::now;
use ctrl::config::SpiffeId;
use ctrl::rotate::Identities;
use openbao::Bao;
use openbao::rig::{BACKEND, Place, Rig};
use serde_json::json;

fn roots(identities: &Identities) -> usize {
    identities.bundle(now()).roots.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_root_overlaps_with_the_old_one_and_an_old_one_goes_with_its_issuer() {
    let place = Place::new(Bao::shared(), "roots");
    let mut rig = place.rig(&[BACKEND], ", refresh: 1s");
    rig.until_well().await;
    let first = rig.serial(BACKEND);
    let old = rig.identities.bundle(now()).roots;
    place.bao.root("roots", "root-2");
    rig.until("both are trusted", |all| roots(all) == 2).await;
    assert_eq!(rig.serial(BACKEND), first, "an overlap bothers nobody");
    place.bao.write("roots/config/issuers", json!({ "default": "root-2" }));
    rig.identities.clock_jumped(now());
    let second = rig.until_renewed(BACKEND, &first).await;
    assert_eq!(roots(&rig.identities), 2);
    // What leads to the old one would be replaced; this one does not.
    place.bao.delete("roots/issuer/root-1");
    rig.until("the old one is gone", |all| roots(all) == 1).await;
    assert_ne!(rig.identities.bundle(now()).roots, old);
    rig.until_well().await;
    assert_eq!(rig.serial(BACKEND), second);
    // And this one does.
    place.bao.root("roots", "root-3");
    place.bao.write("roots/config/issuers", json!({ "default": "root-3" }));
    place.bao.delete("roots/issuer/root-2");
    rig.until_renewed(BACKEND, &second).await;
    rig.until_well().await;
    // A mount that has no issuer at all is a fault, and what was trusted before stays.
    place.bao.delete("roots/root");
    rig.until_warned("none leads to a root").await;
    assert_eq!(roots(&rig.identities), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_taken_out_of_the_bundle_is_not_believed_any_more() {
    let place = Place::new(Bao::shared(), "believed");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bao-ca.pem");
    let put = |pem: &str| {
        std::fs::write(file.with_extension("new"), pem).unwrap();
        std::fs::rename(file.with_extension("new"), &file).unwrap();
    };
    let (own, other) =
        (std::fs::read_to_string(&place.bao.ca).unwrap(), openbao::played::ca("spiffe://example.com").pem());
    put(&[own.as_str(), &other].concat());
    let auth = place.app_role(directory.path(), json!({}));
    let vault = place.vault(&auth, "").replace(&place.bao.ca.display().to_string(), "bao-ca.pem");
    let mut rig = Rig::new(directory, &vault, &[BACKEND]);
    rig.until_well().await;
    let before = rig.serial(BACKEND);
    put(&other);
    rig.identities.clock_jumped(now());
    rig.until_fault(BACKEND, &["signed by none of the roots that are trusted for it", "bao-ca.pem)"]).await;
    assert_eq!(rig.serial(BACKEND), before, "what there was stays in force");
    put(&own);
    rig.until_renewed(BACKEND, &before).await;
    rig.until_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_came_without_an_overlap_is_found_by_what_it_signs() {
    let place = Place::new(Bao::shared(), "sudden");
    let mut rig = place.rig_by_token(&[BACKEND], ", ttl: 4s, refresh: 1h");
    rig.until_well().await;
    let first = rig.serial(BACKEND);
    place.bao.root("sudden", "root-2");
    place.bao.write("sudden/config/issuers", json!({ "default": "root-2" }));
    place.bao.delete("sudden/issuer/root-1");
    rig.until_renewed(BACKEND, &first).await;
    rig.until_well().await;
    assert_eq!(roots(&rig.identities), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_needs_its_root_beside_it_and_goes_into_the_chain() {
    let bao = Bao::shared();
    bao.pki("above");
    bao.mount_pki("below");
    let generated =
        bao.write("below/intermediate/generate/internal", json!({ "common_name": "below", "key_type": "ec" }));
    let signed = bao.write(
        "above/root/sign-intermediate",
        json!({
            "csr": generated["data"]["csr"], "common_name": "below", "uri_sans": "spiffe://example.com",
            "exclude_cn_from_sans": true,
        }),
    );
    bao.write("below/intermediate/set-signed", json!({ "certificate": signed["data"]["certificate"] }));
    bao.role("below", "node", json!({}));
    bao.policy("below", "below/sign/node");
    let place = Place { bao, name: "below" };
    let mut rig = place.rig(&[BACKEND], ", refresh: 1s");
    let command = "bao write below/issuers/import/cert pem_bundle=@root.pem";
    rig.until_fault(BACKEND, &["1 issuers, and none leads to a root", command]).await;
    bao.write("below/issuers/import/cert", json!({ "pem_bundle": signed["data"]["issuing_ca"] }));
    rig.until_well().await;
    let (svid, _) = rig.identities.svid(&SpiffeId::parse(BACKEND).unwrap()).unwrap();
    assert_eq!(svid.chain.len(), 2, "the leaf and the intermediate, and not the root");
    assert_eq!(roots(&rig.identities), 1);
}
