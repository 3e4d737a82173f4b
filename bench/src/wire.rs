//! What a handshake settled on, read from the wire: the one witness that treats contenders alike.

use anyhow::{Context, Result};
use pktgen_tests::stream::{holds_marker, streams};

/// What an eavesdropper sees of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The request in clear.
    Plain,
    /// A TLS 1.3 handshake, and the request nowhere.
    Sealed { cipher: String, group: String },
    /// Neither: the call may have gone another way.
    Nothing,
}

pub fn seen(frames: &[Vec<u8>], marker: &[u8]) -> Result<Seen> {
    if holds_marker(frames, marker) {
        return Ok(Seen::Plain);
    }
    let all = streams(frames);
    let Some(hello) = all.iter().find_map(|stream| server_hello(&stream.bytes)) else { return Ok(Seen::Nothing) };
    let (cipher, group) = negotiated(hello).context("read the ServerHello")?;
    Ok(Seen::Sealed { cipher: cipher_name(cipher), group: group_name(group) })
}

/// The body of the ServerHello that a stream begins with (RFC 8446, 4.1.3).
fn server_hello(stream: &[u8]) -> Option<&[u8]> {
    let [22, 3, _, _, _, 2, _, high, low, body @ ..] = stream else { return None };
    body.get(..usize::from(*high) << 8 | usize::from(*low))
}

/// Cipher suite and group. A HelloRetryRequest names its group in the same place.
fn negotiated(hello: &[u8]) -> Option<(u16, u16)> {
    let session = usize::from(*hello.get(34)?);
    let rest = hello.get(35 + session..)?;
    let cipher = number(rest)?;
    let mut extensions = rest.get(5..)?;
    while let (Some(kind), Some(length)) = (number(extensions), number(extensions.get(2..)?)) {
        let body = extensions.get(4..)?.get(..usize::from(length))?;
        if kind == KEY_SHARE {
            return Some((cipher, number(body)?));
        }
        extensions = &extensions[4 + body.len()..];
    }
    None
}

fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
}

const KEY_SHARE: u16 = 51;

fn cipher_name(cipher: u16) -> String {
    match cipher {
        0x1301 => "TLS_AES_128_GCM_SHA256".into(),
        0x1302 => "TLS_AES_256_GCM_SHA384".into(),
        0x1303 => "TLS_CHACHA20_POLY1305_SHA256".into(),
        other => format!("cipher suite {other:#06x}"),
    }
}

fn group_name(group: u16) -> String {
    match group {
        0x0017 => "secp256r1".into(),
        0x0018 => "secp384r1".into(),
        0x001d => "X25519".into(),
        0x11ec => "X25519MLKEM768".into(),
        other => format!("group {other:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ServerHello in its record: session ID of 3 bytes, supported_versions, then key_share.
    fn record() -> Vec<u8> {
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        hello.extend([3, 1, 2, 3, 0x13, 0x01, 0]);
        hello.extend([0, 14, 0, 43, 0, 2, 3, 4, 0, 51, 0, 4, 0x11, 0xec, 0, 0]);
        let mut record = vec![22, 3, 3, 0, hello.len() as u8 + 4, 2, 0, 0, hello.len() as u8];
        record.extend(hello);
        record
    }

    #[test]
    fn cipher_and_group_are_read_behind_other_extensions() {
        let record = record();
        let (cipher, group) = negotiated(server_hello(&record).unwrap()).unwrap();
        assert_eq!(
            (cipher_name(cipher).as_str(), group_name(group).as_str()),
            ("TLS_AES_128_GCM_SHA256", "X25519MLKEM768")
        );
    }

    #[test]
    fn a_hello_cut_short_anywhere_is_none_and_no_panic() {
        let record = record();
        for length in 0..record.len() {
            assert_eq!(server_hello(&record[..length]), None, "{length}");
        }
        let hello = server_hello(&record).unwrap();
        for length in 0..hello.len() - 2 {
            assert_eq!(negotiated(&hello[..length]), None, "{length}");
        }
    }
}
