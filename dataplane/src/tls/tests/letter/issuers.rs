//! Rows about issuers and roots.

use ::snapshot::RefuseReason::*;

use super::forge::*;
use super::{Row, as_it_is, keep_usage, purposes};
use crate::tls::tests::certs::{NOW, der};

pub const ROWS: &[Row] = &[
    Row {
        clause: "X509-SVID §4.1, RFC 5280 §6.1.4 (k)",
        name: "an issuer that is no CA",
        wrong: |plan, _| plan.issuers[0].set(BASIC, true, basic(false, None)),
        right: as_it_is,
        want: PeerUntrusted,
        says: "issuer 1 (\"CN=issuer one\"): it is no CA",
    },
    Row {
        clause: "X509-SVID §4.1, RFC 5280 §6.1.4 (k)",
        name: "an issuer without basicConstraints",
        wrong: |plan, _| plan.issuers[1].unset(BASIC),
        right: as_it_is,
        want: PeerUntrusted,
        says: "issuer 2 (\"CN=issuer two\"): it is no CA",
    },
    Row {
        clause: "X509-SVID §3.2",
        name: "a root that is no CA",
        wrong: |plan, _| plan.root.unset(BASIC),
        right: as_it_is,
        want: PeerUntrusted,
        says: "root (\"CN=root\"): it is no CA",
    },
    Row {
        clause: "X509-SVID §4.3, RFC 5280 §6.1.4 (n)",
        name: "an issuer without keyCertSign",
        wrong: |plan, _| keep_usage(&mut plan.issuers[0], &[CRL_SIGN]),
        right: |plan, _| keep_usage(&mut plan.issuers[0], &[CERT_SIGN]),
        want: PeerUntrusted,
        says: "issuer 1 (\"CN=issuer one\"): its keyUsage lacks keyCertSign",
    },
    Row {
        clause: "X509-SVID §4.3",
        name: "a second issuer without keyUsage",
        wrong: |plan, _| plan.issuers[1].unset(USAGE),
        right: as_it_is,
        want: PeerUntrusted,
        says: "issuer 2 (\"CN=issuer two\"): it has no keyUsage",
    },
    Row {
        clause: "X509-SVID §3.2 and §4.3",
        name: "a root without keyCertSign",
        wrong: |plan, _| keep_usage(&mut plan.root, &[DIGITAL_SIGNATURE]),
        right: |plan, _| keep_usage(&mut plan.root, &[DIGITAL_SIGNATURE, CERT_SIGN]),
        want: PeerUntrusted,
        says: "root (\"CN=root\"): its keyUsage lacks keyCertSign",
    },
    Row {
        clause: "X509-SVID §4.3",
        name: "an issuer that is an SVID and whose keyUsage is not critical",
        wrong: |plan, _| {
            plan.issuers[0].set(NAMES, false, uris(&["spiffe://example.com"]));
            plan.issuers[0].set(USAGE, false, usage(&[CERT_SIGN]));
        },
        // RFC 5280 §4.2.1.3 says SHOULD; it is no SVID, so X509-SVID says nothing.
        right: |plan, _| plan.issuers[0].set(USAGE, false, usage(&[CERT_SIGN])),
        want: PeerBadCertificate,
        says: "issuer 1 (\"CN=issuer one\"): its keyUsage is not critical",
    },
    Row {
        clause: "X509-SVID §3.2",
        name: "an issuer whose SPIFFE ID has a path",
        wrong: |plan, _| plan.issuers[0].set(NAMES, false, uris(&["spiffe://example.com/ca"])),
        right: |plan, _| plan.issuers[0].set(NAMES, false, uris(&["spiffe://example.com"])),
        want: PeerBadCertificate,
        says: "issuer 1 (\"CN=issuer one\"): its URI SAN \"spiffe://example.com/ca\"",
    },
    Row {
        clause: "X509-SVID §3.2",
        name: "an issuer whose SPIFFE ID has an empty path",
        wrong: |plan, _| plan.issuers[1].set(NAMES, false, uris(&["spiffe://example.com/"])),
        right: |plan, _| plan.issuers[1].set(NAMES, false, uris(&["https://example.com/ca"])),
        want: PeerBadCertificate,
        says: "issuer 2 (\"CN=issuer two\"): its URI SAN \"spiffe://example.com/\"",
    },
    Row {
        clause: "X509-SVID §3.2",
        name: "an issuer of another trust domain",
        wrong: |plan, _| plan.issuers[0].set(NAMES, false, uris(&["spiffe://partner.org"])),
        right: |plan, _| plan.issuers[0].set(NAMES, false, uris(&["spiffe://example.com"])),
        want: PeerUntrusted,
        says: "issuer 1 (\"CN=issuer one\"): its SPIFFE ID \"spiffe://partner.org\" is of another trust domain",
    },
    Row {
        clause: "X509-SVID §3.2",
        name: "a root of another trust domain",
        wrong: |plan, _| plan.root.set(NAMES, false, uris(&["spiffe://partner.org"])),
        right: |plan, _| plan.root.set(NAMES, false, uris(&["spiffe://example.com"])),
        want: PeerUntrusted,
        says: "root (\"CN=root\"): its SPIFFE ID \"spiffe://partner.org\" is of another trust domain",
    },
    Row {
        clause: "X509-SVID §2",
        name: "an issuer with two SPIFFE IDs",
        wrong: |plan, _| plan.issuers[0].set(NAMES, false, uris(&["spiffe://example.com", "spiffe://partner.org"])),
        right: |plan, _| plan.issuers[0].set(NAMES, false, names(&[(0x82, b"ca.example.com")])),
        want: PeerBadCertificate,
        says: "issuer 1 (\"CN=issuer one\"): it has more than one URI SAN",
    },
    Row {
        clause: "X509-SVID §2",
        name: "an issuer whose URI is no text",
        wrong: |plan, _| plan.issuers[0].set(NAMES, false, names(&[(0x86, b"\xff")])),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "issuer 1 (\"CN=issuer one\"): its URI SAN is not text",
    },
    Row {
        clause: "RFC 5280 §4.2.1.12",
        name: "an issuer for the other role only",
        wrong: |plan, role| plan.issuers[0].set(EXTENDED, false, extended(&[purposes(role).1])),
        right: |plan, role| plan.issuers[0].set(EXTENDED, false, extended(&[purposes(role).0])),
        want: PeerUntrusted,
        says: "issuer 1 (\"CN=issuer one\"): its extendedKeyUsage lacks",
    },
    Row {
        clause: "RFC 5280 §4.2.1.12",
        name: "a second issuer for mail only",
        wrong: |plan, _| plan.issuers[1].set(EXTENDED, true, extended(&[MAIL_PROTECTION])),
        right: |plan, _| plan.issuers[1].set(EXTENDED, true, extended(&[SERVER_AUTH, CLIENT_AUTH])),
        want: PeerUntrusted,
        says: "issuer 2 (\"CN=issuer two\"): its extendedKeyUsage lacks",
    },
    Row {
        clause: "RFC 5280 §4.2.1.9",
        name: "a path length of 0 and an issuer below",
        wrong: |plan, _| plan.issuers[1].set(BASIC, true, basic(true, Some(0))),
        right: |plan, _| plan.issuers[1].set(BASIC, true, basic(true, Some(1))),
        want: PeerUntrusted,
        says: "issuer 2 (\"CN=issuer two\"): its pathLenConstraint is 0 and 1 issuers are below it",
    },
    Row {
        clause: "RFC 5280 §4.2.1.9",
        name: "a root's path length of 1 and two issuers below",
        wrong: |plan, _| plan.root.set(BASIC, true, basic(true, Some(1))),
        right: |plan, _| {
            plan.root.set(BASIC, true, basic(true, Some(2)));
            plan.issuers[0].set(BASIC, true, basic(true, Some(0)));
        },
        want: PeerUntrusted,
        says: "root (\"CN=root\"): its pathLenConstraint is 1 and 2 issuers are below it",
    },
    Row {
        clause: "RFC 5280 §6.1.4 (l)",
        name: "a path length that counts one below it which is not self-issued",
        wrong: |plan, _| plan.root.set(BASIC, true, basic(true, Some(1))),
        // Of the root's own name, as when its key is replaced, it does not count.
        right: |plan, _| {
            plan.root.set(BASIC, true, basic(true, Some(1)));
            plan.issuers[1].subject = common_name("root");
        },
        want: PeerUntrusted,
        says: "root (\"CN=root\"): its pathLenConstraint",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (2)",
        name: "an issuer that expired",
        wrong: |plan, _| plan.issuers[0].to = NOW - 5,
        right: |plan, _| plan.issuers[0].to = NOW,
        want: PeerExpired,
        says: "issuer 1 (\"CN=issuer one\"): its validity ended 5 s ago",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (2)",
        name: "an issuer that is not valid yet",
        wrong: |plan, _| plan.issuers[1].from = NOW + 60,
        right: |plan, _| plan.issuers[1].from = NOW,
        want: PeerExpired,
        says: "issuer 2 (\"CN=issuer two\"): its validity begins in 60 s",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (2), of the root too",
        name: "a root that expired",
        wrong: |plan, _| plan.root.to = NOW - 1,
        right: |plan, _| plan.root.to = NOW,
        want: PeerExpired,
        says: "root (\"CN=root\"): its validity ended 1 s ago",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (1)",
        name: "an issuer whose signature is not the root's",
        wrong: |plan, _| plan.issuers[1].signature_broken = true,
        right: as_it_is,
        want: PeerUntrusted,
        says: "issuer 2 (\"CN=issuer two\"): its signature is not by the key of its issuer \"CN=root\"",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (a) (4)",
        name: "an issuer left out",
        wrong: |plan, _| plan.bytes = |chain| drop(chain.remove(2)),
        // In any order, and with the root among them (RFC 8446 §4.4.2).
        right: |plan, _| plan.bytes = |chain| chain.swap(1, 2),
        want: PeerUntrusted,
        says: "issuer 1 (\"CN=issuer one\"): its issuer \"CN=issuer two\" is no root of example.com",
    },
    Row {
        clause: "RFC 5280 §4.2",
        name: "an issuer's critical extension that nobody knows",
        wrong: |plan, _| plan.issuers[0].set(&[0x2a, 3, 4], true, der(0x05, &[])),
        right: |plan, _| plan.issuers[0].set(&[0x2a, 3, 4], false, der(0x05, &[])),
        want: PeerBadCertificate,
        says: "certificate 2 of those presented: its critical extension 1.2.3.4",
    },
    Row {
        clause: "RFC 5280 §4.2",
        name: "a root's critical extension that nobody knows",
        wrong: |plan, _| plan.root.set(&[0x2a, 3, 4], true, der(0x05, &[])),
        right: |plan, _| plan.root.set(&[0x2a, 3, 4], false, der(0x05, &[])),
        want: PeerBadCertificate,
        says: "root (number 1 of example.com): its critical extension 1.2.3.4",
    },
    Row {
        clause: "RFC 5280 §4.1.2.1",
        name: "a root of version 1",
        wrong: |plan, _| {
            plan.root.version = 0;
            plan.root.extensions.clear();
        },
        right: as_it_is,
        want: PeerBadCertificate,
        says: "root (number 1 of example.com): it does not parse",
    },
    Row {
        clause: "NIST SP 800-57",
        name: "an issuer with an RSA key of 1024 bits",
        wrong: |plan, _| plan.issuers[0].key = Some(rsa_key(1024)),
        right: |plan, _| plan.issuers[0].kind = Kind::Rsa,
        want: PeerBadCertificate,
        says: "issuer 1 (\"CN=issuer one\"): its RSA key has 1024 bits",
    },
    Row {
        clause: "NIST SP 800-57",
        name: "a root with an RSA key of 1024 bits",
        wrong: |plan, _| plan.root.key = Some(rsa_key(1024)),
        right: |plan, _| plan.root.kind = Kind::Rsa,
        want: PeerBadCertificate,
        says: "root (\"CN=root\"): its RSA key has 1024 bits",
    },
    Row {
        clause: "NIST SP 800-57",
        name: "a root on secp256k1",
        wrong: |plan, _| plan.root.key = Some(curve_key(&[0x2b, 0x81, 4, 0, 10], 32)),
        right: |plan, _| plan.root.kind = Kind::P384,
        want: PeerBadCertificate,
        says: "root (\"CN=root\"): its key is of a kind that is not accepted (1.2.840.10045.2.1 1.3.132.0.10)",
    },
    Row {
        clause: "RFC 9155",
        name: "an issuer signed with ecdsa-with-SHA1",
        wrong: |plan, _| plan.issuers[1].signed_with = Some(vec![6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]),
        right: as_it_is,
        want: PeerBadCertificate,
        says: "issuer 2 (\"CN=issuer two\"): it is signed with ecdsa-with-SHA1",
    },
    Row {
        clause: "a bound of ours",
        name: "an issuer that is too large",
        wrong: |plan, _| plan.issuers[0].set(&[0x2a, 3, 4], false, vec![0; 16 << 10]),
        right: |plan, _| plan.issuers[0].set(&[0x2a, 3, 4], false, vec![0; 14 << 10]),
        want: PeerBadCertificate,
        says: "certificate 2 of those presented: it has",
    },
];
