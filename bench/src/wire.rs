//! What a handshake settled on, read from the wire: the one witness that treats contenders alike.

use anyhow::{Context, Result};
use pktgen_tests::stream::{holds_marker, streams};

/// What an eavesdropper sees of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The request in clear.
    Plain,
    /// A TLS 1.3 handshake, and the request nowhere.
    Sealed { cipher: String, group: String, resumed: bool },
    /// Neither: the call may have gone another way.
    Nothing,
}

pub fn seen(frames: &[Vec<u8>], marker: &[u8]) -> Result<Seen> {
    if holds_marker(frames, marker) {
        return Ok(Seen::Plain);
    }
    let all = streams(frames);
    let Some(hello) = all.iter().find_map(|stream| server_hello(&stream.bytes)) else { return Ok(Seen::Nothing) };
    let Negotiated { cipher, group, resumed } = negotiated(hello).context("read the ServerHello")?;
    Ok(Seen::Sealed { cipher: cipher_name(cipher), group: group_name(group), resumed })
}

/// The body of the ServerHello that a stream begins with (RFC 8446, 4.1.3).
fn server_hello(stream: &[u8]) -> Option<&[u8]> {
    let [22, 3, _, _, _, 2, _, high, low, body @ ..] = stream else { return None };
    body.get(..usize::from(*high) << 8 | usize::from(*low))
}

/// What a ServerHello says.
struct Negotiated {
    cipher: u16,
    group: u16,
    resumed: bool,
}

/// A HelloRetryRequest names its group in the same place.
fn negotiated(hello: &[u8]) -> Option<Negotiated> {
    let session = usize::from(*hello.get(34)?);
    let rest = hello.get(35 + session..)?;
    let cipher = number(rest)?;
    let mut extensions = rest.get(5..)?.get(..usize::from(number(rest.get(3..)?)?))?;
    let (mut group, mut resumed) = (None, false);
    while let Some(kind) = number(extensions) {
        let length = number(extensions.get(2..)?)?;
        let body = extensions.get(4..)?.get(..usize::from(length))?;
        match kind {
            KEY_SHARE => group = Some(number(body)?),
            PRE_SHARED_KEY => resumed = true,
            _ => {}
        }
        extensions = &extensions[4 + body.len()..];
    }
    Some(Negotiated { cipher, group: group?, resumed })
}

fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
}

const KEY_SHARE: u16 = 51;
const PRE_SHARED_KEY: u16 = 41;

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain => write!(f, "in clear"),
            Self::Sealed { cipher, group, resumed: false } => write!(f, "TLS 1.3, {cipher}, {group}"),
            Self::Sealed { cipher, group, resumed: true } => write!(f, "TLS 1.3, {cipher}, {group}, resumed"),
            Self::Nothing => write!(f, "nothing of the call"),
        }
    }
}

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

    /// A ServerHello in its record: session ID of 3 bytes, pre_shared_key, supported_versions,
    /// then key_share.
    fn record() -> Vec<u8> {
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        hello.extend([3, 1, 2, 3, 0x13, 0x01, 0]);
        hello.extend([0, 20, 0, 41, 0, 2, 0, 0, 0, 43, 0, 2, 3, 4, 0, 51, 0, 4, 0x11, 0xec, 0, 0]);
        let mut record = vec![22, 3, 3, 0, hello.len() as u8 + 4, 2, 0, 0, hello.len() as u8];
        record.extend(hello);
        record
    }

    #[test]
    fn cipher_group_and_resumption_are_read_among_other_extensions() {
        let record = record();
        let Negotiated { cipher, group, resumed } = negotiated(server_hello(&record).unwrap()).unwrap();
        assert_eq!(
            (cipher_name(cipher).as_str(), group_name(group).as_str(), resumed),
            ("TLS_AES_128_GCM_SHA256", "X25519MLKEM768", true)
        );
    }

    #[test]
    fn a_hello_cut_short_anywhere_is_none_and_no_panic() {
        let record = record();
        for length in 0..record.len() {
            assert_eq!(server_hello(&record[..length]), None, "{length}");
        }
        let hello = server_hello(&record).unwrap();
        for length in 0..hello.len() {
            assert!(negotiated(&hello[..length]).is_none(), "{length}");
        }
    }
}
