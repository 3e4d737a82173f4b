//! The agent with a broker endpoint, and the identities that ctrl has by it.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use ctrl::config::kubernetes::PodId;
use ctrl::config::spire::Spire;
use ctrl::config::{Gateway, IdentitySource, load_files};
use ctrl::rotate::Failure;

use crate::spire_agent::Answer;
use crate::spire_agent::broker;
use crate::spire_agent::ca::Svid;
use crate::spire_agent::rig::{HOUR, Rig, failure, gateway_by};

pub const OURS: &str = "spiffe://example.com/sluice";
pub const AGENT: &str = "spiffe://example.com/spire/agent/*";
pub const OBJECT: &str = "type.googleapis.com/spiffe.broker.KubernetesObjectReference";

const OBJECTS: &str = "[{ workloads: [shop/frontend], object: { group: core, plural: serviceaccounts, namespace: \
                       '{namespace}', name: '{name}' } }, { workloads: [shop/*], object: { group: apps, plural: \
                       deployments, namespace: '{namespace}', name: '{name}' } }]";

/// A [`Rig`] whose workloads are asked about at the broker endpoint.
pub struct Broker {
    rig: Rig,
    gateway: Gateway,
    /// By which sluice-ctrl is known there.
    pub ours: Svid,
}

impl Deref for Broker {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl DerefMut for Broker {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }
}

pub fn one(svid: &Svid) -> Answer {
    Answer::Svids(vec![svid.clone()])
}

pub fn pod(uid: &str, name: &str) -> PodId {
    PodId { namespace: "shop".into(), name: name.into(), uid: uid.into() }
}

impl Broker {
    /// The frontend by its service account, others by their deployments.
    pub fn new(wanted: &[&str]) -> Self {
        Self::with(wanted, OBJECTS, |directory| format!("unix://{}", directory.join("broker.sock").display()))
    }

    pub fn by_pods(wanted: &[&str]) -> Self {
        let references = "[{ workloads: [shop/*], pod: attested }]";
        Self::with(wanted, references, |directory| format!("unix://{}", directory.join("broker.sock").display()))
    }

    /// By a port, which is known only when the agent serves: who asks first does it anew.
    pub fn by_port(wanted: &[&str]) -> Self {
        let mut broker = Self::new(wanted);
        let port = format!("tcp://{}", broker.rig.agent.broker_port());
        broker.reopen(OBJECTS, &port);
        broker
    }

    /// By a whole file, whose agent is elsewhere.
    pub fn of(text: &str, id: &str, workload: &str) -> Self {
        let mut broker = Self::by(&[id], |directory| {
            let directory = directory.display();
            let text = text
                .replace("/run/spire/agent/public/api.sock", &format!("{directory}/api.sock"))
                .replace("/run/spire/agent/broker/api.sock", &format!("{directory}/broker.sock"));
            assert!(!text.contains("/run/spire"), "each socket is the played agent's: {text}");
            load_files(&[("broker.yaml".into(), text)]).unwrap_or_else(|faults| panic!("{faults:#?}")).gateway
        });
        broker.wanted[0].workload = workload.into();
        broker
    }

    fn with(wanted: &[&str], references: &str, address: impl FnOnce(&Path) -> String) -> Self {
        Self::by(wanted, |directory| configured(directory, references, &address(directory)))
    }

    fn by(wanted: &[&str], configure: impl FnOnce(&Path) -> Gateway) -> Self {
        let mut gateway = None;
        let rig = Rig::by(wanted, |directory| gateway.insert(configure(directory)).clone());
        let ours = rig.ca.issue(OURS, HOUR);
        let agent = rig.ca.issue("spiffe://example.com/spire/agent/join_token/1", HOUR);
        rig.agent.tell(|world| {
            world.own = one(&ours);
            world.agent = Some(agent);
            world.brokers = vec![broker::Broker { id: OURS.into(), kinds: vec![OBJECT.into()], over_tcp: false }];
        });
        Self { rig, gateway: gateway.expect("it was configured"), ours }
    }

    fn reopen(&mut self, references: &str, address: &str) {
        self.gateway = configured(self.rig.directory.path(), references, address);
        let reopened = self.rig.identities.reopen(&self.gateway).unwrap();
        self.rig.identities.replace_sources(&self.gateway, reopened);
    }

    pub fn spire(&self) -> Spire {
        match &self.gateway.identity[0].source {
            IdentitySource::Spire(spire) => spire.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What the agent says of something that it is asked about.
    pub fn object(&self, about: &str, answer: Answer) {
        self.rig.agent.tell(|world| drop(world.objects.insert(about.into(), answer)));
    }

    /// What attestation finds of the first workload.
    pub fn pods(&mut self, uids: &[&str]) {
        self.rig.wanted[0].pods = uids.iter().map(|uid| pod(uid, &format!("frontend-{uid}"))).collect();
    }

    /// These have been shown to the agent, one a connection.
    pub async fn until_shown(&self, svids: &[&Svid]) {
        let want: Vec<_> = svids.iter().map(|svid| svid.chain[0].clone()).collect();
        self.rig.agent.until("other certificates are shown", |world| world.shown == want).await;
    }

    pub async fn until_failure(&mut self, id: &str) -> Failure {
        self.rig.until("a failure", |identities| failure(identities, id).is_some()).await;
        failure(&self.rig.identities, id).unwrap()
    }
}

fn configured(directory: &Path, references: &str, address: &str) -> Gateway {
    let spire = format!(
        "{{ socket: api.sock, broker: {{ spiffeID: {OURS}, agentID: '{AGENT}', address: '{address}', references: \
         {references} }} }}"
    );
    gateway_by(directory, &spire, "        workloads: [shop/frontend, shop/backend]\n")
}
