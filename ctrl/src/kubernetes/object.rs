//! One of our own resources as the API writes it: kept as it came, without what a cluster adds.

use serde_json::Value;

use super::listed::{Object, Odd};
use crate::config;

/// Of one kind.
#[derive(Debug)]
pub enum Listed {}

impl Object for Listed {
    type Json = Value;
    type Kept = config::objects::Object;
    const MOST: usize = 20_000;

    fn of(mut value: Value) -> Result<(String, Option<Self::Kept>), Odd> {
        let text = |path: &str| {
            let found = value.pointer(path).and_then(Value::as_str);
            found.map(str::to_owned).ok_or_else(|| format!("missing field {path}"))
        };
        let (namespace, name) = (text("/metadata/namespace")?, text("/metadata/name")?);
        let uid = text("/metadata/uid")?;
        let generation = value.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.retain(|name, _| KEPT.contains(&name.as_str()));
        }
        Ok((format!("{namespace}/{name}"), Some(config::objects::Object { uid, generation, value })))
    }
}

/// What the decoder looks at. Whatever else changes is no change.
const KEPT: [&str; 3] = ["name", "namespace", "labels"];
