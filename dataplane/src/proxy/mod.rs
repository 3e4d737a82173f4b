//! The PROXY protocol header, version 2: who calls, as the first bytes that a service gets.
//!
//! ```text
//!   signature 12 │ 0x21 │ family │ length │ source, destination │ TLV TLV TLV …
//!                                            4+4+2+2 or 16+16+2+2   kind, length, value
//! ```
//! What it says is HAProxy's `doc/proxy-protocol.txt` §2.2, and one TLV of the application range that
//! ztunnel uses: [`SPIFFE_ID`]. The command is always PROXY: no connection is ours alone. A TLV is there
//! if what it says is true of this connection, and left out otherwise.
//!
//! It is written into a buffer of fixed size, since each of its parts is bounded.

mod crc32c;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use crc32c::crc32c;

/// What is told of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// None: the caller spoke plain.
    pub tls: Option<Negotiated<'a>>,
    /// Of the caller, if that was proven.
    pub spiffe_id: Option<&'a str>,
}

/// What a caller's handshake came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Negotiated<'a> {
    /// `TLSv1.3`.
    pub version: Option<&'static str>,
    /// By its IANA name: `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<&'static str>,
    /// The name that the caller asked for (SNI).
    pub server_name: Option<&'a str>,
    pub alpn: Option<&'a [u8]>,
    pub certificate: Certificate<'a>,
}

/// What the caller showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Certificate<'a> {
    #[default]
    None,
    /// Verified; with the common name of its subject, if it has one.
    Verified(Option<&'a str>),
}

/// The longest header: with addresses of IPv6, and every TLV at its longest.
pub const LONGEST: usize = 16
    + 36
    + (3 + LONGEST_ALPN)
    + (3 + LONGEST_NAME)
    + (3 + 4)
    + (3 + 5 + (3 + LONGEST_WORD) + (3 + LONGEST_NAME) + (3 + LONGEST_WORD))
    + (3 + LONGEST_ID);

/// RFC 7301 §3.1.
const LONGEST_ALPN: usize = 255;
/// Of a host name (RFC 1035 §3.1) and of a common name, to which RFC 5280 gives 64 characters.
const LONGEST_NAME: usize = 256;
/// Names of versions and ciphers are ours.
const LONGEST_WORD: usize = 64;
/// SPIFFE-ID §2.3.
const LONGEST_ID: usize = 2048;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
/// The caller's SPIFFE ID, in the range of application TLVs.
pub const SPIFFE_ID: u8 = 0xd0;

/// The caller used TLS; it showed a certificate on this connection, and in this session of TLS, which
/// without resumption is the same.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

impl Header<'_> {
    /// Writes it to the front of `out`, and returns its length.
    pub fn write(&self, out: &mut [u8; LONGEST]) -> usize {
        let mut to = Writer { out, length: 0 };
        to.put(&SIGNATURE);
        to.put(&[VERSION_2_PROXY]);
        to.addresses(self.source, self.destination);
        if let Some(tls) = &self.tls {
            to.tlv(ALPN, tls.alpn.unwrap_or_default(), LONGEST_ALPN);
            to.tlv(AUTHORITY, tls.server_name.unwrap_or_default().as_bytes(), LONGEST_NAME);
        }
        to.put(&[CRC32C, 0, 4]);
        let sum_at = to.length;
        to.put(&[0; 4]);
        if let Some(tls) = &self.tls {
            to.ssl(tls);
        }
        to.tlv(SPIFFE_ID, self.spiffe_id.unwrap_or_default().as_bytes(), LONGEST_ID);
        to.set_length(14, 16);
        let length = to.length;
        let sum = crc32c(&out[..length]);
        out[sum_at..sum_at + 4].copy_from_slice(&sum.to_be_bytes());
        length
    }
}

struct Writer<'o> {
    out: &'o mut [u8; LONGEST],
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Family, room for the length of what follows, and the addresses.
    fn addresses(&mut self, source: SocketAddr, destination: SocketAddr) {
        match (source, destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                self.put(&[TCP_OVER_IPV4, 0, 0]);
                self.put(&source.ip().octets());
                self.put(&destination.ip().octets());
            }
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
                self.put(&[TCP_OVER_IPV6, 0, 0]);
                self.put(&source.ip().octets());
                self.put(&destination.ip().octets());
            }
            // No packet has both families; a reader is then told to look at the connection itself.
            (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
                return self.put(&[UNSPECIFIED, 0, 0]);
            }
        }
        self.put(&source.port().to_be_bytes());
        self.put(&destination.port().to_be_bytes());
    }

    /// What is empty says nothing, and what is too long would say something else if it were cut: neither is
    /// there.
    fn tlv(&mut self, kind: u8, value: &[u8], longest: usize) {
        if value.is_empty() || value.len() > longest {
            return;
        }
        self.put(&[kind, (value.len() >> 8) as u8, value.len() as u8]);
        self.put(value);
    }

    fn ssl(&mut self, tls: &Negotiated<'_>) {
        let (flags, unverified, name) = match tls.certificate {
            Certificate::None => (CLIENT_SSL, 1, None),
            Certificate::Verified(name) => (CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS, 0, name),
        };
        self.put(&[SSL, 0, 0]);
        let begin = self.length;
        self.put(&[flags, 0, 0, 0, unverified]);
        self.tlv(SSL_VERSION, tls.version.unwrap_or_default().as_bytes(), LONGEST_WORD);
        self.tlv(SSL_CN, name.unwrap_or_default().as_bytes(), LONGEST_NAME);
        self.tlv(SSL_CIPHER, tls.cipher.unwrap_or_default().as_bytes(), LONGEST_WORD);
        self.set_length(begin - 2, begin);
    }

    /// Writes the length of all that stands from `begin` on to `at`.
    fn set_length(&mut self, at: usize, begin: usize) {
        let length = (self.length - begin) as u16;
        self.out[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
}
