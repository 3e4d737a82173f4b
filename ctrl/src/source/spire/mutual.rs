//! Mutual TLS to an agent's broker endpoint: our own newest SVID as the client's, the agent's held to the ID that is
//! expected there (SPIFFE Broker Endpoint §3.1 and §5).
//!
//! ```text
//!   Workload API ─┬─ our SVID ─┐
//!                 └─ bundles ──┴─▶ keep ─▶ a way for each that differs ─▶ Link: a new connection, all streams move
//! ```
//! A connection lives no longer than what it was made with is right: with another SVID of ours, or other roots of
//! the agent's trust domain, everybody moves to a new one, and when our SVID ends without another there is none.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error as TlsError};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use snapshot::IdPattern;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::fault::{Fault, shown};
use super::feed::{Shared, lock};
use super::link::{Dial, Known, Stream, Way};
use super::trust::Trust;
use crate::clock;
use crate::config::broker::Address;
use crate::config::{SpiffeId, TrustDomain};
use crate::source::{IssuedSvid, svid};
use crate::trusted::Trusted;
use crate::web::{error, spiffe::Verifier, tls};

/// A way to an endpoint.
#[derive(Debug, Clone)]
pub struct Mutual {
    address: Address,
    config: Arc<ClientConfig>,
    /// Whose certificate we show.
    id: SpiffeId,
}

impl Mutual {
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let plain: Box<dyn Stream> = match &self.address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        // Nobody looks at it: the verifier asks for an ID, and no name is sent.
        let nobody = ServerName::try_from("localhost").expect("it is a name");
        let connector = TlsConnector::from(self.config.clone());
        let mut stream = connector.connect(nobody, plain).await.map_err(|error| self.in_words(error))?;
        // Under TLS 1.3 a server refuses a client after the client has done its part. What it says then would be
        // lost behind our own writes; one that takes us says its settings at once.
        match timeout(FIRST_WORD, stream.fill_buf()).await {
            Ok(Err(error)) => Err(self.in_words(error)),
            Ok(Ok([])) => Err(io::Error::other(format!("it hangs up on {}, without a reason", self.id))),
            Ok(Ok(_)) | Err(_) => Ok(Box::new(stream)),
        }
    }

    fn in_words(&self, error: io::Error) -> io::Error {
        let words = match error::of_tls(&error) {
            Some(TlsError::InvalidCertificate(why)) => error::in_words(why, "it"),
            Some(TlsError::AlertReceived(alert)) => format!(
                "it does not take our certificate, which is of {} ({alert:?}): `brokers` in the agent's configuration \
                 has to name that ID, and the agent to have the bundle of its trust domain",
                self.id
            ),
            Some(other) => format!("TLS does not come about: {other}"),
            None => return error,
        };
        io::Error::other(shown(&words))
    }
}

/// What ways are made of, and who else knows it.
pub struct Own {
    pub id: SpiffeId,
    pub agent: IdPattern,
    /// The Gateway's.
    pub trust_domain: TrustDomain,
    pub address: Result<Address, Fault>,
    /// As the endpoint is shown.
    pub endpoint: PathBuf,
    /// The Workload API's.
    pub known: Shared,
    pub changed: watch::Receiver<()>,
    pub trust: watch::Receiver<Trust>,
    /// Rung when time has jumped.
    pub hurry: Arc<Notify>,
}

/// What makes one way another than the one before.
#[derive(Clone, PartialEq, Eq)]
struct With {
    own: IssuedSvid,
    roots: Vec<Vec<u8>>,
}

/// Tells of each way that is another one. Never ends by itself.
pub async fn keep(mut own: Own, ways: watch::Sender<Known>) {
    let (mut told, mut nth) = (None, 0);
    loop {
        own.changed.borrow_and_update();
        own.trust.borrow_and_update();
        let now = clock::now();
        let found = own.look(now);
        if found != told {
            nth += 1;
            let way = |with: With| own.way(&with, nth);
            ways.send_replace(found.clone().map(|found| found.and_then(way)));
        }
        let end = match &found {
            Some(Ok(with)) => with.own.svid.not_after.saturating_sub(now).max(1),
            Some(Err(_)) | None => u64::MAX,
        };
        told = found;
        tokio::select! {
            Ok(()) = own.changed.changed() => {}
            Ok(()) = own.trust.changed() => {}
            () = own.hurry.notified() => {}
            () = sleep(Duration::from_secs(end).min(LONGEST)) => {}
        }
    }
}

impl Own {
    /// None: nobody has looked yet.
    fn look(&self, now: u64) -> Option<Result<With, Fault>> {
        if let Err(fault) = &self.address {
            return Some(Err(fault.clone()));
        }
        let own = match self.svid(now)? {
            Ok(own) => own,
            Err(fault) => {
                let (endpoint, fault) = (self.endpoint.clone(), Box::new(fault));
                return Some(Err(Fault::NoOwnSvid { endpoint, fault }));
            }
        };
        Some(self.roots().map(|roots| With { own, roots }))
    }

    /// The newest, or the last good one as long as it is valid.
    fn svid(&self, now: u64) -> Option<Result<IssuedSvid, Fault>> {
        let known = lock(&self.known);
        let found = known.found.get(&self.id)?;
        let fault = found.now()?.err();
        let Some(good) = found.last_good() else { return fault.cloned().map(Err) };
        let life = (good.issued.svid.not_before, good.issued.svid.not_after);
        let within = svid::within(&self.endpoint, "our own SVID", life, now);
        Some(within.map(|()| good.issued.clone()).map_err(|ended| fault.cloned().unwrap_or(ended.into())))
    }

    /// Those of the agent's trust domain.
    fn roots(&self) -> Result<Vec<Vec<u8>>, Fault> {
        let (IdPattern::Exact(agent) | IdPattern::Under(agent)) = &self.agent;
        let domain = agent.trim_start_matches("spiffe://").split('/').next().unwrap_or_default();
        let trust = self.trust.borrow();
        let roots = match domain == self.trust_domain.as_str() {
            true => trust.own.as_ref(),
            false => trust.federated.iter().find(|(of, _)| of.as_str() == domain).map(|(_, roots)| roots),
        };
        roots.cloned().ok_or_else(|| {
            let reason = format!("{} cannot be verified: the Workload API gives no bundle of {domain}", self.agent);
            Fault::Waiting { socket: self.endpoint.clone(), reason }
        })
    }

    fn way(&self, with: &With, nth: u64) -> Result<Way, Fault> {
        let config = config(with, &self.agent);
        let config = config.map_err(|why| Fault::Away { socket: self.endpoint.clone(), reason: why.to_string() })?;
        let (address, id) = (self.address.clone()?, self.id.clone());
        Ok(Way { nth, dial: Dial::Mutual(Mutual { address, config: Arc::new(config), id }) })
    }
}

fn config(with: &With, agent: &IdPattern) -> Result<ClientConfig, TlsError> {
    let chain = with.own.svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    // Copied into the library that signs, and nowhere else.
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(with.own.key.pkcs8()));
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, signer));
    let verifier = Verifier::new(agent.clone(), Trusted::by(with.roots.clone()));
    let mut config = tls::verified(Arc::new(verifier)).with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    // A resumed session shows no certificate, so nobody would look again at who is trusted by now.
    config.resumption = Resumption::disabled();
    Ok(config)
}

const FIRST_WORD: Duration = Duration::from_secs(1);
/// Looked at now and then in any case.
const LONGEST: Duration = Duration::from_secs(60);
