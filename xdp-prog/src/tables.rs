//! Bringing a map to what it should hold, while packets ask it.
//!
//! What is new is added before what is old is removed: at every moment the map holds at least what
//! is in both the old and the new. If adding fails half-way, the old is still all there.

use crate::maps::{Entries, Table};
use crate::{Change, Error, Result};

/// What is left to do, and what was done.
#[derive(Debug)]
pub struct Update {
    pub change: Change,
    stale: Vec<Vec<u8>>,
}

/// Adds and changes entries. `keep` gets the old and the new value and says what to write. Only
/// old keys for which `ours` holds are stale if they are not wanted.
pub fn add(
    table: &Table,
    wanted: &[(Vec<u8>, Vec<u8>)],
    ours: impl Fn(&[u8]) -> bool,
    keep: impl Fn(&[u8], &[u8]) -> Vec<u8>,
) -> Result<Update> {
    let old = table.entries()?;
    let index: Entries = wanted.iter().cloned().collect();
    let stale = old.keys().filter(|key| ours(key) && !index.contains_key(*key)).cloned().collect();
    let mut update = Update { change: Change::default(), stale };
    let room = table.capacity() - old.len().min(table.capacity());
    let new = index.keys().filter(|key| !old.contains_key(*key)).count();
    if new > room {
        return Err(Error::Full { map: table.name, capacity: table.capacity(), wanted: old.len() + new });
    }
    // In the caller's order, each key once.
    for (key, value) in wanted.iter().filter(|(key, value)| index.get(key) == Some(value)) {
        match old.get(key) {
            None => {
                table.put(key, value)?;
                update.change.added += 1;
            }
            Some(before) => {
                let after = keep(before, value);
                if after == *before {
                    update.change.kept += 1;
                } else {
                    table.put(key, &after)?;
                    update.change.changed += 1;
                }
            }
        }
    }
    Ok(update)
}

/// Removes what [`add`] found stale.
pub fn remove(table: &Table, mut update: Update) -> Result<Change> {
    for key in &update.stale {
        table.remove(key)?;
        update.change.removed += 1;
    }
    Ok(update.change)
}

/// Both at once, for a map that stands alone.
pub fn replace(table: &Table, wanted: &[(Vec<u8>, Vec<u8>)]) -> Result<Change> {
    let update = add(table, wanted, |_| true, |_, new| new.to_vec())?;
    remove(table, update)
}
