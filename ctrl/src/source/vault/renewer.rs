//! Has SVIDs signed when they are due, some at a time, and judges anew those it holds when the roots change.
//!
//! When is [`Rotation`]'s: half-life ± a tenth, and 1, 2, 4, … 60 s after a failure. A fault of the server
//! as a whole is everybody's who is due, and nobody else is asked for in that round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::api::Api;
use super::fault::{Fault, Problem};
use super::session::{Access, Token};
use super::sign::{Held, Order, leads, obtain};
use super::trust::Trust;
use crate::clock;
use crate::config::SpiffeId;
use crate::rotate::{Rotation, utc};
use crate::source::News;
use crate::source::found::{Found, Taken};
use crate::source::svid;

/// For those who ask from outside its task.
#[derive(Default)]
pub struct Known {
    pub orders: BTreeMap<SpiffeId, Order>,
    pub found: BTreeMap<SpiffeId, Found<Held, Fault>>,
}

pub type Shared = Arc<Mutex<Known>>;

pub fn lock(shared: &Shared) -> MutexGuard<'_, Known> {
    shared.lock().expect("no holder panics")
}

pub struct Renewer {
    pub api: Arc<Api>,
    pub known: Shared,
    pub access: watch::Receiver<Access>,
    pub trust: watch::Receiver<Trust>,
    /// Rung when the orders have changed.
    pub ordered: Arc<Notify>,
    /// Rung to have all signed anew.
    pub hurry: Arc<Notify>,
    pub doubts: watch::Sender<u64>,
    pub stale_roots: Arc<Notify>,
    pub news: News,
    pub rotation: Rotation,
    /// As they were when they were last looked at.
    pub orders: BTreeMap<SpiffeId, Order>,
    pub judged_by: Option<Arc<Vec<Vec<u8>>>>,
    pub token: u64,
}

/// What a look at the schedule came to.
enum Round {
    /// There may be more to do at once.
    More,
    /// Nothing is due.
    Done,
    /// Somebody is due, and there is no word about a token or roots yet.
    Blind,
}

type Signing = JoinSet<(SpiffeId, Result<Held, Fault>)>;

impl Renewer {
    /// Never ends by itself.
    pub async fn run(mut self) {
        loop {
            self.take_orders();
            self.look_at_world();
            let pause = match self.round().await {
                Round::More => continue,
                Round::Blind => LONGEST,
                Round::Done => self.rotation.next_due().map_or(LONGEST, until),
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.ordered.notified() => {}
                Ok(()) = self.access.changed() => {}
                Ok(()) = self.trust.changed() => {}
                () = self.hurry.notified() => self.orders.keys().for_each(|id| self.rotation.hurry(id)),
            }
        }
    }

    fn take_orders(&mut self) {
        let orders = {
            let mut known = lock(&self.known);
            let Known { orders, found } = &mut *known;
            found.retain(|id, _| orders.contains_key(id));
            if *orders == self.orders {
                return;
            }
            orders.clone()
        };
        self.rotation.want(orders.keys());
        for (id, order) in &orders {
            if self.orders.get(id).is_some_and(|before| before != order) {
                self.rotation.hurry(id);
            }
        }
        self.orders = orders;
    }

    /// Another token may do what the one before could not, and so may other roots.
    fn look_at_world(&mut self) {
        let token = self.access.borrow_and_update().token.as_ref().map_or(0, |token| token.number);
        let roots = self.trust.borrow_and_update().roots.clone();
        let other_roots = roots != self.judged_by;
        if let Some(roots) = roots.as_ref().filter(|_| other_roots) {
            self.judge(roots);
        }
        if other_roots || token != self.token {
            self.hurry_failing();
        }
        (self.judged_by, self.token) = (roots, token);
    }

    fn judge(&mut self, roots: &[Vec<u8>]) {
        let now = clock::now();
        let mut known = lock(&self.known);
        for found in known.found.values_mut() {
            let Some(Ok(held)) = found.now() else { continue };
            if let Err(fault) = leads(&self.api, held, roots, now) {
                warn!(%fault, "an SVID leads to no root of the PKI any more, and is replaced");
                found.take(Err(fault));
                self.news.notify_one();
            }
        }
    }

    fn hurry_failing(&mut self) {
        let known = lock(&self.known);
        let failing = known.found.iter().filter(|(_, found)| matches!(found.now(), Some(Err(_))));
        failing.for_each(|(id, _)| self.rotation.hurry(id));
    }

    async fn round(&mut self) -> Round {
        let mut due: VecDeque<_> = self.rotation.due(clock::now()).into();
        if due.is_empty() {
            return Round::Done;
        }
        let (access, trust) = (self.access.borrow().clone(), self.trust.borrow().clone());
        if access.is_pending() || !trust.looked {
            return Round::Blind;
        }
        let (token, roots) = match (access.token, trust.roots, access.fault.or(trust.fault)) {
            (Some(token), Some(roots), _) => (token, roots),
            (_, _, Some(fault)) => {
                self.fail(due, &fault);
                return Round::Done;
            }
            (None, _, None) | (_, None, None) => return Round::Blind,
        };
        let later = due.split_off(due.len().min(AT_A_TIME));
        let (left, common) = self.sign(due, &token, &roots).await;
        if let Some(fault) = common {
            if fault.is_denied() {
                self.doubts.send_replace(token.number);
            }
            self.fail(left.into_iter().chain(later), &fault);
        }
        Round::More
    }

    /// Returns who was not asked for, or not to the end, for a fault that is everybody's.
    async fn sign(
        &mut self,
        mut due: VecDeque<SpiffeId>,
        token: &Token,
        roots: &Arc<Vec<Vec<u8>>>,
    ) -> (BTreeSet<SpiffeId>, Option<Fault>) {
        let mut open: BTreeSet<SpiffeId> = due.iter().cloned().collect();
        let mut signing = Signing::new();
        loop {
            while signing.len() < TOGETHER {
                let Some(id) = due.pop_front() else { break };
                self.begin(&mut signing, id, token, roots);
            }
            let Some(done) = signing.join_next().await else {
                // Who is still open is so for ever otherwise, and due at once.
                let broke_off = self.api.fault(Problem::BrokeOff("signing"));
                self.fail(std::mem::take(&mut open), &broke_off);
                return (open, None);
            };
            let Ok((id, result)) = done else { continue };
            match result {
                Err(fault) if fault.is_common() => return (open, Some(fault)),
                result => {
                    open.remove(&id);
                    self.settle(&id, result);
                }
            }
        }
    }

    fn begin(&self, signing: &mut Signing, id: SpiffeId, token: &Token, roots: &Arc<Vec<Vec<u8>>>) {
        let Some(order) = self.orders.get(&id).cloned() else { return };
        let (api, secret, roots) = (self.api.clone(), token.secret.clone(), roots.clone());
        signing.spawn(async move {
            let result = obtain(&api, &secret, &order, &roots).await;
            (id, result)
        });
    }

    fn fail(&mut self, whom: impl IntoIterator<Item = SpiffeId>, fault: &Fault) {
        whom.into_iter().for_each(|id| self.settle(&id, Err(fault.clone())));
    }

    fn settle(&mut self, id: &SpiffeId, result: Result<Held, Fault>) {
        let now = clock::now();
        match &result {
            Ok(held) => self.rotation.issued(id, now, held.issued.svid.not_after),
            Err(fault) => {
                self.rotation.failed(id, now);
                if let Problem::Svid(svid::Fault::Chain { .. }) = *fault.problem {
                    self.stale_roots.notify_one();
                }
            }
        }
        let mut known = lock(&self.known);
        let Some(workload) = known.orders.get(id).map(|order| order.expected.workload.clone()) else { return };
        let found = known.found.entry(id.clone()).or_default();
        if found.take(result) == Taken::Changed {
            tell(&workload, found);
            self.news.notify_one();
        }
    }
}

/// Until that second, or for an hour: by then the clock may have been set.
fn until(due: u64) -> Duration {
    Duration::from_millis(due.saturating_mul(1000).saturating_sub(clock::now_ms())).min(LONGEST)
}

fn tell(workload: &str, found: &Found<Held, Fault>) {
    match found.now() {
        Some(Ok(held)) => {
            let (serial, until) = (&held.issued.svid.serial, utc(held.issued.svid.not_after));
            info!(workload, serial, until, "an SVID of the PKI is taken");
        }
        Some(Err(fault)) => warn!(workload, %fault, "no new SVID of the PKI; the last good stays in force"),
        None => {}
    }
}

/// Requests at one time.
const TOGETHER: usize = 8;
/// Before orders and roots are looked at again.
const AT_A_TIME: usize = 64;
const LONGEST: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::TrustDomain;
    use crate::config::vault::{Auth, Vault};
    use crate::source::svid::Expected;
    use crate::source::vault::secret::{Mode, read_file};
    use crate::web::Url;

    /// Of a mount that no file can name: making its URL panics.
    fn api() -> Api {
        let config = Vault {
            server: Url::parse("http://127.0.0.1:1").unwrap(),
            ca_bundle: None,
            namespace: None,
            mount: "a b".into(),
            role: "node".into(),
            ttl: Duration::from_secs(60),
            dns_names: false,
            refresh: Duration::from_secs(60),
            auth: Auth::Token { file: PathBuf::from("token") },
        };
        Api::new(config, "bao")
    }

    #[tokio::test]
    async fn signing_that_panics_is_a_failure_and_not_asked_for_again_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "s.abc").unwrap();
        let secret = Arc::new(read_file(&file, Mode::Any).unwrap());
        let id = SpiffeId::parse("spiffe://example.com/backend").unwrap();
        let trust_domain = TrustDomain::parse("example.com").unwrap();
        let expected = Expected { id: id.clone(), workload: "shop/backend".into(), trust_domain };
        let known = Shared::default();
        lock(&known).orders.insert(id.clone(), Order { expected, dns_names: vec![] });
        let access = Access { token: Some(Token { number: 1, secret }), fault: None };
        let trust = Trust { roots: Some(Arc::default()), looked: true, ..Trust::default() };
        let mut renewer = Renewer {
            api: Arc::new(api()),
            known: known.clone(),
            access: watch::channel(access).1,
            trust: watch::channel(trust).1,
            ordered: Arc::default(),
            hurry: Arc::default(),
            doubts: watch::channel(0).0,
            stale_roots: Arc::default(),
            news: News::default(),
            rotation: Rotation::new(1),
            orders: BTreeMap::new(),
            judged_by: None,
            token: 0,
        };
        renewer.take_orders();
        assert_eq!(renewer.rotation.due(clock::now()), std::slice::from_ref(&id));
        let before = clock::now();
        renewer.round().await;
        assert!(renewer.rotation.next_due().is_some_and(|due| due > before), "it is due later, as after any failure");
        let known = lock(&known);
        let Some(Err(fault)) = known.found[&id].now() else { panic!("it has failed") };
        assert_eq!(*fault.problem, Problem::BrokeOff("signing"));
    }
}
