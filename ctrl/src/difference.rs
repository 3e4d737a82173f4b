//! What one text of configuration says otherwise than another, resource by resource and field by field.
//!
//! Trees are compared and not what they decode to, so that no field can be forgotten. Where a list has become
//! longer or shorter, its entries are told that only one side has.

use serde::{Deserialize, Serialize};

use crate::config::tree::{self, Node, SyntaxError, Value};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub kind: String,
    /// `namespace/name`; of a Gateway, its name.
    pub name: String,
    pub what: What,
    /// Of a resource that is in both.
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Added,
    Removed,
    Changed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// `spec.connection.tls.mode`; of an entry that only one side has, `spec.allowedSPIFFEIDs.inbound[]`.
    pub path: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// In the order of `after`, and then what is in it no more.
pub fn of(before: &str, after: &str) -> Result<Vec<Change>, SyntaxError> {
    let (before, after) = (resources(before)?, resources(after)?);
    let mut changes = Vec::new();
    for (id, now) in &after {
        match before.iter().find(|(other, _)| other == id) {
            None => changes.push(Change::whole(id, What::Added)),
            Some((_, then)) => {
                let mut fields = Vec::new();
                compare("", then, now, &mut fields);
                if !fields.is_empty() {
                    changes.push(Change { fields, ..Change::whole(id, What::Changed) });
                }
            }
        }
    }
    let gone = before.iter().filter(|(id, _)| !after.iter().any(|(other, _)| other == id));
    changes.extend(gone.map(|(id, _)| Change::whole(id, What::Removed)));
    Ok(changes)
}

impl Change {
    fn whole((kind, name): &Id, what: What) -> Self {
        Self { kind: kind.clone(), name: name.clone(), what, fields: Vec::new() }
    }
}

/// Kind and name.
type Id = (String, String);

fn resources(text: &str) -> Result<Vec<(Id, Node)>, SyntaxError> {
    let mut found = Vec::new();
    for document in tree::parse(text)? {
        match (word(&document, "kind"), field(&document, "items")) {
            (Some("List"), Some(Node { value: Value::List(items), .. })) => {
                found.extend(items.iter().map(|item| (id(item), item.clone())));
            }
            _ => found.push((id(&document), document)),
        }
    }
    Ok(found)
}

fn id(document: &Node) -> Id {
    let kind = word(document, "kind").unwrap_or_default();
    let meta = |name| field(document, "metadata").and_then(|meta| word(meta, name));
    let name = meta("name").unwrap_or_default();
    let name = match kind {
        "Gateway" => name.to_owned(),
        _ => format!("{}/{name}", meta("namespace").unwrap_or("default")),
    };
    (kind.to_owned(), name)
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
}

fn word<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    match &field(node, name)?.value {
        Value::Text(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
    }
}

fn compare(path: &str, before: &Node, after: &Node, found: &mut Vec<Field>) {
    match (&before.value, &after.value) {
        (Value::Map(then), Value::Map(now)) => {
            let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            for (key, value) in now {
                match then.iter().find(|(other, _)| other.name == key.name) {
                    Some((_, then)) => compare(&below(&key.name), then, value, found),
                    None => found.push(Field::new(below(&key.name), None, Some(value))),
                }
            }
            let gone = then.iter().filter(|(key, _)| !now.iter().any(|(other, _)| other.name == key.name));
            found.extend(gone.map(|(key, value)| Field::new(below(&key.name), Some(value), None)));
        }
        (Value::List(then), Value::List(now)) if then.len() == now.len() => {
            for (nth, (then, now)) in then.iter().zip(now).enumerate() {
                compare(&format!("{path}[{nth}]"), then, now, found);
            }
        }
        (Value::List(then), Value::List(now)) => {
            let only = |one: &[Node], other: &[Node]| {
                let mut left: Vec<String> = other.iter().map(|node| flow(&node.value)).collect();
                let mut only = Vec::new();
                for shown in one.iter().map(|node| flow(&node.value)) {
                    match left.iter().position(|other| *other == shown) {
                        Some(at) => drop(left.swap_remove(at)),
                        None => only.push(shown),
                    }
                }
                only
            };
            let path = format!("{path}[]");
            let gone = only(then, now).into_iter().map(|before| (Some(before), None));
            let new = only(now, then).into_iter().map(|after| (None, Some(after)));
            found.extend(gone.chain(new).map(|(before, after)| Field { path: path.clone(), before, after }));
        }
        (then, now) if flow(then) == flow(now) => {}
        _ => found.push(Field::new(path.to_owned(), Some(before), Some(after))),
    }
}

impl Field {
    fn new(path: String, before: Option<&Node>, after: Option<&Node>) -> Self {
        let shown = |node: Option<&Node>| node.map(|node| flow(&node.value));
        Self { path, before: shown(before), after: shown(after) }
    }
}

/// On one line, as YAML has it: keys in their order, and the same text for what means the same.
fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        // Beside another type it has to be told apart: "8080" is no 8080.
        Value::Text(text) => match tree::parse(text).as_deref() {
            Ok([Node { value: Value::Text(same), .. }]) if same == text && !text.contains('\n') => text.clone(),
            _ => format!("{text:?}"),
        },
        Value::List(list) => {
            format!("[{}]", list.iter().map(|node| flow(&node.value)).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) => {
            let each = entries.iter().map(|(key, node)| format!("{}: {}", key.name, flow(&node.value)));
            format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: &str, after: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for change in of(before, after).unwrap() {
            lines.push(format!("{:?} {} {}", change.what, change.kind, change.name));
            let shown = |side: Option<String>| side.unwrap_or_else(|| "-".into());
            lines.extend(
                change.fields.into_iter().map(|f| format!("{}: {} > {}", f.path, shown(f.before), shown(f.after))),
            );
        }
        lines
    }

    const BEFORE: &str = "kind: WorkloadIdentity\nmetadata: {name: a, namespace: shop}\nspec:\n  \
        allowedSPIFFEIDs: {inbound: [x, y]}\n  connection: {tls: {mode: PERMISSIVE, ports: {80: MUTUAL}}}\n---\n\
        kind: Service\nmetadata: {name: s}\nspec: {addresses: [{address: 198.18.1.1, port: 80}]}\n---\n\
        kind: Policy\nmetadata: {name: p}\n";

    #[test]
    fn each_resource_and_field_that_differs_is_told_once() {
        assert_eq!(told(BEFORE, BEFORE), [] as [&str; 0]);
        let after = "# Moved, written otherwise, and changed.\nkind: Service\nmetadata:\n  namespace: default\n  \
            name: s\nspec:\n  addresses:\n    - {address: 198.18.1.1, port: \"80\"}\n---\n\
            kind: WorkloadIdentity\nmetadata: {namespace: shop, name: a}\nspec:\n  \
            allowedSPIFFEIDs: {inbound: [y, z, w]}\n  connection: {tls: {mode: MUTUAL}}\n  egress: []\n---\n\
            kind: Gateway\nmetadata: {name: node-a}\n";
        assert_eq!(
            told(BEFORE, after),
            [
                "Changed Service default/s",
                "metadata.namespace: - > default",
                "spec.addresses[0].port: 80 > \"80\"",
                "Changed WorkloadIdentity shop/a",
                "spec.allowedSPIFFEIDs.inbound[]: x > -",
                "spec.allowedSPIFFEIDs.inbound[]: - > z",
                "spec.allowedSPIFFEIDs.inbound[]: - > w",
                "spec.connection.tls.mode: PERMISSIVE > MUTUAL",
                "spec.connection.tls.ports: {80: MUTUAL} > -",
                "spec.egress: - > []",
                "Added Gateway node-a",
                "Removed Policy default/p",
            ]
        );
    }

    #[test]
    fn a_list_is_its_items_and_entries_that_come_twice_count_twice() {
        let list =
            format!("kind: List\nitems:\n  - {}\n", "{kind: Policy, metadata: {name: p}, spec: {ids: [a, a, b]}}");
        let alone = "kind: Policy\nmetadata: {name: p}\nspec: {ids: [a, b]}\n";
        assert_eq!(told(&list, alone), ["Changed Policy default/p", "spec.ids[]: a > -"]);
        assert!(of("a: [", alone).is_err());
    }
}
