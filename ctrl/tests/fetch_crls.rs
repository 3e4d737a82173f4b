//! CRLs from URLs that the test plays: what is taken, what is refused, and what stays revoked meanwhile.

mod certs;
mod counting;
mod example;
mod fetching;
mod https;
mod words;

use counting::identities;
use ctrl::assemble::assemble;
use ctrl::bundles;
use ctrl::clock;
use ctrl::config::crls::Crl;
use ctrl::crls::{MOST_FETCHED, MOST_OF_DOMAIN};
use ctrl::fetch::Known;
use example::{network, resolved};
use fetching::{Control, HOUR, crl_spec, entry};
use https::{Ca, Reply, Server};
use snapshot::Version;
use snapshot::check::MOST_REVOKED;

#[tokio::test]
async fn a_crl_from_a_url_is_taken_by_its_signature_and_number_and_stays_while_nothing_better_comes() {
    let root = Ca::of("partner.org");
    let next = clock::now() + HOUR;
    let server = Server::start(None, Reply::status("503 Service Unavailable", "", "")).await;
    let spec = crl_spec(&root, &entry(&server, ""));
    let mut control = Control::start(std::slice::from_ref(&spec), &[]);
    control.until_told("away", "503 Service Unavailable is the answer (nothing was got yet)").await;
    // PEM and DER alike.
    server.reply(Reply::ok(root.crl_list(5, &[0x4f3a], next).pem().unwrap()));
    control.until("the first", |this| this.crls() == [["4f3a"]]).await;
    assert_eq!(control.problems(), Vec::<String>::new());
    for (name, reply, want) in [
        ("older", Reply::ok(root.crl(4, &[], next)), "its CRL number is 4, older than number 5, which is held"),
        (
            "somebody else's",
            Reply::ok(Ca::of("other.org").crl(6, &[], next)),
            "it is of CN=other.org root, and CN=partner.org root is whose CRL was here; if that is meant, take the entry out",
        ),
        (
            "of another key",
            Reply::ok(Ca::of("partner.org").crl(6, &[], next)),
            "its signature is not by the key of CN=partner.org root",
        ),
        ("garbage", Reply::ok("hello"), "what is there holds no CRL"),
        ("cut off", Reply::ok(&root.crl(6, &[], next)[..100]), "what is there is no CRL"),
        ("away", Reply::status("404 Not Found", "", ""), "404 Not Found is the answer (what was got at"),
    ] {
        server.reply(reply);
        control.until_told(name, want).await;
        assert_eq!(control.crls(), [["4f3a"]], "{name}");
    }
    server.reply(Reply::ok(root.crl(6, &[0x4f3a, 0x4f3b], next)));
    control.until("the next", |this| this.crls() == [["4f3a", "4f3b"]]).await;
    // A restart knows it, and its number, while nobody is there.
    drop(server);
    let again = Control::again(&[spec], &[], control.fetches.got().known());
    assert_eq!(again.crls(), [["4f3a", "4f3b"]]);
    let without = format!("trustDomain: partner.org\n{}", certs::inline(&root.pem()));
    let gone = Control::again(&[without], &[], control.fetches.got().known());
    assert_eq!(gone.crls(), Vec::<Vec<String>>::new(), "what nobody wants is forgotten");
}

#[tokio::test]
async fn what_a_crl_revokes_stays_revoked_while_its_new_url_has_given_nothing() {
    let (root, other) = (Ca::of("partner.org"), Ca::new("second", Some("spiffe://partner.org".into())));
    let next = clock::now() + HOUR;
    let both = format!("trustDomain: partner.org\n{}", certs::inline(&format!("{}{}", root.pem(), other.pem())));
    let with = |entries: &str| format!("{both}crls:\n{entries}");
    let first = Server::start(None, Reply::ok(root.crl(5, &[0x11], next))).await;
    let second = Server::start(None, Reply::status("503 Service Unavailable", "", "")).await;
    let file = ("a.crl", root.crl(4, &[0x22], next));
    let of_file = with("  - { file: a.crl }\n");
    let moved = with(&entry(&second, ", onStale: fail"));
    for (name, before, number, left) in [("a file", of_file, "4", "22"), ("a URL", with(&entry(&first, "")), "5", "11")]
    {
        second.reply(Reply::status("503 Service Unavailable", "", ""));
        let mut control = Control::start(&[before], &[(file.0, &file.1)]);
        control.until(name, |this| this.crls() == [[left]]).await;
        control.becomes(std::slice::from_ref(&moved));
        assert_eq!(control.crls(), [[left]], "{name}");
        control.until_told(name, "503 Service Unavailable is the answer").await;
        assert_eq!(control.crls(), [[left]], "{name}");
        let (resolved, identities, now) = (resolved(&control.loaded).await, identities(), clock::now());
        assemble(&control.loaded, &network(), &resolved, &identities, Version(1), now).unwrap();
        // Nor does a restart let anybody in, whether the entry was moved before it or meanwhile.
        let mut again = Control::again(std::slice::from_ref(&moved), &[], control.fetches.got().known());
        assert_eq!(again.crls(), [[left]], "{name}");
        // Nothing older than it is taken, and its issuer's newest is in place of it.
        second.reply(Reply::ok(root.crl(3, &[], next)));
        control.until_told(name, &format!("its CRL number is 3, older than number {number}")).await;
        assert_eq!(control.crls(), [[left]], "{name}");
        second.reply(Reply::ok(root.crl(6, &[0x33], next)));
        control.until(name, |this| this.crls() == [["33"]] && this.problems().is_empty()).await;
        again.until(name, |this| this.crls() == [["33"]]).await;
    }
    // By one of two entries another issuer's list comes: what was left stays for the other one.
    let third = Server::start(None, Reply::ok(other.crl(1, &[0x44], next))).await;
    second.reply(Reply::status("503 Service Unavailable", "", ""));
    let mut control = Control::start(&[with(&entry(&first, ""))], &[]);
    control.until("the first", |this| this.crls() == [["11"]]).await;
    control.becomes(&[with(&format!("{}{}", entry(&second, ""), entry(&third, "")))]);
    control.until("the other's", |this| this.crls() == [["44"], ["11"]]).await;
    second.reply(Reply::ok(root.crl(6, &[0x33], next)));
    control.until("the issuer's", |this| this.crls() == [["33"], ["44"]]).await;
}

#[tokio::test]
async fn a_crl_from_a_url_is_one_of_its_issuer_and_within_what_all_may_revoke() {
    let (root, other) = (Ca::of("partner.org"), Ca::new("second", Some("spiffe://partner.org".into())));
    let next = clock::now() + HOUR;
    let both = format!("trustDomain: partner.org\n{}", certs::inline(&format!("{}{}", root.pem(), other.pem())));
    let server = Server::start(None, Reply::ok(root.crl(2, &[1, 2], next))).await;
    let entries = format!("crls:\n  - {{ file: a.crl }}\n{}", entry(&server, ""));
    let spec = format!("{both}{entries}");
    let mut control = Control::start(std::slice::from_ref(&spec), &[("a.crl", &root.crl(1, &[9], next))]);
    control
        .until_told("another CRL of the issuer", "it is of CN=partner.org root, as a.crl is; an issuer has one")
        .await;
    assert_eq!(control.crls(), [["09"]]);
    let serials: Vec<_> = (10..MOST_REVOKED as u64 + 9).collect();
    let many = other.crl(1, &serials, next);
    let mut control = Control::start(&[spec], &[("a.crl", &many)]);
    control.until_told("two too many", "with its 2 entries more than 100000 would be revoked").await;
    server.reply(Reply::ok(root.crl(2, &[1], next)));
    control.until("as many as are taken", |this| this.crls().len() == 2).await;
    server.reply(Reply::ok(root.crl(3, &(0..=MOST_OF_DOMAIN as u64).collect::<Vec<_>>(), next)));
    control.until_told("one domain's share", "more than 25000 would be fetched for one trust domain").await;
    // In place of one that was taken, not beside it.
    server.reply(Reply::ok(root.crl(3, &[2], next)));
    control.until("the next", |this| this.crls().get(1) == Some(&vec!["02".into()])).await;
    // A file that is put beside a CRL that was fetched is refused, and not the one that is held.
    let mut loaded = control.loaded.clone();
    let url = loaded.bundles[0].crls[1].clone();
    loaded.bundles[0].crls[0] = Crl { path: "spec.crls[0]".into(), is_fetched: false, from: "b.crl".into(), ..url };
    let faults = control.held.check(&loaded, &identities(), clock::now()).unwrap_err();
    let said = words::words(&faults);
    assert!(
        said.len() == 1 && said[0].contains("spec.crls[0]: \"b.crl\": it is of CN=partner.org root, as http"),
        "{said:?}"
    );
}

#[tokio::test]
async fn what_is_fetched_leaves_half_of_all_entries_to_the_operator() {
    let next = clock::now() + HOUR;
    let most: Vec<_> = (0..MOST_OF_DOMAIN as u64).collect();
    let (mut specs, mut servers) = (Vec::new(), Vec::new());
    for nth in 0..3 {
        let root = Ca::of(&format!("d{nth}.org"));
        let server = Server::start(None, Reply::ok(root.crl(1, &most, next))).await;
        let roots = certs::inline(&root.pem());
        specs.push(format!("trustDomain: d{nth}.org\n{roots}crls:\n{}", entry(&server, "")));
        servers.push(server);
    }
    let mut control = Control::start(&specs, &[]);
    control.until_told("the third", "more than 50000 would be fetched for all trust domains").await;
    let fetched: usize = control.loaded.bundles.iter().map(|bundle| bundle.revokes()).sum();
    assert!(fetched <= MOST_FETCHED, "{fetched}");
    control.until("two of them", |this| this.loaded.bundles.iter().map(|b| b.crls.len()).sum::<usize>() == 2).await;
}

#[tokio::test]
async fn an_intermediate_of_a_partner_may_sign_crls_if_it_is_named_and_leads_up_to_a_root() {
    let (root, other) = (Ca::of("partner.org"), Ca::of("partner.org"));
    let (issuing, foreign) = (root.below("issuing CA"), other.below("issuing CA"));
    let next = clock::now() + HOUR;
    let server = Server::start(None, Reply::ok(issuing.crl(1, &[0x11], next))).await;
    let plain = crl_spec(&root, &entry(&server, ""));
    let named = crl_spec(&root, &entry(&server, ", issuer: { file: issuing.pem }"));
    let (good, bad) = (issuing.pem(), foreign.pem());
    let mut nobody = Control::start(&[plain], &[]);
    nobody.until_told("not named", "its issuer CN=issuing CA is no root of partner.org").await;
    let mut stray = Control::start(std::slice::from_ref(&named), &[("issuing.pem", bad.as_bytes())]);
    stray.until_told("under another root", "no certificate of its `issuer` is valid now and leads up to a root").await;
    let mut control = Control::start(&[named], &[("issuing.pem", good.as_bytes())]);
    control.until("the CRL", |this| this.crls() == [["11"]]).await;
    // Whose CRL it is, the file has said: not even the root's is taken in its place.
    let mut control = Control::again(
        &[crl_spec(&root, &entry(&server, ", issuer: { file: issuing.pem }"))],
        &[("issuing.pem", good.as_bytes())],
        Known::default(),
    );
    server.reply(Reply::ok(root.crl(9, &[], next)));
    control.until_told("the root's", "its issuer CN=partner.org root is no CA of its `issuer`").await;
    // Two levels up.
    let lower = issuing.below("lower CA");
    let both = format!("{}{}", lower.pem(), issuing.pem());
    server.reply(Reply::ok(lower.crl(1, &[0x22], next)));
    let spec = crl_spec(&root, &entry(&server, ", issuer: { file: issuing.pem }"));
    let mut control = Control::start(&[spec], &[("issuing.pem", both.as_bytes())]);
    control.until("the CRL two levels down", |this| this.crls() == [["22"]]).await;
}

#[tokio::test]
async fn until_a_crl_that_is_to_fail_was_fetched_its_trust_domain_is_refused() {
    let root = Ca::of("partner.org");
    let server = Server::start(None, Reply::status("503 Service Unavailable", "", "")).await;
    for (on_stale, refuses) in [("warn", false), ("fail", true)] {
        let spec = crl_spec(&root, &entry(&server, &format!(", onStale: {on_stale}")));
        let control = Control::start(&[spec], &[]);
        let (resolved, identities, now) = (resolved(&control.loaded).await, identities(), clock::now());
        let assembled = assemble(&control.loaded, &network(), &resolved, &identities, Version(1), now).unwrap().0;
        let crls: Vec<_> = assembled.revoked.iter().flat_map(|list| &list.crls).collect();
        assert_eq!(crls.iter().map(|crl| crl.is_stale).collect::<Vec<_>>(), vec![true; refuses.into()], "{on_stale}");
        assert!(crls.iter().all(|crl| crl.fails_after.is_some_and(|end| end < now)), "{crls:?}");
        let rules = crls.iter().map(|crl| assembled.rules[crl.rule.0 as usize].name.as_str());
        for rule in rules {
            assert!(rule.starts_with("TrustBundle default/t0 spec.crls[0] (http://127.0.0.1:"), "{rule}");
        }
    }
    server.reply(Reply::ok(root.crl(1, &[0x11], clock::now() + HOUR)));
    let mut control = Control::start(&[crl_spec(&root, &entry(&server, ", onStale: fail"))], &[]);
    control.until("the CRL", |this| this.crls() == [["11"]]).await;
    let (resolved, identities, now) = (resolved(&control.loaded).await, identities(), clock::now());
    let assembled = assemble(&control.loaded, &network(), &resolved, &identities, Version(1), now).unwrap().0;
    let crls: Vec<_> = assembled.revoked.iter().flat_map(|list| &list.crls).collect();
    assert_eq!(crls.iter().map(|crl| crl.is_stale).collect::<Vec<_>>(), [false]);
    let rows = bundles::rows(&control.loaded, &identities.bundle(now), &[]);
    let row = rows.iter().find(|row| row.trust_domain == "partner.org").unwrap();
    assert_eq!((row.crls[0].from.as_str(), row.crls[0].on_stale.as_str()), (server.url("/ca.crl").as_str(), "fail"));
}
