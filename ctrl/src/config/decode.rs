//! Reading typed values out of a [`tree`](super::tree), and noting everything that is wrong.
//!
//! A [`Fields`] is one mapping: each field is asked for by name, and what nobody asked for is an
//! unknown field, reported with the nearest known one. A reader that finds a fault notes it and
//! returns None; its caller goes on with the next field, so that one load shows all faults.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::Duration;

use snapshot::Prefix;

use super::Place;
pub use super::faults::Faults;
use super::faults::capped;
use super::schema::Asked;
use super::suggest::nearest;
use super::tree::{Key, Node, Span, Value};

/// One of a closed set of words, and where it stands, for those who have to name the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<T> {
    pub value: T,
    pub place: Place,
}

impl<T: Copy> Chosen<T> {
    pub fn decode(field: Option<Field<'_>>, words: &[(&'static str, T)], faults: &mut Faults<'_>) -> Option<Self> {
        let field = field?;
        let value = field.choice(words, faults)?;
        Some(Self { value, place: faults.place(field.at()) })
    }
}

/// One value and the path that leads to it.
#[derive(Debug, Clone)]
pub struct Field<'n> {
    pub node: &'n Node,
    pub path: String,
}

/// Stands for any value, where the question is what is asked of it ([`super::schema`]).
pub static ANY: Node = Node { at: Span { line: 0, column: 0, length: 0 }, value: Value::Null };

/// One mapping, while its fields are asked for.
pub struct Fields<'n> {
    entries: &'n [(Key, Node)],
    pub at: Span,
    pub path: String,
    asked: Vec<&'static str>,
    /// Taken without a word and not offered as what might have been meant.
    tolerated: &'static [&'static str],
    /// It has whatever is asked for.
    any: bool,
}

impl<'n> Field<'n> {
    /// [`ANY`] at a path.
    pub fn any(path: &str) -> Field<'static> {
        Field { node: &ANY, path: path.to_owned() }
    }

    /// There is nothing to compare with: the question is what else is asked.
    pub fn is_any(&self) -> bool {
        std::ptr::eq(self.node, &raw const ANY)
    }

    /// Said beforehand of a value whose kind decides how it is read.
    pub fn number_or_text(&self, faults: &mut Faults<'_>) {
        faults.asks(self, || Asked::NumberOrText);
    }
    pub fn at(&self) -> Span {
        self.node.at
    }

    pub fn fields(&self, faults: &mut Faults<'_>) -> Option<Fields<'n>> {
        if faults.asks(self, || Asked::Mapping) {
            let path = self.path.clone();
            return Some(Fields { entries: &[], at: self.at(), path, asked: vec![], tolerated: &[], any: true });
        }
        let Value::Map(entries) = &self.node.value else {
            faults.wants(self, "a mapping");
            return None;
        };
        let mut first = HashMap::new();
        for (key, _) in entries {
            if let Some(line) = first.insert(key.name.as_str(), key.at.line) {
                let message = format!("given twice, first in line {line}");
                faults.error(key.at, &join(&self.path, &key.name), message, "keep one of the two");
            }
        }
        Some(Fields {
            entries,
            at: self.node.at,
            path: self.path.clone(),
            asked: Vec::new(),
            tolerated: &[],
            any: false,
        })
    }

    pub fn list(&self, faults: &mut Faults<'_>) -> Option<Vec<Field<'n>>> {
        if faults.asks(self, || Asked::List) {
            return Some(vec![Field { node: self.node, path: format!("{}[]", self.path) }]);
        }
        let Value::List(nodes) = &self.node.value else {
            faults.wants(self, "a list");
            return None;
        };
        let nth = |(i, node): (usize, &'n Node)| Field { node, path: format!("{}[{i}]", self.path) };
        Some(nodes.iter().enumerate().map(nth).collect())
    }

    pub fn text(&self, faults: &mut Faults<'_>) -> Option<&'n str> {
        if faults.asks(self, || Asked::Text { empty: false }) {
            return None;
        }
        match &self.node.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            Value::Text(_) => {
                faults.error(self.at(), &self.path, "is empty", "give it a value, or leave the field out");
                None
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
                faults.wants(self, "text");
                None
            }
        }
    }

    /// Text that may be empty, such as the value of a label.
    pub fn label(&self, faults: &mut Faults<'_>) -> Option<&'n str> {
        faults.asks(self, || Asked::Text { empty: true });
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
                faults.wants(self, "text");
                None
            }
        }
    }

    pub fn boolean(&self, faults: &mut Faults<'_>) -> Option<bool> {
        faults.asks(self, || Asked::Boolean);
        let Value::Bool(value) = self.node.value else {
            faults.wants(self, "true or false");
            return None;
        };
        Some(value)
    }

    pub fn integer<T: TryFrom<i128>>(&self, allowed: RangeInclusive<i128>, faults: &mut Faults<'_>) -> Option<T> {
        faults.asks(self, || Asked::Integer { least: *allowed.start(), most: *allowed.end() });
        let help = || format!("use {} to {}", allowed.start(), allowed.end());
        let Value::Integer(number) = self.node.value else {
            let message = format!("{} is not a whole number", capped(&self.node.value.shown()));
            faults.error(self.at(), &self.path, message, help());
            return None;
        };
        let fits = allowed.contains(&number).then(|| T::try_from(number).ok()).flatten();
        if fits.is_none() {
            faults.error(self.at(), &self.path, format!("{number} is out of range"), help());
        }
        fits
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(&self, words: &[(&'static str, T)], faults: &mut Faults<'_>) -> Option<T> {
        faults.asks(self, || Asked::Choice(words.iter().map(|(word, _)| *word).collect()));
        let text = match &self.node.value {
            Value::Text(text) => text.as_str(),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => "",
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let help = allowed(text, "allowed", words.iter().map(|(word, _)| *word));
            let message = format!("{} is not allowed here", capped(&self.node.value.shown()));
            faults.error(self.at(), &self.path, message, help);
        }
        found
    }

    /// Parses text by `parse`; its error says what is wrong.
    pub fn parsed<T, E: std::fmt::Display>(
        &self,
        parse: impl Fn(&str) -> Result<T, E>,
        help: &str,
        faults: &mut Faults<'_>,
    ) -> Option<T> {
        match parse(self.text(faults)?) {
            Ok(value) => Some(value),
            Err(why) => {
                faults.refuse(self, why, help);
                None
            }
        }
    }

    pub fn ip(&self, faults: &mut Faults<'_>) -> Option<IpAddr> {
        self.parsed(|text| text.parse().map_err(|_| "not an IP address"), "such as 198.18.1.2 or 2001:db8::2", faults)
    }

    pub fn cidr(&self, faults: &mut Faults<'_>) -> Option<Prefix> {
        self.parsed(parse_cidr, "such as 198.18.1.0/24 or 2001:db8::/64", faults)
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.node.value, Value::Text(text) if text == word)
    }

    pub fn duration(&self, allowed: RangeInclusive<Duration>, faults: &mut Faults<'_>) -> Option<Duration> {
        const HELP: &str = "such as 500ms, 30s, 10m, 1h or 1h30m";
        if let Value::Integer(_) | Value::Float(_) = self.node.value {
            faults.refuse(self, "has no unit", HELP);
            return None;
        }
        let duration = self.parsed(parse_duration, HELP, faults)?;
        if allowed.contains(&duration) {
            return Some(duration);
        }
        faults.refuse(self, "out of range", format!("use {:?} to {:?}", allowed.start(), allowed.end()));
        None
    }
}

impl<'n> Fields<'n> {
    /// A field that may be left out.
    pub fn optional(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.asked.push(name);
        if self.any {
            return Some(Field::any(&join(&self.path, name)));
        }
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Field { node, path: join(&self.path, name) })
    }

    pub fn required(&mut self, name: &'static str, faults: &mut Faults<'_>) -> Option<Field<'n>> {
        self.required_such(name, "", faults)
    }

    /// The same, with what would be right for where it is missing.
    pub fn required_such(&mut self, name: &'static str, help: &str, faults: &mut Faults<'_>) -> Option<Field<'n>> {
        let field = self.optional(name);
        if self.any {
            faults.recorder.field(join(&self.path, name), true);
        }
        if field.is_none() {
            // Where it is only misspelt, the unknown field says so and no more is needed.
            let near = |(key, _): &(Key, Node)| nearest(&key.name, [name].into_iter()).is_some();
            if !self.entries.iter().any(near) {
                faults.error(Span { length: 1, ..self.at }, &join(&self.path, name), "is missing", help);
            }
        }
        field
    }

    /// Said to the schema: exactly one of these is there.
    pub fn one_of(&self, names: &[&'static str], faults: &mut Faults<'_>) {
        if self.any {
            faults.recorder.one_of(&self.path, names);
        }
    }

    /// Fields that others may have put there.
    pub fn tolerate(&mut self, names: &'static [&'static str]) {
        self.tolerated = names;
    }

    /// All entries, for mappings whose keys are data.
    pub fn all(self) -> impl Iterator<Item = (&'n Key, Field<'n>)> {
        let path = self.path;
        let any = self.any.then(|| (&*ANY_KEY, Field::any(&join(&path, &ANY_KEY.name))));
        any.into_iter()
            .chain(self.entries.iter().map(move |(key, node)| (key, Field { node, path: join(&path, &key.name) })))
    }

    /// Notes every field that was not asked for.
    pub fn finish(self, faults: &mut Faults<'_>) {
        for name in self.asked.iter().filter(|_| self.any) {
            faults.recorder.field(join(&self.path, name), false);
        }
        let known = |name: &str| self.asked.contains(&name) || self.tolerated.contains(&name);
        for (key, _) in self.entries.iter().filter(|(key, _)| !known(&key.name)) {
            let mut known = self.asked.clone();
            known.sort_unstable();
            let help = allowed(&key.name, "fields here", known.into_iter());
            faults.error(key.at, &join(&self.path, &key.name), "there is no such field", help);
        }
    }
}

static ANY_KEY: LazyLock<Key> = LazyLock::new(|| Key { at: Span::default(), name: "*".into() });

/// `did you mean MUTUAL? allowed: MUTUAL, PERMISSIVE`.
pub fn allowed<'a>(wrong: &str, what: &str, words: impl Iterator<Item = &'a str> + Clone) -> String {
    let list = words.clone().collect::<Vec<_>>().join(", ");
    match nearest(wrong, words) {
        Some(word) => format!("did you mean {word}? {what}: {list}"),
        None => format!("{what}: {list}"),
    }
}

/// `spec.egress`, and `spec.hosts["a.b"]` for keys that are data with dots in them.
fn join(path: &str, name: &str) -> String {
    match (path, name.contains(['.', ':', '/', '[', ' '])) {
        ("", false) => name.to_owned(),
        (_, true) => format!("{path}[{name:?}]"),
        (_, false) => format!("{path}.{name}"),
    }
}

fn parse_cidr(text: &str) -> Result<Prefix, String> {
    let (address, length) = text.split_once('/').ok_or("there is no /length")?;
    let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
    let width = Prefix::host(address).length;
    let length: u8 = length.parse().ok().filter(|l| *l <= width).ok_or(format!("the length must be 0 to {width}"))?;
    let prefix = Prefix::new(address, length);
    match prefix.address == address {
        true => Ok(prefix),
        false => Err(format!("has bits set past its length; the network is {prefix}")),
    }
}

/// `1h30m`, `30s`, `500ms`: numbers with units, largest first or not.
fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or("has no unit")?;
        let number: u64 = rest[..digits].parse().map_err(|_| "not a duration")?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let milliseconds = match &rest[digits..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err("not a duration"),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part.and_then(|part| total.checked_add(part)).ok_or("too long")?;
        rest = &rest[unit..];
    }
    Ok(total)
}
