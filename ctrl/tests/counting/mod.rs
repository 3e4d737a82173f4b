//! A source of identities that counts, for what asks one.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ctrl::config::SpiffeId;
use ctrl::rotate::Identities;
use ctrl::source::{Error, IssuedSvid, Source, Wanted};
use snapshot::channel::PrivateKey;
use snapshot::{Bundle, KeyId, Svid};

pub const NOW: u64 = 1_800_000_000;

/// Counts serials up; fails while told to.
#[derive(Default)]
pub struct Counting {
    pub fails: Arc<AtomicBool>,
    pub issued: AtomicU64,
    pub life: u64,
}

impl Source for Counting {
    fn issue(&self, Wanted { id, dns_names, .. }: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::Crypto { what: "SVID", reason: "the source is away".into() });
        }
        let serial = self.issued.fetch_add(1, Ordering::Relaxed);
        let key = KeyId([serial as u8; 32]);
        let chain = vec![format!("{id} {dns_names:?}").into_bytes()];
        let life = if self.life == 0 { 3_600 } else { self.life };
        let svid = Svid { chain, key, serial: format!("{serial:02x}"), not_before: now - 30, not_after: now + life };
        Ok(IssuedSvid { svid, key: PrivateKey::new(vec![0xa5; 8]) })
    }

    fn bundle(&self) -> Bundle {
        Bundle { trust_domain: "example.com".into(), roots: vec![vec![1]] }
    }

    fn warnings(&self, _now: u64) -> Vec<String> {
        Vec::new()
    }
}

pub fn identities() -> Identities {
    Identities::new(Box::new(Counting::default()) as Box<dyn Source>, 1)
}

pub fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.com/{path}")).unwrap()
}

pub fn wanted(id: SpiffeId, dns_names: &[&str]) -> Wanted {
    let workload = id.as_str().rsplit('/').next().map(|name| format!("shop/{name}")).unwrap();
    Wanted { id, dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(), workload, pods: vec![] }
}
