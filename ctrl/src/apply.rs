//! Changes one file of the configuration directory, if the whole is still right with the change.
//!
//! The unit is a file by its name: what `-f policy.yaml` holds becomes `policy.yaml` in the
//! directory, new or replaced. Writing goes over a temporary file and a rename, so that a reader
//! sees the old or the new file and nothing between.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::{self, Diagnostic, Known, Loaded};
use crate::difference::{self, Change};
use crate::running::Running;
use crate::view::{Applied, Apply, Failure};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration would not be right with this change; nothing was changed")]
    Faults(Vec<Diagnostic>),
    #[error("{0:?} is no name for a file of the configuration: use NAME.yaml or NAME.yml, without a directory")]
    Name(String),
    #[error("{} is managed by somebody else (it has a ..data link); change it there", .0.display())]
    Managed(PathBuf),
    #[error("{} is no YAML as it is now: {}", .0.display(), .1)]
    Before(PathBuf, String),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let details = match &error {
            Error::Faults(faults) => faults.iter().map(ToString::to_string).collect(),
            Error::Name(_) | Error::Managed(_) | Error::Before(..) | Error::Io { .. } => vec![],
        };
        Self { error: error.to_string(), details }
    }
}

/// A change that the whole is right with, and that is not written yet.
#[derive(Debug)]
pub struct Plan {
    /// The configuration with the change.
    pub loaded: Loaded,
    target: PathBuf,
    /// None: the file is new.
    before: Option<String>,
    text: String,
    changes: bool,
    notes: Vec<String>,
}

/// `known`: what was read of the directory before.
pub fn plan(directory: &Path, change: &Apply, known: &mut Known) -> Result<Plan, Error> {
    let name = &change.file;
    let plain = Path::new(name).file_name().is_some_and(|f| f == name.as_str()) && !name.starts_with('.');
    if !plain || !is_yaml(Path::new(name)) {
        return Err(Error::Name(name.clone()));
    }
    if directory.join("..data").exists() {
        return Err(Error::Managed(directory.to_owned()));
    }
    let target = directory.join(name);
    let mut files = read(directory)?;
    let before = files.iter().position(|(path, _)| path.as_os_str() == name.as_str());
    let unchanged = before.is_some_and(|at| files[at].1 == change.text);
    let before = match before {
        Some(at) => Some(std::mem::replace(&mut files[at].1, change.text.clone())),
        None => {
            files.push((name.into(), change.text.clone()));
            None
        }
    };
    files.sort();
    let loaded = config::load_texts(directory, &files, known).map_err(Error::Faults)?;
    let (text, changes) = (change.text.clone(), !unchanged && !change.dry_run);
    Ok(Plan { loaded, target, before, text, changes, notes: vec![] })
}

impl Plan {
    /// Err: the Gateway that runs could not be served with it. Else what the change costs it is noted.
    pub fn hold_against(&mut self, running: &Running) -> Result<(), Error> {
        let faults = running.faults(&self.loaded.gateway);
        if !faults.is_empty() {
            return Err(Error::Faults(faults));
        }
        self.notes = running.notes(&self.loaded);
        Ok(())
    }

    /// What the file would say otherwise than it does.
    pub fn changes(&self) -> Result<Vec<Change>, Error> {
        let before = self.before.as_deref().unwrap_or_default();
        difference::of(before, &self.text).map_err(|error| Error::Before(self.target.clone(), error.reason))
    }

    /// Does it, unless there is nothing to do or it was to be tried only.
    pub fn carry_out(self) -> Result<Applied, Error> {
        if self.changes {
            write(&self.target, &self.text).map_err(|source| Error::Io { path: self.target.clone(), source })?;
        }
        let warnings = self.loaded.warnings.iter().map(ToString::to_string).collect();
        let path = self.target.display().to_string();
        Ok(Applied { changed: self.changes, path, warnings, notes: self.notes, in_force: None })
    }
}

/// The YAML files of a directory with their texts, by name and in that order.
pub fn read(directory: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let mut files = vec![];
    for entry in std::fs::read_dir(directory).map_err(io(directory))? {
        let entry = entry.map_err(io(directory))?;
        let path = entry.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if is_yaml(&path) && !hidden && path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(io(&path))?;
            files.push((entry.file_name().into(), text));
        }
    }
    files.sort();
    Ok(files)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}

fn write(target: &Path, text: &str) -> std::io::Result<()> {
    let directory = target.parent().unwrap_or(Path::new("."));
    let fresh = directory.join(format!(".{}.new", target.file_name().unwrap_or_default().display()));
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, target)?;
    std::fs::File::open(directory)?.sync_all()
}
