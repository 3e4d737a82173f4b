//! `spec.identity` of a Gateway: where SVIDs come from, and which workload gets its own from which.
//!
//! ```text
//!   identity: { source: embedded, embedded: {…} }       one source, for every workload
//!   identity:                                           several: the first that takes a workload
//!     sources:                                          gives it its SVID
//!       - { name: certs, source: files, files: {…}, workloads: [payments/*] }
//!       - { name: node-ca, source: embedded, embedded: {…} }
//! ```
//! The choice stands here and not on the WorkloadIdentity: those are the cluster's resources, and say
//! the same on every node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use snapshot::IdPattern;

use super::decode::{Faults, Field, Fields};
use super::resource::resource_name;
use super::spiffe::parse_pattern;
use super::spire::{self, Spire};
use super::vault::{self, Vault};
use super::{Place, SpiffeId};

/// A source with its name, and whom it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedSource {
    /// Where the Gateway gives none: the source's kind.
    pub name: String,
    pub place: Place,
    pub source: IdentitySource,
    /// None: every workload that no source before it takes.
    pub workloads: Option<Vec<Workloads>>,
    /// What is at fault where the source does not open: the field that leads to its files, or the source as a whole.
    pub opens: Opens,
}

/// A field, by its place and its path.
#[derive(Debug, Clone, PartialEq)]
pub struct Opens {
    pub place: Place,
    pub path: String,
}

/// Where SVIDs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The node's intermediate CA in `directory` (relative to the configuration's).
    Embedded { directory: PathBuf, ttl: Duration },
    /// Certificates and keys that somebody else issues and renews.
    Files(Files),
    /// The SPIRE agent of this node.
    Spire(Spire),
    /// The PKI of an OpenBao or a Vault.
    Vault(Box<Vault>),
}

/// A directory with an SVID, its key and its trust bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Relative to the configuration's; `{namespace}` and `{name}` stand for the WorkloadIdentity's.
    pub directory: PathBuf,
    /// Names of files, relative to `directory`. With none of them the layout is found by what is there.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub bundle: Option<PathBuf>,
}

/// One entry of a source's `workloads`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workloads {
    Id(IdPattern),
    /// `namespace/name`; no name is `namespace/*`.
    Resource {
        namespace: String,
        name: Option<String>,
    },
}

impl NamedSource {
    /// Whether the source is for this workload. `workload` is `namespace/name`.
    pub fn takes(&self, id: &SpiffeId, workload: &str) -> bool {
        self.workloads.as_ref().is_none_or(|entries| entries.iter().any(|entry| entry.matches(id, workload)))
    }
}

impl Workloads {
    pub fn matches(&self, id: &SpiffeId, workload: &str) -> bool {
        match self {
            Self::Id(pattern) => pattern.matches(id.as_str()),
            Self::Resource { namespace, name } => {
                let (of, called) = workload.split_once('/').unwrap_or_default();
                of == namespace && name.as_ref().is_none_or(|name| name == called)
            }
        }
    }
}

impl std::fmt::Display for Workloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(pattern) => pattern.fmt(f),
            Self::Resource { namespace, name } => write!(f, "{namespace}/{}", name.as_deref().unwrap_or("*")),
        }
    }
}

impl Files {
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), certificate: None, key: None, bundle: None }
    }

    /// Where the files of this workload are. Its names are those of Kubernetes, so no part of a path.
    pub fn directory_of(&self, workload: &str) -> PathBuf {
        let (namespace, name) = workload.split_once('/').unwrap_or_default();
        let text = self.directory.to_string_lossy();
        PathBuf::from(text.replace("{namespace}", namespace).replace("{name}", name))
    }

    /// The one directory, if each workload does not have its own.
    pub fn single_directory(&self) -> Option<&Path> {
        (!self.directory.to_string_lossy().contains('{')).then_some(&self.directory)
    }
}

/// All sources of a Gateway, in the order in which they are asked. Never empty.
pub fn decode(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Vec<NamedSource>> {
    let mut fields = map.fields(faults)?;
    if let Some(list) = fields.optional("sources") {
        fields.finish(faults);
        return decode_list(&list, faults);
    }
    let place = faults.place(fields.at);
    let source = decode_source(&mut fields, faults);
    fields.finish(faults);
    let (kind, source, opens) = source?;
    Some(vec![NamedSource { name: kind.name().to_owned(), place, source, workloads: None, opens }])
}

fn decode_list(list: &Field<'_>, faults: &mut Faults<'_>) -> Option<Vec<NamedSource>> {
    let entries = list.list(faults)?;
    if entries.is_empty() {
        faults.error(list.at(), &list.path, "an empty list", "give at least one source");
    }
    let mut sources: Vec<NamedSource> = Vec::new();
    for entry in &entries {
        let Some(source) = decode_entry(entry, faults) else { continue };
        if let Some(all) = sources.iter().find(|earlier| earlier.workloads.is_none()) {
            let message = format!("{} is never asked: {} before it takes every workload", source.name, all.name);
            faults.error(entry.at(), &entry.path, message, "move the source without `workloads` to the end");
        }
        if sources.iter().any(|earlier| earlier.name == source.name) {
            let message = format!("{:?} is the name of a source already", source.name);
            faults.error(entry.at(), &format!("{}.name", entry.path), message, "give each its own");
        }
        sources.push(source);
    }
    (!sources.is_empty()).then_some(sources)
}

fn decode_entry(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<NamedSource> {
    let mut fields = entry.fields(faults)?;
    let place = faults.place(fields.at);
    let help = "lower-case letters, digits, '-' and '.', such as cert-manager";
    let name = fields.required("name", faults).and_then(|field| field.parsed(resource_name, help, faults));
    let source = decode_source(&mut fields, faults);
    let workloads = fields.optional("workloads");
    fields.finish(faults);
    let workloads = match workloads {
        Some(list) => Some(decode_workloads(&list, faults)?),
        None => None,
    };
    let (_, source, opens) = source?;
    Some(NamedSource { name: name?, place, source, workloads, opens })
}

fn decode_source(fields: &mut Fields<'_>, faults: &mut Faults<'_>) -> Option<(Kind, IdentitySource, Opens)> {
    let kind = fields.required("source", faults).and_then(|field| field.choice(KINDS, faults));
    let Some(kind) = kind else {
        // What belongs to a source that was misspelt is no fault of its own.
        KINDS.iter().for_each(|(name, _)| drop(fields.optional(name)));
        return None;
    };
    let map = fields.required(kind.name(), faults)?;
    let source = match kind {
        Kind::Embedded => decode_embedded(&map, faults),
        Kind::Files => decode_files(&map, faults),
        Kind::Spire => spire::decode(&map, faults).map(IdentitySource::Spire),
        Kind::Vault => vault::decode(&map, faults).map(|vault| IdentitySource::Vault(Box::new(vault))),
    }?;
    let directory = match kind {
        Kind::Embedded => map.fields(faults).and_then(|mut fields| fields.optional("directory")),
        Kind::Files | Kind::Spire | Kind::Vault => None,
    };
    let at = directory.as_ref().unwrap_or(&map);
    Some((kind, source, Opens { place: faults.place(at.at()), path: at.path.clone() }))
}

fn decode_embedded(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<IdentitySource> {
    let mut fields = map.fields(faults)?;
    let directory = fields.required("directory", faults).and_then(|field| field.text(faults));
    let ttl = match fields.optional("ttl") {
        Some(field) => field.duration(SHORTEST_TTL..=LONGEST_TTL, faults),
        None => Some(DEFAULT_TTL),
    };
    fields.finish(faults);
    Some(IdentitySource::Embedded { directory: faults.beside(directory?), ttl: ttl? })
}

fn decode_files(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<IdentitySource> {
    let mut fields = map.fields(faults)?;
    let help = "a path; {namespace} and {name} stand for those of the WorkloadIdentity";
    let directory =
        fields.required("directory", faults).and_then(|field| field.parsed(directory_template, help, faults));
    let mut file = |name| {
        let field = fields.optional(name)?;
        field.text(faults).map(PathBuf::from)
    };
    let (certificate, key, bundle) = (file("certificate"), file("key"), file("bundle"));
    if certificate.is_none() && key.is_some() {
        let message = "is missing, and `key` is given";
        let help = "name the certificate too, or neither: then the layout is found by what is there";
        faults.error(fields.at, &format!("{}.certificate", map.path), message, help);
    }
    fields.finish(faults);
    Some(IdentitySource::Files(Files { directory: faults.beside(&directory?), certificate, key, bundle }))
}

fn directory_template(text: &str) -> Result<String, String> {
    let rest = text.replace("{namespace}", "").replace("{name}", "");
    match rest.find(['{', '}']) {
        Some(at) => Err(format!("{:?} stands for nothing", &rest[at..=at])),
        None => Ok(text.to_owned()),
    }
}

pub(super) fn decode_workloads(list: &Field<'_>, faults: &mut Faults<'_>) -> Option<Vec<Workloads>> {
    let help =
        "namespace/name, namespace/*, an ID such as spiffe://example.com/myapp/app/frontend, or all under a path";
    let entries = list.list(faults)?;
    if entries.is_empty() {
        let help = "list whom it is for, or leave the field out: then it is for all that no source before it takes";
        faults.error(list.at(), &list.path, "an empty list: the source is for nobody", help);
    }
    Some(entries.iter().filter_map(|entry| entry.parsed(parse_workloads, help, faults)).collect())
}

fn parse_workloads(text: &str) -> Result<Workloads, String> {
    if text.starts_with("spiffe:") {
        return parse_pattern(text).map(Workloads::Id).map_err(|why| why.to_string());
    }
    let (namespace, name) = text.split_once('/').ok_or("there is no '/'")?;
    let part = |part: &str| resource_name(part).map_err(|why| format!("{part:?} is {why}"));
    let name = if name == "*" { None } else { Some(part(name)?) };
    Ok(Workloads::Resource { namespace: part(namespace)?, name })
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Embedded,
    Files,
    Spire,
    Vault,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Files => "files",
            Self::Spire => "spire",
            Self::Vault => "vault",
        }
    }
}

const KINDS: &[(&str, Kind)] = &[
    (Kind::Embedded.name(), Kind::Embedded),
    (Kind::Files.name(), Kind::Files),
    (Kind::Spire.name(), Kind::Spire),
    (Kind::Vault.name(), Kind::Vault),
];
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(3_600);
pub(super) const SHORTEST_TTL: Duration = Duration::from_secs(2);
pub(super) const LONGEST_TTL: Duration = Duration::from_secs(30 * 86_400);
