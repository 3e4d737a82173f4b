//! The envelope that every resource has: apiVersion, kind, metadata, spec.
//!
//! It takes what `kubectl get -o yaml` gives: what a cluster adds (status, uid, managedFields, …) is
//! passed over, and a `List` is read as its items.

use std::collections::BTreeMap;

use super::decode::{Faults, Field, allowed};
use super::{Gateway, Place, Policy, Resources, Service, TrustBundle, WorkloadIdentity};

/// `metadata`, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub place: Place,
}

impl Meta {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// One document: what it holds goes to `into`, what is wrong with it to `faults`.
pub fn decode(document: &Field<'_>, into: &mut Resources, faults: &mut Faults<'_>) {
    let Some(mut fields) = document.fields(faults) else { return };
    let version = fields.required("apiVersion", faults);
    let kind = fields.required("kind", faults);
    let (Some(version), Some(kind)) = (version, kind) else {
        fields.tolerate(&["metadata", "spec", "status"]);
        return fields.finish(faults);
    };
    let (Some(version_text), Some(kind_text)) = (version.text(faults), kind.text(faults)) else { return };
    into.gateway_seen |= kind_text == "Gateway";
    if (version_text, kind_text) == ("v1", "List") {
        let items = fields.required("items", faults).and_then(|items| items.list(faults));
        fields.optional("metadata");
        fields.finish(faults);
        return items.iter().flatten().for_each(|item| decode_item(item, into, faults));
    }
    let Some((_, want)) = KINDS.iter().find(|(name, _)| *name == kind_text) else {
        let help = allowed(kind_text, "kinds", KINDS.iter().map(|(name, _)| *name));
        return faults.error(kind.at(), &kind.path, format!("{kind_text:?} is not a kind that is known"), help);
    };
    if version_text != *want {
        let message = format!("{version_text:?} has no {kind_text}");
        return faults.error(version.at(), &version.path, message, format!("{kind_text} is in {want}"));
    }
    let meta = fields.required("metadata", faults).and_then(|meta| decode_meta(&meta, faults));
    let spec = fields.required("spec", faults);
    fields.tolerate(&["status"]);
    fields.finish(faults);
    let (Some(mut meta), Some(spec)) = (meta, spec) else { return };
    meta.place = faults.place(document.at());
    match kind_text {
        "Gateway" => {
            into.take_gateway(Gateway::decode(meta, &spec, faults), faults);
        }
        "Policy" => into.policies.extend(Policy::decode(meta, &spec, faults)),
        "TrustBundle" => into.bundles.extend(TrustBundle::decode(meta, &spec, faults)),
        "Service" => into.services.extend(Service::decode(meta, &spec, faults)),
        _ => into.identities.extend(WorkloadIdentity::decode(meta, &spec, faults)),
    }
}

fn decode_item(item: &Field<'_>, into: &mut Resources, faults: &mut Faults<'_>) {
    // A List in a List would be read without end; nothing makes one.
    let nested = item
        .fields(faults)
        .is_some_and(|mut fields| fields.optional("kind").is_some_and(|kind| kind.text(faults) == Some("List")));
    match nested {
        true => faults.refuse(item, "a List within a List", ""),
        false => decode(item, into, faults),
    }
}

fn decode_meta(meta: &Field<'_>, faults: &mut Faults<'_>) -> Option<Meta> {
    let mut fields = meta.fields(faults)?;
    let help = "lower-case letters, digits, '-' and '.', as Kubernetes takes them";
    let name = fields.required("name", faults).and_then(|field| field.parsed(resource_name, help, faults));
    let namespace = match fields.optional("namespace") {
        Some(field) => field.parsed(resource_name, help, faults),
        None => Some("default".to_owned()),
    };
    for labels in ["labels", "annotations"].map(|name| fields.optional(name)).into_iter().flatten() {
        labels_of_metadata(&labels, faults);
    }
    fields.tolerate(ADDED_BY_A_CLUSTER);
    let place = faults.place(fields.at);
    fields.finish(faults);
    Some(Meta { name: name?, namespace: namespace?, place })
}

fn labels_of_metadata(field: &Field<'_>, faults: &mut Faults<'_>) {
    if field.node.value != super::tree::Value::Null {
        labels(field, faults);
    }
}

/// A mapping of text to text; None if a value is not text.
pub fn labels(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<BTreeMap<String, String>> {
    let fields = map.fields(faults)?;
    let entries = fields.all().map(|(key, field)| Some((key.name.clone(), field.label(faults)?.to_owned())));
    // All of them are looked at before one that is wrong takes the whole away.
    entries.collect::<Vec<_>>().into_iter().collect()
}

/// RFC 1123 subdomain, as Kubernetes' names.
pub fn resource_name(text: &str) -> Result<String, &'static str> {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = text.len() <= 253
        && text.starts_with(ends)
        && text.ends_with(ends)
        && text.chars().all(|c| ends(c) || c == '-' || c == '.');
    fits.then(|| text.to_owned()).ok_or("not a resource name")
}

pub const SLUICE: &str = "sluice.dev/v1alpha1";
pub const RIPTIDES: &str = "core.riptides.io/v1alpha1";
const KINDS: &[(&str, &str)] = &[
    ("Gateway", SLUICE),
    ("Policy", SLUICE),
    ("Service", RIPTIDES),
    ("TrustBundle", SLUICE),
    ("WorkloadIdentity", RIPTIDES),
];
const ADDED_BY_A_CLUSTER: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
