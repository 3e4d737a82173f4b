//! A control process as far as it fetches, and what it is given: what `fetch` and `fetch_crls` are made of.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::Duration;

use ctrl::clock;
use ctrl::config::{Loaded, load_dir};
use ctrl::crls::Held;
use ctrl::fetch::{Fetches, Heard, Known};
use ctrl::source::News;
use ctrl::trusted::Trusted;

use crate::certs::{self, trust_bundle};
use crate::counting::identities;
use crate::example::{GATEWAY, by_address};
use crate::https::{Ca, Reply, Server};
use crate::words;

pub const ENDPOINT: &str = "spiffe://partner.org/spire/server";
pub const HOUR: u64 = 3_600;
/// For everything together; a slow machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A control process as far as it fetches.
pub struct Control {
    pub _directory: tempfile::TempDir,
    pub loaded: Loaded,
    pub fetches: Fetches,
    pub news: News,
    pub held: Held,
    /// It asks at once, whatever its pace.
    pub hurries: bool,
}

impl Control {
    pub fn start(specs: &[String], files: &[(&str, &[u8])]) -> Self {
        Self::again(specs, files, Known::default())
    }

    /// One that was there before.
    pub fn again(specs: &[String], files: &[(&str, &[u8])], known: Known) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (news, write) = (News::default(), |name: &str, bytes: &[u8]| {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        });
        write("gateway.yaml", GATEWAY.as_bytes());
        write("policy.yaml", by_address().as_bytes());
        files.iter().for_each(|(name, bytes)| write(name, bytes));
        for (nth, spec) in specs.iter().enumerate() {
            write(&format!("t{nth}.yaml"), trust_bundle(&format!("t{nth}"), spec).as_bytes());
        }
        let mut loaded = load_dir(directory.path()).unwrap_or_else(|faults| panic!("{:#?}", words::words(&faults)));
        let mut fetches = Fetches::new(known, news.clone());
        fetches.keep(&loaded);
        fetches.got().fill(&mut loaded);
        Self { _directory: directory, loaded, fetches, news, held: Held::default(), hurries: true }
    }

    /// The configuration is another from now on.
    pub fn becomes(&mut self, specs: &[String]) {
        let mut loaded = Self::start(specs, &[]).loaded;
        self.fetches.got().fill(&mut loaded);
        self.loaded = loaded;
        self.held.take(&self.loaded);
        self.fetches.keep(&self.loaded);
    }

    /// Until something has come, or failed.
    pub async fn turn(&mut self) -> Heard {
        let (now, identities) = (clock::now(), identities());
        if self.hurries {
            self.fetches.clock_jumped();
        }
        loop {
            self.fetches.ask(|id| Trusted::of(id, &self.loaded, &identities, now));
            let due = self.fetches.next_due().unwrap_or_else(|| tokio::time::Instant::now() + PATIENCE);
            tokio::select! {
                () = self.news.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
            let judge = |crl: (&str, &_, &_), loaded: &_| self.held.judge(crl, loaded, &identities, now);
            let trusted = |id: &_, loaded: &_| Trusted::of(id, loaded, &identities, now);
            let heard = self.fetches.hear(now, &mut self.loaded, judge, trusted);
            if heard != Heard::Nothing {
                self.held.take(&self.loaded);
                return heard;
            }
        }
    }

    pub async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done(self) {
            let late = tokio::time::timeout_at(deadline, self.turn()).await.is_err();
            assert!(!late, "{what}: {:#?}", self.problems());
        }
    }

    /// Until it is told that something is wrong, in these words.
    pub async fn until_told(&mut self, name: &str, words: &str) {
        // What was told before may have the same words.
        tokio::time::timeout(PATIENCE, self.turn()).await.expect("something comes");
        let told = |this: &Self| this.problems().iter().any(|problem| problem.contains(words));
        self.until(&format!("{name}: {words}"), told).await;
    }

    pub fn problems(&self) -> Vec<String> {
        self.fetches.problems().collect()
    }

    pub fn roots(&self, domain: &str) -> Vec<Vec<u8>> {
        let mut bundles = self.loaded.bundles.iter().filter(|bundle| bundle.trust_domain.as_str() == domain);
        let mut roots: Vec<_> = bundles.next().unwrap().roots.iter().map(|root| root.certificate.der.clone()).collect();
        roots.sort();
        roots
    }

    pub fn is_by(&self, cas: &[&Ca]) -> bool {
        let mut want: Vec<_> = cas.iter().map(|ca| ca.der()).collect();
        want.sort();
        self.roots("partner.org") == want
    }

    /// Of the first TrustBundle, by the serials that they revoke.
    pub fn crls(&self) -> Vec<Vec<String>> {
        self.loaded.bundles[0].crls.iter().map(|crl| crl.list.serials.clone()).collect()
    }
}

/// A bundle of these, as an endpoint gives it.
pub fn bundle(cas: &[&Ca], sequence: u64) -> Reply {
    let x5c = |ca: &&Ca| ca.pem().lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let key = |ca| serde_json::json!({ "use": "x509-svid", "kty": "EC", "x5c": [x5c(ca)] });
    let keys: Vec<_> = cas.iter().map(key).collect();
    let bundle = serde_json::json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 600 });
    Reply::ok(bundle.to_string())
}

pub fn by_spiffe(server: &Server, more: &str) -> String {
    format!(
        "trustDomain: partner.org\nroots: [{{ file: partner.pem }}]\nendpoint:\n  url: {}\n  profile: https_spiffe\n  \
         endpointSPIFFEID: {ENDPOINT}\n  refreshInterval: 1s\n{more}",
        server.url("/bundle")
    )
}

pub fn by_web(server: &Server) -> String {
    let url = server.url("/bundle");
    format!(
        "trustDomain: partner.org\nendpoint:\n  url: {url}\n  profile: https_web\n  roots: {{ file: web.pem }}\n  \
         refreshInterval: 1s\n"
    )
}

pub fn crl_spec(root: &Ca, entries: &str) -> String {
    format!("trustDomain: partner.org\n{}crls:\n{entries}", certs::inline(&root.pem()))
}

pub fn entry(server: &Server, more: &str) -> String {
    format!("  - {{ url: \"{}\", refreshInterval: 1s{more} }}\n", server.url("/ca.crl"))
}
