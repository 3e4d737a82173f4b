//! Certificates and keys out of PEM, with whatever text stands around the blocks (RFC 7468 §2).

use std::path::Path;

use rustls_pki_types::pem::{Error, PemObject as _, SectionKind};
use zeroize::Zeroizing;

use crate::source::svid::Fault;
use crate::source::svid::key::Form;

#[derive(Default)]
pub struct Blocks {
    pub certificates: Vec<Vec<u8>>,
    pub keys: Vec<(Form, Zeroizing<Vec<u8>>)>,
    /// There is one that only its owner's passphrase opens.
    pub encrypted: bool,
}

pub fn blocks(path: &Path, bytes: &[u8]) -> Result<Blocks, Fault> {
    let mut found = Blocks { encrypted: ENCRYPTED.iter().any(|mark| holds(bytes, mark)), ..Blocks::default() };
    if found.encrypted {
        // The older form has headers inside the block, which are no base64.
        return Ok(found);
    }
    for (nth, block) in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes).enumerate() {
        let (kind, der) = block.map_err(|error| Fault::Pem { path: path.to_owned(), reason: reason(nth, &error) })?;
        match kind {
            SectionKind::Certificate => found.certificates.push(der),
            SectionKind::PrivateKey => found.keys.push((Form::Pkcs8, der.into())),
            SectionKind::EcPrivateKey => found.keys.push((Form::Sec1, der.into())),
            SectionKind::RsaPrivateKey => found.keys.push((Form::Pkcs1, der.into())),
            // The library's set, which may grow; nothing else is of use here.
            _ => {}
        }
    }
    Ok(found)
}

/// Without the block's bytes, which the library's own words would show.
fn reason(nth: usize, error: &Error) -> String {
    let what = match error {
        Error::MissingSectionEnd { .. } => "has no end: the file is cut off, or still being written",
        Error::IllegalSectionStart { .. } => "does not begin as PEM does (-----BEGIN …-----)",
        Error::Base64Decode(_) => "holds what is no base64",
        Error::SectionTooLarge => "is too large",
        _ => "cannot be read",
    };
    format!("block {} {what}", nth + 1)
}

fn holds(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
