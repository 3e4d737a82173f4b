//! The header byte for byte as `proxy-protocol.txt` lays it out, and as a parser reads it that shares no code
//! with us.

use std::net::SocketAddr;

use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxyHeader, Tlv};

use super::*;

const ID: &str = "spiffe://example.com/myapp/app/frontend";

fn ends(source: &str, destination: &str) -> (SocketAddr, SocketAddr) {
    (source.parse().unwrap(), destination.parse().unwrap())
}

fn written(header: &Header<'_>) -> Vec<u8> {
    let mut out = [0xee; LONGEST];
    let length = header.write(&mut out);
    assert!(out[length..].iter().all(|byte| *byte == 0xee), "nothing is written beyond its end");
    out[..length].to_vec()
}

fn parsed(bytes: &[u8]) -> ProxyHeader<'_> {
    let config = ParseConfig { include_tlvs: true, allow_v1: false, allow_v2: true };
    let (header, length) = ProxyHeader::parse(bytes, config).expect("a header");
    assert_eq!(length, bytes.len(), "the length that it says is its own");
    header
}

/// By the polynomial's long division, bit for bit.
fn divided(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

/// The checksum that it carries is that of itself with four zeros in the checksum's place.
fn assert_sum(bytes: &[u8]) {
    let carried = parsed(bytes).crc32c().expect("a checksum");
    let at = bytes.windows(7).position(|w| w[..3] == [3, 0, 4] && w[3..] == carried.to_be_bytes()).expect("its place");
    let mut zeroed = bytes.to_vec();
    zeroed[at + 3..at + 7].fill(0);
    assert_eq!(carried, divided(&zeroed));
}

fn kinds(header: &ProxyHeader<'_>) -> Vec<u8> {
    header.tlvs().map(|tlv| tlv.expect("a TLV").kind()).collect()
}

#[test]
fn a_plain_caller_is_told_of_by_its_addresses_alone() {
    let (source, destination) = ends("198.18.1.2:41326", "198.18.2.2:3000");
    let bytes = written(&Header { source, destination, tls: None, spiffe_id: None });
    let mut want = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a".to_vec();
    want.extend([0x21, 0x11, 0, 12 + 7]);
    want.extend([198, 18, 1, 2, 198, 18, 2, 2, 0xa1, 0x6e, 0x0b, 0xb8]);
    want.extend([0x03, 0, 4, 0, 0, 0, 0]);
    let sum = divided(&want).to_be_bytes();
    want.splice(31..35, sum);
    assert_eq!(bytes, want);
}

#[test]
fn a_verified_caller_over_ipv6_is_told_of_in_full() {
    let (source, destination) = ends("[2001:db8:1::2]:1", "[2001:db8:2::2]:65535");
    let tls = Negotiated {
        version: Some("TLSv1.3"),
        cipher: Some("TLS_AES_128_GCM_SHA256"),
        server_name: Some("a.example"),
        alpn: Some(b"h2"),
        certificate: Certificate::Verified(Some("kasse")),
    };
    let bytes = written(&Header { source, destination, tls: Some(tls), spiffe_id: Some("spiffe://a/b") });
    let mut want = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x77".to_vec();
    want.extend([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    want.extend([0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    want.extend([0, 1, 0xff, 0xff]);
    want.extend(b"\x01\0\x02h2");
    want.extend(b"\x02\0\x09a.example");
    let sum_at = want.len() + 3;
    want.extend([3, 0, 4, 0, 0, 0, 0]);
    // pp2_tlv_ssl: client flags, verify (0: verified), then its own TLVs.
    want.extend([0x20, 0, 5 + 10 + 8 + 25, 0x07, 0, 0, 0, 0]);
    want.extend(b"\x21\0\x07TLSv1.3");
    want.extend(b"\x22\0\x05kasse");
    want.extend(b"\x23\0\x16TLS_AES_128_GCM_SHA256");
    want.extend(b"\xd0\0\x0cspiffe://a/b");
    want[15] = (want.len() - 16) as u8;
    let sum = divided(&want).to_be_bytes();
    want.splice(sum_at..sum_at + 4, sum);
    assert_eq!(bytes, want);
}

#[test]
fn a_parser_that_is_not_ours_reads_what_is_true_and_nothing_else() {
    let (source, destination) = ends("198.18.1.2:41326", "198.18.2.2:3000");
    let tls = Negotiated { version: Some("TLSv1.3"), cipher: Some("TLS_AES_128_GCM_SHA256"), ..Negotiated::default() };
    let named = Certificate::Verified(Some("kasse"));
    for (name, tls, spiffe_id, want) in [
        ("plain", None, None, &[3][..]),
        ("attested here", None, Some(ID), &[3, 0xd0]),
        ("anonymous over TLS", Some(tls), None, &[3, 0x20]),
        ("verified", Some(Negotiated { certificate: Certificate::Verified(None), ..tls }), Some(ID), &[3, 0x20, 0xd0]),
        (
            "all",
            Some(Negotiated { certificate: named, server_name: Some("a.example"), alpn: Some(b"h2"), ..tls }),
            Some(ID),
            &[1, 2, 3, 0x20, 0xd0],
        ),
    ] {
        let bytes = written(&Header { source, destination, tls, spiffe_id });
        let header = parsed(&bytes);
        assert_sum(&bytes);
        let address = header.proxied_address().expect("the command is PROXY");
        assert_eq!((address.source, address.destination), (source, destination), "{name}");
        assert_eq!(kinds(&header), want, "{name}");
        assert_eq!(header.authority(), tls.and_then(|tls| tls.server_name), "{name}");
        assert_eq!(header.alpn(), tls.and_then(|tls| tls.alpn), "{name}");
        let id = header.tlvs().find_map(|tlv| match tlv {
            Ok(Tlv::Custom(SPIFFE_ID, id)) => Some(id.into_owned()),
            _ => None,
        });
        assert_eq!(id.as_deref(), spiffe_id.map(str::as_bytes), "{name}");
        let Some(ssl) = header.ssl() else { continue };
        let verified = spiffe_id.is_some();
        let shown = [ssl.client_ssl(), ssl.client_cert_conn(), ssl.client_cert_sess(), ssl.verify() == 0];
        assert_eq!(shown, [true, verified, verified, verified], "{name}");
        assert_eq!((ssl.version(), ssl.cipher()), (Some("TLSv1.3"), Some("TLS_AES_128_GCM_SHA256")), "{name}");
        assert_eq!(ssl.cn(), (tls.unwrap().certificate == named).then_some("kasse"), "{name}");
    }
}

#[test]
fn every_part_at_its_longest_fills_the_buffer_and_what_is_longer_is_left_out() {
    let (source, destination) = ends("[2001:db8:1::2]:1", "[2001:db8:2::2]:2");
    let word: &'static str = "w".repeat(LONGEST_WORD).leak();
    let text = "n".repeat(LONGEST_NAME + 1);
    let id = format!("spiffe://a/{}", "i".repeat(LONGEST_ID));
    let of = |more: usize| {
        let name = &text[..LONGEST_NAME + more];
        let tls = Negotiated {
            version: Some(word),
            cipher: Some(word),
            server_name: Some(name),
            alpn: Some(&text.as_bytes()[..LONGEST_ALPN + more]),
            certificate: Certificate::Verified(Some(name)),
        };
        written(&Header { source, destination, tls: Some(tls), spiffe_id: Some(&id[..LONGEST_ID + more]) })
    };
    let longest = of(0);
    assert_eq!(longest.len(), LONGEST);
    assert_eq!(kinds(&parsed(&longest)), [1, 2, 3, 0x20, 0xd0]);
    assert_sum(&longest);
    let longer = of(1);
    assert_eq!(kinds(&parsed(&longer)), [3, 0x20], "cut, each would name somebody else");
    assert_eq!(parsed(&longer).ssl().expect("TLS").cn(), None);
}

#[test]
fn ends_of_two_families_are_told_as_none() {
    let (source, destination) = ends("198.18.1.2:1", "[2001:db8::1]:2");
    let bytes = written(&Header { source, destination, tls: None, spiffe_id: Some(ID) });
    assert_eq!(bytes[12..16], [0x21, 0, 0, (7 + 3 + ID.len()) as u8]);
    assert_eq!(parsed(&bytes).proxied_address(), None);
}

proptest! {
    #[test]
    fn whatever_is_told_comes_out_as_it_went_in(
        v6: bool, ports: (u16, u16), sni in "[ -~]{0,300}", alpn in proptest::collection::vec(any::<u8>(), 0..300),
        cn in "\\PC{0,120}", id in "[ -~]{0,2100}",
    ) {
        let address = |n: u8, port| match v6 {
            true => SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)].into(), port),
            false => SocketAddr::new([198, 18, 0, n].into(), port),
        };
        let tls = Negotiated {
            version: Some("TLSv1.3"),
            cipher: None,
            server_name: Some(&sni),
            alpn: Some(&alpn),
            certificate: Certificate::Verified(Some(&cn)),
        };
        let (source, destination) = (address(1, ports.0), address(2, ports.1));
        let bytes = written(&Header { source, destination, tls: Some(tls), spiffe_id: Some(&id) });
        let header = parsed(&bytes);
        let within = |length: usize, longest| (1..=longest).contains(&length);
        prop_assert_eq!(header.proxied_address().map(|a| (a.source, a.destination)), Some((source, destination)));
        prop_assert_eq!(header.authority(), Some(&*sni).filter(|sni| within(sni.len(), LONGEST_NAME)));
        prop_assert_eq!(header.alpn(), Some(&*alpn).filter(|alpn| within(alpn.len(), LONGEST_ALPN)));
        let ssl = header.ssl().unwrap();
        prop_assert_eq!(ssl.cn(), Some(&*cn).filter(|cn| within(cn.len(), LONGEST_NAME)));
        prop_assert_eq!(kinds(&header).contains(&SPIFFE_ID), within(id.len(), LONGEST_ID));
    }
}
