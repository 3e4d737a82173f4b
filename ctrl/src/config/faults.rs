//! Everything that is wrong with one file, each fault with its place, its field and what would be right.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::Field;
use super::schema::{Asked, Recorder};
use super::tree::{Span, Value};
use super::{Diagnostic, Place};

/// What was found wrong in one file.
pub struct Faults<'t> {
    file: Arc<str>,
    text: &'t str,
    directory: &'t Path,
    pub found: Vec<Diagnostic>,
    /// Where what is asked of [`Field::any`] is noted.
    pub(super) recorder: Recorder,
}

impl<'t> Faults<'t> {
    pub fn of(file: Arc<str>, text: &'t str, directory: &'t Path) -> Self {
        Self { file, text, directory, found: Vec::new(), recorder: Recorder::default() }
    }

    /// For a run over [`Field::any`], whose faults mean nothing.
    pub fn asking() -> Faults<'static> {
        Faults::of("".into(), "", Path::new(""))
    }

    pub fn recorded(self) -> Recorder {
        self.recorder
    }

    /// True: it stands for any value, and what is asked of it has been noted.
    pub(super) fn asks(&mut self, field: &Field<'_>, asked: impl FnOnce() -> Asked) -> bool {
        if field.is_any() {
            self.recorder.note(&field.path, asked());
        }
        field.is_any()
    }

    pub fn place(&self, at: Span) -> Place {
        Place { file: self.file.clone(), line: at.line, column: at.column }
    }

    /// A path that the file gives, relative to the file's own directory.
    pub fn beside(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// The same, where it really is, if that is below the file's directory. Err says why not.
    pub fn below(&self, path: &str) -> Result<PathBuf, String> {
        let own = if self.directory.as_os_str().is_empty() { Path::new(".") } else { self.directory };
        let own = own.canonicalize().map_err(|error| error.to_string())?;
        let real = self.beside(path).canonicalize().map_err(|error| error.to_string())?;
        match real.starts_with(&own) {
            true => Ok(real),
            false => {
                Err(format!("is {}, outside the configuration directory: changes would not be seen", real.display()))
            }
        }
    }

    pub fn error(&mut self, at: Span, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let fault = Diagnostic::error(&self.place(at), path, message);
        self.note(at, fault, help.into());
    }

    pub fn warning(&mut self, at: Span, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let fault = Diagnostic::warning(&self.place(at), path, message);
        self.note(at, fault, help.into());
    }

    fn note(&mut self, at: Span, mut fault: Diagnostic, help: String) {
        // A file that is something else altogether has a fault on each line. Counted apart, so that
        // no error is lost behind warnings.
        if self.found.iter().filter(|earlier| earlier.severity == fault.severity).count() >= MOST_FAULTS {
            return;
        }
        if !help.is_empty() {
            fault = fault.help(help);
        }
        self.found.push(fault.with_excerpt(self.text, at.length));
    }

    pub(super) fn wants(&mut self, field: &Field<'_>, wanted: &str) {
        let message = format!("{} is not {wanted}", capped(&field.node.value.shown()));
        let help = match field.node.value {
            Value::Null => "give it a value, or leave the field out; [] is an empty list".into(),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) if wanted == "text" => "put it in quotes".to_owned(),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => String::new(),
            Value::Text(_) | Value::List(_) | Value::Map(_) => String::new(),
        };
        self.error(field.node.at, &field.path, message, help);
    }

    /// Notes that a field's value is refused, and why.
    pub fn refuse(&mut self, field: &Field<'_>, why: impl std::fmt::Display, help: impl Into<String>) {
        let message = format!("{}: {why}", capped(&field.node.value.shown()));
        self.error(field.node.at, &field.path, message, help);
    }
}

/// A value as long as a file would bury its message.
pub(super) fn capped(shown: &str) -> String {
    match shown.char_indices().nth(LONGEST_VALUE) {
        Some((cut, _)) => format!("{}…", &shown[..cut]),
        None => shown.to_owned(),
    }
}

const LONGEST_VALUE: usize = 100;
/// Errors, and warnings, of one file; nobody reads more at once.
const MOST_FAULTS: usize = 100;
