//! Resources out of a Kubernetes API beside those of the files: read by the same code, and each stands or
//! falls by itself.
//!
//! A file that is wrong has its whole directory refused, since whoever wrote it reads the answer. An object is
//! one of many that others own: a faulty one leaves its last good version in force, or is left out where there
//! was none, and nobody else notices. Which one is at fault, the faults say: each names the places that it is
//! about ([`Trial::step_back`]).

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::Value as Json;
use snapshot::Version;

use super::decode::{Faults, Field};
use super::tree::{Key, Node, Span, Value};
use super::{Diagnostic, Place, Resources, Service, resource};

/// Kind, and `namespace/name`.
pub type Id = (&'static str, String);

/// An object as the API has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub uid: String,
    /// Counts the changes of its spec.
    pub generation: u64,
    /// Without its status and what else a cluster adds.
    pub value: Json,
}

/// What one object came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    pub resources: Resources,
    pub warnings: Vec<Diagnostic>,
}

/// An object that is in force, or one's last good version that is.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    pub object: Object,
    pub decoded: Decoded,
    /// The first snapshot that had it; None: none has been made since.
    pub since: Option<Version>,
}

/// All objects, and what became of them.
#[derive(Debug, Default)]
pub struct Ledger {
    pub newest: BTreeMap<Id, Object>,
    pub in_force: BTreeMap<Id, Standing>,
    /// Why the newest version is not in force.
    pub faults: BTreeMap<Id, String>,
}

/// What would be in force, while it is being tried.
#[derive(Debug)]
pub struct Trial {
    standing: BTreeMap<Id, Standing>,
    before: BTreeMap<Id, Standing>,
    /// Other versions than are in force.
    changed: Vec<Id>,
    faults: BTreeMap<Id, String>,
}

/// How an object is named where a file would be.
pub fn place_of((kind, name): &Id) -> Place {
    Place { file: format!("{kind} {name}").into(), line: 0, column: 0 }
}

impl Object {
    fn decode(&self, id: &Id, directory: &Path) -> Result<Decoded, Vec<Diagnostic>> {
        let mut faults = Faults::of(place_of(id).file, "", directory);
        let mut resources = Resources::default();
        match node(&self.value, DEEPEST) {
            Some(node) => resource::decode(&Field { node: &node, path: String::new() }, &mut resources, &mut faults),
            None => faults.error(Span::default(), "", format!("nested deeper than {DEEPEST} levels"), ""),
        }
        for service in &mut resources.services {
            service.is_object = true;
            in_its_namespace(service, &mut faults);
        }
        match faults.found.iter().any(Diagnostic::is_error) {
            true => Err(faults.found),
            false => Ok(Decoded { resources, warnings: faults.found }),
        }
    }
}

/// A Service of another namespace is another's: who writes here must not say what its labels are, nor stand in
/// the way of who may.
fn in_its_namespace(service: &Service, faults: &mut Faults<'_>) {
    let Some(named) = &service.kubernetes else { return };
    let namespace = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let own = namespace(&service.name);
    if namespace(&named.name) != own {
        let message = format!("{} is another namespace's", named.name);
        let help = format!("an object names Services of its own namespace, {own}; a file of the node may name any");
        faults.error(Span::default(), "spec.kubernetes.namespace", message, help);
    }
}

impl Ledger {
    /// Everything in its newest version, as far as that can be read. `directory` is where paths start.
    pub fn trial(&self, directory: &Path) -> Trial {
        let mut trial = Trial {
            standing: BTreeMap::new(),
            before: self.in_force.clone(),
            changed: vec![],
            faults: BTreeMap::new(),
        };
        for (id, object) in &self.newest {
            let last = self.in_force.get(id);
            // A TrustBundle names files, whose changes it does not show.
            if let Some(last) = last.filter(|last| last.object == *object && id.0 != "TrustBundle") {
                trial.standing.insert(id.clone(), last.clone());
                continue;
            }
            match object.decode(id, directory) {
                Ok(decoded) => {
                    let same = last.is_some_and(|last| last.object == *object && last.decoded == decoded);
                    let since = last.filter(|_| same).and_then(|last| last.since);
                    trial.standing.insert(id.clone(), Standing { object: object.clone(), decoded, since });
                    trial.changed.extend((!same).then(|| id.clone()));
                }
                Err(faults) => trial.fall_back(id, said(&faults)),
            }
        }
        trial
    }

    pub fn adopt(&mut self, trial: Trial) {
        (self.in_force, self.faults) = (trial.standing, trial.faults);
    }

    /// What is in force as of now is so since this snapshot.
    pub fn published(&mut self, version: Version) {
        for standing in self.in_force.values_mut() {
            standing.since.get_or_insert(version);
        }
    }
}

impl Trial {
    pub fn decoded(&self) -> Vec<Decoded> {
        self.standing.values().map(|standing| standing.decoded.clone()).collect()
    }

    /// Takes back those changes that the faults name; if they name none, all. False: there is none to take
    /// back, so that something else is at fault.
    ///
    /// Of two that contradict each other one has to stay: a fault is first of all where it was found, and only
    /// if that is no change, where else it points.
    pub fn step_back(&mut self, faults: &[Diagnostic]) -> bool {
        let errors: Vec<_> = faults.iter().filter(|fault| fault.is_error()).cloned().collect();
        let changed: HashSet<String> = self.changed.iter().map(|id| place_of(id).file.to_string()).collect();
        let about = |id: &Id| -> Vec<Diagnostic> {
            let place = place_of(id).file;
            let is = |fault: &&Diagnostic| match changed.contains(&fault.file) {
                true => *fault.file == *place,
                false => names(fault, &place),
            };
            errors.iter().filter(is).cloned().collect()
        };
        let mut back: Vec<_> = self.changed.iter().map(|id| (id.clone(), about(id))).collect();
        if back.iter().any(|(_, about)| !about.is_empty()) {
            back.retain(|(_, about)| !about.is_empty());
        }
        for (id, about) in &back {
            self.fall_back(id, said(if about.is_empty() { &errors } else { about }));
        }
        self.changed.retain(|id| !back.iter().any(|(gone, _)| gone == id));
        !back.is_empty()
    }

    fn fall_back(&mut self, id: &Id, why: String) {
        self.faults.insert(id.clone(), why);
        match self.before.get(id) {
            Some(last) => drop(self.standing.insert(id.clone(), last.clone())),
            None => drop(self.standing.remove(id)),
        }
    }
}

/// Whether a fault is about the object whose place this is.
fn names(fault: &Diagnostic, place: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    fault.file == place || fault.message.match_indices(place).any(|(at, _)| ends(&fault.message[at + place.len()..]))
}

fn said(faults: &[Diagnostic]) -> String {
    let errors = faults.iter().filter(|fault| fault.is_error());
    errors.map(|fault| fault.to_string().replace("\n  ", ";")).collect::<Vec<_>>().join("; ")
}

/// JSON as a file's tree. None: it is nested too deep.
fn node(value: &Json, room: usize) -> Option<Node> {
    let room = room.checked_sub(1)?;
    let value = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Integer(number.into()),
            (None, Some(number)) => Value::Integer(number.into()),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(list) => Value::List(list.iter().map(|value| node(value, room)).collect::<Option<_>>()?),
        Json::Object(map) => {
            let entry = |(name, value): (&String, &Json)| {
                Some((Key { at: Span::default(), name: name.clone() }, node(value, room)?))
            };
            Value::Map(map.iter().map(entry).collect::<Option<_>>()?)
        }
    };
    Some(Node { at: Span::default(), value })
}

/// As deep as a file may be.
const DEEPEST: usize = 32;
