//! `spire:` of an identity source: the sockets of a SPIRE agent, and by which selectors it knows workloads.
//!
//! ```text
//!   socket: /run/spire/agent/api.sock            the Workload API: the SVIDs of sluice-ctrl itself
//!   adminSocket: /run/spire/agent/admin.sock     the Delegated Identity API: those of workloads, by selectors
//!   delegated:
//!     - workloads: [shop/*]
//!       selectors: ["k8s:ns:{namespace}", "k8s:sa:{name}"]
//!   broker: {…}                                  the SPIFFE Broker API: those of workloads, by references
//! ```

use std::path::PathBuf;

use super::SpiffeId;
use super::broker::{self, Broker};
use super::decode::{Faults, Field};
use super::identity::{Workloads, decode_workloads};

/// A SPIRE agent. Sockets are absolute or relative to the configuration's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spire {
    pub socket: Option<PathBuf>,
    pub admin_socket: Option<PathBuf>,
    pub delegated: Vec<Delegated>,
    /// For whom no entry of `delegated` takes.
    pub broker: Option<Broker>,
}

/// By which selectors the agent knows these workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    pub workloads: Vec<Workloads>,
    /// `{namespace}` and `{name}` in a value stand for the WorkloadIdentity's.
    pub selectors: Vec<Selector>,
}

/// `type:value`, as `spire-server entry create -selector` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub kind: String,
    pub value: String,
}

impl Spire {
    /// Those of the first entry that takes the workload.
    pub fn selectors_of(&self, id: &SpiffeId, workload: &str) -> Option<Vec<Selector>> {
        let takes = |entry: &&Delegated| entry.workloads.iter().any(|one| one.matches(id, workload));
        let (namespace, name) = workload.split_once('/').unwrap_or_default();
        let filled = |selector: &Selector| Selector {
            kind: selector.kind.clone(),
            value: selector.value.replace("{namespace}", namespace).replace("{name}", name),
        };
        self.delegated.iter().find(takes).map(|entry| entry.selectors.iter().map(filled).collect())
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

pub fn decode(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Spire> {
    let mut fields = map.fields(faults)?;
    let (socket, admin_socket) = (fields.optional("socket"), fields.optional("adminSocket"));
    let (delegated, broker) = (fields.optional("delegated"), fields.optional("broker"));
    match (&socket, &admin_socket, &delegated) {
        // The broker wants one by itself.
        (None, None, None) if broker.is_some() => {}
        (None, None, _) => {
            let help = "give `socket` (the Workload API), or `adminSocket` (admin_socket_path of the agent)";
            faults.error(fields.at, &map.path, "names no socket of an agent", help);
        }
        (_, None, Some(_)) => {
            let help = "the admin_socket_path of the agent; the socket of workloads does not tell about others";
            faults.error(fields.at, &format!("{}.adminSocket", map.path), "is missing, and `delegated` is given", help);
        }
        (_, Some(_), None) => {
            let help = "say by which selectors the agent knows which workloads";
            faults.error(fields.at, &format!("{}.delegated", map.path), "is missing, and `adminSocket` is given", help);
        }
        (Some(_), None, None) | (_, Some(_), Some(_)) => {}
    }
    if let (None, Some(_)) = (&socket, &broker) {
        let help = "the Workload API, where sluice-ctrl gets the SVID that it shows there";
        faults.error(fields.at, &format!("{}.socket", map.path), "is missing, and `broker` is given", help);
    }
    fields.finish(faults);
    let mut path = |field: Option<Field<'_>>| -> Option<Option<PathBuf>> {
        let Some(field) = field else { return Some(None) };
        field.parsed(socket_path, SOCKET_HELP, faults).map(|path| Some(faults.beside(&path)))
    };
    let (socket, admin_socket) = (path(socket), path(admin_socket));
    let delegated = delegated.map(|list| decode_delegated(&list, faults)).unwrap_or_default();
    let broker = match broker {
        Some(map) => {
            let broker = broker::decode(&map, faults)?;
            taken_before(&delegated, &broker, &map, faults);
            Some(broker)
        }
        None => None,
    };
    Some(Spire { socket: socket?, admin_socket: admin_socket?, delegated, broker })
}

fn decode_delegated(list: &Field<'_>, faults: &mut Faults<'_>) -> Vec<Delegated> {
    let entries = list.list(faults).unwrap_or_default();
    let one = |entry: &Field<'_>| {
        let mut fields = entry.fields(faults)?;
        let (workloads, selectors) = (fields.required("workloads", faults), fields.required("selectors", faults));
        fields.finish(faults);
        let workloads = workloads.and_then(|list| decode_workloads(&list, faults));
        let selectors = selectors?.list(faults)?;
        if selectors.is_empty() {
            faults.error(entry.at(), &format!("{}.selectors", entry.path), "an empty list", SELECTOR_HELP);
        }
        let selectors = selectors.iter().filter_map(|field| field.parsed(selector, SELECTOR_HELP, faults)).collect();
        Some(Delegated { workloads: workloads?, selectors })
    };
    entries.iter().filter_map(one).collect()
}

/// Entries of the broker that would never be asked about.
fn taken_before(delegated: &[Delegated], broker: &Broker, map: &Field<'_>, faults: &mut Faults<'_>) {
    let before: Vec<_> = delegated.iter().flat_map(|entry| &entry.workloads).collect();
    for (nth, reference) in broker.references.iter().enumerate() {
        for taken in reference.workloads.iter().filter(|one| before.contains(one)) {
            let path = format!("{}.references[{nth}].workloads", map.path);
            let message = format!("{taken} is never asked about here: an entry of `delegated` takes it");
            faults.error(map.at(), &path, message, "take it out of one of the two");
        }
    }
}

/// With or without the `unix:` that SPIFFE_ENDPOINT_SOCKET has before it.
pub(super) fn socket_path(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("unix:").map_or(text, |path| path.strip_prefix("//").unwrap_or(path));
    match path.len() {
        _ if path.contains("://") => Err("is no path; only Unix sockets are asked".into()),
        0 => Err("has no path".into()),
        length @ LONGEST_PATH.. => {
            Err(format!("{length} bytes; the path of a socket has at most {}", LONGEST_PATH - 1))
        }
        _ => Ok(path.to_owned()),
    }
}

fn selector(text: &str) -> Result<Selector, String> {
    let (kind, value) = text.split_once(':').ok_or("there is no ':'")?;
    if kind.is_empty() || value.is_empty() {
        return Err("the type or the value is empty".into());
    }
    let rest = value.replace("{namespace}", "").replace("{name}", "");
    match rest.find(['{', '}']) {
        Some(at) => Err(format!("{:?} stands for nothing", &rest[at..=at])),
        None => Ok(Selector { kind: kind.to_owned(), value: value.to_owned() }),
    }
}

const SOCKET_HELP: &str = "the path of a Unix socket, such as /run/spire/agent/api.sock";
const SELECTOR_HELP: &str = "type:value, such as unix:uid:1000 or k8s:sa:frontend; {namespace} and {name} stand for \
                             those of the WorkloadIdentity";
/// sockaddr_un has 108 bytes, with the one that ends it.
const LONGEST_PATH: usize = 108;
