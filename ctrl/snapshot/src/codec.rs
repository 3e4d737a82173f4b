//! Bytes of messages and of whole states: postcard, with a header on what travels in a memfd.
//!
//! ```text
//!   0        8        12            20          28
//!   "SLUICE\0\1"  schema  body length   checksum    body (postcard)
//! ```
//! All numbers little-endian. The checksum (FNV-1a, 64 bits) finds torn and misdirected files; it
//! is no defence against a forger, who would have to own ctrl's socket first.

use serde::{Serialize, de::DeserializeOwned};

use crate::SCHEMA;

const MAGIC: [u8; 8] = *b"SLUICE\0\x01";
const HEADER: usize = 28;

/// Largest body that is read: 100,000 rules take about 20 MB.
pub const MAX_BODY: u64 = 256 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0} bytes are too few for the header of {HEADER}")]
    Short(usize),
    #[error("does not start with the magic of a Sluice state")]
    Magic,
    #[error("schema {0}; this build reads schema {SCHEMA} only: run ctrl and dataplane of one build")]
    Schema(u32),
    #[error("the header says {said} bytes, {came} came")]
    Length { said: u64, came: u64 },
    #[error("{0} bytes are over the limit of {MAX_BODY}")]
    TooLarge(u64),
    #[error("the checksum does not match: the file is torn")]
    Checksum,
    #[error("does not decode: {0}")]
    Decode(String),
    #[error("does not encode: {0}")]
    Encode(String),
}

/// One message for the socket.
pub fn to_message<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(message).map_err(|e| Error::Encode(e.to_string()))
}

/// The same into a buffer of the caller's: for what holds a secret, since a growing vector would
/// leave copies behind that nobody wipes.
pub fn to_message_in<'a, T: Serialize>(message: &T, buffer: &'a mut [u8]) -> Result<&'a mut [u8], Error> {
    postcard::to_slice(message, buffer).map_err(|e| Error::Encode(e.to_string()))
}

pub fn from_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(Error::Decode(format!("{} bytes are left over", rest.len()))),
        Err(e) => Err(Error::Decode(e.to_string())),
    }
}

/// Header and body for a memfd.
pub fn to_state<T: Serialize>(state: &T) -> Result<Vec<u8>, Error> {
    let body = to_message(state)?;
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&SCHEMA.to_le_bytes());
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(&checksum(&body).to_le_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

pub fn from_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let (header, body) = bytes.split_at_checked(HEADER).ok_or(Error::Short(bytes.len()))?;
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if header[..8] != MAGIC {
        return Err(Error::Magic);
    }
    let schema = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
    if schema != SCHEMA {
        return Err(Error::Schema(schema));
    }
    let (said, came) = (number(12), body.len() as u64);
    if said > MAX_BODY {
        return Err(Error::TooLarge(said));
    }
    if said != came {
        return Err(Error::Length { said, came });
    }
    if number(20) != checksum(body) {
        return Err(Error::Checksum);
    }
    from_message(body)
}

/// FNV-1a (draft-eastlake-fnv), 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;

    #[test]
    fn a_state_comes_back_as_it_went() {
        let network = Network { revision: 7, ..Network::default() };
        assert_eq!(from_state::<Network>(&to_state(&network).unwrap()), Ok(network));
    }

    #[test]
    fn a_damaged_state_is_refused_with_what_is_wrong() {
        let good = to_state(&Network { revision: 7, ..Network::default() }).unwrap();
        for (name, at, want) in [
            ("magic", 0, Error::Magic),
            ("schema", 8, Error::Schema(SCHEMA ^ 0xff)),
            (
                "length",
                12,
                Error::Length { said: (good.len() - HEADER) as u64 ^ 0xff, came: (good.len() - HEADER) as u64 },
            ),
            ("checksum", 20, Error::Checksum),
            ("body", HEADER, Error::Checksum),
        ] {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            assert_eq!(from_state::<Network>(&bad), Err(want), "{name}");
        }
        for cut in 0..good.len() {
            assert!(from_state::<Network>(&good[..cut]).is_err(), "cut at {cut}");
        }
    }
}
