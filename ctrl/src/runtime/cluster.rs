//! What the Kubernetes API says, as far as it changes what is in force, and what is said back to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapshot::{Network, Version};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::Core;
use crate::attest::pods::{self, Filled, Pods};
use crate::clock;
use crate::config::objects::{Id, Ledger, Trial};
use crate::config::{Diagnostic, Gateway, Known, Loaded};
use crate::kubernetes::{self, Feed, Live, Verdict, Verdicts};
use crate::resolve::Lookups;
use crate::services::cluster::{self as in_cluster, AllLed};
use crate::services::leaving::{Before, Leaving};
use crate::source::News;

/// How long the first snapshot waits for the first list. Without it pods are nobody, and a dataplane that
/// is being served would cut their connections.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a status has of a fault.
const LONGEST_MESSAGE: usize = 1_000;

#[derive(Debug)]
pub(super) struct Cluster {
    feed: Option<Feed>,
    /// As the API had them last.
    pods: Pods,
    services: AllLed,
    /// What Services led to before that, a moment ago.
    leaving: Leaving,
    ledger: Ledger,
    /// The ledger has once been what the API has.
    is_complete: bool,
    said: Verdicts,
    news: News,
}

impl Cluster {
    /// `pods`, `services`: those of the process before this one. They stand until the API lists its own, since
    /// what is nobody's address is one that MUTUAL does not protect, and one that leads nowhere is not captured.
    pub fn of(loaded: &Loaded, pods: Pods, services: AllLed, news: &News) -> Self {
        let feed = kubernetes::start(&loaded.gateway, news);
        let (pods, services) = if feed.is_some() { (pods, services) } else { Default::default() };
        let cluster = Self {
            pods,
            services,
            leaving: Leaving::default(),
            feed,
            ledger: Ledger::default(),
            is_complete: false,
            said: Verdicts::default(),
            news: news.clone(),
        };
        cluster.name_services(loaded);
        cluster
    }

    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// What the next process begins with.
    pub fn services(&self, loaded: &Loaded) -> AllLed {
        self.leaving.beside(loaded, &self.services)
    }

    /// Writes what the API says into what names it.
    pub fn fill(&self, loaded: &mut Loaded) -> Filled {
        self.fill_beside(loaded, &self.leaving)
    }

    fn fill_beside(&self, loaded: &mut Loaded, leaving: &Leaving) -> Filled {
        let services = in_cluster::fill(loaded, &self.services, leaving);
        pods::fill(loaded, &self.pods).max(if services { Filled::Places } else { Filled::Nothing })
    }

    /// The same for what is to come after what is in force, and leads for a while where that did.
    pub fn fill_after(&self, loaded: &mut Loaded, before: Before<'_>) -> Filled {
        let leaving = self.seen(loaded, before);
        self.fill_beside(loaded, &leaving)
    }

    /// What Services led to before is known from now on, so that it is filled in.
    pub fn see(&mut self, loaded: &Loaded, before: Before<'_>) {
        self.leaving = self.seen(loaded, before);
    }

    fn seen(&self, loaded: &Loaded, before: Before<'_>) -> Leaving {
        // Of a Gateway that asks no API nobody will ever say where else they lead.
        if self.feed.is_none() {
            return Leaving::default();
        }
        let mut leaving = self.leaving.clone();
        leaving.see(loaded, &self.services, before, &self.pods, Instant::now());
        leaving
    }

    /// When the next of that is over.
    pub fn next_end(&self) -> Option<Instant> {
        self.leaving.next_end()
    }

    fn is_listed(&self) -> bool {
        self.feed.as_ref().is_none_or(Feed::is_listed)
    }

    fn name_services(&self, loaded: &Loaded) {
        if let Some(feed) = &self.feed {
            feed.name_services(in_cluster::named(loaded));
        }
    }

    pub fn live(&self) -> Live {
        self.feed.as_ref().map(Feed::live).unwrap_or_default()
    }

    fn follows_resources(&self) -> bool {
        self.feed.as_ref().is_some_and(Feed::follows_resources)
    }

    /// Why no snapshot may be made: without the API's Policies it would allow what they deny.
    pub fn waits_for(&self) -> Option<String> {
        let waits = self.follows_resources() && !self.is_complete;
        waits.then(|| "the Kubernetes API has not listed its resources yet: without them there is no policy".into())
    }

    /// Follows what another Gateway asks for. What is known stays until the new one has listed something,
    /// unless nothing is asked for any more. True: the objects are none of this Gateway's any more.
    pub fn reopen(&mut self, before: &Gateway, now: &Loaded) -> bool {
        if before.kubernetes == now.gateway.kubernetes {
            self.name_services(now);
            return false;
        }
        self.feed = kubernetes::start(&now.gateway, &self.news);
        self.name_services(now);
        if self.feed.is_none() {
            (self.pods, self.services) = Default::default();
        }
        if let Some(feed) = &self.feed {
            feed.say(self.said.clone());
        }
        let shed = !self.follows_resources() && !self.ledger.newest.is_empty();
        if !self.follows_resources() {
            (self.ledger.newest, self.is_complete) = (BTreeMap::new(), false);
        }
        shed
    }

    /// Objects that are not in force as they are now, and Services that lead nowhere.
    pub fn problems(&self, loaded: &Loaded) -> impl Iterator<Item = String> {
        let faults = self.ledger.faults.iter();
        let faults =
            faults.map(|((kind, name), why)| format!("{kind} {name} is not in force as the API has it: {why}"));
        let services = self.followed().map(|services| in_cluster::problems(loaded, services));
        faults.chain(services.into_iter().flatten())
    }

    /// Where Services of the cluster lead, if they are asked for.
    pub fn followed(&self) -> Option<&AllLed> {
        self.feed.is_some().then_some(&self.services)
    }

    pub fn trial(&self, directory: &Path, known: &Mutex<Known>) -> Trial {
        let trial = self.ledger.trial(directory);
        known.lock().expect("no holder panics").objects = trial.decoded();
        trial
    }

    /// Tries again without what is at fault. None: nothing of the API's is.
    pub fn without(&self, mut trial: Trial, faults: &[Diagnostic], known: &Mutex<Known>) -> Option<Trial> {
        let tried_again = trial.step_back(faults);
        if !tried_again {
            let standing = self.ledger.in_force.values();
            known.lock().expect("no holder panics").objects = standing.map(|one| one.decoded.clone()).collect();
            return None;
        }
        known.lock().expect("no holder panics").objects = trial.decoded();
        Some(trial)
    }

    /// The API has something that is not in force.
    pub fn has_news(&self) -> bool {
        let (newest, in_force) = (&self.ledger.newest, &self.ledger.in_force);
        newest.len() != in_force.len()
            || newest.iter().any(|(id, object)| in_force.get(id).is_none_or(|standing| standing.object != *object))
    }

    pub fn adopt(&mut self, trial: Trial) {
        self.ledger.adopt(trial);
    }

    /// Says of each object what became of it, as far as that is known.
    fn say(&mut self, made: Option<Version>, acked: Option<Version>) {
        let Some(feed) = self.feed.as_ref().filter(|feed| feed.follows_resources()) else { return };
        if let Some(made) = made {
            self.ledger.published(made);
        }
        let said = self.said.clone();
        let verdicts: BTreeMap<_, _> = self
            .ledger
            .newest
            .keys()
            .filter_map(|id| {
                let before = said.get(id);
                // Until it is decided, what was said before still is.
                let verdict = self.verdict(id, acked).or_else(|| before.cloned())?;
                let since = before.filter(|before| before.in_force == verdict.in_force).map(|before| before.since);
                Some((id.clone(), Verdict { since: since.unwrap_or_else(clock::now), ..verdict }))
            })
            .collect();
        if verdicts != *said {
            self.said = Arc::new(verdicts);
            feed.say(self.said.clone());
        }
    }

    fn verdict(&self, id: &Id, acked: Option<Version>) -> Option<Verdict> {
        let newest = self.ledger.newest.get(id)?;
        let (uid, generation) = (newest.uid.clone(), newest.generation);
        if let Some(why) = self.ledger.faults.get(id) {
            let last = self.ledger.in_force.get(id);
            let last =
                last.map_or("nothing of it is".into(), |last| format!("generation {} stays", last.object.generation));
            let message: String = format!("{last} in force: {why}").chars().take(LONGEST_MESSAGE).collect();
            return Some(Verdict { uid, generation, in_force: false, message, snapshot: None, since: 0 });
        }
        let standing = self.ledger.in_force.get(id).filter(|standing| standing.object == *newest)?;
        let snapshot = standing.since.filter(|since| acked >= Some(*since))?;
        let message = format!("generation {generation} since snapshot {snapshot}");
        Some(Verdict { uid, generation, in_force: true, message, snapshot: Some(snapshot), since: 0 })
    }
}

impl Core {
    /// Takes over what is new. True: objects are, which have to be read.
    pub(super) fn hear_kubernetes(&mut self, network: &Network) -> bool {
        let Some(feed) = &mut self.cluster.feed else { return false };
        let (pods, services, objects) = (feed.new_pods(), feed.new_services(), feed.new_objects());
        let is_over = self.cluster.leaving.next_end().is_some_and(|end| end <= Instant::now());
        if pods.is_some() || services.is_some() || is_over {
            self.cluster.pods = pods.unwrap_or_else(|| self.cluster.pods.clone());
            self.cluster.services = services.unwrap_or_else(|| self.cluster.services.clone());
            self.cluster.see(&self.loaded, Before { in_force: &self.loaded, resolved: &self.resolved });
            match self.cluster.fill(&mut self.loaded) {
                Filled::Nothing => {}
                Filled::Evidence => self.show(network),
                Filled::Places => self.inputs.changed(),
            }
        }
        let Some(objects) = objects else { return false };
        info!(objects = objects.len(), "the Kubernetes API has other resources");
        (self.cluster.ledger.newest, self.cluster.is_complete) = (objects, true);
        true
    }

    /// What the objects have come to, once a snapshot with them is in force.
    pub(super) fn say_kubernetes(&mut self) {
        let made = self.last.as_ref().filter(|_| self.unassembled.is_none()).map(|last| last.version);
        let acked = self.publisher.state().borrow().acked;
        self.cluster.say(made, acked);
    }

    /// Takes what is listed, and then what that names, unless it takes too long.
    pub(super) async fn await_kubernetes(&mut self, network: &Network, lookups: &mut Lookups, news: &News) {
        let until = Instant::now() + PATIENCE;
        loop {
            let listed = async {
                while !self.cluster.is_listed() {
                    news.notified().await;
                }
            };
            let late = timeout_at(until, listed).await.is_err();
            if self.hear_kubernetes(network) {
                self.reload(network, lookups).await;
            }
            if late {
                warn!(
                    "the Kubernetes API has not listed everything yet; until it has, only pods and Services from before this start are somebody"
                );
            }
            if late || self.cluster.is_listed() {
                return;
            }
        }
    }
}
