//! Federation by a bundle endpoint, and revocation by a CRL that is fetched, under living connections of real
//! gateways: the partner's root rotates over its endpoint, its CRL cuts whom it revokes, and what was fetched holds
//! while the partner is away and ctrl starts anew.

mod partner;

use std::time::SystemTime;

use partner::publisher::{ENDPOINT, Publisher};
use partner::{BILLING, PATIENCE, Root, download, is_cut, live, lives, newest_refusal, served, with_billing};
use pktgen_tests::netns::gateway::Gateway;
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, Service, wait_until};
use snapshot::RefuseReason;

fn trust() -> String {
    let partner = Host::Legacy.v4();
    format!(
        "apiVersion: sluice.dev/v1alpha1
kind: TrustBundle
metadata: {{ name: partner }}
spec:
  trustDomain: partner.org
  roots:
    - file: partner.pem
  endpoint:
    url: https://{partner}:8443/bundle.json
    profile: https_spiffe
    endpointSPIFFEID: {ENDPOINT}
    refreshInterval: 1s
  crls:
    - url: http://{partner}:8080/ca.crl
      onStale: fail
      refreshInterval: 1s
"
    )
}

fn awaits_sequence(gateway: &Gateway, sequence: f64) {
    let is_there = || (gateway.metric("sluice_bundle_sequence", "partner.org").ok()? == sequence).then_some(());
    wait_until(&format!("bundle {sequence} is there"), PATIENCE, is_there).unwrap();
}

#[test]
fn a_partners_root_rotates_over_its_endpoint_and_its_crl_revokes_by_url_while_calls_go_on() {
    let later = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3_600;
    let (old, new) = (Root::new(), Root::new());
    let (policy, trust, pem) = (with_billing(), trust(), old.0.pem());
    let files = [("policy.yaml", policy.as_str()), ("trust.yaml", trust.as_str()), ("partner.pem", pem.as_str())];
    let mut pair = Pair::configure(&Setup { files: &files, ..Setup::default() }).unwrap();
    pair.node_a.launch().unwrap();
    // Without a supervisor, which would start ctrl again by itself.
    pair.node_b.launch_apart().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    let directory = pair.site.rig.directory().to_owned();
    let _service = Service::start(&pair.site.backend, &directory).unwrap();
    let (of_old, of_new) = (old.issue_as(&directory, "old", 1), new.issue_as(&directory, "new", 2));
    let other = new.issue_as(&directory, "other", 3);

    // Nobody publishes yet: the CRL is to fail, so nobody of partner.org is served, and it is told why.
    assert!(!served(&pair, &pair.site.legacy, Some(&of_old)));
    newest_refusal(&pair.node_b, Host::Legacy, RefuseReason::CrlStale);
    for words in [
        "spec.endpoint: https://198.18.30.2:8443/bundle.json: no connection",
        "spec.crls[0]: http://198.18.30.2:8080/ca.crl: no connection",
    ] {
        let told = || pair.node_b.report().ok()?.problems.iter().any(|problem| problem.contains(words)).then_some(());
        wait_until(words, PATIENCE, told).unwrap();
    }

    let publisher = Publisher::start(&pair.site.legacy, &directory, &old, &old.crl(1, &[], later));
    awaits_sequence(&pair.node_b, 1.0);
    wait_until("the CRL is in force", PATIENCE, || served(&pair, &pair.site.legacy, Some(&of_old)).then_some(()))
        .unwrap();
    assert!(!served(&pair, &pair.site.legacy, Some(&of_new)), "its root is in no bundle yet");
    let of_partner = download(&pair, &pair.site.legacy, Some(&of_old), "partner");
    lives(&pair.node_b, BILLING);

    // Its root rotates: both for a while, then the endpoint speaks by the new one, which is all there is.
    publisher.bundle(&[&old, &new], 2);
    awaits_sequence(&pair.node_b, 2.0);
    wait_until("the new root is in force", PATIENCE, || served(&pair, &pair.site.legacy, Some(&of_new)).then_some(()))
        .unwrap();
    let mut of_rotated = download(&pair, &pair.site.legacy, Some(&of_new), "rotated");
    wait_until("both downloads go on", PATIENCE, || (live(&pair.node_b) == 2).then_some(())).unwrap();
    publisher.speak_as(&new);
    publisher.bundle(&[&new], 3);
    is_cut(&pair.node_b, of_partner, BILLING, "PeerUntrusted");
    assert!(!served(&pair, &pair.site.legacy, Some(&of_old)) && served(&pair, &pair.site.legacy, Some(&of_new)));
    assert!(of_rotated.ended().unwrap().is_none(), "who has the new root's certificate is not touched");
    let listed = pair.node_b.sluice(&["bundle"]).unwrap();
    for words in ["FETCHED", "spec.endpoint", "https_spiffe", "https://198.18.30.2:8443/bundle.json", "spec.crls[0]"] {
        assert!(listed.ok().unwrap().contains(words), "{words}: {listed:?}");
    }

    // Whoever applies another file drops none of what was fetched, whatever root the file of roots has.
    let file = directory.join("policy.yaml");
    std::fs::write(&file, &policy).unwrap();
    let told = pair.node_b.sluice(&["apply", "-f", &file.display().to_string(), "--dry-run"]).unwrap();
    assert!(told.ok().is_ok(), "{told:?}");

    // Its CRL, now of the new root, revokes one of two.
    let mut of_other = download(&pair, &pair.site.legacy, Some(&other), "other");
    wait_until("both downloads go on", PATIENCE, || (live(&pair.node_b) == 2).then_some(())).unwrap();
    publisher.crl(&new.crl(2, &[2], later));
    let rule =
        format!("PeerRevoked: TrustBundle default/partner spec.crls[0] ({}) in trust.yaml:", publisher.crl_url());
    is_cut(&pair.node_b, of_rotated, BILLING, &rule);
    assert!(!served(&pair, &pair.site.legacy, Some(&of_new)) && served(&pair, &pair.site.legacy, Some(&other)));
    newest_refusal(&pair.node_b, Host::Legacy, RefuseReason::PeerRevoked);

    // The partner goes away, and ctrl starts anew with a file that knows the old root alone: what was fetched holds.
    let failed = |gateway: &Gateway| gateway.metric("sluice_fetch_failures_total", "spec.crls").unwrap_or(0.0);
    let before = failed(&pair.node_b);
    drop(publisher);
    wait_until("the partner is away", PATIENCE, || (failed(&pair.node_b) > before).then_some(())).unwrap();
    let before = pair.node_b.status().unwrap().in_force;
    pair.node_b.kill_control().unwrap();
    pair.node_b.launch_control().unwrap();
    pair.node_b.wait_ready().unwrap();
    wait_until("the restarted ctrl's snapshot", PATIENCE, || {
        (pair.node_b.status().ok()?.in_force > before).then_some(())
    })
    .unwrap();
    assert!(!served(&pair, &pair.site.legacy, Some(&of_old)), "the file's root is in force again");
    assert!(!served(&pair, &pair.site.legacy, Some(&of_new)) && served(&pair, &pair.site.legacy, Some(&other)));
    assert!(of_other.ended().unwrap().is_none(), "nobody was cut");
    let told = || pair.node_b.report().ok()?.problems.iter().any(|p| p.contains("(what was got at 20")).then_some(());
    wait_until("it is told since when", PATIENCE, told).unwrap();
}
