//! Rows about name constraints (RFC 5280 §4.2.1.10, X509-SVID §4.2).

use ::snapshot::RefuseReason::*;

use super::forge::*;
use super::{Row, id};
use crate::tls::tests::certs::der;
use crate::tls::verified::Role;

const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const DIRECTORY: u8 = 0xa4;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

fn permit(draft: &mut Draft, tag: u8, base: &[u8]) {
    draft.set(CONSTRAINTS, true, constraints(&[(tag, base)], &[]));
}

fn exclude(draft: &mut Draft, tag: u8, base: &[u8]) {
    // Not critical, and processed all the same.
    draft.set(CONSTRAINTS, false, constraints(&[], &[(tag, base)]));
}

/// The leaf has this name too.
fn also(plan: &mut Plan, role: Role, tag: u8, other: &[u8]) {
    plan.leaf.set(NAMES, false, names(&[(0x86, id(role).as_bytes()), (tag, other)]));
}

fn of_organisations(plan: &mut Plan, issuers: &str, leaf: &str) {
    plan.issuers[0].subject = name(&[(10, issuers), (3, "issuer one")]);
    plan.issuers[1].subject = name(&[(10, issuers), (3, "issuer two")]);
    plan.leaf.subject = name(&[(10, leaf), (3, "workload")]);
}

/// A Name of one attribute (organizationName) whose value has this tag.
fn organisation(tag: u8, text: &[u8]) -> Vec<u8> {
    der(0x30, &der(0x31, &der(0x30, &[der(0x06, &[0x55, 4, 10]), der(tag, text)].concat())))
}

const HOST: &str = "leaf: its uniformResourceIdentifier \"spiffe://example.com/";

pub const ROWS: &[Row] = &[
    Row {
        clause: "RFC 5280 §4.2.1.10, X509-SVID §4.2",
        name: "another host is permitted",
        wrong: |plan, _| permit(&mut plan.issuers[0], URI, b"partner.org"),
        right: |plan, _| permit(&mut plan.issuers[0], URI, b"EXAMPLE.com"),
        want: PeerUntrusted,
        says: HOST,
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "hosts below the domain are permitted, the domain itself is not",
        wrong: |plan, _| permit(&mut plan.root, URI, b".example.com"),
        right: |plan, _| permit(&mut plan.root, URI, b".com"),
        want: PeerUntrusted,
        says: HOST,
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a host is permitted, not what is below it",
        wrong: |plan, _| permit(&mut plan.root, URI, b"com"),
        right: |plan, _| {
            let hosts: [(u8, &[u8]); 2] = [(URI, b"com"), (URI, b"example.com")];
            plan.root.set(CONSTRAINTS, true, constraints(&hosts, &[]));
        },
        want: PeerUntrusted,
        says: HOST,
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "the host is excluded",
        wrong: |plan, _| exclude(&mut plan.issuers[1], URI, b"Example.Com"),
        right: |plan, _| exclude(&mut plan.issuers[1], URI, b".example.com"),
        want: PeerUntrusted,
        says: "it is excluded",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "the domain above is excluded, and the host permitted",
        wrong: |plan, _| {
            plan.root.set(CONSTRAINTS, true, constraints(&[(URI, b"example.com")], &[(URI, b".com")]));
        },
        right: |plan, _| {
            plan.root.set(CONSTRAINTS, true, constraints(&[(URI, b"example.com")], &[(URI, b".org")]));
        },
        want: PeerUntrusted,
        says: "it is excluded",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a SPIFFE ID as a constraint, which is no host",
        wrong: |plan, _| permit(&mut plan.issuers[0], URI, b"spiffe://example.com"),
        right: |plan, _| permit(&mut plan.issuers[0], URI, b"example.com"),
        want: PeerUntrusted,
        says: "the constraint is no host and no domain",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "an excluded URI that cannot be read",
        wrong: |plan, _| exclude(&mut plan.root, URI, b"\xff"),
        right: |plan, _| exclude(&mut plan.root, URI, b"partner.org"),
        want: PeerUntrusted,
        says: "the constraint is no text",
    },
    Row {
        clause: "RFC 5280 §6.1.4 (g)",
        name: "permitted by the root and not by the issuer",
        wrong: |plan, _| {
            permit(&mut plan.root, URI, b"example.com");
            permit(&mut plan.issuers[0], URI, b"partner.org");
        },
        right: |plan, _| {
            permit(&mut plan.root, URI, b"example.com");
            permit(&mut plan.issuers[0], URI, b".com");
        },
        want: PeerUntrusted,
        says: HOST,
    },
    Row {
        clause: "RFC 5280 §6.1.3 (b)",
        name: "an issuer's own name is bound by those above it",
        wrong: |plan, _| {
            permit(&mut plan.root, URI, b"example.com");
            plan.issuers[0].set(NAMES, false, uris(&["https://partner.org/ca"]));
        },
        right: |plan, _| {
            permit(&mut plan.root, URI, b"example.com");
            plan.issuers[0].set(NAMES, false, uris(&["https://ca@example.com:8443/ca?a#b"]));
        },
        want: PeerUntrusted,
        says: "issuer 1 (\"CN=issuer one\"): its uniformResourceIdentifier \"https://partner.org/ca\"",
    },
    Row {
        clause: "RFC 5280 §6.1.3 (b)",
        name: "a self-issued issuer is not bound",
        wrong: |plan, _| {
            permit(&mut plan.root, URI, b"example.com");
            plan.issuers[1].set(NAMES, false, uris(&["https://partner.org/ca"]));
        },
        right: |plan, _| {
            permit(&mut plan.root, URI, b"example.com");
            plan.issuers[1].set(NAMES, false, uris(&["https://partner.org/ca"]));
            plan.issuers[1].subject = common_name("root");
        },
        want: PeerUntrusted,
        says: "issuer 2 (\"CN=issuer two\"): its uniformResourceIdentifier",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a URI whose host is an address, below a constraint on URIs",
        wrong: |plan, _| {
            exclude(&mut plan.root, URI, b"partner.org");
            plan.issuers[0].set(NAMES, false, uris(&["https://10.0.0.1/ca"]));
        },
        right: |plan, _| plan.issuers[0].set(NAMES, false, uris(&["https://10.0.0.1/ca"])),
        want: PeerUntrusted,
        says: "issuer 1 (\"CN=issuer one\"): its uniformResourceIdentifier \"https://10.0.0.1/ca\"",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a URI without a host, below a constraint on URIs",
        wrong: |plan, _| {
            exclude(&mut plan.root, URI, b"partner.org");
            plan.issuers[0].set(NAMES, false, uris(&["urn:ca"]));
        },
        right: |plan, _| plan.issuers[0].set(NAMES, false, uris(&["urn:ca"])),
        want: PeerUntrusted,
        says: "it has no authority",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a DNS name that is not permitted, beside a SPIFFE ID on which there is no constraint",
        wrong: |plan, role| {
            permit(&mut plan.root, DNS, b"example.com");
            also(plan, role, DNS, b"notexample.com");
        },
        right: |plan, role| {
            permit(&mut plan.root, DNS, b"example.com");
            also(plan, role, DNS, b"a.b.Example.com");
        },
        want: PeerUntrusted,
        says: "leaf: its dNSName \"notexample.com\"",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a wildcard that stands for an excluded name",
        wrong: |plan, role| {
            exclude(&mut plan.root, DNS, b"secret.example.com");
            also(plan, role, DNS, b"*.example.com");
        },
        right: |plan, role| {
            exclude(&mut plan.root, DNS, b"secret.example.com");
            also(plan, role, DNS, b"*.public.example.com");
        },
        want: PeerUntrusted,
        says: "leaf: its dNSName \"*.example.com\"",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "every DNS name is excluded",
        wrong: |plan, role| {
            exclude(&mut plan.issuers[0], DNS, b"");
            also(plan, role, DNS, b"example.com");
        },
        right: |plan, _| exclude(&mut plan.issuers[0], DNS, b""),
        want: PeerUntrusted,
        says: "leaf: its dNSName \"example.com\"",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a DNS name that cannot be read, below a constraint on DNS names",
        wrong: |plan, role| {
            exclude(&mut plan.root, DNS, b"partner.org");
            also(plan, role, DNS, b"a..b");
        },
        right: |plan, role| also(plan, role, DNS, b"a..b"),
        want: PeerUntrusted,
        says: "it is no domain name",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "an address outside of the permitted network",
        wrong: |plan, role| {
            permit(&mut plan.root, IP, &[10, 0, 0, 0, 255, 0, 0, 0]);
            also(plan, role, IP, &[11, 0, 0, 1]);
        },
        right: |plan, role| {
            permit(&mut plan.root, IP, &[10, 0, 0, 0, 255, 0, 0, 0]);
            also(plan, role, IP, &[10, 9, 8, 7]);
        },
        want: PeerUntrusted,
        says: "leaf: its iPAddress",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "an IPv6 address where only an IPv4 network is permitted",
        wrong: |plan, role| {
            permit(&mut plan.root, IP, &[10, 0, 0, 0, 255, 0, 0, 0]);
            also(plan, role, IP, &[10; 16]);
        },
        right: |plan, role| {
            exclude(&mut plan.root, IP, &[10, 0, 0, 0, 255, 0, 0, 0]);
            also(plan, role, IP, &[10; 16]);
        },
        want: PeerUntrusted,
        says: "leaf: its iPAddress",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10 and §7.1",
        name: "a subject outside of the permitted directory",
        wrong: |plan, _| {
            of_organisations(plan, "Acme Corp", "Other");
            permit(&mut plan.root, DIRECTORY, &name(&[(10, "Acme Corp")]));
        },
        right: |plan, _| {
            of_organisations(plan, "Acme Corp", "acme  corp ");
            permit(&mut plan.root, DIRECTORY, &name(&[(10, "Acme Corp")]));
        },
        want: PeerUntrusted,
        says: "leaf: its directoryName",
    },
    Row {
        clause: "RFC 5280 §7.1",
        name: "an excluded directory in another case and spacing",
        wrong: |plan, _| {
            of_organisations(plan, "Acme", "OTHER  inc");
            exclude(&mut plan.root, DIRECTORY, &name(&[(10, "Other Inc")]));
        },
        right: |plan, _| {
            of_organisations(plan, "Acme", "Other");
            exclude(&mut plan.root, DIRECTORY, &name(&[(10, "Other Inc")]));
        },
        want: PeerUntrusted,
        says: "leaf: its directoryName",
    },
    Row {
        clause: "RFC 5280 §7.1",
        name: "an excluded directory in an encoding that is not compared",
        wrong: |plan, _| {
            of_organisations(plan, "Acme", "Acme");
            exclude(&mut plan.root, DIRECTORY, &name(&[(10, "Other")]));
            plan.leaf.subject = organisation(0x1e, b"\0O\0t\0h\0e\0r");
        },
        right: |plan, _| {
            of_organisations(plan, "Acme", "Acme");
            exclude(&mut plan.root, DIRECTORY, &name(&[(10, "Other")]));
            plan.leaf.subject = organisation(0x13, b"Acme");
        },
        want: PeerUntrusted,
        says: "leaf: its directoryName",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a mail address, on which there is a constraint",
        wrong: |plan, role| {
            permit(&mut plan.root, MAIL, b"example.com");
            also(plan, role, MAIL, b"ops@example.com");
        },
        right: |plan, role| also(plan, role, MAIL, b"ops@example.com"),
        want: PeerUntrusted,
        says: "leaf: its rfc822Name \"ops@example.com\"",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a mail address in the subject, on which there is a constraint",
        wrong: |plan, _| {
            exclude(&mut plan.root, MAIL, b"partner.org");
            plan.leaf.subject = mail_subject();
        },
        right: |plan, _| plan.leaf.subject = mail_subject(),
        want: PeerUntrusted,
        says: "leaf: its subject has a mail address",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a name of another form, on which there is a constraint",
        wrong: |plan, role| {
            exclude(&mut plan.root, 0x88, &[0x2a, 3]);
            also(plan, role, 0x88, &[0x2a, 4]);
        },
        right: |plan, role| also(plan, role, 0x88, &[0x2a, 4]),
        want: PeerUntrusted,
        says: "leaf: its name of another form",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "constraints that say nothing",
        wrong: |plan, _| plan.root.set(CONSTRAINTS, true, der(0x30, &[])),
        right: |plan, _| permit(&mut plan.root, URI, b"example.com"),
        want: PeerBadCertificate,
        says: "root (number 1 of example.com): its nameConstraints do not parse",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a subtree with a minimum",
        wrong: |plan, _| {
            let subtree = der(0x30, &[der(URI, b"partner.org"), der(0x80, &[1])].concat());
            plan.root.set(CONSTRAINTS, true, der(0x30, &der(0xa1, &subtree)));
        },
        right: |plan, _| exclude(&mut plan.root, URI, b"partner.org"),
        want: PeerBadCertificate,
        says: "its nameConstraints do not parse",
    },
    Row {
        clause: "RFC 5280 §4.2.1.10",
        name: "a subtree that is none, which a lenient parser skips with all that follow it",
        wrong: |plan, _| {
            let subtrees = [der(0x04, b"?"), der(0x30, &der(URI, b"example.com"))].concat();
            plan.issuers[0].set(CONSTRAINTS, true, der(0x30, &der(0xa1, &subtrees)));
        },
        right: |plan, _| exclude(&mut plan.issuers[0], URI, b"partner.org"),
        want: PeerBadCertificate,
        says: "certificate 2 of those presented: its nameConstraints do not parse",
    },
    Row {
        clause: "a bound of ours",
        name: "more names and constraints than are compared",
        wrong: |plan, role| many(plan, role, 1000),
        right: |plan, role| many(plan, role, 10),
        want: PeerUntrusted,
        says: "there are too many to compare",
    },
];

fn mail_subject() -> Vec<u8> {
    let mail = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];
    der(0x30, &der(0x31, &der(0x30, &[der(0x06, &mail), der(0x16, b"ops@example.com")].concat())))
}

/// So many DNS names and as many constraints on them.
fn many(plan: &mut Plan, role: Role, count: usize) {
    let bases: Vec<(u8, &[u8])> = vec![(DNS, b"b.org"); count];
    plan.root.set(CONSTRAINTS, true, constraints(&[], &bases));
    let mut all: Vec<(u8, &[u8])> = vec![(DNS, b"a.org"); count];
    all.push((URI, id(role).as_bytes()));
    plan.leaf.set(NAMES, false, names(&all));
}
