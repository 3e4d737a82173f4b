//! DER, read to the letter (X.690 §10.1): definite lengths of the fewest bytes, and nothing left
//! over.
//!
//! For the parts of a certificate where a parser that overlooks something would weaken a verdict:
//! the names that it carries and the names that it forbids.

/// What is no DER, or not what should stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Universal tags.
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const OID: u8 = 0x06;
pub(super) const BIT_STRING: u8 = 0x03;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    /// The whole identifier octet: class and form count.
    pub tag: u8,
    pub content: &'a [u8],
}

/// The values that stand one after another in `bytes`; after one that is malformed, none.
#[derive(Debug, Clone)]
pub(super) struct Values<'a>(&'a [u8]);

pub(super) fn values(bytes: &[u8]) -> Values<'_> {
    Values(bytes)
}

impl<'a> Values<'a> {
    /// The next one, which must be there and have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.next() {
            Some(Ok(value)) if value.tag == tag => Ok(value.content),
            Some(Ok(_) | Err(_)) | None => Err(Malformed),
        }
    }

    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    fn split(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Certificates are bounded below what three bytes could say.
            0x81 | 0x82 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let len = bytes.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
                let fewest = if first == 0x81 { 0x80 } else { 0x100 };
                (Some(len).filter(|&len| len >= fewest)?, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        // Tag numbers above 30 have no place in what is read here.
        (tag & 0x1f != 0x1f).then_some(Value { tag, content })
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<Value<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let value = self.split().ok_or(Malformed);
        if value.is_err() {
            self.0 = &[];
        }
        Some(value)
    }
}

/// The content of the one value that `bytes` are.
pub(super) fn only(bytes: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    let mut values = values(bytes);
    let content = values.expect(tag)?;
    values.end().map(|()| content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_der_to_the_letter_is_read() {
        let long = |head: &[u8], n: usize| [head, &vec![7; n]].concat();
        for (name, bytes, want) in [
            ("empty content", vec![0x30, 0], Some(0)),
            ("short form", long(&[0x30, 0x7f], 127), Some(127)),
            ("one byte of length", long(&[0x30, 0x81, 0x80], 128), Some(128)),
            ("two bytes of length", long(&[0x30, 0x82, 1, 0], 256), Some(256)),
            ("more bytes of length than needed", long(&[0x30, 0x81, 0x7f], 127), None),
            ("two bytes where one does", long(&[0x30, 0x82, 0, 0xff], 255), None),
            ("indefinite length", vec![0x30, 0x80, 0, 0], None),
            ("three bytes of length", long(&[0x30, 0x83, 1, 0, 0], 65_536), None),
            ("shorter than it says", vec![0x30, 2, 0], None),
            ("bytes after it", vec![0x30, 0, 0], None),
            ("another tag", vec![0x31, 0], None),
            ("a tag of more bytes", vec![0x3f, 0x30, 0], None),
            ("no length", vec![0x30], None),
            ("nothing", vec![], None),
        ] {
            assert_eq!(only(&bytes, SEQUENCE).map(<[u8]>::len).ok(), want, "{name}");
        }
    }

    #[test]
    fn after_a_malformed_value_nothing_more_is_read() {
        let mut values = values(&[0x05, 0, 0x05, 0x80, 0x05, 0]);
        assert!(matches!(values.next(), Some(Ok(_))));
        assert_eq!((values.next(), values.next()), (Some(Err(Malformed)), None));
    }
}
