//! Rows about leaves.

use ::snapshot::RefuseReason::*;
use rustls_pki_types::alg_id;

use super::forge::*;
use super::{Row, as_it_is, id, keep_usage, purposes};
use crate::tls::path::{MAX_CERTIFICATE, MAX_PRESENTED};
use crate::tls::tests::certs::{NOW, der};
use crate::tls::verified::Role;

fn called(plan: &mut Plan, name: &str) {
    plan.leaf.set(NAMES, false, uris(&[name]));
}

/// Under the given name in policy, with a second name beside it.
fn beside(plan: &mut Plan, role: Role, other: (u8, &[u8])) {
    plan.leaf.set(NAMES, false, names(&[other, (0x86, id(role).as_bytes())]));
}

fn padded(plan: &mut Plan, size: usize) {
    plan.leaf.set(&[0x2a, 3, 4], false, vec![0; size]);
}

pub const ROWS: &[Row] = &[
    Row {
        clause: "X509-SVID §2",
        name: "two URI SANs",
        wrong: |plan, role| beside(plan, role, (0x86, b"https://example.com/")),
        right: |plan, role| beside(plan, role, (0x82, b"www.example.com")),
        want: PeerNoSpiffeId,
        says: "leaf: it has 2 URI SANs",
    },
    Row {
        clause: "X509-SVID §2",
        name: "a second URI that is no text",
        wrong: |plan, role| beside(plan, role, (0x86, b"\xff\xfe")),
        right: |plan, role| beside(plan, role, (0x87, &[10, 0, 0, 1])),
        want: PeerNoSpiffeId,
        says: "leaf: it has 2 URI SANs",
    },
    Row {
        clause: "X509-SVID §2",
        name: "no URI SAN",
        wrong: |plan, _| plan.leaf.set(NAMES, false, names(&[(0x82, b"example.com")])),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "leaf: it has no URI SAN",
    },
    Row {
        clause: "X509-SVID §2",
        name: "no subjectAltName",
        wrong: |plan, _| plan.leaf.unset(NAMES),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "leaf: it has no subject alternative name",
    },
    Row {
        clause: "RFC 5280 §4.2.1.6",
        name: "a URI in the constructed form",
        wrong: |plan, role| beside(plan, role, (0xa6, b"spiffe://example.com/x")),
        right: |plan, role| beside(plan, role, (0x88, &[0x2a, 3])),
        want: PeerBadCertificate,
        says: "leaf: its subject",
    },
    Row {
        clause: "SPIFFE-ID §2",
        name: "another scheme",
        wrong: |plan, _| called(plan, "https://example.com/myapp/frontend"),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "leaf: its URI SAN \"https:",
    },
    Row {
        clause: "SPIFFE-ID §2",
        name: "a query",
        wrong: |plan, role| called(plan, &format!("{}?a", id(role))),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "is no SPIFFE ID",
    },
    Row {
        clause: "SPIFFE-ID §2.1",
        name: "a port in the trust domain",
        wrong: |plan, _| called(plan, "spiffe://example.com:443/myapp/frontend"),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "is no SPIFFE ID",
    },
    Row {
        clause: "SPIFFE-ID §2.3",
        name: "a trust domain of 256 bytes",
        wrong: |plan, _| called(plan, &format!("spiffe://{}/a", "a".repeat(256))),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "is no SPIFFE ID",
    },
    Row {
        clause: "SPIFFE-ID §2.3",
        name: "2049 bytes",
        wrong: |plan, _| called(plan, &format!("spiffe://example.com/{}", "a".repeat(2028))),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "is no SPIFFE ID",
    },
    Row {
        clause: "X509-SVID §3.1",
        name: "a SPIFFE ID without a path",
        wrong: |plan, _| called(plan, "spiffe://example.com"),
        right: as_it_is,
        want: PeerNoSpiffeId,
        says: "is no SPIFFE ID",
    },
    Row {
        clause: "X509-SVID §3.1, RFC 5280 §4.1.2.6",
        name: "no subject, and the SAN is not critical",
        wrong: |plan, _| plan.leaf.subject = name(&[]),
        right: |plan, role| {
            plan.leaf.subject = name(&[]);
            plan.leaf.set(NAMES, true, uris(&[id(role)]));
        },
        want: PeerBadCertificate,
        says: "leaf: its subject is empty and its subjectAltName is not critical",
    },
    Row {
        clause: "X509-SVID §4.1",
        name: "a leaf that is a CA",
        wrong: |plan, _| plan.leaf.set(BASIC, true, basic(true, None)),
        // Absent, it is no CA (RFC 5280 §4.2.1.9).
        right: |plan, _| plan.leaf.unset(BASIC),
        want: PeerBadCertificate,
        says: "leaf: basicConstraints",
    },
    Row {
        clause: "X509-SVID §4.3",
        name: "no keyUsage",
        wrong: |plan, _| plan.leaf.unset(USAGE),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: it has no keyUsage",
    },
    Row {
        clause: "X509-SVID §4.3",
        name: "a keyUsage that is not critical",
        wrong: |plan, _| plan.leaf.set(USAGE, false, usage(&[DIGITAL_SIGNATURE])),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: its keyUsage is not critical",
    },
    Row {
        clause: "X509-SVID §4.3",
        name: "a keyUsage without digitalSignature",
        wrong: |plan, _| keep_usage(&mut plan.leaf, &[KEY_ENCIPHERMENT]),
        right: |plan, _| keep_usage(&mut plan.leaf, &[DIGITAL_SIGNATURE, KEY_ENCIPHERMENT]),
        want: PeerBadCertificate,
        says: "leaf: its keyUsage lacks digitalSignature",
    },
    Row {
        clause: "RFC 5280 §4.2.1.3",
        name: "a keyUsage of no bit",
        wrong: |plan, _| keep_usage(&mut plan.leaf, &[]),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: its keyUsage",
    },
    Row {
        clause: "X509-SVID §4.3 and §5.2",
        name: "a leaf that may sign certificates",
        wrong: |plan, _| keep_usage(&mut plan.leaf, &[DIGITAL_SIGNATURE, CERT_SIGN]),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: its keyUsage has keyCertSign",
    },
    Row {
        clause: "X509-SVID §4.3 and §5.2",
        name: "a leaf that may sign CRLs",
        wrong: |plan, _| keep_usage(&mut plan.leaf, &[DIGITAL_SIGNATURE, CRL_SIGN]),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: its keyUsage has cRLSign",
    },
    Row {
        clause: "X509-SVID §4.4, RFC 5280 §4.2.1.12",
        name: "for the other role only",
        wrong: |plan, role| plan.leaf.set(EXTENDED, false, extended(&[purposes(role).1])),
        right: |plan, role| plan.leaf.set(EXTENDED, true, extended(&[purposes(role).0])),
        want: PeerBadCertificate,
        says: "leaf: its extendedKeyUsage lacks",
    },
    Row {
        clause: "RFC 5280 §4.2.1.12",
        name: "for mail only",
        wrong: |plan, _| plan.leaf.set(EXTENDED, false, extended(&[MAIL_PROTECTION])),
        right: |plan, _| plan.leaf.unset(EXTENDED),
        want: PeerBadCertificate,
        says: "leaf: its extendedKeyUsage lacks",
    },
    Row {
        clause: "RFC 5280 §4.2.1.12",
        name: "for any purpose, which is not the one",
        wrong: |plan, _| plan.leaf.set(EXTENDED, false, der(0x30, &der(0x06, &[0x55, 0x1d, 37, 0]))),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: its extendedKeyUsage lacks",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (2)",
        name: "expired",
        wrong: |plan, _| plan.leaf.to = NOW - 1,
        right: |plan, _| plan.leaf.to = NOW,
        want: PeerExpired,
        says: "leaf: its validity ended 1 s ago",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (2)",
        name: "not yet valid",
        wrong: |plan, _| plan.leaf.from = NOW + 1,
        right: |plan, _| plan.leaf.from = NOW,
        want: PeerExpired,
        says: "leaf: its validity begins in 1 s",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (1)",
        name: "a signature that is not its issuer's",
        wrong: |plan, _| plan.leaf.signature_broken = true,
        right: as_it_is,
        want: PeerUntrusted,
        says: "leaf: its signature is not by the key of its issuer \"CN=issuer one\"",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (4)",
        name: "an issuer of another name",
        wrong: |plan, _| plan.leaf.issuer = Some(common_name("issuer")),
        right: as_it_is,
        want: PeerUntrusted,
        says: "leaf: its issuer \"CN=issuer\" is no root of example.com and was not presented",
    },
    Row {
        clause: "RFC 5280 §4.2",
        name: "a critical extension that nobody knows",
        wrong: |plan, _| plan.leaf.set(&[0x2a, 3, 4], true, der(0x05, &[])),
        right: |plan, _| plan.leaf.set(&[0x2a, 3, 4], false, der(0x05, &[])),
        want: PeerBadCertificate,
        says: "leaf: its critical extension 1.2.3.4",
    },
    Row {
        clause: "RFC 5280 §4.2",
        name: "a critical extension that is known and not processed (cRLDistributionPoints)",
        wrong: |plan, _| plan.leaf.set(&[0x55, 0x1d, 31], true, der(0x30, &[])),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: its critical extension 2.5.29.31",
    },
    Row {
        clause: "RFC 5280 §4.2",
        name: "an extension twice",
        wrong: |plan, _| plan.leaf.extensions.push((USAGE.to_vec(), true, usage(&[DIGITAL_SIGNATURE]))),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: one of its extensions is there twice",
    },
    Row {
        clause: "RFC 5280 §4.1.2.1",
        name: "version 1 with extensions",
        wrong: |plan, _| plan.leaf.version = 0,
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: it does not parse",
    },
    Row {
        clause: "X.690 §10.1",
        name: "a keyUsage with bytes after it",
        wrong: |plan, _| plan.leaf.set(USAGE, true, [usage(&[DIGITAL_SIGNATURE]), vec![5, 0]].concat()),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: its keyUsage does not parse",
    },
    Row {
        clause: "NIST SP 800-57",
        name: "an RSA key of 2040 bits",
        wrong: |plan, _| plan.leaf.key = Some(rsa_key(2040)),
        right: |plan, _| plan.leaf.kind = Kind::Rsa,
        want: PeerBadCertificate,
        says: "leaf: its RSA key has 2040 bits",
    },
    Row {
        clause: "NIST SP 800-57",
        name: "a key on P-224",
        wrong: |plan, _| plan.leaf.key = Some(curve_key(&[0x2b, 0x81, 4, 0, 33], 28)),
        right: |plan, _| plan.leaf.kind = Kind::P384,
        want: PeerBadCertificate,
        says: "leaf: its key is of a kind that is not accepted (1.2.840.10045.2.1 1.3.132.0.33)",
    },
    Row {
        clause: "RFC 9155",
        name: "signed with SHA-1",
        wrong: |plan, _| plan.leaf.signed_with = Some(SHA1_RSA.to_vec()),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: it is signed with sha1WithRSAEncryption",
    },
    Row {
        clause: "RFC 6151",
        name: "signed with MD5",
        wrong: |plan, _| plan.leaf.signed_with = Some(MD5_RSA.to_vec()),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: it is signed with md5WithRSAEncryption",
    },
    Row {
        clause: "RFC 5280 §4.1.1.2",
        name: "signed with an algorithm of another kind of key",
        wrong: |plan, _| {
            let other = if plan.leaf.kind == Kind::Rsa { alg_id::ECDSA_SHA256 } else { alg_id::RSA_PKCS1_SHA256 };
            plan.leaf.signed_with = Some(other.to_vec());
        },
        right: as_it_is,
        want: PeerUntrusted,
        says: "leaf: its signature is not by the key of its issuer",
    },
    Row {
        clause: "a bound of ours",
        name: "a leaf that is too large",
        wrong: |plan, _| padded(plan, MAX_CERTIFICATE),
        right: |plan, _| padded(plan, MAX_CERTIFICATE - 2048),
        want: PeerBadCertificate,
        says: "leaf: it has",
    },
    Row {
        clause: "a bound of ours",
        name: "more certificates than a path has",
        wrong: |plan, _| plan.bytes = |chain| chain.resize(MAX_PRESENTED + 1, chain[2].clone()),
        right: |plan, _| plan.bytes = |chain| chain.resize(MAX_PRESENTED, chain[2].clone()),
        want: PeerBadCertificate,
        says: "9 certificates were presented; 8 are the most",
    },
    Row {
        clause: "RFC 8446 §4.4.2",
        name: "a torn leaf",
        wrong: |plan, _| plan.bytes = |chain| chain[0].truncate(100),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: it does not parse",
    },
    Row {
        clause: "X.690 §10.1",
        name: "bytes after the leaf",
        wrong: |plan, _| plan.bytes = |chain| chain[0].push(0),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "leaf: bytes follow the certificate",
    },
];

const SHA1_RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0];
const MD5_RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4, 5, 0];
