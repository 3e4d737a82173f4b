//! The agent, and the identities that ctrl has by it.

use std::path::Path;
use std::time::Duration;

use ctrl::clock::now;
use ctrl::config::{Gateway, SpiffeId, load_files};
use ctrl::rotate::{Failure, Identities, Wanted};
use ctrl::source::{News, Sources};
use tempfile::TempDir;

use super::ca::{Ca, Svid};
use super::{Agent, Answer};

pub const FRONTEND: &str = "spiffe://example.com/myapp/frontend";
pub const BACKEND: &str = "spiffe://example.com/myapp/backend";
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const PATIENCE: Duration = Duration::from_secs(25);

pub fn wants(id: &str) -> Wanted {
    let workload = format!("shop/{}", id.rsplit('/').next().unwrap());
    Wanted { id: SpiffeId::parse(id).unwrap(), dns_names: vec![], workload, pods: vec![] }
}

/// What `shop/backend` is asked for by.
pub fn selectors() -> Vec<String> {
    vec!["k8s:ns:shop".into(), "k8s:sa:backend".into()]
}

/// A Gateway with the agent as its source: the frontend by `socket`, the backend by its selectors.
pub fn gateway(directory: &Path, more: &str) -> Gateway {
    let spire = "{ socket: api.sock, adminSocket: admin.sock, delegated: [{ workloads: [shop/backend], selectors: \
                 ['k8s:ns:{namespace}', 'k8s:sa:{name}'] }] }";
    gateway_by(directory, spire, more)
}

/// The same with another `spire:`.
pub fn gateway_by(directory: &Path, spire: &str, more: &str) -> Gateway {
    let text = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: {{ name: node-a }}\nspec:\n  trustDomain: example.com\n  \
         ports: [{{ interface: in0, side: inside }}, {{ interface: out0, side: outside }}]\n  cores: [0]\n  identity:\n    \
         sources:\n      - name: agent\n        source: spire\n        spire: {spire}\n{more}"
    );
    let file = directory.join("gateway.yaml");
    load_files(&[(file, text)]).unwrap_or_else(|faults| panic!("{faults:#?}")).gateway
}

/// An agent and the identities that ctrl has by it.
pub struct Rig {
    pub agent: Agent,
    pub ca: Ca,
    pub identities: Identities,
    pub wanted: Vec<Wanted>,
    pub news: News,
    pub directory: TempDir,
}

impl Rig {
    /// The agent knows its bundle, and nobody has an entry.
    pub fn new(wanted: &[&str]) -> Self {
        Self::with(wanted, "        workloads: [shop/frontend, shop/backend]\n", |_| {})
    }

    pub fn with(wanted: &[&str], more: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::by(wanted, |directory| {
            prepare(directory);
            gateway(directory, more)
        })
    }

    pub fn by(wanted: &[&str], configure: impl FnOnce(&Path) -> Gateway) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let gateway = configure(directory.path());
        let agent = Agent::start(directory.path());
        let ca = Ca::of("example.com");
        agent.tell(|world| drop(world.bundles.insert("example.com".into(), ca.root())));
        let news = News::default();
        let opened = Sources::open(&gateway, &news, now());
        let wanted: Vec<_> = wanted.iter().map(|id| wants(id)).collect();
        Self { agent, ca, identities: Identities::new(opened.sources, 1), wanted, news, directory }
    }

    /// Another ctrl, which has read the same files.
    pub fn restart(&mut self) {
        let more = "        workloads: [shop/frontend, shop/backend]\n";
        let opened = Sources::open(&gateway(self.directory.path(), more), &self.news, now());
        self.identities = Identities::new(opened.sources, 1);
    }

    /// What the agent says to `socket`, and for the backend.
    pub fn own(&self, answer: Answer) {
        self.agent.tell(|world| world.own = answer);
    }

    pub fn backend(&self, answer: Answer) {
        self.agent.tell(|world| drop(world.workloads.insert(selectors(), answer)));
    }

    /// Refreshes on each news until `want` holds.
    pub async fn until(&mut self, what: &str, want: impl Fn(&Identities) -> bool) {
        let met = async {
            loop {
                self.identities.refresh(&self.wanted, now());
                if want(&self.identities) {
                    break;
                }
                let due = self
                    .identities
                    .next_due()
                    .map_or(HOUR, |due| Duration::from_millis((due * 1000 + 50).saturating_sub(ctrl::clock::now_ms())));
                tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep(due) => {}
                }
            }
        };
        if tokio::time::timeout(PATIENCE, met).await.is_err() {
            panic!("{what}: {:?} {:?}", self.identities, self.identities.warnings(now()));
        }
    }

    pub async fn until_serial(&mut self, id: &str, svid: &Svid) {
        let want = svid.serial.clone();
        let is = |identities: &Identities| {
            serial(identities, id).as_ref() == Some(&want) && failure(identities, id).is_none()
        };
        self.until(&format!("{id} is {want}"), is).await;
    }

    /// The fault of this workload, once it has these words.
    pub async fn until_fault(&mut self, id: &str, words: &str) -> Failure {
        let says =
            |identities: &Identities| failure(identities, id).is_some_and(|failure| failure.reason.contains(words));
        self.until(words, says).await;
        failure(&self.identities, id).unwrap()
    }

    /// The agent has been asked so often.
    pub async fn until_asked(&self, times: u64) {
        self.agent.until(&format!("it is asked {times} times"), |world| world.asked >= times).await;
    }

    pub fn warned(&self, words: &str) -> bool {
        self.identities.warnings(now()).iter().any(|warning| warning.contains(words))
    }
}

pub fn serial(identities: &Identities, id: &str) -> Option<String> {
    identities.svid(&SpiffeId::parse(id).unwrap()).map(|(svid, _)| svid.serial.clone())
}

pub fn failure(identities: &Identities, id: &str) -> Option<Failure> {
    identities.errors().into_iter().find(|failure| failure.id.as_str() == id)
}
