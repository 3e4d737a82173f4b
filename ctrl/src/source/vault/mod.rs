//! SVIDs signed by the PKI of an OpenBao or a Vault, for keys that are made here and never leave.
//!
//! ```text
//!   session ── token ──▶ renewer ── CSR ──▶ PKI/sign/ROLE ──▶ check ──▶ news, issue
//!   trust ──── roots ──────┘ └── denied, or a chain to no root: doubts them ──┐
//!     ▲───────────────────────────────────────────────────────────────────────┘
//! ```
//! Three tasks, each waiting for nobody but its own answers. An answer is hostile until it has been held to
//! what was asked for ([`sign`]); what is not right leaves the last good in force.

mod api;
mod fault;
mod renewer;
mod secret;
mod session;
mod sign;
mod trust;
mod warden;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use snapshot::{Bundle, Svid};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::svid::{self, Expected};
use super::{Error, IssuedSvid, News, Renewal, Source, Wanted};
use crate::config::vault::Vault as Config;
use crate::config::{SpiffeId, TrustDomain};
use crate::rotate::Rotation;

pub use fault::Fault;

use api::Api;
use fault::Problem;
use renewer::{Renewer, Shared, lock};
use session::{Access, Session};
use sign::Order;
use trust::{Keeper, Trust};
use warden::{Warden, watch_over};

/// The source.
pub struct Vault {
    api: Arc<Api>,
    trust_domain: TrustDomain,
    news: News,
    known: Shared,
    /// From the first that is followed on: who only validates asks nobody.
    running: Option<Running>,
}

/// The tasks, which end with it, and what they say.
struct Running {
    access: watch::Receiver<Access>,
    trust: watch::Receiver<Trust>,
    ordered: Arc<Notify>,
    hurries: [Arc<Notify>; 3],
    warden: Warden,
}

impl Vault {
    pub fn new(name: &str, config: Config, trust_domain: TrustDomain, news: News) -> Self {
        Self { api: Arc::new(Api::new(config, name)), trust_domain, news, known: Shared::default(), running: None }
    }

    fn order(&self, wanted: &Wanted) -> Order {
        let (id, workload) = (wanted.id.clone(), wanted.workload.clone());
        let dns_names = if self.api.config.dns_names { wanted.dns_names.clone() } else { Vec::new() };
        Order { expected: Expected { id, workload, trust_domain: self.trust_domain.clone() }, dns_names }
    }

    /// With the roots that are known.
    fn start(&self, trust: Trust) -> Running {
        let (access, of_access) = watch::channel(Access::default());
        let (trust, of_trust) = watch::channel(trust);
        let (doubts, of_doubts) = watch::channel(0);
        let (ordered, [log_in, read, sign]) = (Arc::default(), [(); 3].map(|()| Arc::<Notify>::default()));
        let session = Session::new(self.api.clone(), access, of_doubts, log_in.clone(), self.news.clone());
        let keeper = Keeper {
            api: self.api.clone(),
            trust_domain: self.trust_domain.clone(),
            trust,
            hurry: read.clone(),
            news: self.news.clone(),
        };
        let renewer = Renewer {
            api: self.api.clone(),
            known: self.known.clone(),
            access: of_access.clone(),
            trust: of_trust.clone(),
            ordered: Arc::clone(&ordered),
            hurry: sign.clone(),
            doubts,
            stale_roots: read.clone(),
            news: self.news.clone(),
            // Nodes that start together do not renew together.
            rotation: Rotation::new(RandomState::new().hash_one(0)),
            orders: BTreeMap::new(),
            judged_by: None,
            token: 0,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(session.run());
        tasks.spawn(keeper.run());
        tasks.spawn(renewer.run());
        let warden = watch_over(tasks, self.news.clone());
        Running { access: of_access, trust: of_trust, ordered, hurries: [log_in, read, sign], warden }
    }
}

impl Source for Vault {
    fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        let known = lock(&self.known);
        match known.found.get(&wanted.id).and_then(|found| found.now()) {
            Some(Ok(held)) => {
                let Svid { not_before, not_after, .. } = held.issued.svid;
                let place = self.api.url(&self.api.config.path()).to_string();
                let life = svid::within(place.as_ref(), "its chain", (not_before, not_after), now);
                life.map_err(|fault| self.api.fault(Problem::Svid(fault)))?;
                Ok(held.issued.clone())
            }
            Some(Err(fault)) => Err(fault.clone().into()),
            None => Err(self.api.fault(Problem::Pending(self.api.config.server.clone())).into()),
        }
    }

    fn bundle(&self) -> Bundle {
        let roots = self.running.as_ref().and_then(|running| running.trust.borrow().roots.clone());
        Bundle { trust_domain: self.trust_domain.to_string(), roots: roots.map_or(Vec::new(), |all| all.to_vec()) }
    }

    fn warnings(&self, _now: u64) -> Vec<String> {
        let Some(running) = &self.running else { return Vec::new() };
        let (access, trust) = (running.access.borrow(), running.trust.borrow());
        let mut found: Vec<_> = access.fault.iter().chain(&trust.fault).map(ToString::to_string).collect();
        found.extend(trust.warnings.iter().cloned());
        if running.warden.has_lost_one() {
            found.push(self.api.fault(Problem::BrokeOff("a task of the source")).to_string());
        }
        let known = lock(&self.known);
        let held = known.found.values().filter_map(|found| found.last_good());
        found.extend(held.flat_map(|held| held.warnings.iter().cloned()));
        found
    }

    /// It keeps the schedule itself, since asking takes time.
    fn renewal(&self) -> Renewal {
        Renewal::Given
    }

    fn follow(&mut self, wanted: &[&Wanted]) {
        let orders: BTreeMap<_, _> = wanted.iter().map(|one| (one.id.clone(), self.order(one))).collect();
        if orders.is_empty() && self.running.is_none() {
            return;
        }
        let changed = {
            let mut known = lock(&self.known);
            std::mem::replace(&mut known.orders, orders) != known.orders
        };
        match &self.running {
            Some(running) if running.warden.wants_a_start() => {
                let trust = running.trust.borrow().clone();
                self.running = Some(self.start(trust));
            }
            Some(running) if changed => running.ordered.notify_one(),
            Some(_) => {}
            None => self.running = Some(self.start(Trust::default())),
        }
    }

    fn news(&self) -> Vec<SpiffeId> {
        let mut known = lock(&self.known);
        known.found.iter_mut().filter_map(|(id, found)| found.has_news().then(|| id.clone())).collect()
    }

    fn hurry(&self) {
        self.running.iter().flat_map(|running| &running.hurries).for_each(|hurry| hurry.notify_one());
    }

    fn settled(&self) -> bool {
        let known = lock(&self.known);
        let looked = |running: &Running| running.trust.borrow().looked && !running.access.borrow().is_pending();
        self.running.as_ref().is_none_or(looked)
            && known.orders.keys().all(|id| known.found.get(id).is_some_and(|found| found.has_looked()))
    }
}

/// Whether the credential is there, and the server proves who it is and has a PKI; for `sluice check`.
/// Nobody logs in: a secret ID may be good for once.
pub async fn look(name: &str, config: &Config, trust_domain: &TrustDomain) -> Result<usize, Fault> {
    let api = Arc::new(Api::new(config.clone(), name));
    api.credential().await?;
    trust::read(&api, trust_domain, crate::clock::now()).await.map(|(roots, _)| roots.len())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::vault::Auth;
    use crate::web::Url;

    fn vault() -> Vault {
        let config = Config {
            server: Url::parse("http://127.0.0.1:1").unwrap(),
            ca_bundle: None,
            namespace: None,
            mount: "pki".into(),
            role: "node".into(),
            ttl: Duration::from_secs(60),
            dns_names: false,
            refresh: Duration::from_secs(60),
            auth: Auth::Token { file: PathBuf::from("/nowhere/token") },
        };
        Vault::new("bao", config, TrustDomain::parse("example.com").unwrap(), News::default())
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told_of_and_begun_anew_with_the_roots_from_before() {
        let mut vault = vault();
        let id = SpiffeId::parse("spiffe://example.com/backend").unwrap();
        let wanted = Wanted { id, dns_names: vec![], workload: "shop/backend".into(), pods: vec![] };
        let trust = Trust { roots: Some(Arc::new(vec![vec![7]])), looked: true, ..Trust::default() };
        let mut running = vault.start(trust);
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("planted") });
        running.warden = watch_over(tasks, vault.news.clone());
        vault.running = Some(running);
        let says = |vault: &Vault| vault.warnings(0).iter().any(|warning| warning.contains("broke off"));
        let told = async {
            while !says(&vault) {
                vault.news.notified().await;
            }
            vault.follow(&[&wanted]);
            assert!(says(&vault), "it is not begun anew at once");
            while says(&vault) {
                vault.news.notified().await;
                vault.follow(&[&wanted]);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("it is begun anew");
        assert_eq!(vault.bundle().roots, [vec![7]]);
    }
}
