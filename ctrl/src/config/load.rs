//! Files of a directory to one [`Loaded`], or everything that is wrong with them.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::{Faults, Field};
use super::objects::Decoded;
use super::tree::Span;
use super::{Diagnostic, Gateway, Place, Policy, Service, TrustBundle, WorkloadIdentity, lint, resource, tree};

/// A configuration that is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub gateway: Gateway,
    /// Sorted by name, as the others are.
    pub identities: Vec<WorkloadIdentity>,
    pub services: Vec<Service>,
    pub policies: Vec<Policy>,
    pub bundles: Vec<TrustBundle>,
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// The file of each resource beside the Gateway.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let places = self.identities.iter().map(|one| &one.place);
        let places = places.chain(self.services.iter().map(|one| &one.place));
        let places = places.chain(self.policies.iter().map(|one| &one.place));
        places.chain(self.bundles.iter().map(|one| &one.place)).map(|place| &*place.file)
    }
}

/// The same without the demand for a Gateway, for files of policy on their own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resources {
    pub gateway: Option<Gateway>,
    pub identities: Vec<WorkloadIdentity>,
    pub services: Vec<Service>,
    pub policies: Vec<Policy>,
    pub bundles: Vec<TrustBundle>,
    pub warnings: Vec<Diagnostic>,
    /// A Gateway is there, if only one with faults.
    pub(super) gateway_seen: bool,
}

/// Reads all `*.yaml` and `*.yml` of a directory, in the order of their names. Exactly one Gateway
/// must be among them. Err holds all faults, and the warnings with them.
pub fn load_dir(dir: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    reload_dir(dir, &mut Known::default())
}

/// The same for one that was read before: only what changed is read again.
pub fn reload_dir(dir: &Path, known: &mut Known) -> Result<Loaded, Vec<Diagnostic>> {
    demand_gateway(read_and_parse(dir, known), dir)
}

/// Loads texts that were read already. Relative paths in a file start at the file's directory.
pub fn load_files(files: &[(PathBuf, String)]) -> Result<Loaded, Vec<Diagnostic>> {
    let first = files.first().map_or(Path::new("configuration"), |(path, _)| path);
    demand_gateway(parse_texts(files), first)
}

/// Loads the texts of `dir` as it would be with them, each by its path within it.
pub fn load_texts(dir: &Path, files: &[(PathBuf, String)], known: &mut Known) -> Result<Loaded, Vec<Diagnostic>> {
    let parsed = parse(files.iter().map(|(path, text)| (path.as_path(), text.as_str(), dir)), known);
    demand_gateway(parsed, dir)
}

/// As [`load_dir`], but the Gateway may be missing.
pub fn parse_dir(dir: &Path) -> Result<Resources, Vec<Diagnostic>> {
    let (resources, faults) = read_and_parse(dir, &mut Known::default());
    finish(resources, faults)
}

/// The Gateway of a directory, whatever is wrong with the rest: enough to find who serves it. None
/// if it is itself at fault.
pub fn gateway_of(dir: &Path) -> Option<Gateway> {
    read_and_parse(dir, &mut Known::default()).0.gateway
}

/// As [`load_files`], but the Gateway may be missing.
pub fn parse_files(files: &[(PathBuf, String)]) -> Result<Resources, Vec<Diagnostic>> {
    let (resources, faults) = parse_texts(files);
    finish(resources, faults)
}

type Parsed = (Resources, Vec<Diagnostic>);

fn read_and_parse(dir: &Path, known: &mut Known) -> Parsed {
    let (files, mut faults) = read_dir(dir);
    let short = |path: &'_ PathBuf| path.strip_prefix(dir).unwrap_or(path).to_owned();
    let files: Vec<_> = files.into_iter().map(|(path, text)| (short(&path), text)).collect();
    let (resources, more) = parse(files.iter().map(|(path, text)| (path.as_path(), text.as_str(), dir)), known);
    faults.extend(more);
    known.read = files.into();
    (resources, faults)
}

/// The files of `dir` as they were when they were right last, with what else is known by now.
pub fn load_good(dir: &Path, known: &mut Known) -> Result<Loaded, Vec<Diagnostic>> {
    let files = known.good.clone();
    load_texts(dir, &files, known)
}

fn parse_texts(files: &[(PathBuf, String)]) -> Parsed {
    let each = files.iter().map(|(path, text)| {
        let directory = path.parent().unwrap_or(Path::new(""));
        (path.as_path(), text.as_str(), directory)
    });
    parse(each, &mut Known::default())
}

fn demand_gateway((mut resources, mut faults): Parsed, whole_path: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    if !resources.gateway_seen {
        let fault = Diagnostic::error(&whole(whole_path), "", "there is no Gateway");
        faults.push(fault.help("add a resource of kind Gateway (apiVersion: sluice.dev/v1alpha1)"));
    }
    let gateway = resources.gateway.take();
    let Resources { identities, services, policies, bundles, warnings, .. } = finish(resources, faults)?;
    let gateway = gateway.expect("a Gateway that was seen and is not there has a fault");
    Ok(Loaded { gateway, identities, services, policies, bundles, warnings })
}

/// All right, or everything that is not.
fn finish(resources: Resources, faults: Vec<Diagnostic>) -> Result<Resources, Vec<Diagnostic>> {
    match faults.iter().any(Diagnostic::is_error) {
        true => Err(faults),
        false => Ok(Resources { warnings: faults, ..resources }),
    }
}

/// Texts of a directory's files and what could not be read.
fn read_dir(dir: &Path) -> (Vec<(PathBuf, String)>, Vec<Diagnostic>) {
    let paths = match yaml_files(dir) {
        Ok(paths) => paths,
        Err(error) => return (Vec::new(), vec![Diagnostic::error(&whole(dir), "", error.to_string())]),
    };
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    if paths.is_empty() {
        faults.push(Diagnostic::error(&whole(dir), "", "there is no *.yaml or *.yml file in this directory"));
    }
    if paths.len() > MOST_FILES {
        let message = format!("{} files; at most {MOST_FILES} are read", paths.len());
        return (files, vec![Diagnostic::error(&whole(dir), "", message)]);
    }
    for path in paths {
        match read_file(&path) {
            Ok(text) => files.push((path, text)),
            Err(reason) => {
                let shown = path.strip_prefix(dir).unwrap_or(&path);
                faults.push(Diagnostic::error(&whole(shown), "", reason));
            }
        }
    }
    (files, faults)
}

fn yaml_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        // Editors and mounted volumes keep their own files beside ours under hidden names.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if yaml && !hidden && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A file's text, refused where it is too large or not UTF-8.
pub fn read_file(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > LARGEST_FILE {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("is not UTF-8: the byte at offset {at} is none of a character's")
    })
}

fn parse<'f>(files: impl Iterator<Item = (&'f Path, &'f str, &'f Path)>, known: &mut Known) -> Parsed {
    let mut resources = Resources::default();
    let (mut found, mut texts) = (Vec::new(), HashMap::new());
    let mut before = std::mem::take(&mut known.files);
    for (path, text, directory) in files {
        let file = path.display().to_string();
        let mut faults = Faults::of(file.as_str().into(), text, directory);
        match before.remove(path).filter(|one| one.text == text) {
            Some(one) => {
                resources.take(one.resources.clone(), &mut faults);
                faults.found.extend_from_slice(&one.faults);
                known.files.insert(path.to_owned(), one);
            }
            None => {
                let mut own = Resources::default();
                parse_text(text, &mut own, &mut faults);
                known.note(path, text, &own, &faults.found);
                resources.take(own, &mut faults);
            }
        }
        faults.found.sort_by_key(|fault| (fault.line, fault.column));
        found.append(&mut faults.found);
        texts.insert(file, text);
    }
    for object in &known.objects {
        let mut faults = Faults::of("".into(), "", Path::new(""));
        resources.take(object.resources.clone(), &mut faults);
        found.extend_from_slice(&object.warnings);
    }
    resources.identities.sort_by(|a, b| a.name.cmp(&b.name));
    resources.services.sort_by(|a, b| a.name.cmp(&b.name));
    resources.policies.sort_by(|a, b| a.name.cmp(&b.name));
    resources.bundles.sort_by(|a, b| a.name.cmp(&b.name));
    // What is missing because it has a fault would be warned about as well.
    let broken = found.iter().any(Diagnostic::is_error);
    let linted = lint::lint(&resources).into_iter().filter(|fault| fault.is_error() || !broken);
    found.extend(linted.map(|fault| match texts.get(&fault.file) {
        Some(text) => fault.with_excerpt(text, 1),
        None => fault,
    }));
    (resources, found)
}

/// What files came to, by their paths, so that a change of one does not cost reading all.
#[derive(Debug, Default)]
pub struct Known {
    files: HashMap<PathBuf, One>,
    /// What comes beside the files, from a Kubernetes API.
    pub objects: Vec<Decoded>,
    /// The files as they were read last, and as they were when the whole was right.
    read: Arc<[(PathBuf, String)]>,
    good: Arc<[(PathBuf, String)]>,
}

#[derive(Debug)]
struct One {
    text: String,
    resources: Resources,
    faults: Vec<Diagnostic>,
}

impl Known {
    /// What was read last is right.
    pub fn is_good(&mut self) {
        self.good = self.read.clone();
    }

    /// Gateways and TrustBundles name other files, whose changes their own text does not show: those
    /// are read each time.
    fn note(&mut self, path: &Path, text: &str, resources: &Resources, faults: &[Diagnostic]) {
        if !resources.gateway_seen && resources.bundles.is_empty() && !faults.iter().any(Diagnostic::is_error) {
            let one = One { text: text.to_owned(), resources: resources.clone(), faults: faults.to_vec() };
            self.files.insert(path.to_owned(), one);
        }
    }
}

fn parse_text(text: &str, resources: &mut Resources, faults: &mut Faults<'_>) {
    if text.len() > LARGEST_FILE {
        return faults.error(Span::default(), "", too_large(), "");
    }
    match tree::parse(text) {
        Ok(documents) if documents.is_empty() => {
            faults.warning(Span::default(), "", HOLDS_NOTHING, "remove it if that is meant");
        }
        Ok(documents) => {
            for node in &documents {
                resource::decode(&Field { node, path: String::new() }, resources, faults);
            }
        }
        Err(error) => {
            let help = if error.reason.contains("tab") { "indent with spaces" } else { "" };
            faults.error(error.at, "", format!("not YAML that is taken here: {}", error.reason), help);
        }
    }
}

impl Resources {
    /// Takes what one file holds.
    fn take(&mut self, file: Self, faults: &mut Faults<'_>) {
        let Self { gateway, identities, services, policies, bundles, warnings: _, gateway_seen } = file;
        self.gateway_seen |= gateway_seen;
        self.take_gateway(gateway, faults);
        self.identities.extend(identities);
        self.services.extend(services);
        self.policies.extend(policies);
        self.bundles.extend(bundles);
    }

    /// Takes a Gateway; a second one is a fault that names both.
    pub(super) fn take_gateway(&mut self, gateway: Option<Gateway>, faults: &mut Faults<'_>) {
        match (&self.gateway, gateway) {
            (Some(first), Some(second)) => {
                let message =
                    format!("a second Gateway {:?}; the first is {:?} in {}", second.name, first.name, first.place);
                let at = Span { line: second.place.line, column: second.place.column, length: 1 };
                faults.error(at, "", message, "one directory configures one node");
            }
            (None, gateway) => self.gateway = gateway,
            (Some(_), None) => {}
        }
    }
}

fn whole(path: &Path) -> Place {
    Place { file: path.display().to_string().into(), line: 0, column: 0 }
}

fn too_large() -> String {
    format!("is larger than {} MiB, the most that is read of one file", LARGEST_FILE >> 20)
}

/// Warned about of a file that is empty, or of comments only.
pub const HOLDS_NOTHING: &str = "the file holds no resource";
/// 10,000 identities take about 5 MiB.
const LARGEST_FILE: usize = 8 << 20;
const MOST_FILES: usize = 1_000;
