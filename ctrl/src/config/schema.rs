//! The schema of a resource, asked of the code that reads it.
//!
//! The decoders are run over a node that stands for any ([`super::decode::ANY`]): it has every field that is
//! asked for, one entry in each list, one key in each mapping. What is asked of it is noted, and is the
//! schema: nobody writes down a second time what a resource looks like, and nothing can drift.
//!
//! The schemas are structural (OpenAPI v3 as Kubernetes takes it). What they do not know they preserve: an API
//! server that dropped a misspelt field would take a condition out of a rule, and nobody would hear of it.
//! Here it is a fault that names the field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::decode::{Faults, Field};

/// What was asked of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Mapping,
    List,
    /// Which may be empty, or not.
    Text {
        empty: bool,
    },
    Boolean,
    Integer {
        least: i128,
        most: i128,
    },
    Choice(Vec<&'static str>),
    /// A whole number, or text.
    NumberOrText,
}

/// By path, as decoders name it: `spec.egress[].selectors[].*`.
#[derive(Debug, Default)]
pub struct Recorder {
    asked: BTreeMap<String, Asked>,
    known: BTreeSet<String>,
    required: BTreeSet<String>,
    /// Fields of which there is exactly one, by the path of their mapping.
    one_of: BTreeMap<String, Vec<&'static str>>,
}

impl Recorder {
    /// The first word about a path holds: who asks twice narrows what it has.
    pub fn note(&mut self, path: &str, asked: Asked) {
        self.asked.entry(path.to_owned()).or_insert(asked);
        self.known.insert(path.to_owned());
    }

    /// A field that there may be.
    pub fn field(&mut self, path: String, required: bool) {
        if required {
            self.required.insert(path.clone());
        }
        self.known.insert(path);
    }

    pub fn one_of(&mut self, path: &str, names: &[&'static str]) {
        self.one_of.insert(path.to_owned(), names.to_vec());
    }

    /// The schema of what stands at `path`.
    fn schema(&self, path: &str) -> Value {
        match self.asked.get(path) {
            Some(Asked::Mapping) => self.mapping(path),
            Some(Asked::List) => json!({ "type": "array", "items": self.schema(&format!("{path}[]")) }),
            Some(Asked::Text { empty: true }) => json!({ "type": "string" }),
            Some(Asked::Boolean) => json!({ "type": "boolean" }),
            Some(Asked::Integer { least, most }) => json!({
                "type": "integer", "format": "int64", "minimum": *least as i64, "maximum": *most as i64,
            }),
            Some(Asked::Choice(words)) => json!({ "type": "string", "enum": words }),
            Some(Asked::NumberOrText) => json!({ "x-kubernetes-int-or-string": true }),
            // What is looked at only together with something else is text.
            Some(Asked::Text { empty: false }) | None => json!({ "type": "string", "minLength": 1 }),
        }
    }

    fn mapping(&self, path: &str) -> Value {
        let below = format!("{path}.");
        let direct = |full: &&String| full.strip_prefix(&below).is_some_and(|name| !name.contains(['.', '[']));
        let name = |full: &String| full[below.len()..].to_owned();
        let any = format!("{path}.*");
        if self.asked.contains_key(&any) {
            return json!({ "type": "object", "additionalProperties": self.schema(&any) });
        }
        let properties = self.known.iter().filter(direct).map(|full| (name(full), self.schema(full)));
        let properties: serde_json::Map<_, _> = properties.collect();
        let required: Vec<_> = self.required.iter().filter(direct).map(name).collect();
        let mut schema =
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": properties });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if let Some(names) = self.one_of.get(path) {
            schema["oneOf"] = names.iter().map(|name| json!({ "required": [name] })).collect();
        }
        schema
    }
}

/// The schema of what `decode` reads.
pub fn of<T>(decode: impl FnOnce(&Field<'_>, &mut Faults<'_>) -> T) -> Value {
    let mut faults = Faults::asking();
    decode(&Field::any("spec"), &mut faults);
    faults.recorded().schema("spec")
}
