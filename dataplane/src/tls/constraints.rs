//! The names that a signing certificate permits and excludes below it (RFC 5280 §4.2.1.10).
//!
//! They bind every name of every certificate below, the SPIFFE ID among them. A constraint that
//! cannot be read, or that cannot be compared with a name of its form, refuses: what is not
//! understood was still meant.

use ::snapshot::RefuseReason::PeerUntrusted;

use super::certificate::{Certificate, Fault};
use super::der::{self, Malformed, Value, values};
use super::identity::quoted;
use super::names::{self, Subtrees, within};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameConstraints<'a> {
    permitted: Vec<Value<'a>>,
    excluded: Vec<Value<'a>>,
}

/// Bytes that names and constraints of one verdict may have when each is compared with each: some
/// milliseconds. Honest chains stay below a hundredth of it.
pub(super) const COMPARED: usize = 1 << 20;

impl<'a> NameConstraints<'a> {
    pub fn read(value: &'a [u8]) -> Result<Self, Fault> {
        Self::subtrees(value).map_err(|Malformed| Fault::bad("its nameConstraints do not parse"))
    }

    fn subtrees(value: &'a [u8]) -> Result<Self, Malformed> {
        const PERMITTED: u8 = 0xa0;
        const EXCLUDED: u8 = 0xa1;
        let mut lists = values(der::only(value, der::SEQUENCE)?).peekable();
        let mut list = |tag| match lists.next_if(|list| matches!(list, Ok(list) if list.tag == tag)) {
            Some(list) => bases(list?.content),
            None => Ok(Vec::new()),
        };
        let read = Self { permitted: list(PERMITTED)?, excluded: list(EXCLUDED)? };
        // Neither may it be empty, nor hold what is neither.
        let said = !read.permitted.is_empty() || !read.excluded.is_empty();
        if said && lists.next().is_none() { Ok(read) } else { Err(Malformed) }
    }

    /// Whether `below`, a certificate further down the path, has only names that this permits.
    /// `budget` is what is left of [`COMPARED`].
    pub fn check(&self, below: &Certificate<'_>, budget: &mut usize) -> Result<(), Fault> {
        let subject = [below.subject_name()].into_iter().filter(|_| !below.subject.is_empty());
        for name in subject.chain(below.names()) {
            self.check_name(name, budget)?;
        }
        // RFC 5280 §4.2.1.10: addresses in the subject count as names, and they are not compared.
        let mail = self.permitted.iter().chain(&self.excluded).any(|base| base.tag == names::MAIL);
        if mail && below.has_mail_in_subject() {
            return Err(Fault::new(
                PeerUntrusted,
                "its subject has a mail address, on which there are nameConstraints",
            ));
        }
        Ok(())
    }

    fn check_name(&self, name: Value<'_>, budget: &mut usize) -> Result<(), Fault> {
        let against = |why: &str| {
            let (form, name) = (names::form(name.tag), said(name));
            Fault::new(
                PeerUntrusted,
                format!("its {form} {name} is not one that nameConstraints above let it have: {why}"),
            )
        };
        let mut compare = |base: &Value<'_>, which| {
            let cost = name.content.len() + base.content.len() + OVERHEAD;
            *budget = budget.checked_sub(cost).ok_or_else(|| against("there are too many to compare"))?;
            within(name.tag, name.content, base.content, which).map_err(against)
        };
        let (mut any, mut permitted) = (false, false);
        for base in self.permitted.iter().filter(|base| base.tag == name.tag) {
            any = true;
            permitted |= compare(base, Subtrees::Permitted)?;
        }
        for base in self.excluded.iter().filter(|base| base.tag == name.tag) {
            if compare(base, Subtrees::Excluded)? {
                return Err(against("it is excluded"));
            }
        }
        if any && !permitted { Err(against("it is not among the permitted")) } else { Ok(()) }
    }
}

/// What a comparison costs whatever it compares, in bytes.
const OVERHEAD: usize = 16;

fn said(name: Value<'_>) -> String {
    match name.tag {
        names::URI | names::DNS | names::MAIL => quoted(&String::from_utf8_lossy(name.content)),
        _ => String::new(),
    }
}

/// The bases of GeneralSubtrees. Minimum and maximum "are not used with any name forms", so there
/// must be none.
fn bases(list: &[u8]) -> Result<Vec<Value<'_>>, Malformed> {
    let bases: Vec<_> = values(list).map(base).collect::<Result<_, _>>()?;
    if bases.is_empty() { Err(Malformed) } else { Ok(bases) }
}

fn base(subtree: Result<Value<'_>, Malformed>) -> Result<Value<'_>, Malformed> {
    let Value { tag: der::SEQUENCE, content } = subtree? else { return Err(Malformed) };
    let mut parts = values(content);
    let base = parts.next().ok_or(Malformed)??;
    parts.end().and_then(|()| names::known(base))
}
