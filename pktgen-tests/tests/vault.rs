//! The identity source `vault` against a real OpenBao: how it logs in, what it has signed, what it does when
//! the server refuses, is sealed or is not there.

mod openbao;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ctrl::clock::now;
use ctrl::config::SpiffeId;
use ctrl::rotate::Identities;
use openbao::rig::{BACKEND, FRONTEND, Place, Rig, serial};
use openbao::{Bao, put_secret, reviewer, service_account, text};
use serde_json::{Value, json};

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// The public keys of all that is held.
fn keys(identities: &Identities) -> Vec<snapshot::KeyId> {
    identities.iter().map(|(_, svid)| svid.key).collect()
}

fn roots(identities: &Identities) -> usize {
    identities.bundle(now()).roots.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn svids_are_signed_for_keys_of_our_own_and_renewed_at_half_of_their_life() {
    let place = Place::new(Bao::shared(), "renewed");
    let mut rig = place.rig(&[FRONTEND, BACKEND], ", ttl: 8s");
    rig.identities.refresh(&rig.wanted, now());
    assert!(!rig.identities.settled(), "nobody has answered yet");
    assert!(rig.identities.errors().iter().all(|failure| failure.waiting), "{:?}", rig.identities.errors());
    rig.until_well().await;
    assert!(rig.identities.settled());
    assert_eq!(roots(&rig.identities), 1);
    let mut seen = keys(&rig.identities);
    let mut serial = rig.serial(BACKEND);
    for round in 0..2 {
        let (held, key) = rig.identities.svid(&id(BACKEND)).unwrap();
        assert!(!key.pkcs8().is_empty());
        // It is dated back by half a minute.
        let (until, life) = (held.not_after, held.not_after - held.not_before);
        assert!((8..=40).contains(&life), "round {round}: {life}");
        serial = rig.until_renewed(BACKEND, &serial).await;
        assert!(now() <= until, "round {round}: before the one before ends");
        assert_eq!(rig.identities.errors(), [], "round {round}");
        seen.extend(keys(&rig.identities));
    }
    let distinct: HashSet<_> = seen.iter().collect();
    assert!(distinct.len() >= 4, "each SVID has a key of its own: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_somebody_else_writes_is_taken_and_replaced_as_the_file_is() {
    let place = Place::new(Bao::shared(), "written");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let policies = json!({ "policies": ["written"], "ttl": "1h" });
    let mut rig = Rig::new(directory, &place.vault("tokenFile: token", ", ttl: 4s"), &[BACKEND]);
    rig.until_fault(BACKEND, &["identity source bao: `auth.tokenFile`: ", "token: No such file"]).await;
    put_secret(&file, "s.nonsense");
    let refused = ["403, permission denied", "the token by `auth.tokenFile` is over, or its policy lacks"];
    rig.until_fault(BACKEND, &refused).await;
    let first = place.bao.token(policies.clone());
    put_secret(&file, &first);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    rig.until_warned("mode 0644 lets everybody read a secret; run: chmod o-rwx ").await;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    rig.until_well().await;
    // A server does not say that a token is over; the next one comes by the file.
    place.bao.write("auth/token/revoke", json!({ "token": first }));
    rig.until_fault(BACKEND, &refused).await;
    put_secret(&file, &place.bao.token(policies));
    rig.until_well().await;
    // Written in place, as some agents do it.
    std::fs::write(&file, "").unwrap();
    rig.until_warned("token: is empty").await;
    let before = rig.until_renewed(BACKEND, "").await;
    rig.until_renewed(BACKEND, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_at_its_greatest_age_is_got_anew() {
    let place = Place::new(Bao::shared(), "aged");
    let directory = tempfile::tempdir().unwrap();
    let auth = place.app_role(directory.path(), json!({ "token_ttl": "4s", "token_max_ttl": "6s" }));
    let mut rig = Rig::new(directory, &place.vault(&auth, ", ttl: 4s"), &[BACKEND]);
    rig.until_well().await;
    let (began, mut serial) = (now(), rig.serial(BACKEND));
    while now() < began + 9 {
        serial = rig.until_renewed(BACKEND, &serial).await;
    }
    rig.until_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_at_half_of_its_life_and_got_anew_when_it_is_revoked() {
    let place = Place::new(Bao::shared(), "once");
    let directory = tempfile::tempdir().unwrap();
    // The secret ID is good for once, so that renewing has to do.
    let auth = place.app_role(directory.path(), json!({ "token_ttl": "10s", "secret_id_num_uses": 1 }));
    let secret_id = directory.path().join("secret-id");
    let mut rig = Rig::new(directory, &place.vault(&auth, ", ttl: 6s"), &[BACKEND]);
    rig.until_well().await;
    let (began, mut serial) = (now(), rig.serial(BACKEND));
    while now() < began + 12 {
        serial = rig.until_renewed(BACKEND, &serial).await;
    }
    rig.until_well().await;
    place.bao.revoke_tokens_of("ar-once");
    rig.until_fault(BACKEND, &["invalid role or secret ID; see `auth.appRole`: its roleId, the secret ID"]).await;
    put_secret(&secret_id, &place.bao.secret_id("ar-once"));
    rig.until_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn service_accounts_log_in_by_their_token() {
    let place = Place::new(Bao::shared(), "pods");
    let known = service_account("known");
    let (api, _review) = reviewer(known.clone(), "system:serviceaccount:sluice-system:sluice").await;
    place.bao.write("sys/auth/pods-k8s", json!({ "type": "kubernetes" }));
    let config = json!({
        "kubernetes_host": api, "token_reviewer_jwt": "reviewer", "disable_local_ca_jwt": true,
        "kubernetes_ca_cert": std::fs::read_to_string(&place.bao.ca).unwrap(),
    });
    place.bao.write("auth/pods-k8s/config", config);
    let role = json!({
        "bound_service_account_names": "sluice", "bound_service_account_namespaces": "sluice-system",
        "token_policies": "pods", "token_ttl": "1h",
    });
    place.bao.write("auth/pods-k8s/role/node", role);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    // As the kubelet leaves it: for everybody in the pod.
    std::fs::write(&file, service_account("somebody")).unwrap();
    let auth = "kubernetes: { mountPath: /v1/auth/pods-k8s, role: node, tokenFile: token }";
    let mut rig = Rig::new(directory, &place.vault(auth, ""), &[BACKEND]);
    rig.until_fault(BACKEND, &["403, ", "see `auth.kubernetes`: its role (node)", "its mountPath (pods-k8s)"]).await;
    std::fs::write(&file, &known).unwrap();
    rig.until_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_has_mounts_of_its_own() {
    let bao = Bao::shared();
    bao.write("sys/namespaces/team-a", json!({}));
    let inside = |path: &str, body: Value| bao.ask_in("team-a", "POST", path, &body).unwrap();
    inside("sys/mounts/pki", json!({ "type": "pki" }));
    inside("pki/root/generate/internal", json!({ "common_name": "team-a", "key_type": "ec" }));
    inside("pki/roles/node", json!({ "require_cn": false, "allowed_uri_sans": "spiffe://*", "key_type": "ec" }));
    inside("sys/policies/acl/sign", json!({ "policy": "path \"pki/sign/node\" { capabilities = [\"update\"] }" }));
    let token = text(&inside("auth/token/create", json!({ "policies": ["sign"] }))["auth"]["client_token"]);
    for (namespace, well) in [("team-a", true), ("team-b", false), ("", false)] {
        let directory = tempfile::tempdir().unwrap();
        put_secret(&directory.path().join("token"), &token);
        let field = if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
        let vault = format!(
            "{{ server: '{}', caBundle: '{}', path: pki/sign/node, auth: {{ tokenFile: token }}{field} }}",
            bao.server,
            bao.ca.display()
        );
        let mut rig = Rig::new(directory, &vault, &[BACKEND]);
        match well {
            true => rig.until_well().await,
            false => drop(rig.until_fault(BACKEND, &["see `path` (pki/sign/node) and `namespace` ("]).await),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_refuses_is_named_with_its_field_and_costs_that_workload_alone() {
    let place = Place::new(Bao::shared(), "refused");
    let bao = place.bao;
    bao.role("refused", "rsa", json!({ "key_type": "rsa", "key_bits": 2048 }));
    bao.role("refused", "named", json!({ "require_cn": true }));
    bao.role("refused", "frontend", json!({ "allowed_uri_sans": FRONTEND }));
    bao.role("refused", "private", json!({}));
    bao.policy("refused", "refused/sign/*");
    bao.write(
        "sys/policies/acl/refused",
        json!({ "policy": "path \"refused/sign/*\" { capabilities = [\"update\"] }\n\
        path \"refused/sign/private\" { capabilities = [\"deny\"] }" }),
    );
    let directory = tempfile::tempdir().unwrap();
    let auth = place.app_role(directory.path(), json!({}));
    let secret_id = std::fs::read_to_string(directory.path().join("secret-id")).unwrap();
    let good = place.vault(&auth, "");
    let other_ca = directory.path().join("other-ca.pem");
    std::fs::write(&other_ca, openbao::played::ca("spiffe://example.com").pem()).unwrap();
    let role = |name: &str| good.replace("sign/node", &format!("sign/{name}"));
    let ca = bao.ca.display().to_string();
    let closed = free_address();
    for (name, vault, words) in [
        (
            "a role that is not there",
            role("nobody"),
            &["/v1/refused/sign/nobody: 400, unknown role: nobody; the role of `path`"][..],
        ),
        (
            "a role for other keys",
            role("rsa"),
            &["400, role requires keys of type rsa", "key_type=ec", "bao read refused/roles/rsa"],
        ),
        ("a role that wants a name", role("named"), &["the common_name field is required", "require_cn=false"]),
        (
            "a role for others",
            role("frontend"),
            &["URI Subject Alternative Names", "not valid for this role", "allowed_uri_sans"],
        ),
        (
            "a policy",
            role("private"),
            &["403, ", "its policy lacks: path \"refused/sign/private\" { capabilities = [\"update\"] }"],
        ),
        (
            "no such mount",
            good.replace("path: refused/", "path: refuse/"),
            &["/v1/refuse/issuers", "403, permission denied; want a PKI secrets engine at refuse/"],
        ),
        (
            "no such way to log in",
            good.replace("ar-refused", "ar-refuse"),
            &["/v1/auth/ar-refuse/login: 403, permission denied; see `auth.appRole`", "its path (ar-refuse)"],
        ),
        (
            "another role ID",
            good.replace("roleId: ", "roleId: x"),
            &["invalid role or secret ID; see `auth.appRole`: its roleId"],
        ),
        (
            "another CA",
            good.replace(&ca, "other-ca.pem"),
            &[
                "its certificate is signed by none of the roots that are trusted for it",
                "(`caBundle`: ",
                "other-ca.pem)",
            ],
        ),
        (
            "no CA",
            good.replace(&format!("caBundle: '{ca}', "), ""),
            &[
                "its certificate is signed by none of the roots",
                "(`caBundle`: not given, so the system's roots decide)",
            ],
        ),
        ("no file of a CA", good.replace(&ca, "none.pem"), &["/none.pem: No such file"]),
        (
            "no certificates in it",
            good.replace(&ca, "gateway.yaml"),
            &["`caBundle`: ", "gateway.yaml: holds no certificate"],
        ),
        ("nobody there", good.replace(&bao.server, &closed), &["no connection: "]),
    ] {
        let own = tempfile::tempdir().unwrap();
        put_secret(&own.path().join("secret-id"), &secret_id);
        std::fs::copy(&other_ca, own.path().join("other-ca.pem")).unwrap();
        std::fs::write(own.path().join("gateway.yaml"), "{}").unwrap();
        assert_ne!((name, &vault), (name, &good));
        let mut rig = Rig::new(own, &vault, &[BACKEND]);
        let failure = rig.until_fault(BACKEND, words).await;
        assert!(failure.reason.starts_with("identity source bao: "), "{name}: {}", failure.reason);
        assert!(!failure.reason.contains(&secret_id) && failure.reason.len() < 900, "{name}: {}", failure.reason);
        println!("{name}: {}", failure.reason);
    }
    // One workload's role does not concern the other's.
    let mut rig = Rig::new(directory, &role("frontend"), &[FRONTEND, BACKEND]);
    rig.until_fault(BACKEND, &["not valid for this role"]).await;
    rig.until("the other has its own", |all| serial(all, FRONTEND).is_some()).await;
}

fn free_address() -> String {
    format!("https://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn host_names_of_services_stand_in_it_if_the_role_takes_them() {
    let place = Place::new(Bao::shared(), "names");
    place.bao.role("names", "node", json!({ "allowed_domains": "shop", "allow_subdomains": true }));
    for (more, want) in [("", false), (", dnsNames: true", true)] {
        let mut rig = place.rig_by_token(&[BACKEND], more);
        rig.until_well().await;
        let (svid, _) = rig.identities.svid(&id(BACKEND)).unwrap();
        let has = svid.chain[0].windows(12).any(|bytes| bytes == b"backend.shop");
        assert_eq!(has, want, "{more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_outlives_a_server_that_is_sealed_and_one_that_is_not_there_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let bao = Bao::dev(directory.path());
    let place = Place::new(&bao, "sealed");
    let mut rig = place.rig(&[BACKEND], ", ttl: 10m");
    rig.until_well().await;
    let before = rig.serial(BACKEND);
    bao.seal();
    rig.identities.clock_jumped(now());
    rig.until_fault(BACKEND, &["503, Vault is sealed; unseal it (bao operator unseal)"]).await;
    assert_eq!((rig.serial(BACKEND), roots(&rig.identities)), (before.clone(), 1), "what there was stays in force");
    bao.unseal();
    rig.until_renewed(BACKEND, &before).await;
    rig.until_well().await;
    let mut rig = place.rig_by_token(&[FRONTEND], ", ttl: 3s");
    rig.until_well().await;
    drop(bao);
    rig.until_fault(FRONTEND, &["no connection: "]).await;
    rig.until("it ends with what it has", |all| serial(all, FRONTEND).is_none()).await;
    assert!(!rig.identities.errors()[0].waiting, "this is a failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_asks_without_logging_in() {
    let place = Place::new(Bao::shared(), "checked");
    let directory = tempfile::tempdir().unwrap();
    let auth = place.app_role(directory.path(), json!({ "secret_id_num_uses": 1 }));
    let said = |directory: &Path, vault: &str| {
        let gateway = openbao::rig::gateway(directory, vault);
        async move {
            let lines = ctrl::preflight::check(&gateway).await;
            lines.into_iter().find(|line| line.subject == "identity source bao").unwrap().found
        }
    };
    let vault = place.vault(&auth, "");
    for _ in 0..2 {
        assert!(said(directory.path(), &vault).await.ends_with("has one root; nobody has logged in"));
    }
    assert!(said(directory.path(), &vault.replace("path: checked", "path: check")).await.contains("403"));
    Rig::new(directory, &vault, &[BACKEND]).until_well().await;
}
