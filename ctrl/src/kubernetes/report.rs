//! What became of each object, written into its status: in force, or why not.
//!
//! One entry a node, by server-side apply under a field manager of the node's own, so that no two nodes write
//! the same. Slowly, and never in anybody's way: what cannot be written is counted, shown, and tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::client::{Ask, connect};
use super::fault::Fault;
use super::listed::{Asked, Patience};
use super::{Verdict, Verdicts};
use crate::clock;
use crate::config::Kubernetes;
use crate::config::objects::Id;
use crate::crds::KINDS;
use crate::source::spire::back_off;
use crate::view::Watched;

pub struct Reporter {
    pub spec: Kubernetes,
    pub node: String,
    pub patience: Patience,
    pub verdicts: watch::Receiver<Verdicts>,
    pub shown: Arc<Mutex<Watched>>,
}

impl Reporter {
    /// Ends when nobody has verdicts any more.
    pub async fn run(mut self) {
        let (mut written, mut failures) = (BTreeMap::<Id, Verdict>::new(), 0);
        loop {
            match self.write_all(&mut written).await {
                Ok(()) => {
                    failures = 0;
                    self.show(&written, None);
                    if self.verdicts.changed().await.is_err() {
                        return;
                    }
                }
                Err(fault) => {
                    self.show(&written, Some(fault.to_string()));
                    sleep(back_off(failures, self.patience.back_off)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn write_all(&mut self, written: &mut BTreeMap<Id, Verdict>) -> Result<(), Fault> {
        let wanted = self.verdicts.borrow_and_update().clone();
        written.retain(|id, _| wanted.contains_key(id));
        if wanted.iter().all(|(id, verdict)| written.get(id) == Some(verdict)) {
            return Ok(());
        }
        let (client, server) = connect(&self.spec).await?;
        self.shown.lock().expect("no holder panics").server = server;
        for (id, verdict) in wanted.iter() {
            if written.get(id) != Some(verdict) {
                self.write(&client, id, verdict).await?;
                written.insert(id.clone(), verdict.clone());
                sleep(PACE).await;
            }
        }
        Ok(())
    }

    async fn write(&self, client: &Client, (kind, name): &Id, verdict: &Verdict) -> Result<(), Fault> {
        let kind = KINDS.iter().find(|known| known.kind == *kind).expect("one of ours");
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        let asked = Asked {
            path: format!("/apis/{}/namespaces/{namespace}/{}", kind.api_version, kind.plural),
            fields: None,
            labels: None,
            what: "statuses".into(),
            resource: format!("{}/status", kind.plural),
            group: kind.group(),
            only: None,
        };
        let params = PatchParams::apply(&format!("sluice-{}", self.node)).force();
        let body = json!({
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": { "name": name, "namespace": namespace, "uid": verdict.uid },
            "status": { "nodes": [self.entry(verdict)] },
        });
        let request = Request::new(&asked.path).patch_subresource("status", name, &params, &Patch::Apply(body));
        let request = request.map_err(|error| Fault::Config(error.to_string()))?;
        let ask = Ask { client, asked: &asked, verb: "patch", answer: self.patience.answer };
        match ask.read(request).await {
            // It is gone, or another one of the same name is there: whoever follows hears of that.
            Err(Fault::Refused { code: 404 | 409, .. }) | Ok(_) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn entry(&self, verdict: &Verdict) -> Value {
        let at = i64::try_from(verdict.since).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
        let mut entry = json!({
            "node": self.node,
            "conditions": [{
                "type": "InForce",
                "status": if verdict.in_force { "True" } else { "False" },
                "observedGeneration": verdict.generation,
                "lastTransitionTime": at.unwrap_or_default().to_string(),
                "reason": if verdict.in_force { "InForce" } else { "Refused" },
                "message": verdict.message,
            }],
        });
        if let Some(snapshot) = verdict.snapshot {
            entry["snapshot"] = json!(snapshot.0);
        }
        entry
    }

    fn show(&self, written: &BTreeMap<Id, Verdict>, problem: Option<String>) {
        let mut shown = self.shown.lock().expect("no holder panics");
        shown.known = Some(written.len());
        match problem {
            None => {
                (shown.problem, shown.failing_since) = (None, None);
                shown.since.get_or_insert_with(clock::now);
                shown.heard_at = Some(clock::now());
            }
            Some(problem) => {
                if shown.problem.as_ref() != Some(&problem) {
                    tracing::warn!(problem, "statuses are not written; they are tried again");
                }
                (shown.since, shown.problem) = (None, Some(problem));
                shown.failures += 1;
                shown.failing_since.get_or_insert_with(clock::now);
            }
        }
    }
}

/// Ten a second at the most.
const PACE: Duration = Duration::from_millis(100);
