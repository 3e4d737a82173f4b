//! The Gateway's `kubernetes`, and the `k8s:*` keys of a selector entry.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::decode::{Faults, Field};
use super::resource::resource_name;
use super::tree::Key;
use super::{Diagnostic, Resources};

/// `spec.kubernetes`: which API server is asked, and about which node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// None: the service account of the pod that sluice-ctrl runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Of the kubeconfig; None: its current one.
    pub context: Option<String>,
    /// None: what NODE_NAME says, else the Gateway's name.
    pub node: Option<String>,
    /// Whether WorkloadIdentities, Services, Policies and TrustBundles are read from it.
    pub resources: bool,
    /// Of those; empty: all.
    pub namespaces: Vec<String>,
}

/// The `k8s:*` keys of one entry, and the pods of this node that have all of that.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodSelector {
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub uid: Option<String>,
    pub service_account: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// No part of the configuration: [`crate::attest::pods::fill`] puts here who that is now.
    pub pods: Vec<Matched>,
}

/// A pod by its name, and which one of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} (uid {})", self.namespace, self.name, self.uid)
    }
}

/// A pod that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    pub pod: PodId,
    /// `pod shop/web-1 (uid …, resourceVersion 7)`.
    pub evidence: String,
    /// Or why it is attested by none.
    pub addresses: Result<Vec<IpAddr>, String>,
    /// Of those, what the API gives to another pod as well: protected, and nobody's.
    pub disputed: Vec<IpAddr>,
}

pub fn decode(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<Kubernetes> {
    let mut fields = field.fields(faults)?;
    let path = fields.optional("kubeconfig").and_then(|field| field.text(faults));
    let kubeconfig = path.map(|path| faults.beside(path));
    let context = fields.optional("context").and_then(|field| field.text(faults)).map(str::to_owned);
    let help = "the node's name as `kubectl get nodes` shows it";
    let node = fields.optional("node").and_then(|field| field.parsed(resource_name, help, faults));
    let resources = fields.optional("resources").and_then(|field| field.choice(RESOURCES, faults)).unwrap_or(true);
    let namespaces = fields.optional("namespaces").map(|field| decode_namespaces(&field, faults)).unwrap_or_default();
    fields.finish(faults);
    if !cfg!(feature = "kubernetes") {
        faults.error(field.at(), &field.path, "this build is without the feature `kubernetes`", "build ctrl with it");
    }
    Some(Kubernetes { kubeconfig, context, node, resources, namespaces })
}

fn decode_namespaces(list: &Field<'_>, faults: &mut Faults<'_>) -> Vec<String> {
    let entries = list.list(faults).unwrap_or_default();
    if entries.is_empty() || entries.len() > MOST_NAMESPACES {
        let message = format!("{} namespaces; 1 to {MOST_NAMESPACES} are followed", entries.len());
        faults.error(list.at(), &list.path, message, "leave it out for all of them");
    }
    let mut namespaces: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.parsed(resource_name, "the name of a namespace, such as shop", faults))
        .collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    namespaces
}

/// One key. False: it is none of ours.
pub fn decode_key(into: &mut Option<PodSelector>, key: &Key, field: &Field<'_>, faults: &mut Faults<'_>) -> bool {
    let label = key.name.strip_prefix("k8s:label:").filter(|label| !label.is_empty());
    if let Some(label) = label {
        let value = field.label(faults).unwrap_or_default();
        into.get_or_insert_default().labels.insert(label.to_owned(), value.to_owned());
        return true;
    }
    type Slot = fn(&mut PodSelector) -> &mut Option<String>;
    let slot: Slot = match key.name.as_str() {
        "k8s:pod:namespace" => |selector| &mut selector.namespace,
        "k8s:pod:name" => |selector| &mut selector.name,
        "k8s:pod:uid" => |selector| &mut selector.uid,
        "k8s:pod:serviceAccount" => |selector| &mut selector.service_account,
        _ => return false,
    };
    *slot(into.get_or_insert_default()) = field.text(faults).map(str::to_owned);
    true
}

/// A selector that nobody looks after.
pub fn lint(resources: &Resources, found: &mut Vec<Diagnostic>) {
    if resources.gateway.as_ref().is_none_or(|gateway| gateway.kubernetes.is_some()) {
        return;
    }
    for identity in &resources.identities {
        let entries = identity.selectors.iter().enumerate();
        for (nth, selector) in entries.filter(|(_, selector)| selector.pods.is_some()) {
            let message = "the Gateway has no `kubernetes`, so that no pod is known and this matches nothing";
            let path = format!("spec.selectors[{nth}]");
            let help = "add `kubernetes: {}` to the Gateway's spec, or select by net:* in an entry of its own";
            found.push(Diagnostic::warning(&selector.place, path, message).help(help));
        }
    }
}

impl fmt::Display for PodSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = [
            ("k8s:pod:namespace", &self.namespace),
            ("k8s:pod:name", &self.name),
            ("k8s:pod:uid", &self.uid),
            ("k8s:pod:serviceAccount", &self.service_account),
        ];
        let fixed = fixed.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
        let labels = self.labels.iter().map(|(key, value)| format!("k8s:label:{key}={value}"));
        f.write_str(&fixed.chain(labels).collect::<Vec<_>>().join(" "))
    }
}

const RESOURCES: &[(&str, bool)] = &[("follow", true), ("none", false)];
/// Each is four lists that are watched.
const MOST_NAMESPACES: usize = 50;
pub const KEYS: &str = "k8s:pod:namespace, k8s:pod:name, k8s:pod:uid, k8s:pod:serviceAccount, k8s:label:NAME";
