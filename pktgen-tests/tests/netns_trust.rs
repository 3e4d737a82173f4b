//! Trust by files, under living connections of real gateways: a SPIFFE ID is revoked, a partner's trust
//! domain is believed by its own root, that root rotates, and its CRL revokes until nobody knows any more.

mod partner;

use std::time::SystemTime;

use partner::{BILLING, FRONTEND, PATIENCE, Root, download, is_cut, live, lives, newest_refusal, served, with_billing};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Host, Service, wait_until};
use snapshot::RefuseReason;

const PARTNER: &str = "apiVersion: sluice.dev/v1alpha1
kind: TrustBundle
metadata: { name: partner }
spec:
  trustDomain: partner.org
  roots:
    - file: partner.pem
";

fn revoking(ids: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: {{ name: own }}\nspec:\n  \
         trustDomain: example.com\n  revoked:\n    spiffeIDs:\n{ids}"
    )
}

#[test]
fn trust_changes_by_files_and_cuts_what_it_takes_back_and_nothing_else() {
    let (old, new) = (Root::new(), Root::new());
    let (old_pem, new_pem) = (old.0.pem(), new.0.pem());
    let policy = with_billing();
    let files = [("policy.yaml", policy.as_str()), ("trust.yaml", PARTNER), ("partner.pem", old_pem.as_str())];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let _service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let (node_b, frontend, legacy) = (&pair.node_b, &pair.site.frontend, &pair.site.legacy);
    let shown = old.issue(pair.site.rig.directory(), "old");

    let of_frontend = download(&pair, frontend, None, "frontend");
    let mut of_partner = download(&pair, legacy, Some(&shown), "partner");
    lives(node_b, FRONTEND);
    lives(node_b, BILLING);

    // An ID is revoked: its connection is cut, it is not let in again, and it is told why.
    node_b.apply("own.yaml", &revoking(&format!("      - {FRONTEND}\n"))).unwrap();
    is_cut(node_b, of_frontend, FRONTEND, "PeerRevoked");
    assert!(!served(&pair, frontend, None));
    let said = newest_refusal(node_b, Host::Frontend, RefuseReason::PeerRevoked);
    let rule = "TrustBundle default/own spec.revoked.spiffeIDs[0] (own.yaml:8)";
    assert_eq!((said.peer_id.as_deref(), said.rule.as_deref()), (Some(FRONTEND), Some(rule)));
    newest_refusal(&pair.node_a, Host::Frontend, RefuseReason::RefusedByPeer);
    let told = node_b.explain(FRONTEND, &format!("{}:3000", Host::Backend.v4())).unwrap();
    assert_eq!((told.refused, told.rule.as_deref()), (Some(RefuseReason::PeerRevoked), Some(rule)));
    let listed = node_b.sluice(&["bundle", "-o", "wide"]).unwrap();
    for words in ["example.com (own)", "identity source", "partner.org", "partner.pem", FRONTEND, "own.yaml:8"] {
        assert!(listed.ok().unwrap().contains(words), "{words}: {listed:?}");
    }
    assert!(served(&pair, legacy, Some(&shown)), "the partner is another");
    node_b.apply("own.yaml", &revoking("      - spiffe://example.com/myapp/app/gone\n")).unwrap();
    assert!(served(&pair, frontend, None), "it is no longer revoked");

    // A file that is torn changes nothing, and is named.
    let torn = node_b.apply("partner.pem", &old_pem[..old_pem.len() / 2]).unwrap_err();
    assert!(format!("{torn:#}").contains("partner.pem"), "{torn:#}");
    assert!(served(&pair, legacy, Some(&shown)), "the last good state is in force");
    std::fs::write(node_b.directory().join("partner.pem"), &old_pem).unwrap();
    let mended = || node_b.report().ok()?.config.errors.is_empty().then_some(());
    wait_until("the file is mended", PATIENCE, mended).unwrap();

    // Its root rotates: both for a while, then the new one alone.
    let rotated = new.issue(pair.site.rig.directory(), "new");
    assert!(!served(&pair, legacy, Some(&rotated)));
    newest_refusal(node_b, Host::Legacy, RefuseReason::PeerUntrusted);
    node_b.apply("partner.pem", &format!("{old_pem}{new_pem}")).unwrap();
    assert!(served(&pair, legacy, Some(&rotated)) && served(&pair, legacy, Some(&shown)));
    let mut of_rotated = download(&pair, legacy, Some(&rotated), "rotated");
    wait_until("both downloads go on", PATIENCE, || {
        let all = node_b.connections().ok()?;
        let live =
            all.iter().filter(|c| c.peer_id.as_deref() == Some(BILLING) && c.closed.is_none() && c.received > 100);
        (live.count() == 2).then_some(())
    })
    .unwrap();
    assert!(of_partner.ended().unwrap().is_none(), "the overlap cut nobody");
    node_b.apply("partner.pem", &new_pem).unwrap();
    is_cut(node_b, of_partner, BILLING, "PeerUntrusted");
    assert!(!served(&pair, legacy, Some(&shown)) && served(&pair, legacy, Some(&rotated)));
    assert!(of_rotated.ended().unwrap().is_none(), "who has the new root's certificate is not touched");

    // A file that would drop the root that somebody lives by is not taken but by force.
    let inline: String = old_pem.lines().map(|line| format!("        {line}\n")).collect();
    let file = pair.site.rig.directory().join("trust.yaml");
    std::fs::write(&file, PARTNER.replace("file: partner.pem\n", &format!("pem: |\n{inline}"))).unwrap();
    let apply = |more: &[&str]| {
        let file = file.display().to_string();
        node_b.sluice(&[&["apply", "-f", &file][..], more].concat()).unwrap()
    };
    for more in [&[][..], &["--dry-run"]] {
        let refused = apply(more);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("1 living connection chains to roots that this would drop"), "{refused:?}");
    }
    assert!(of_rotated.ended().unwrap().is_none() && served(&pair, legacy, Some(&rotated)), "nothing was changed");
    apply(&["--force"]).ok().unwrap();
    is_cut(node_b, of_rotated, BILLING, "PeerUntrusted");
    assert!(served(&pair, legacy, Some(&shown)) && !served(&pair, legacy, Some(&rotated)));
}

fn with_crl(on_stale: &str) -> String {
    format!("{PARTNER}  crls:\n    - {{ file: partner.crl, onStale: {on_stale} }}\n")
}

#[test]
fn a_crl_cuts_what_it_revokes_never_goes_back_and_refuses_its_trust_domain_once_it_is_stale_and_says_so() {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (root, later) = (Root::new(), now() + 3_600);
    let (policy, trust, pem, first) = (with_billing(), with_crl("warn"), root.0.pem(), root.crl(1, &[], later));
    let files = [
        ("policy.yaml", policy.as_str()),
        ("trust.yaml", trust.as_str()),
        ("partner.pem", pem.as_str()),
        ("partner.crl", first.as_str()),
    ];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let directory = pair.site.rig.directory();
    let _service = Service::start(&pair.site.backend, directory).unwrap();
    let (node_b, frontend, legacy) = (&pair.node_b, &pair.site.frontend, &pair.site.legacy);
    let (one, other) = (root.issue_as(directory, "one", 0x4f3a), root.issue_as(directory, "other", 0x4f3b));

    // A serial appears in it: its connection is cut, it is not let in again; the other goes on.
    let of_one = download(&pair, legacy, Some(&one), "one");
    lives(node_b, BILLING);
    let mut of_other = download(&pair, legacy, Some(&other), "other");
    let both = || (live(node_b) == 2).then_some(());
    wait_until("both downloads go on", PATIENCE, both).unwrap();
    node_b.apply("partner.crl", &root.crl(2, &[0x4f3a], later)).unwrap();
    is_cut(
        node_b,
        of_one,
        BILLING,
        "PeerRevoked: TrustBundle default/partner spec.crls[0] (partner.crl) in trust.yaml:9",
    );
    assert!(!served(&pair, legacy, Some(&one)) && served(&pair, legacy, Some(&other)));
    newest_refusal(node_b, Host::Legacy, RefuseReason::PeerRevoked);
    let listed = node_b.sluice(&["bundle"]).unwrap();
    for words in ["CN=partner root", "ENTRIES", "59m", "partner.crl (trust.yaml:9)", "warn"] {
        assert!(listed.ok().unwrap().contains(words), "{words}: {listed:?}");
    }
    assert_eq!(node_b.metric("sluice_crl_entries", "partner.org").unwrap(), 1.0);
    // The other's download lives by the root.
    let described = node_b.sluice(&["describe", "trustbundle", "partner", "-o", "json"]).unwrap();
    let described: serde_json::Value = serde_json::from_str(described.ok().unwrap()).unwrap();
    assert!(described["roots"][0]["live"].as_u64() >= Some(1), "{described:#}");

    // An older one, and a torn one, are refused, and what is held stays.
    for (number, torn, why) in [(1, 0, "its CRL number is 1, older than number 2"), (3, 40, "is cut off within a CRL")]
    {
        let crl = root.crl(number, &[], later);
        std::fs::write(node_b.directory().join("partner.crl"), &crl[..crl.len() - torn]).unwrap();
        let told = || node_b.report().ok()?.config.errors.iter().any(|error| error.contains(why)).then_some(());
        wait_until(why, PATIENCE, told).unwrap();
        assert!(!served(&pair, legacy, Some(&one)) && served(&pair, legacy, Some(&other)), "{why}");
    }

    // Stale and `warn`: it holds on. Stale and `fail`: nobody of its trust domain is served.
    std::fs::write(node_b.directory().join("partner.crl"), root.crl(4, &[0x4f3a], now() - 60)).unwrap();
    let told = || node_b.sluice(&["status"]).ok()?.stdout.contains("is past its nextUpdate").then_some(());
    wait_until("it is told", PATIENCE, told).unwrap();
    assert!(!served(&pair, legacy, Some(&one)) && served(&pair, legacy, Some(&other)));
    assert!(of_other.ended().unwrap().is_none(), "another serial goes on");
    node_b.apply("trust.yaml", &with_crl("fail")).unwrap();
    is_cut(
        node_b,
        of_other,
        BILLING,
        "CrlStale: TrustBundle default/partner spec.crls[0] (partner.crl) in trust.yaml:9",
    );
    assert!(!served(&pair, legacy, Some(&other)) && served(&pair, frontend, None));
    newest_refusal(node_b, Host::Legacy, RefuseReason::CrlStale);
    let told = node_b.explain(BILLING, &format!("{}:3000", Host::Backend.v4())).unwrap();
    assert_eq!(told.refused, Some(RefuseReason::CrlStale));
    assert!(node_b.metric("sluice_refused_connections", "CrlStale").unwrap() >= 1.0);

    // The next one mends it, and ages out by the clock alone.
    node_b.apply("partner.crl", &root.crl(5, &[0x4f3a], now() + 8)).unwrap();
    let of_other = download(&pair, legacy, Some(&other), "again");
    lives(node_b, BILLING);
    is_cut(node_b, of_other, BILLING, "CrlStale");
    assert!(!served(&pair, legacy, Some(&other)));
}
