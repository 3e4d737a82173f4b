//! CRLs for tests: right ones that a CA has signed, and drafts that say whatever they like.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose as Use, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// A CA that signs CRLs, whether it may or not.
pub struct Ca(CertifiedIssuer<'static, KeyPair>, DistinguishedName);

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::that_may(name, &[Use::KeyCertSign, Use::CrlSign])
    }

    pub fn that_may(name: &str, usages: &[Use]) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages.to_vec();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        let name = params.distinguished_name.clone();
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(), name)
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// DER, issued and to be followed at these seconds since the epoch.
    pub fn crl(&self, number: u64, serials: &[&[u8]], (issued, next): (u64, u64)) -> Vec<u8> {
        let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: at(issued),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: at(issued),
            next_update: at(next),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        // The library refuses to sign where the key usage forbids it; we mean to.
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = self.1.clone();
        params.signed_by(&rcgen::Issuer::from_params(&issuer, self.0.key())).unwrap().der().to_vec()
    }
}

pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let mut der = vec![tag];
    match length {
        0..=0x7f => der.push(length as u8),
        0x80..=0xff => der.extend([0x81, length as u8]),
        0x100..=0xffff => der.extend([0x82, (length >> 8) as u8, length as u8]),
        _ => der.extend([&[0x83], &(length as u32).to_be_bytes()[1..]].concat()),
    }
    der.extend(content);
    der
}

pub const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// An extension below id-ce (2.5.29), or another.
pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    tlv(SEQUENCE, &[&tlv(0x06, &[id]), critical, &tlv(0x04, &[value])])
}

pub fn id_ce(last: u8) -> Vec<u8> {
    vec![0x55, 0x1d, last]
}

/// What a CRL says; nobody has signed it.
pub struct Draft {
    pub version: Vec<u8>,
    pub next: Vec<u8>,
    pub entries: Vec<u8>,
    pub extensions: Vec<Vec<u8>>,
}

/// A UTCTime.
pub fn time(text: &str) -> Vec<u8> {
    tlv(0x17, &[text.as_bytes()])
}

pub fn entry(serial: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = if extensions.is_empty() { vec![] } else { tlv(SEQUENCE, &[&extensions.concat()]) };
    tlv(SEQUENCE, &[&tlv(INTEGER, &[serial]), &time("260101000000Z"), &extensions])
}

pub fn number(bytes: &[u8]) -> Vec<u8> {
    extension(&id_ce(20), false, &tlv(INTEGER, &[bytes]))
}

impl Draft {
    pub fn new() -> Self {
        Self {
            version: tlv(INTEGER, &[&[1]]),
            next: time("270101000000Z"),
            entries: tlv(SEQUENCE, &[&entry(&[0x4f, 0x3a], &[])]),
            extensions: vec![number(&[7])],
        }
    }

    pub fn der(&self) -> Vec<u8> {
        // ecdsa-with-SHA256, and CN=ca.
        let algorithm = tlv(SEQUENCE, &[&tlv(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]])]);
        let attribute = tlv(SEQUENCE, &[&tlv(0x06, &[&[0x55, 0x04, 0x03]]), &tlv(0x0c, &[b"ca"])]);
        let name = tlv(SEQUENCE, &[&tlv(0x31, &[&attribute])]);
        let extensions = match self.extensions.is_empty() {
            true => vec![],
            false => tlv(0xa0, &[&tlv(SEQUENCE, &[&self.extensions.concat()])]),
        };
        let issued = time("260101000000Z");
        let said: [&[u8]; 7] = [&self.version, &algorithm, &name, &issued, &self.next, &self.entries, &extensions];
        tlv(SEQUENCE, &[&tlv(SEQUENCE, &said), &algorithm, &tlv(0x03, &[&[0, 1, 2, 3]])])
    }
}

pub fn pem(der: &[u8]) -> String {
    pem_of(der, "X509 CRL")
}

fn pem_of(der: &[u8], label: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for nth in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * nth)) as usize & 0x3f] as char;
            text.push(if nth > chunk.len() { '=' } else { digit });
        }
    }
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
