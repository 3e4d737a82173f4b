//! Files that held resources and hold none any more: somebody may be in the middle of writing them.
//!
//! An empty file is a right one, so what it held is out of force. That may well be meant, and as well be what is left
//! of a copy that broke off: it is said until the file holds something again or is gone.

use std::collections::BTreeMap;

use crate::config::{HOLDS_NOTHING, Loaded};

/// Each file with how many resources it held last.
#[derive(Debug, Default)]
pub(super) struct Emptied(BTreeMap<String, usize>);

impl Emptied {
    pub fn see(&mut self, before: &Loaded, now: &Loaded) {
        let known = std::mem::take(&mut self.0);
        let empty = now.warnings.iter().filter(|warning| warning.message == HOLDS_NOTHING);
        for file in empty.map(|warning| &warning.file) {
            let held = before.files().filter(|held| *held == file.as_str()).count();
            let held = if held > 0 { held } else { known.get(file).copied().unwrap_or(0) };
            if held > 0 {
                self.0.insert(file.clone(), held);
            }
        }
    }

    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(file, held)| {
            let (resources, they) = if *held == 1 { ("resource", "it is") } else { ("resources", "they are") };
            format!(
                "{file} is empty; it held {held} {resources} before, and {they} out of force: write it again, or \
                 remove it if that is meant"
            )
        })
    }
}
