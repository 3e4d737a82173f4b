//! The pods of this node as the Kubernetes API has them, and which of them a `k8s:*` selector means.
//!
//! A pod is attested by its address alone: that the packets are its own, the kernel's route, the port and
//! the MAC have to say, as with `net:ip`. So a pod in the host's network is never attested (its address is
//! the node's, and with it every process's), nor is one whose address the API gives to another one too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snapshot::{Cgroup, Prefix, ProcessSelector};

use super::Attestation;
use crate::config::kubernetes::{Matched, PodId, PodSelector};
use crate::config::{Diagnostic, Loaded, WorkloadIdentity};

/// One that runs, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub service_account: String,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<IpAddr>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
}

/// All of this node, by `namespace/name`.
pub type Pods = Arc<BTreeMap<String, Pod>>;

/// What new pods changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filled {
    Nothing,
    /// Nobody is elsewhere than before.
    Evidence,
    Places,
}

impl PodSelector {
    /// All its keys hold.
    fn matches(&self, pod: &Pod) -> bool {
        let is = |asked: &Option<String>, has: &String| asked.as_ref().is_none_or(|asked| asked == has);
        is(&self.namespace, &pod.namespace)
            && is(&self.name, &pod.name)
            && is(&self.uid, &pod.uid)
            && is(&self.service_account, &pod.service_account)
            && self.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    }

    /// With which pod's they are, and whether somebody else has them too.
    fn addresses(&self) -> impl Iterator<Item = (&IpAddr, &PodId, bool)> {
        let of = |pod: &'_ Matched, address: &IpAddr| pod.disputed.contains(address);
        self.pods.iter().flat_map(move |pod| pod.addresses.iter().flatten().map(move |at| (at, &pod.pod, of(pod, at))))
    }
}

/// Writes into each selector which pods it means now.
pub fn fill(loaded: &mut Loaded, pods: &Pods) -> Filled {
    let shared = shared(pods);
    let mut filled = Filled::Nothing;
    let selectors = loaded.identities.iter_mut().flat_map(|identity| &mut identity.selectors);
    for selector in selectors.filter_map(|selector| selector.pods.as_mut()) {
        let matched = pods.values().filter(|pod| selector.matches(pod)).map(|pod| matched(pod, &shared)).collect();
        let before = PodSelector { pods: std::mem::replace(&mut selector.pods, matched), ..PodSelector::default() };
        filled = filled.max(match (before.addresses().eq(selector.addresses()), before.pods == selector.pods) {
            (false, _) => Filled::Places,
            (true, false) => Filled::Evidence,
            (true, true) => Filled::Nothing,
        });
    }
    filled
}

/// Addresses that the API gives to several pods, with who they are.
fn shared(pods: &Pods) -> HashMap<IpAddr, Vec<&Pod>> {
    let mut by_address: HashMap<_, Vec<_>> = HashMap::new();
    for pod in pods.values().filter(|pod| !pod.host_network) {
        let each = pod.addresses.iter().collect::<HashSet<_>>();
        each.into_iter().for_each(|address| by_address.entry(*address).or_default().push(pod));
    }
    by_address.retain(|_, of| of.len() > 1);
    by_address
}

fn matched(pod: &Pod, shared: &HashMap<IpAddr, Vec<&Pod>>) -> Matched {
    let Pod { namespace, name, uid, resource_version, .. } = pod;
    let mut evidence = format!("pod {namespace}/{name} (uid {uid}, resourceVersion {resource_version})");
    let other = |address: &IpAddr| shared.get(address)?.iter().find(|other| other.uid != *uid);
    let twice: Vec<_> = pod.addresses.iter().filter_map(|address| Some((*address, other(address)?))).collect();
    for (address, other) in twice.iter().filter(|_| !pod.host_network) {
        evidence += &format!(
            ", attested by nothing at {address}, which the API gives to {}/{} too",
            other.namespace, other.name
        );
    }
    let addresses = match () {
        () if pod.host_network => {
            Err("is in the host's network: its address is the node's, and attests nobody".to_owned())
        }
        () if pod.addresses.is_empty() => Err("has no address yet".to_owned()),
        () => Ok(pod.addresses.clone()),
    };
    let pod = PodId { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() };
    Matched { pod, evidence, addresses, disputed: twice.into_iter().map(|(address, _)| address).collect() }
}

/// Two workloads that claim the address of one pod: neither is attested by it, and both are named. What a pod
/// is labelled must not keep the rest of the node from changing, nor take away what protects it: the place
/// stays theirs, so that calls to it are still captured, and refused, and calls from it are nobody's.
pub fn withdraw(workloads: &mut [(&WorkloadIdentity, Attestation)]) -> Vec<Diagnostic> {
    for (identity, attestation) in workloads.iter_mut() {
        let pods = identity.selectors.iter().filter_map(|selector| selector.pods.as_ref()).flat_map(|of| &of.pods);
        let disputed: HashSet<_> = pods.flat_map(|pod| &pod.disputed).map(|address| Prefix::host(*address)).collect();
        for place in attestation.places.iter_mut().filter(|place| disputed.contains(&place.prefix)) {
            place.processes = vec![nobody()];
        }
    }
    let mut claims: HashMap<Prefix, Vec<usize>> = HashMap::new();
    for (index, (_, attestation)) in workloads.iter().enumerate() {
        attestation.places.iter().for_each(|place| claims.entry(place.prefix).or_default().push(index));
    }
    let of_pods = |prefix: &Prefix| workloads.iter().any(|(_, attestation)| attestation.of_pods.contains(prefix));
    let mut disputed: Vec<_> = claims.into_iter().filter(|(prefix, of)| of.len() > 1 && of_pods(prefix)).collect();
    disputed.sort_unstable();
    disputed.into_iter().filter_map(|(prefix, claimants)| withdraw_one(workloads, prefix, &claimants)).collect()
}

fn withdraw_one(
    workloads: &mut [(&WorkloadIdentity, Attestation)],
    prefix: Prefix,
    claimants: &[usize],
) -> Option<Diagnostic> {
    let mut places = claimants.iter().flat_map(|&index| &workloads[index].1.places);
    let first = places.clone().find(|place| place.prefix == prefix)?;
    let interface = first.interface.clone();
    let apart = places
        .all(|place| place.prefix != prefix || (place.interface == first.interface && !place.processes.is_empty()));
    if apart {
        return None;
    }
    let named = claimants.iter().map(|&index| workloads[index].0);
    let named = named.map(|identity| format!("{} ({})", identity.name, identity.place)).collect::<Vec<_>>();
    let message = format!("{prefix} is claimed by {}: its calls are refused", named.join(" and by "));
    for &index in claimants {
        let attestation = &mut workloads[index].1;
        for place in attestation.places.iter_mut().filter(|place| place.prefix == prefix) {
            place.interface.clone_from(&interface);
            place.processes = vec![nobody()];
        }
        attestation.evidence.push(message.clone());
    }
    let help = "narrow the selectors of one of them, or give each of them process:* keys";
    Some(Diagnostic::warning(&workloads[claimants[0]].0.place, "spec.selectors", message).help(help))
}

/// Matches no process: each has a cgroup, if only `/`.
fn nobody() -> ProcessSelector {
    ProcessSelector { cgroup: Some(Cgroup::Exact(String::new())), ..ProcessSelector::of("two claims".into()) }
}
