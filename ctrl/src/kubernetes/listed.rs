//! What can be listed: what is asked for, what becomes of each object, and how long anything is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `/api/v1/pods`.
    pub path: String,
    pub fields: Option<String>,
    pub labels: Option<String>,
    /// As it is shown: `pods of node node-a`.
    pub what: String,
    pub resource: String,
    pub group: &'static str,
    /// Those that are wanted, of all that are listed: the rest is neither kept nor counted. None: all.
    pub only: Option<Arc<BTreeSet<String>>>,
}

/// How long it is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// An answer, and a list to its end.
    pub answer: Duration,
    /// A watch without a word is asked for anew: servers send a bookmark each minute.
    pub silence: Duration,
    /// The longest pause before the next try.
    pub back_off: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { answer: seconds(30), silence: seconds(150), back_off: seconds(30) }
    }
}

/// Something that is listed.
pub trait Object: Sized + Send + Sync + 'static {
    /// How it stands in an answer.
    type Json: DeserializeOwned + Send;
    type Kept: Clone + PartialEq + Send + Sync + 'static;
    const MOST: usize;

    /// Its key, and itself unless it is over.
    fn of(json: Self::Json) -> Result<(String, Option<Self::Kept>), Odd>;

    /// What [`Asked::only`] goes by.
    fn whose<'k>(key: &'k str, _kept: &'k Self::Kept) -> &'k str {
        key
    }
}

/// An object that is not understood.
#[derive(Debug)]
pub enum Odd {
    /// Nor is anything that the server says, then.
    All(String),
    /// It is one of many that others own: its last good version stays, and so do the others.
    One { key: String, whose: String, why: String },
}

impl From<String> for Odd {
    fn from(why: String) -> Self {
        Self::All(why)
    }
}

pub type Known<T> = Arc<BTreeMap<String, <T as Object>::Kept>>;
