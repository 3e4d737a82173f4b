//! `broker:` of a source `spire`: where the agent serves the SPIFFE Broker API, who is expected there, and by what
//! it knows which workloads.
//!
//! ```text
//!   spiffeID: spiffe://example.com/sluice               ours, as it stands in `brokers` of the agent
//!   agentID: spiffe://example.com/spire/agent/*         an ID, or all under a path
//!   address: unix:///run/spire/agent/broker/api.sock    or tcp://127.0.0.1:8083; none: $SPIFFE_BROKER_SOCKET
//!   references:                                         the first entry that takes a workload
//!     - workloads: [shop/*]
//!       object: { group: core, plural: serviceaccounts, namespace: "{namespace}", name: "{name}" }
//!     - workloads: [legacy/*]
//!       pod: attested                                   the pod of this node that its k8s:* selectors mean
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;

use snapshot::IdPattern;

use super::SpiffeId;
use super::decode::{Faults, Field};
use super::identity::{Workloads, decode_workloads};
use super::resource::resource_name;
use super::spiffe::parse_pattern;
use super::spire::socket_path;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Whose SVID we show there.
    pub id: SpiffeId,
    pub agent: IdPattern,
    /// None: what the environment says.
    pub address: Option<Address>,
    pub references: Vec<Reference>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// By what the agent knows these workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub workloads: Vec<Workloads>,
    pub to: To,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    Object(Object),
    /// One of this node that the workload's selectors mean, by name and UID.
    AttestedPod,
}

/// A Kubernetes object by its key. `{namespace}` and `{name}` in the key stand for the WorkloadIdentity's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// `core` for what has none.
    pub group: String,
    pub plural: String,
    /// None: it is of the cluster.
    pub namespace: Option<String>,
    pub name: String,
}

impl Broker {
    /// That of the first entry that takes the workload.
    pub fn reference_of(&self, id: &SpiffeId, workload: &str) -> Option<To> {
        let takes = |entry: &&Reference| entry.workloads.iter().any(|one| one.matches(id, workload));
        self.references.iter().find(takes).map(|entry| match &entry.to {
            To::Object(object) => To::Object(object.of(workload)),
            To::AttestedPod => To::AttestedPod,
        })
    }
}

impl Object {
    fn of(&self, workload: &str) -> Self {
        let (namespace, name) = workload.split_once('/').unwrap_or_default();
        let filled = |text: &str| text.replace("{namespace}", namespace).replace("{name}", name);
        Self { namespace: self.namespace.as_deref().map(filled), name: filled(&self.name), ..self.clone() }
    }
}

impl Address {
    /// As SPIFFE Broker Endpoint §4 has it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("tcp://") {
            let parsed: Result<SocketAddr, _> = address.parse();
            return match parsed {
                Ok(address) if address.port() != 0 => Ok(Self::Tcp(address)),
                Ok(_) | Err(_) => Err("is no IP address with a port, which is all that the standard allows".into()),
            };
        }
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => socket_path(path).map(|path| Self::Unix(path.into())),
            Some(_) | None => Err("is neither unix:///PATH nor tcp://IP:PORT".into()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

pub fn decode(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Broker> {
    let mut fields = map.fields(faults)?;
    let (id, agent) = (fields.required("spiffeID", faults), fields.required("agentID", faults));
    let (address, references) = (fields.optional("address"), fields.required("references", faults));
    fields.finish(faults);
    let id = id.and_then(|field| field.parsed(SpiffeId::parse, ID_HELP, faults));
    let agent = agent.and_then(|field| field.parsed(parse_pattern, AGENT_HELP, faults));
    let address = address.map(|field| field.parsed(Address::parse, ADDRESS_HELP, faults));
    let references = references.and_then(|list| decode_references(&list, faults));
    let address = match address {
        Some(address) => Some(address?),
        None => None,
    };
    Some(Broker { id: id?, agent: agent?, address, references: references? })
}

fn decode_references(list: &Field<'_>, faults: &mut Faults<'_>) -> Option<Vec<Reference>> {
    let entries = list.list(faults)?;
    if entries.is_empty() {
        faults.error(list.at(), &list.path, "an empty list", "say by what the agent knows which workloads");
    }
    let one = |entry: &Field<'_>| {
        let mut fields = entry.fields(faults)?;
        let workloads = fields.required("workloads", faults);
        let (object, pod) = (fields.optional("object"), fields.optional("pod"));
        fields.finish(faults);
        let workloads = workloads.and_then(|list| decode_workloads(&list, faults));
        let to = match (object, pod) {
            (Some(object), None) => decode_object(&object, faults).map(To::Object),
            (None, Some(pod)) => pod.choice(PODS, faults).map(|()| To::AttestedPod),
            (Some(_), Some(_)) => {
                faults.error(entry.at(), &entry.path, "has both `object` and `pod`", REFERENCE_HELP);
                None
            }
            (None, None) => {
                faults.error(entry.at(), &entry.path, "has neither `object` nor `pod`", REFERENCE_HELP);
                None
            }
        };
        Some(Reference { workloads: workloads?, to: to? })
    };
    Some(entries.iter().filter_map(one).collect())
}

fn decode_object(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Object> {
    let mut fields = map.fields(faults)?;
    let (group, plural) = (fields.required("group", faults), fields.required("plural", faults));
    let (namespace, name) = (fields.optional("namespace"), fields.required("name", faults));
    fields.finish(faults);
    let group = group.and_then(|field| field.parsed(parse_group, GROUP_HELP, faults));
    let plural = plural.and_then(|field| field.parsed(resource_name, PLURAL_HELP, faults));
    let namespace = namespace.map(|field| field.parsed(part_of_key, KEY_HELP, faults));
    let name = name.and_then(|field| field.parsed(part_of_key, KEY_HELP, faults));
    let namespace = match namespace {
        Some(namespace) => Some(namespace?),
        None => None,
    };
    Some(Object { group: group?, plural: plural?, namespace, name: name? })
}

fn parse_group(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((group, _)) => Err(format!("has a version; the group alone is {group}")),
        None => resource_name(text).map_err(|_| "is no API group".into()),
    }
}

/// Kubernetes takes more in names than DNS does, such as the colons of roles.
fn part_of_key(text: &str) -> Result<String, String> {
    let rest = text.replace("{namespace}", "").replace("{name}", "");
    match rest.find(|c: char| matches!(c, '{' | '}' | '/' | '%') || c.is_whitespace() || c.is_control()) {
        Some(at) => Err(match rest[at..].chars().next() {
            Some(brace @ ('{' | '}')) => format!("{:?} stands for nothing", brace.to_string()),
            Some(_) | None => "is no name of a Kubernetes object".into(),
        }),
        None if text.len() > LONGEST_NAME => Err(format!("{} bytes; a name has at most {LONGEST_NAME}", text.len())),
        None => Ok(text.to_owned()),
    }
}

const PODS: &[(&str, ())] = &[("attested", ())];
const ID_HELP: &str = "the ID of sluice-ctrl, as it stands in `brokers` of the agent, such as \
                       spiffe://example.com/sluice";
const AGENT_HELP: &str = "an ID, or all under a path: a SPIRE agent is spiffe://example.com/spire/agent/*";
const ADDRESS_HELP: &str = "unix:///run/spire/agent/broker/api.sock or tcp://127.0.0.1:8083; left out, it is what \
                            SPIFFE_BROKER_SOCKET in the environment of sluice-ctrl says";
const REFERENCE_HELP: &str = "give one: `object` (a Kubernetes object by its key), or `pod: attested` (the pod of \
                              this node that the k8s:* selectors mean)";
const GROUP_HELP: &str = "such as apps, or core for what has none";
const PLURAL_HELP: &str = "the plural that kubectl shows, in lower case, such as serviceaccounts or deployments";
const KEY_HELP: &str = "of the object; {namespace} and {name} stand for those of the WorkloadIdentity";
const LONGEST_NAME: usize = 253;
