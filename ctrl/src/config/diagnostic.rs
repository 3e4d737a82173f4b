//! One fault of the configuration, for the person who has to mend it.
//!
//! Its Display is what compilers print: the place, the field, what is wrong, the line with a caret,
//! and what would be right.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// A position in a file of the configuration. Lines and columns count from 1; 0 is "the whole file".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: String,
    pub line: u32,
    pub column: u32,
    /// `spec.egress[0].connection.tls.mode`; empty where no field is at fault.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The line at fault, and how many characters of it the caret spans.
    #[serde(skip)]
    pub excerpt: Option<(String, usize)>,
}

impl Diagnostic {
    pub fn error(place: &Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: place.file.to_string(),
            line: place.line,
            column: place.column,
            path: path.into(),
            message: message.into(),
            help: None,
            excerpt: None,
        }
    }

    pub fn warning(place: &Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, path, message) }
    }

    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Shows the line at fault, out of the file's text.
    pub fn with_excerpt(self, text: &str, span: usize) -> Self {
        let line = self.line.checked_sub(1).and_then(|n| text.lines().nth(n as usize));
        match line {
            Some(line) if line.len() <= LONGEST_EXCERPT => Self { excerpt: Some((line.to_owned(), span)), ..self },
            Some(_) | None => self,
        }
    }

    /// One line, without the excerpt: `policy.yaml:31:13: error: spec.egress[0]: ...`.
    pub fn headline(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        };
        match self.path.as_str() {
            "" => format!("{place}: {severity}: {}", self.message),
            path => format!("{place}: {severity}: {path}: {}", self.message),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if let Some((line, span)) = &self.excerpt {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            // What stands before the caret keeps its tabs, so that the caret lands under its character.
            let before = line.chars().take(self.column.saturating_sub(1) as usize);
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let room = line.chars().count().saturating_sub(indent.chars().count()).max(1);
            let carets = "^".repeat((*span).clamp(1, room));
            write!(f, "\n {margin} |\n {number} | {line}\n {margin} | {indent}{carets}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n   help: {help}"),
            None => Ok(()),
        }
    }
}

/// Longer lines are not shown: a terminal could not place the caret.
const LONGEST_EXCERPT: usize = 160;
