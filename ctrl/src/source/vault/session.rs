//! The token that requests are made with: got, renewed at half of its life, and got anew when it is over.
//!
//! ```text
//!   log in ─▶ held ── half-life ─▶ renew-self ─▶ held
//!     ▲        │ doubted: a request was denied ─▶ lookup-self ─▶ held, or:
//!     └────────┴── refused, at its greatest age, not renewable and four fifths over
//! ```
//! A token that somebody else writes to a file is read again whenever the file changes. As long as a token
//! lives it is used, whatever becomes of the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::api::{Api, LoggedIn};
use super::fault::{Fault, Problem};
use super::secret::Secret;
use crate::clock;
use crate::config::vault::Auth;
use crate::source::News;
use crate::source::files::watch::{Subscription, Touch, Watch};
use crate::source::spire::back_off;

/// What requests can be made with now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub token: Option<Token>,
    /// Why there is none, or will soon be none.
    pub fault: Option<Fault>,
}

/// Numbered, so that it can be doubted without being shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub number: u64,
    pub secret: Arc<Secret>,
}

impl Access {
    /// Nothing has been heard yet.
    pub fn is_pending(&self) -> bool {
        self.token.is_none() && self.fault.is_none()
    }
}

pub struct Session {
    api: Arc<Api>,
    access: watch::Sender<Access>,
    /// The number of the token that was denied something.
    doubts: watch::Receiver<u64>,
    hurry: Arc<Notify>,
    news: News,
    held: Option<Held>,
    /// Of the last token that was taken.
    number: u64,
    doubted: bool,
    /// Logging in was refused when it was tried last.
    refused: bool,
    /// Of the file that `auth` names; away while it is armed.
    subscription: Option<Subscription>,
    touches: mpsc::Receiver<Touch>,
}

struct Held {
    token: Token,
    since: Instant,
    /// None: for ever, or nobody says.
    lasts: Option<Lasts>,
}

#[derive(Debug, Clone, Copy)]
struct Lasts {
    since: Instant,
    ttl: Duration,
    renewable: bool,
}

impl Lasts {
    fn of(ttl: u64, renewable: bool) -> Option<Self> {
        // Longer than anybody lives; times are added to it.
        let ttl = Duration::from_secs(ttl.min(LONGEST_LEASE));
        (!ttl.is_zero()).then(|| Self { since: Instant::now(), ttl, renewable })
    }

    fn due(&self) -> Instant {
        self.since + if self.renewable { self.ttl / 2 } else { self.ttl * 4 / 5 }
    }

    fn left(&self) -> Duration {
        (self.since + self.ttl).saturating_duration_since(Instant::now())
    }
}

impl Held {
    fn is_due(&self) -> bool {
        self.lasts.is_some_and(|lasts| lasts.due() <= Instant::now())
    }

    fn is_over(&self) -> bool {
        self.lasts.is_some_and(|lasts| lasts.left().is_zero())
    }

    fn is_renewable(&self) -> bool {
        self.lasts.is_some_and(|lasts| lasts.renewable)
    }
}

impl Session {
    pub fn new(
        api: Arc<Api>,
        access: watch::Sender<Access>,
        doubts: watch::Receiver<u64>,
        hurry: Arc<Notify>,
        news: News,
    ) -> Self {
        let (sender, touches) = mpsc::channel(QUEUE);
        let subscription = Some(Arc::new(Watch::new()).subscribe(sender));
        Self {
            api,
            access,
            doubts,
            hurry,
            news,
            held: None,
            number: 0,
            doubted: false,
            refused: false,
            subscription,
            touches,
        }
    }

    /// Never ends by itself.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            // Watched before it is read: a change in between is seen twice rather than never.
            self.arm().await;
            let done = self.tend().await;
            self.doubted = false;
            let pause = match &done {
                Ok(()) => self.held.as_ref().and_then(|held| held.lasts).map_or(LOOK_EVERY, pause_until_due),
                Err(fault) if fault.is_refused_log_in() => pause_after_refusal(failures),
                Err(_) => back_off(failures, LONGEST_BACK_OFF),
            };
            failures = if done.is_ok() { 0 } else { failures.saturating_add(1) };
            self.refused = done.as_ref().is_err_and(Fault::is_refused_log_in);
            self.tell(done.err());
            self.rest(pause).await;
        }
    }

    /// Where the file's name stands, and where the file itself is.
    async fn arm(&mut self) {
        let Some(mut subscription) = self.subscription.take() else { return };
        let file = self.api.config.auth.file().clone();
        let armed = spawn_blocking(move || {
            let places = [Some(file.clone()), file.canonicalize().ok()];
            let parents = places.iter().flatten().filter_map(|path| path.parent()?.canonicalize().ok());
            // What cannot be watched is looked at now and then.
            let _ = subscription.watch(parents.collect::<BTreeSet<_>>().into_iter().collect());
            subscription
        });
        self.subscription = armed.await.ok();
    }

    async fn tend(&mut self) -> Result<(), Fault> {
        match &self.api.config.auth {
            Auth::Token { .. } => self.tend_given().await,
            Auth::AppRole { .. } | Auth::Kubernetes { .. } => self.tend_own().await,
        }
    }

    async fn tend_own(&mut self) -> Result<(), Fault> {
        if self.doubted {
            // What it may not do is its policy's matter.
            if let Some(held) = &self.held
                && is_known(&self.api, held).await?
            {
                return Ok(());
            }
            self.held = None;
        } else if let Some(held) = &mut self.held
            && (!held.is_due() || held.is_renewable() && renew(&self.api, held).await?)
        {
            return Ok(());
        }
        self.log_in().await
    }

    async fn tend_given(&mut self) -> Result<(), Fault> {
        let before = self.held.as_ref().map(|held| held.token.number);
        self.log_in().await?;
        let Some(held) = &mut self.held else { return Ok(()) };
        if before != Some(held.token.number) || self.doubted {
            held.lasts = match self.api.look_up(&held.token.secret).await {
                Ok(looked) => Lasts::of(looked.ttl, looked.renewable),
                // It may still be good for what it is for: signing will tell.
                Err(fault) if fault.is_denied() => None,
                Err(fault) => return Err(fault),
            };
        }
        if held.is_due() && held.is_renewable() && !renew(&self.api, held).await? {
            held.lasts.iter_mut().for_each(|lasts| lasts.renewable = false);
        }
        match held.lasts.filter(|_| held.is_due()) {
            Some(lasts) => {
                let auth = &self.api.config.auth;
                let at = clock::now() + lasts.left().as_secs();
                Err(self.api.fault(Problem::TokenEnds { field: auth.field(), path: auth.file().clone(), at }))
            }
            None => Ok(()),
        }
    }

    async fn log_in(&mut self) -> Result<(), Fault> {
        let (secret, lasts) = match self.api.log_in().await? {
            LoggedIn::Leased(lease) => (lease.client_token, Lasts::of(lease.lease_duration, lease.renewable)),
            LoggedIn::Given(secret) => {
                if self.held.as_ref().is_some_and(|held| *held.token.secret == secret) {
                    return Ok(());
                }
                (secret, None)
            }
        };
        self.number += 1;
        let number = self.number;
        self.held = Some(Held { token: Token { number, secret: Arc::new(secret) }, since: Instant::now(), lasts });
        info!(server = %self.api.config.server, number, "a token is taken");
        Ok(())
    }

    fn tell(&self, fault: Option<Fault>) {
        let token = self.held.as_ref().filter(|held| !held.is_over()).map(|held| held.token.clone());
        if let Some(fault) = fault.as_ref().filter(|fault| self.access.borrow().fault.as_ref() != Some(*fault)) {
            warn!(%fault, "no new token; the one before, if there is one, is used until it ends");
        }
        let next = Access { token, fault };
        if self.access.send_if_modified(|access| std::mem::replace(access, next.clone()) != next) {
            self.news.notify_one();
        }
    }

    /// Until then, unless something happens before.
    async fn rest(&mut self, pause: Duration) {
        // Who is in a hurry without end is heard now and then.
        sleep(PACE).await;
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.hurry.notified() => return,
                Some(touch) = self.touches.recv() => match touch {
                    // Somebody is not finished.
                    Touch::Written(_) => {}
                    Touch::Done(_) => return,
                },
                Ok(()) = self.doubts.changed() => {
                    let number = *self.doubts.borrow_and_update();
                    let doubted = |held: &Held| held.token.number == number && held.since.elapsed() >= FRESH;
                    self.doubted = !self.refused && self.held.as_ref().is_some_and(doubted);
                    if self.doubted {
                        return;
                    }
                }
            }
        }
    }
}

async fn is_known(api: &Api, held: &Held) -> Result<bool, Fault> {
    match api.look_up(&held.token.secret).await {
        Ok(_) => Ok(true),
        Err(fault) if fault.is_denied() => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// False: it does not live longer by it, or is not known any more.
async fn renew(api: &Api, held: &mut Held) -> Result<bool, Fault> {
    let left = held.lasts.map_or(Duration::ZERO, |lasts| lasts.left());
    match api.renew(&held.token.secret).await {
        Ok(lease) => {
            let next = Lasts::of(lease.lease_duration, lease.renewable);
            let grown = next.is_none_or(|next| next.ttl > left + LEAST_GAIN);
            if grown {
                held.lasts = next;
            }
            Ok(grown)
        }
        Err(fault) if fault.is_refusal() => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn pause_until_due(lasts: Lasts) -> Duration {
    lasts.due().saturating_duration_since(Instant::now()).min(LOOK_EVERY)
}

/// Servers lock out whoever fails five times with less than 15 minutes in between, whatever he shows then. A
/// file that changes is tried at once.
fn pause_after_refusal(failures: u32) -> Duration {
    Duration::from_secs(match failures {
        0 => 2,
        1 => 15,
        _ => 16 * 60,
    })
}

/// In any case: a file system may tell nobody of a change (NFS).
const LOOK_EVERY: Duration = Duration::from_secs(60);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// One that was just got is not over: whoever is denied by it would be by the next one too.
const FRESH: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_millis(200);
const QUEUE: usize = 64;
const LONGEST_LEASE: u64 = 100 * 365 * 86_400;
/// Leases are told in whole seconds.
const LEAST_GAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_does_not_ask_so_often_that_he_is_locked_out() {
        let (mut in_a_row, mut asked) = (1, 0);
        for failures in 0..100 {
            // OpenBao's lockout_threshold and lockout_counter_reset, as they are unless somebody tunes them.
            in_a_row = if pause_after_refusal(failures) > Duration::from_secs(900) { 1 } else { in_a_row + 1 };
            asked += 1;
            assert!(in_a_row < 5, "after {asked}");
        }
    }
}
