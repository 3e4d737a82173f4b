//! What a handshake came to, for the header that tells a service of it.

use rustls::{CipherSuite, Connection, ProtocolVersion};

use super::TlsLeg;
use super::der::{self, Malformed, values};
use crate::proxy::{Certificate, Negotiated};

impl TlsLeg {
    /// Of a leg that a caller came by and that [stands](Self::established).
    pub fn negotiated(&self) -> Negotiated<'_> {
        let connection = self.connection();
        let server_name = match connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        };
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        Negotiated {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
                Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
                Some(_) | None => None,
            },
            cipher: connection.negotiated_cipher_suite().and_then(|suite| iana_name(suite.suite())),
            server_name,
            alpn: connection.alpn_protocol(),
            // Its holder is known only if it was verified, whatever was shown.
            certificate: match (self.peer(), leaf) {
                (Some(_), Some(leaf)) => Certificate::Verified(common_name(leaf).ok().flatten()),
                (Some(_), None) => Certificate::Verified(None),
                (None, _) => Certificate::None,
            },
        }
    }
}

/// The library's own names say `TLS13_`; its callers are served TLS 1.3 only.
fn iana_name(suite: CipherSuite) -> Option<&'static str> {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        _ => None,
    }
}

/// The first common name of a certificate's subject, if it is text of an encoding that is UTF-8 too.
fn common_name(certificate: &[u8]) -> Result<Option<&str>, Malformed> {
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    const IA5: u8 = 0x16;
    for relative in values(subject(certificate)?) {
        for attribute in values(relative?.content) {
            let mut parts = values(attribute?.content);
            if parts.expect(der::OID)? != COMMON_NAME {
                continue;
            }
            return Ok(match parts.next() {
                Some(Ok(value)) if matches!(value.tag, UTF8 | PRINTABLE | IA5) => {
                    std::str::from_utf8(value.content).ok()
                }
                Some(Ok(_) | Err(_)) | None => None,
            });
        }
    }
    Ok(None)
}

/// The content of the subject's Name (RFC 5280 §4.1).
fn subject(certificate: &[u8]) -> Result<&[u8], Malformed> {
    const VERSION: u8 = 0xa0;
    const INTEGER: u8 = 0x02;
    let body = values(der::only(certificate, der::SEQUENCE)?).expect(der::SEQUENCE)?;
    let mut fields = values(body);
    let mut without = fields.clone();
    if without.expect(VERSION).is_ok() {
        fields = without;
    }
    fields.expect(INTEGER)?;
    for _signature_issuer_validity in 0..3 {
        fields.expect(der::SEQUENCE)?;
    }
    fields.expect(der::SEQUENCE)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        names.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), value.clone()));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_of_the_subject_is_found_where_there_is_one() {
        let utf8 = |text: &str| DnValue::Utf8String(text.into());
        let printable = DnValue::PrintableString("web 7".try_into().unwrap());
        let bmp = DnValue::BmpString("web".try_into().unwrap());
        for (name, names, want) in [
            ("none", vec![], None),
            ("another attribute", vec![(DnType::OrganizationName, utf8("shop"))], None),
            (
                "after another",
                vec![(DnType::OrganizationName, utf8("shop")), (DnType::CommonName, utf8("kasse"))],
                Some("kasse"),
            ),
            ("beyond ASCII", vec![(DnType::CommonName, utf8("kassé"))], Some("kassé")),
            ("printable", vec![(DnType::CommonName, printable)], Some("web 7")),
            ("of two bytes a character", vec![(DnType::CommonName, bmp)], None),
        ] {
            assert_eq!(common_name(&certificate(&names)), Ok(want), "{name}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_off_anywhere_has_no_name_and_does_no_harm() {
        let whole = certificate(&[(DnType::CommonName, DnValue::Utf8String("kasse".into()))]);
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), Err(Malformed), "{end}");
        }
    }
}
