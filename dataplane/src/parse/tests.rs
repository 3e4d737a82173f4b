//! One valid packet of each kind, and each way to break it.

use super::*;
use snapshot::DropReason::*;

/// A SYN of 198.18.1.2:40000 to 198.18.2.2:3000 with right checksums.
fn syn() -> Vec<u8> {
    let mut frame = vec![0; ETHERNET + 40];
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut frame[ETHERNET..];
    ip[..4].copy_from_slice(&[0x45, 0, 0, 40]);
    ip[8..10].copy_from_slice(&[64, 6]);
    ip[12..20].copy_from_slice(&[198, 18, 1, 2, 198, 18, 2, 2]);
    ip[20..24].copy_from_slice(&[0x9c, 0x40, 0x0b, 0xb8]);
    ip[24..28].copy_from_slice(&7u32.to_be_bytes());
    ip[32..34].copy_from_slice(&[0x50, flags::SYN]);
    fill_checksums(ip);
    frame
}

/// The same over IPv6 with a hop-by-hop and a destination header before TCP.
fn syn6_with_extensions() -> Vec<u8> {
    let mut plain = vec![0; 60];
    plain[0] = 0x60;
    plain[4..8].copy_from_slice(&[0, 20, 6, 64]);
    plain[8..12].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    plain[24..28].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    plain[39] = 2;
    plain[40..44].copy_from_slice(&[0x9c, 0x40, 0x0b, 0xb8]);
    plain[52..54].copy_from_slice(&[0x50, flags::SYN]);
    fill_checksums(&mut plain);
    let mut frame = vec![0; ETHERNET];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame.extend_from_slice(&plain[..40]);
    frame.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend_from_slice(&[6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&plain[40..]);
    frame[ETHERNET + 5] = 44;
    frame[ETHERNET + 6] = 0;
    frame
}

fn segment(frame: &mut [u8]) -> Segment {
    match parse(frame, Checksum::Verify, false).unwrap().content {
        Content::Segment(segment) => segment,
        Content::Icmp(error) => panic!("{error:?} is no segment"),
    }
}

#[test]
fn a_syn_is_read_as_it_was_sent() {
    let got = segment(&mut syn());
    assert_eq!(got.source, "198.18.1.2:40000".parse().unwrap());
    assert_eq!(got.destination, "198.18.2.2:3000".parse().unwrap());
    assert_eq!((got.sequence, got.length, got.is_syn()), (7, 0, true));
}

#[test]
fn padding_and_one_vlan_tag_change_nothing() {
    let mut padded = syn();
    padded.resize(ETHERNET + 46, 0xaa);
    assert_eq!(segment(&mut padded), segment(&mut syn()));
    let mut tagged = syn();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    assert_eq!(segment(&mut tagged), segment(&mut syn()));
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    assert_eq!(parse(&mut tagged, Checksum::Verify, false), Err(NotIp), "two tags");
}

#[test]
fn ipv6_extension_headers_are_taken_out() {
    let mut frame = syn6_with_extensions();
    let parsed = parse(&mut frame, Checksum::Verify, false).unwrap();
    let packet = &frame[parsed.packet.clone()];
    assert_eq!(packet.len(), 60);
    assert_eq!((packet[6], headers::be16(packet, 4)), (6, 20), "next header and payload length");
    assert!(matches!(parsed.content, Content::Segment(s) if s.is_syn() && s.source.port() == 40000));
}

#[test]
fn what_contradicts_itself_is_dropped_by_name() {
    for &(name, at, byte, want) in &[
        ("not IP", 12, 0x08 ^ 0x01, NotIp),
        ("IP version 5", 14, 0x55, BadIpHeader),
        ("header shorter than itself", 14, 0x44, BadIpHeader),
        ("total length past the frame", 16, 0xff, BadIpHeader),
        ("total length inside the header", 17, 19, BadIpHeader),
        ("first fragment", 20, 0x20, IpFragment),
        ("later fragment", 21, 1, IpFragment),
        ("header checksum", 22, 0x77, BadIpHeader),
        ("neither TCP nor ICMP", 23, 17, BadIpHeader),
        ("TCP header past the segment", 46, 0x60, BadTcpHeader),
        ("TCP header shorter than itself", 46, 0x40, BadTcpHeader),
        ("payload corrupted", 50, 0x01, BadChecksum),
    ] {
        let mut frame = syn();
        frame[at] = byte;
        assert_eq!(parse(&mut frame, Checksum::Verify, false), Err(want), "{name}");
    }
    for length in 0..syn().len() {
        assert!(parse(&mut syn()[..length], Checksum::Trust, true).is_err(), "cut at {length}");
        assert!(parse(&mut syn6_with_extensions()[..length], Checksum::Trust, true).is_err(), "v6 cut at {length}");
    }
}

#[test]
fn a_partial_checksum_is_taken_from_a_veth_only() {
    let mut frame = syn();
    let partial = checksum::pseudo_header("198.18.1.2".parse().unwrap(), "198.18.2.2".parse().unwrap(), 20);
    frame[ETHERNET + 36..ETHERNET + 38].copy_from_slice(&partial.to_be_bytes());
    assert!(parse(&mut frame.clone(), Checksum::Auto, true).is_ok());
    assert_eq!(parse(&mut frame.clone(), Checksum::Auto, false), Err(BadChecksum));
    assert_eq!(parse(&mut frame.clone(), Checksum::Verify, true), Err(BadChecksum));
    assert!(parse(&mut frame, Checksum::Trust, false).is_ok());
}

#[test]
fn an_icmp_error_leads_to_the_segment_it_quotes() {
    let quoted = &syn()[ETHERNET..ETHERNET + 28];
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 0x05, 0x14];
    icmp.extend_from_slice(quoted);
    let error = icmp::parse(&icmp, true).unwrap();
    assert_eq!(error.kind, icmp::Kind::TooBig(1300));
    assert_eq!((error.source.port(), error.destination.port(), error.sequence), (40000, 3000, 7));
    icmp[1] = 1;
    assert_eq!(icmp::parse(&icmp, true).unwrap().kind, icmp::Kind::Unreachable);
    icmp[0] = 8;
    assert_eq!(icmp::parse(&icmp, true), Err(NotTcp), "an echo is no error");
    for length in 0..36 {
        icmp[0] = 3;
        assert!(icmp::parse(&icmp[..length], true).is_err(), "cut at {length}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..200_000 {
        let mut frame = if round % 2 == 0 { syn() } else { syn6_with_extensions() };
        for _ in 0..1 + round % 4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % frame.len();
            frame[at] = (state >> 56) as u8;
        }
        let _ = parse(&mut frame, Checksum::Trust, true);
    }
}

#[test]
fn the_sum_is_that_of_the_rfc_whatever_the_length() {
    let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(super::checksum::ones_complement(&example), 0xddf2, "RFC 1071 §3");
    let bytes: Vec<u8> = (0..70_000u32).map(|i| ((i * 31) >> 3) as u8 | 0x80).collect();
    for length in (0..200).chain([1447, 1448, 65_535, 70_000]) {
        let word = |pair: &[u8]| (u32::from(pair[0]) << 8) | u32::from(pair.get(1).copied().unwrap_or(0));
        let one_by_one = bytes[..length].chunks(2).map(word).fold(0, |sum, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        });
        assert_eq!(u32::from(super::checksum::ones_complement(&bytes[..length])), one_by_one, "{length}");
    }
}
