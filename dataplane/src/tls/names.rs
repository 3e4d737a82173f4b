//! Names in certificates, and whether one lies within a subtree (RFC 5280 §4.2.1.6, §4.2.1.10, §7).
//!
//! A name that cannot be compared is neither within nor without: [`within`] says so, and whoever
//! asks refuses. So an encoding that we do not know can never slip past what is forbidden.

use std::net::Ipv4Addr;

use super::der::{self, Malformed, Value, values};

/// Identifier octets of a GeneralName: the forms that are compared, and otherName, x400Address,
/// ediPartyName and registeredID, which are not.
pub(super) const MAIL: u8 = 0x81;
pub(super) const DNS: u8 = 0x82;
pub(super) const DIRECTORY: u8 = 0xa4;
pub(super) const URI: u8 = 0x86;
pub(super) const IP: u8 = 0x87;
const FORMS: [u8; 9] = [0xa0, MAIL, DNS, 0xa3, DIRECTORY, 0xa5, URI, IP, 0x88];

/// The content of GeneralNames, if each is of a form that there is.
pub(super) fn read(names: &[u8]) -> Result<&[u8], Malformed> {
    let names = der::only(names, der::SEQUENCE)?;
    for name in values(names) {
        known(name?)?;
    }
    Ok(names)
}

pub(super) fn known(name: Value<'_>) -> Result<Value<'_>, Malformed> {
    if FORMS.contains(&name.tag) { Ok(name) } else { Err(Malformed) }
}

/// The form's name in nameConstraints, for people.
pub(super) fn form(tag: u8) -> &'static str {
    match tag {
        MAIL => "rfc822Name",
        DNS => "dNSName",
        DIRECTORY => "directoryName",
        URI => "uniformResourceIdentifier",
        IP => "iPAddress",
        _ => "name of another form",
    }
}

/// Which list of subtrees is asked about: a wildcard stands for many names, all of which must be
/// permitted and none excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subtrees {
    Permitted,
    Excluded,
}

/// Why two names of a form cannot be compared.
pub(super) type Incomparable = &'static str;

/// Whether a name lies within the subtree of `base`, both contents of one form.
pub(super) fn within(tag: u8, name: &[u8], base: &[u8], which: Subtrees) -> Result<bool, Incomparable> {
    match tag {
        URI => host_within(host_of(name)?, base),
        DNS => domain_within(name, base, which),
        IP => address_within(name, base),
        DIRECTORY => directory_within(name, base),
        _ => Err("names of this form are not compared here"),
    }
}

/// The host of a URI. RFC 5280 §4.2.1.10: under a constraint it must have one, and no address.
fn host_of(uri: &[u8]) -> Result<&str, Incomparable> {
    let uri = std::str::from_utf8(uri).map_err(|_| "it is no text")?;
    let (_, rest) = uri.split_once(':').ok_or("it has no scheme")?;
    let rest = rest.strip_prefix("//").ok_or("it has no authority")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _port)| host);
    if host.parse::<Ipv4Addr>().is_ok() || !labels_ok(host) {
        return Err("its host is no domain name");
    }
    Ok(host)
}

/// ".example.com" is every host below it, "example.com" that one host.
fn host_within(host: &str, base: &[u8]) -> Result<bool, Incomparable> {
    let base = std::str::from_utf8(base).map_err(|_| "the constraint is no text")?;
    let (domain, below) = base.strip_prefix('.').map_or((base, false), |domain| (domain, true));
    if !labels_ok(domain) {
        return Err("the constraint is no host and no domain");
    }
    Ok(if below { is_below(host, domain) } else { host.eq_ignore_ascii_case(domain) })
}

/// "example.com" is itself and every name below it; a name of no labels is above all.
fn domain_within(name: &[u8], base: &[u8], which: Subtrees) -> Result<bool, Incomparable> {
    let name = std::str::from_utf8(name).map_err(|_| "it is no text")?;
    let base = std::str::from_utf8(base).map_err(|_| "the constraint is no text")?;
    let (suffix, wildcard) = name.strip_prefix("*.").map_or((name, false), |suffix| (suffix, true));
    if !labels_ok(suffix) {
        return Err("it is no domain name");
    }
    if base.is_empty() {
        return Ok(true);
    }
    let (domain, below) = base.strip_prefix('.').map_or((base, false), |domain| (domain, true));
    if !labels_ok(domain) {
        return Err("the constraint is no domain");
    }
    let same = suffix.eq_ignore_ascii_case(domain);
    // One of the names that it stands for may be the constraint's own, or lie below that.
    let touches = wildcard && which == Subtrees::Excluded && is_below(domain, suffix);
    Ok(is_below(suffix, domain) || (same && (wildcard || !below)) || touches)
}

fn is_below(name: &str, domain: &str) -> bool {
    let Some(at) = name.len().checked_sub(domain.len()) else { return false };
    at > 1 && name.as_bytes()[at - 1] == b'.' && name.as_bytes()[at..].eq_ignore_ascii_case(domain.as_bytes())
}

/// Letters, digits, hyphens, and the underscore that trust domains may have; no label is empty.
fn labels_ok(name: &str) -> bool {
    let byte_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.split('.').all(|label| !label.is_empty() && label.bytes().all(byte_ok))
}

/// An address and its mask, which covers it from the left.
fn address_within(address: &[u8], base: &[u8]) -> Result<bool, Incomparable> {
    if !matches!(address.len(), 4 | 16) {
        return Err("it is no address");
    }
    if !matches!(base.len(), 8 | 32) {
        return Err("the constraint is no address with a mask");
    }
    let (network, mask) = base.split_at(base.len() / 2);
    let bits = mask.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    if bits.clone().skip_while(|&bit| bit == 1).any(|bit| bit == 1) {
        return Err("the constraint's mask has gaps");
    }
    let same = |((a, n), m): ((&u8, &u8), &u8)| a & m == n & m;
    Ok(address.len() == network.len() && address.iter().zip(network).zip(mask).all(same))
}

/// A Name that begins with all the parts of `base`, in their order.
fn directory_within(name: &[u8], base: &[u8]) -> Result<bool, Incomparable> {
    let unread = |Malformed| "it does not parse";
    let (name, base) = (parts(name).map_err(unread)?, parts(base).map_err(unread)?);
    if base.len() > name.len() {
        return Ok(false);
    }
    for (part, wanted) in name.iter().zip(&base) {
        if !same_part(part, wanted)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An attribute: its type, and the value with its tag.
type Attribute<'a> = (&'a [u8], Value<'a>);

fn parts(name: &[u8]) -> Result<Vec<Vec<Attribute<'_>>>, Malformed> {
    let attribute = |bytes| {
        let mut pair = values(bytes);
        let kind = pair.expect(der::OID)?;
        let value = pair.next().ok_or(Malformed)??;
        pair.end().map(|()| (kind, value))
    };
    let mut read = Vec::new();
    for part in values(der::only(name, der::SEQUENCE)?) {
        let part = Some(part?).filter(|part| part.tag == der::SET).ok_or(Malformed)?;
        let attributes = values(part.content).map(|value| match value? {
            Value { tag: der::SEQUENCE, content } => attribute(content),
            _ => Err(Malformed),
        });
        read.push(attributes.collect::<Result<_, _>>()?);
    }
    Ok(read)
}

/// Parts are sets, mostly of one attribute.
fn same_part(a: &[Attribute<'_>], b: &[Attribute<'_>]) -> Result<bool, Incomparable> {
    Ok(a.len() == b.len() && all_in(a, b)? && all_in(b, a)?)
}

fn all_in(these: &[Attribute<'_>], those: &[Attribute<'_>]) -> Result<bool, Incomparable> {
    for (kind, value) in these {
        let mut found = false;
        for (_, other) in those.iter().filter(|(other, _)| other == kind) {
            found |= same_value(value, other)?;
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// RFC 5280 §7.1: case and repeated spaces do not count. Beyond ASCII that takes tables that we do
/// not have, so there only equal bytes are known to be equal.
fn same_value(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Incomparable> {
    if a == b {
        return Ok(true);
    }
    match (ascii(a), ascii(b)) {
        (Some(a), Some(b)) => Ok(folded(a).eq(folded(b))),
        _ => Err("its encoding differs from the constraint's in a way that is not compared here"),
    }
}

/// UTF8String, PrintableString and IA5String, if they hold nothing but ASCII.
fn ascii<'a>(value: &Value<'a>) -> Option<&'a str> {
    let text = matches!(value.tag, 0x0c | 0x13 | 0x16) && value.content.is_ascii();
    text.then(|| std::str::from_utf8(value.content).ok())?
}

fn folded(text: &str) -> impl Iterator<Item = String> {
    text.split_ascii_whitespace().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::Subtrees::{Excluded, Permitted};
    use super::*;

    #[test]
    fn names_lie_within_subtrees_as_their_form_says() {
        let (yes, no, refused) = (Some(true), Some(false), None);
        for (tag, name, base, which, want) in [
            (URI, "spiffe://example.com/a", "example.com", Permitted, yes),
            (URI, "spiffe://example.com", "example.com", Permitted, yes),
            (URI, "spiffe://a.example.com/x", "example.com", Permitted, no),
            (URI, "spiffe://a.example.com/x", ".example.com", Permitted, yes),
            (URI, "spiffe://a.b.example.com/x", ".Example.COM", Excluded, yes),
            (URI, "spiffe://xexample.com/x", ".example.com", Permitted, no),
            (URI, "spiffe://prod/x", "prod", Permitted, yes),
            (URI, "spiffe://under_score.org/x", ".org", Excluded, yes),
            (URI, "spiffe://10.0.0.1/x", "example.com", Excluded, refused),
            (URI, "https://[::1]/x", "example.com", Excluded, refused),
            (URI, "https://example.com@partner.org:1/x", "partner.org", Excluded, yes),
            (URI, "https://example.com?@partner.org/", "example.com", Excluded, yes),
            (URI, "https://ex%61mple.com/", "example.com", Excluded, refused),
            (URI, "spiffe://a..b/x", "example.com", Excluded, refused),
            (URI, "spiffe://example.com./x", "example.com", Excluded, refused),
            (URI, "spiffe:///x", "example.com", Excluded, refused),
            (URI, "spiffe:/example.com", "example.com", Excluded, refused),
            (URI, "example.com", "example.com", Excluded, refused),
            (URI, "spiffe://example.com/x", "", Excluded, refused),
            (URI, "spiffe://example.com/x", ".", Excluded, refused),
            (URI, "spiffe://example.com/x", "*.com", Excluded, refused),
            (DNS, "example.com", "example.com", Permitted, yes),
            (DNS, "a.example.com", "example.com", Permitted, yes),
            (DNS, "example.com", ".example.com", Permitted, no),
            (DNS, "a.example.com", ".example.com", Excluded, yes),
            (DNS, "aexample.com", "example.com", Permitted, no),
            (DNS, "com", "example.com", Excluded, no),
            (DNS, "*.example.com", "example.com", Permitted, yes),
            (DNS, "*.example.com", ".example.com", Permitted, yes),
            (DNS, "*.example.com", "a.example.com", Permitted, no),
            (DNS, "*.example.com", "a.example.com", Excluded, yes),
            (DNS, "*.com", "a.example.com", Excluded, yes),
            (DNS, "*.org", "example.com", Excluded, no),
            (DNS, "anything", "", Excluded, yes),
            (DNS, "a.*.com", "example.com", Excluded, refused),
            (DNS, "", "example.com", Excluded, refused),
            (DNS, "example.com.", "example.com", Excluded, refused),
            (DNS, "example.com", "*.com", Excluded, refused),
            (MAIL, "a@example.com", "example.com", Excluded, refused),
        ] {
            let got = within(tag, name.as_bytes(), base.as_bytes(), which).ok();
            assert_eq!(got, want, "{} {name} in {base:?}, {which:?}", form(tag));
        }
    }

    #[test]
    fn addresses_lie_within_networks_of_their_family() {
        let network = |address: [u8; 4], mask: [u8; 4]| [address, mask].concat();
        for (name, address, base, want) in [
            ("inside", vec![10, 1, 2, 3], network([10, 1, 0, 0], [255, 255, 0, 0]), Some(true)),
            ("outside", vec![10, 2, 2, 3], network([10, 1, 0, 0], [255, 255, 0, 0]), Some(false)),
            ("a network with host bits", vec![10, 1, 2, 3], network([10, 1, 9, 9], [255, 255, 0, 0]), Some(true)),
            ("within a byte", vec![10, 1, 127, 3], network([10, 1, 0, 0], [255, 255, 128, 0]), Some(true)),
            ("everything", vec![1, 2, 3, 4], network([0; 4], [0; 4]), Some(true)),
            ("IPv6 in IPv4", vec![0; 16], network([0; 4], [0; 4]), Some(false)),
            ("IPv4 in IPv6", vec![0; 4], vec![0; 32], Some(false)),
            ("IPv6 in IPv6", vec![7; 16], vec![0; 32], Some(true)),
            ("a mask with gaps", vec![10, 1, 2, 3], network([10, 1, 0, 0], [255, 0, 255, 0]), None),
            ("a mask with a gap in a byte", vec![10, 1, 2, 3], network([10, 1, 0, 0], [0b1011_1111, 0, 0, 0]), None),
            ("no address", vec![10, 1, 2], network([10, 1, 0, 0], [255, 255, 0, 0]), None),
            ("no network", vec![10, 1, 2, 3], vec![10, 1, 0, 0], None),
        ] {
            assert_eq!(within(IP, &address, &base, Permitted).ok(), want, "{name}");
        }
    }
}
