//! CRLs of a TrustBundle: which are taken, the exact words about those that are not, and what becomes of
//! them in a snapshot.

mod certs;
mod counting;
mod crl_files;
mod example;
mod words;

use certs::{NOW, YEAR, inline, trust_bundle};
use counting::{id, identities, wanted};
use crl_files::{Ca, Draft, SEQUENCE, entry, extension, id_ce, number, pem, time, tlv};
use ctrl::assemble::assemble;
use ctrl::bundles;
use ctrl::config::crls::OnStale;
use ctrl::config::{Diagnostic, Loaded, crl, load_dir, trust};
use ctrl::crls::Held;
use ctrl::rotate::Identities;
use ctrl::source::{Error, IssuedSvid, Source, Wanted};
use example::{GATEWAY, by_address, network, resolved};
use rcgen::KeyUsagePurpose as Use;
use snapshot::channel::PrivateKey;
use snapshot::{Bundle, KeyId, Svid, Version};
use words::words;

const HOUR: u64 = 3_600;
const FRESH: (u64, u64) = (NOW - HOUR, NOW + HOUR);

#[test]
fn a_crl_is_read_from_pem_and_der_with_its_number_times_and_serials() {
    let ca = Ca::new("ca");
    let der = ca.crl(4_711, &[&[0x4f, 0x3a], &[0x00, 0xbe, 0xef], &[0x7f; 20]], FRESH);
    let list = crl::read(&der).unwrap();
    assert_eq!(list, crl::read(format!("# of today\n{}", pem(&der)).as_bytes()).unwrap());
    assert_eq!((list.issuer.as_str(), list.number.as_str()), ("CN=ca", "4711"));
    assert_eq!((list.issued, list.next), FRESH);
    assert_eq!(list.serials, ["4f3a", "beef", &"7f".repeat(20)]);
    assert!(!list.is_stale(NOW + HOUR) && list.is_stale(NOW + HOUR + 1));
    assert!(crl::read(&ca.crl(1, &[], FRESH)).unwrap().serials.is_empty());
    assert!(crl::read(&Draft::new().der()).is_ok(), "what the drafts below differ from");
}

#[test]
fn what_is_no_crl_or_could_not_be_applied_whole_is_refused_with_what_is_wrong() {
    let good = Draft::new().der();
    let with = |extension: Vec<u8>| Draft { extensions: vec![number(&[7]), extension], ..Draft::new() }.der();
    let entries = |entries: &[Vec<u8>]| Draft { entries: tlv(SEQUENCE, &[&entries.concat()]), ..Draft::new() }.der();
    let numbered = |bytes: &[u8]| Draft { extensions: vec![number(bytes)], ..Draft::new() }.der();
    // [0] { [0] { [6] "x" } }: a distribution point; what follows is what it is for.
    let point = |more: &[u8]| {
        let name = tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[b"x"])])]);
        with(extension(&id_ce(28), true, &tlv(SEQUENCE, &[&name, more])))
    };
    let unknown = [0x2a, 0x03];
    let text = pem(&good);
    let cases: [(&str, Vec<u8>, &str); 22] = [
        ("an empty file", vec![], "holds no CRL: it is neither PEM nor DER"),
        ("another text", b"hello".to_vec(), "holds no CRL: it is neither PEM nor DER"),
        ("a certificate", Ca::new("ca").pem().into(), "holds no CRL: it is neither PEM nor DER"),
        ("a certificate in DER", Ca::new("ca").der(), "is no CRL: "),
        ("torn PEM", text[..text.len() - 20].into(), "is cut off within a CRL"),
        ("torn DER", good[..good.len() - 1].to_vec(), "is no CRL: "),
        ("DER with more behind it", [&good[..], &[0]].concat(), "is no CRL: "),
        ("two", text.repeat(2).into(), "holds 2 CRLs; give each a file of its own"),
        ("version 1", Draft { version: tlv(2, &[&[0]]), ..Draft::new() }.der(), "is not of version 2 (RFC 5280"),
        ("no nextUpdate", Draft { next: vec![], ..Draft::new() }.der(), "is no CRL: "),
        (
            "over before it begins",
            Draft { next: time("260101000000Z"), ..Draft::new() }.der(),
            "has a nextUpdate that is not after its thisUpdate",
        ),
        (
            "no CRL number",
            Draft { extensions: vec![extension(&unknown, false, &[])], ..Draft::new() }.der(),
            "has no CRL number, by which an older one is told (RFC 5280 §5.2.3)",
        ),
        ("a CRL number of 21 bytes", numbered(&[1; 21]), "has a CRL number that is none of at most 20 bytes"),
        ("a negative CRL number", numbered(&[0x80]), "has a CRL number that is none of at most 20 bytes"),
        ("a delta CRL", with(extension(&id_ce(27), true, &tlv(2, &[&[1]]))), "is a delta CRL: a complete CRL of"),
        ("an indirect CRL", point(&[0x84, 1, 0xff]), "is an indirect CRL: a complete CRL of"),
        (
            "an entry of another issuer",
            entries(&[entry(&[1], &[extension(&id_ce(29), true, &tlv(SEQUENCE, &[]))])]),
            "is an indirect CRL: a complete CRL of",
        ),
        ("some reasons", point(&[0x83, 2, 0, 0x80]), "is for a part of its issuer's certificates: a complete"),
        ("user certificates of one point", point(&[0x81, 1, 0xff]), "is for a part of its issuer's certificates ("),
        ("a critical extension", with(extension(&unknown, true, &[])), "has a critical extension that is not known"),
        (
            "a critical extension of an entry",
            entries(&[entry(&[1], &[extension(&unknown, true, &[])])]),
            "has a critical extension that is not known",
        ),
        ("a serial that does not fit", entries(&[entry(&[1; 21], &[])]), "revokes 0101"),
    ];
    let mut wrong = String::new();
    for (name, bytes, want) in cases {
        match crl::read(&bytes) {
            Ok(list) => wrong.extend([format!("{name}: taken: {list:?}\n")]),
            Err(why) if why.starts_with(want) => {}
            Err(why) => wrong.extend([format!("{name}\n  got  {why}\n  want {want}\n")]),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    // Behind an entry that is none, others may stand.
    let torn = entries(&[entry(&[1], &[]), vec![0x05, 0x00], entry(&[2], &[])]);
    assert!(crl::read(&torn).is_err());
    // As many as are taken, and one more.
    let many = |count: u32| {
        let each = (0..count).flat_map(|n| entry(&(0x0100_0000 + n).to_be_bytes(), &[])).collect();
        crl::read(&entries(&[each])).map(|list| list.serials.len())
    };
    assert_eq!(many(100_000), Ok(100_000));
    assert_eq!(many(100_001), Err("revokes more than 100000 certificates, the most that are taken".into()));
    // What is not critical is for others.
    assert!(crl::read(&with(extension(&unknown, false, &[]))).is_ok());
    // Cut off anywhere, and with any byte another, it is refused or read, and never more than that.
    for at in 0..good.len() {
        assert!(crl::read(&good[..at]).is_err(), "{at}");
        let mut bent = good.clone();
        bent[at] ^= 0x55;
        let _ = crl::read(&bent);
    }
}

/// A directory with a partner's TrustBundle and these files.
fn directory(spec: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("gateway.yaml", GATEWAY.as_bytes());
    write("policy.yaml", by_address().as_bytes());
    write("t.yaml", trust_bundle("t", spec).as_bytes());
    files.iter().for_each(|(name, bytes)| write(name, bytes));
    dir
}

fn loaded(spec: &str, files: &[(&str, &[u8])]) -> Result<Loaded, Vec<Diagnostic>> {
    load_dir(directory(spec, files).path())
}

fn partner(root: &Ca, crls: &str) -> String {
    format!("trustDomain: partner.org\ncrls: {crls}\n{}", inline(&root.pem()))
}

#[test]
fn each_fault_of_the_list_of_crls_is_named_with_its_place() {
    let (one, other) = (Ca::new("one"), Ca::new("other"));
    let (first, second) = (one.crl(1, &[], FRESH), one.crl(2, &[], FRESH));
    let more = vec![b' '; crl::LARGEST + 1];
    let of_other = other.crl(1, &[], FRESH);
    let files: [(&str, &[u8]); 4] = [("1.crl", &first), ("2.crl", &second), ("o.crl", &of_other), ("large", &more)];
    const HELP: &str = "[one complete CRL (PEM or DER), in a file below the configuration directory]";
    for (name, list, want) in [
        ("none", "[]", "t.yaml:6:9: error: spec.crls: 0 CRLs; 1 to 32 are taken [give one for each issuer, or leave the field out]".to_owned()),
        ("no file", "[{ onStale: warn }]", "t.yaml:6:10: error: spec.crls[0]: a CRL has one origin [file: PATH, or url: http://…]".into()),
        ("an unknown field", "[{ file: 1.crl, uri: x }]", "t.yaml:6:25: error: spec.crls[0].uri: there is no such field [did you mean url? fields here: file, issuer, onStale, refreshInterval, url]".into()),
        ("another word", "[{ file: 1.crl, onStale: ignore }]", "t.yaml:6:34: error: spec.crls[0].onStale: \"ignore\" is not allowed".into()),
        ("no such file", "[{ file: gone }]", format!("t.yaml:6:18: error: spec.crls[0].file: \"gone\": No such file or directory (os error 2) {HELP}")),
        ("too large", "[{ file: large }]", format!("t.yaml:6:18: error: spec.crls[0].file: \"large\": is larger than 8 MiB, the most that is read of one {HELP}")),
        ("outside", "[{ file: ../x }]", "t.yaml:6:18: error: spec.crls[0].file: \"../x\": ".into()),
        ("two of one issuer", "[{ file: 1.crl }, { file: 2.crl }]", "t.yaml:6:27: error: spec.crls[1]: \"2.crl\" is of CN=one, as \"1.crl\" is [an issuer has one complete CRL: keep the newer]".into()),
    ] {
        let faults = loaded(&partner(&one, list), &files).map(drop).expect_err(name);
        let said = words(&faults);
        assert!(said.iter().any(|words| words.starts_with(&want)), "{name}\n  got  {said:#?}\n  want {want}");
    }
    let two = loaded(&partner(&one, "[{ file: 1.crl, onStale: fail }, { file: o.crl }]"), &files).unwrap();
    let crls: Vec<_> = two.bundles[0].crls.iter().map(|crl| (crl.from.as_str(), crl.on_stale)).collect();
    assert_eq!(crls, [("1.crl", OnStale::Fail), ("o.crl", OnStale::Warn)]);
}

#[test]
fn a_crl_is_taken_only_if_a_ca_of_its_trust_domain_that_may_has_signed_it() {
    let (root, same_name, unable) = (Ca::new("root"), Ca::new("root"), Ca::that_may("unable", &[Use::KeyCertSign]));
    let mut bent = root.crl(1, &[&[0x4f]], FRESH);
    let serial = bent.windows(3).position(|part| part == [2, 1, 0x4f]).unwrap();
    bent[serial + 2] = 0x4e;
    for (name, by, crl, want) in [
        ("a root", &root, root.crl(1, &[&[0x4f]], FRESH), None),
        (
            "somebody else",
            &root,
            Ca::new("other").crl(1, &[], FRESH),
            Some(
                "its issuer CN=other is no root of partner.org, nor an intermediate that is known of it [a CRL that a CA of partner.org has signed, whose certificate has the key usage cRLSign]",
            ),
        ),
        (
            "another of the same name",
            &root,
            same_name.crl(1, &[], FRESH),
            Some("its signature is not by the key of CN=root, or of a kind that is not accepted"),
        ),
        (
            "one who may not",
            &unable,
            unable.crl(1, &[], FRESH),
            Some("CN=unable may not sign CRLs: its key usage lacks cRLSign"),
        ),
        ("a root, of another content", &root, bent, Some("its signature is not by the key of CN=root")),
    ] {
        let loaded = loaded(&partner(by, "[{ file: a.crl }]"), &[("a.crl", &crl)]).unwrap();
        let said = Held::default().check(&loaded, &identities(), NOW).map_err(|faults| words(&faults));
        match want {
            None => assert_eq!(said, Ok(()), "{name}"),
            Some(want) => {
                let want = format!("t.yaml:6:10: error: spec.crls[0]: \"a.crl\": {want}");
                assert!(
                    said.as_ref().is_err_and(|said| said.len() == 1 && said[0].starts_with(&want)),
                    "{name}: {said:?}"
                );
            }
        }
    }
}

#[test]
fn a_crl_never_goes_back_and_one_that_was_taken_outlasts_its_issuer() {
    let (root, next) = (Ca::new("root"), Ca::new("next"));
    let with = |by: &Ca, crl: Vec<u8>| loaded(&partner(by, "[{ file: a.crl }]"), &[("a.crl", &crl)]).unwrap();
    let (ninth, tenth) = (root.crl(9, &[], FRESH), root.crl(10, &[&[0x4f]], FRESH));
    let mut held = Held::default();
    held.take(&with(&root, tenth.clone()));
    for (name, crl, by, want) in [
        ("the same", tenth.clone(), &root, None),
        (
            "older by its number",
            ninth.clone(),
            &root,
            Some("its CRL number is 9, older than number 10, which is held [put the newest"),
        ),
        (
            "older by its time",
            root.crl(10, &[], (NOW - 2 * HOUR, NOW + HOUR)),
            &root,
            Some("its CRL number is 10, older"),
        ),
        ("issued again", root.crl(10, &[], (NOW, NOW + HOUR)), &root, None),
        ("newer", root.crl(11, &[], FRESH), &root, None),
        ("the same, while its issuer is a root no more", tenth.clone(), &next, None),
        (
            "a newer one of whom is a root no more",
            root.crl(11, &[], FRESH),
            &next,
            Some("its issuer CN=root is no root"),
        ),
        ("another issuer's first", next.crl(1, &[], FRESH), &next, None),
    ] {
        let again = Held::from(held.known()).check(&with(by, crl.clone()), &identities(), NOW);
        let said = held.check(&with(by, crl), &identities(), NOW).map_err(|faults| words(&faults));
        match want {
            None => assert_eq!(said, Ok(()), "{name}"),
            Some(want) => assert!(said.as_ref().is_err_and(|said| said[0].contains(want)), "{name}: {said:?}"),
        }
        assert_eq!(again.map_err(|faults| words(&faults)), said, "{name}, after a restart");
    }
    // Who takes the entry out has said that it may go back.
    held.take(&with(&next, next.crl(1, &[], FRESH)));
    assert_eq!(held.check(&with(&root, ninth), &identities(), NOW), Ok(()));
}

/// Gives out SVIDs below an intermediate.
struct Below(Vec<u8>);

impl Source for Below {
    fn issue(&self, _: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        let (chain, key) = (vec![vec![1], self.0.clone()], KeyId([1; 32]));
        let svid = Svid { chain, key, serial: "01".into(), not_before: now - 30, not_after: now + HOUR };
        Ok(IssuedSvid { svid, key: PrivateKey::new(vec![0xa5; 8]) })
    }

    fn bundle(&self) -> Bundle {
        Bundle { trust_domain: "example.com".into(), roots: vec![vec![1]] }
    }

    fn warnings(&self, _now: u64) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn an_intermediate_of_our_own_svids_may_sign_for_our_trust_domain_and_for_no_other() {
    let between = Ca::new("between");
    let crl = between.crl(1, &[&[0x4f]], FRESH);
    let own = loaded("trustDomain: example.com\ncrls: [{ file: a.crl }]", &[("a.crl", &crl)]).unwrap();
    let foreign = loaded(&partner(&Ca::new("root"), "[{ file: a.crl }]"), &[("a.crl", &crl)]).unwrap();
    let mut identities = Identities::new(Box::new(Below(between.der())) as Box<dyn Source>, 1);
    assert!(Held::default().check(&own, &identities, NOW).is_err(), "nobody has an SVID yet");
    identities.refresh(&[wanted(id("app"), &[])], NOW);
    assert_eq!(Held::default().check(&own, &identities, NOW), Ok(()));
    assert!(Held::default().check(&foreign, &identities, NOW).is_err());
}

#[tokio::test]
async fn a_crl_goes_into_the_snapshot_with_its_rule_and_is_stale_there_only_if_that_is_to_fail() {
    let root = Ca::new("root");
    let crl = root.crl(7, &[&[0x4f, 0x3a], &[0x01]], FRESH);
    for (on_stale, now, fails_after, is_stale, told) in [
        ("warn", NOW + HOUR, None, false, None),
        ("warn", NOW + HOUR + 1, None, false, Some("it still holds, and who was revoked since is let in")),
        ("fail", NOW + HOUR, Some(NOW + HOUR), false, None),
        ("fail", NOW + HOUR + 1, Some(NOW + HOUR), true, Some("peers of partner.org are refused (CrlStale)")),
        ("fail", NOW - 2 * HOUR, Some(NOW + HOUR), false, Some("is from the future, 2027-01-15T07:00:00Z")),
    ] {
        let spec = partner(&root, &format!("[{{ file: a.crl, onStale: {on_stale} }}]"));
        let loaded = loaded(&spec, &[("a.crl", &crl)]).unwrap();
        let (resolved, identities) = (resolved(&loaded).await, identities());
        let (snapshot, _, warnings) = assemble(&loaded, &network(), &resolved, &identities, Version(1), now).unwrap();
        let [list] = snapshot.revoked.as_slice() else { panic!("{:?}", snapshot.revoked) };
        let [of_crl] = list.crls.as_slice() else { panic!("{list:?}") };
        assert_eq!(of_crl.serials, ["4f3a", "01"]);
        assert_eq!((of_crl.fails_after, of_crl.is_stale), (fails_after, is_stale), "{on_stale} {now}");
        let rule = &snapshot.rules[of_crl.rule.0 as usize];
        let want = ("TrustBundle default/t spec.crls[0] (a.crl)", "t.yaml:6");
        assert_eq!((rule.name.as_str(), rule.place.as_str()), want);
        let of_crls: Vec<_> = warnings.iter().filter(|warning| warning.path == "spec.crls[0]").collect();
        assert_eq!(of_crls.len(), usize::from(told.is_some()), "{of_crls:?}");
        assert!(of_crls.iter().all(|warning| warning.message.contains(told.unwrap())), "{of_crls:?}");
        let rows = bundles::rows(&loaded, &identities.bundle(now), &[]);
        let row = &rows.iter().find(|row| row.trust_domain == "partner.org").unwrap().crls[0];
        assert_eq!((row.number.as_str(), row.entries, row.on_stale.as_str()), ("7", 2, on_stale));
        assert_eq!((row.issued, row.next), FRESH);
        // The clock alone makes the next snapshot.
        let due = trust::next_end(&loaded.bundles, NOW);
        assert_eq!(due, Some(NOW + HOUR), "before the root's end in {YEAR} s");
    }
}
