//! A vault and the identities that ctrl has by it.

use std::path::Path;
use std::time::Duration;

use ctrl::clock::{now, now_ms};
use ctrl::config::{Gateway, SpiffeId, load_files};
use ctrl::rotate::{Failure, Identities, Wanted};
use ctrl::source::{News, Sources};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Bao, PATIENCE, put_secret};

pub const FRONTEND: &str = "spiffe://example.com/myapp/frontend";
pub const BACKEND: &str = "spiffe://example.com/myapp/backend";

pub fn wants(id: &str) -> Wanted {
    let workload = format!("shop/{}", id.rsplit('/').next().unwrap());
    Wanted { id: SpiffeId::parse(id).unwrap(), dns_names: vec!["backend.shop".into()], workload, pods: vec![] }
}

/// A Gateway whose one source is a vault with these fields, a YAML map on one line.
pub fn gateway(directory: &Path, vault: &str) -> Gateway {
    let text = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: {{ name: node-a }}\nspec:\n  trustDomain: example.com\n  \
         ports: [{{ interface: in0, side: inside }}, {{ interface: out0, side: outside }}]\n  cores: [0]\n  identity:\n    \
         sources:\n      - {{ name: bao, source: vault, vault: {vault} }}\n"
    );
    let file = directory.join("gateway.yaml");
    load_files(&[(file, text)]).unwrap_or_else(|faults| panic!("{faults:#?}")).gateway
}

/// What a test has at the shared OpenBao, named after it.
pub struct Place<'b> {
    pub bao: &'b Bao,
    pub name: &'static str,
}

impl<'b> Place<'b> {
    /// A PKI `NAME`, a policy `NAME` for its role `node`.
    pub fn new(bao: &'b Bao, name: &'static str) -> Self {
        bao.pki(name);
        bao.policy(name, &format!("{name}/sign/node"));
        Self { bao, name }
    }

    /// AppRole at `ar-NAME`; the secret ID goes into `directory`. Returns `auth` as a Gateway has it.
    pub fn app_role(&self, directory: &Path, other: Value) -> String {
        let mount = format!("ar-{}", self.name);
        let (role_id, secret_id) = self.bao.app_role(&mount, self.name, other);
        put_secret(&directory.join("secret-id"), &secret_id);
        format!("appRole: {{ path: {mount}, roleId: {role_id}, secretIdFile: secret-id }}")
    }

    /// The fields of `vault`.
    pub fn vault(&self, auth: &str, more: &str) -> String {
        let (server, ca, name) = (&self.bao.server, self.bao.ca.display(), self.name);
        format!("{{ server: '{server}', caBundle: '{ca}', path: {name}/sign/node, auth: {{ {auth} }}{more} }}")
    }

    /// With AppRole, and everything as it should be.
    pub fn rig(&self, wanted: &[&str], more: &str) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let auth = self.app_role(directory.path(), json!({}));
        Rig::new(directory, &self.vault(&auth, more), wanted)
    }

    /// With a token of its policy.
    pub fn rig_by_token(&self, wanted: &[&str], more: &str) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        put_secret(&directory.path().join("token"), &self.bao.token(json!({ "policies": [self.name] })));
        Rig::new(directory, &self.vault("tokenFile: token", more), wanted)
    }
}

pub struct Rig {
    pub identities: Identities,
    pub wanted: Vec<Wanted>,
    pub news: News,
    pub directory: TempDir,
}

impl Rig {
    pub fn new(directory: TempDir, vault: &str, wanted: &[&str]) -> Self {
        let news = News::default();
        let opened = Sources::open(&gateway(directory.path(), vault), &news, now());
        let wanted: Vec<_> = wanted.iter().map(|id| wants(id)).collect();
        Self { identities: Identities::new(opened.sources, 1), wanted, news, directory }
    }

    /// Another ctrl, which has read these fields.
    pub fn again(&mut self, vault: &str) {
        let opened = Sources::open(&gateway(self.directory.path(), vault), &self.news, now());
        self.identities = Identities::new(opened.sources, 1);
    }

    /// Refreshes on each news until `want` holds.
    pub async fn until(&mut self, what: &str, mut want: impl FnMut(&Identities) -> bool) {
        let met = async {
            loop {
                self.identities.refresh(&self.wanted, now());
                if want(&self.identities) {
                    break;
                }
                let due = self.identities.next_due().map_or(PATIENCE, |due| {
                    Duration::from_millis((due.saturating_mul(1000).saturating_add(50)).saturating_sub(now_ms()))
                });
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

    /// Until everybody has one and nothing is wrong.
    pub async fn until_well(&mut self) {
        let count = self.wanted.len();
        self.until("all have SVIDs", |all| all.iter().count() == count && all.errors().is_empty()).await;
    }

    /// Until this one has another than that.
    pub async fn until_renewed(&mut self, id: &str, before: &str) -> String {
        let other = |all: &Identities| serial(all, id).is_some_and(|now| now != before);
        self.until("it is renewed", other).await;
        serial(&self.identities, id).unwrap()
    }

    /// The fault of this workload, once it has all of these words.
    pub async fn until_fault(&mut self, id: &str, words: &[&str]) -> Failure {
        let says = |all: &Identities| {
            failure(all, id).is_some_and(|failure| words.iter().all(|words| failure.reason.contains(words)))
        };
        self.until(&words.join(" … "), says).await;
        failure(&self.identities, id).unwrap()
    }

    pub async fn until_warned(&mut self, words: &str) {
        self.until(words, |all| all.warnings(now()).iter().any(|warning| warning.contains(words))).await;
    }

    pub fn serial(&self, id: &str) -> String {
        serial(&self.identities, id).expect("it has an SVID")
    }
}

pub fn serial(identities: &Identities, id: &str) -> Option<String> {
    identities.svid(&SpiffeId::parse(id).unwrap()).map(|(svid, _)| svid.serial.clone())
}

pub fn failure(identities: &Identities, id: &str) -> Option<Failure> {
    identities.errors().into_iter().find(|failure| failure.id.as_str() == id)
}
