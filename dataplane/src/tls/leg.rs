//! One side of one TLS connection, by slices: no I/O, no clock, no growth without a bound.
//!
//! No byte of payload passes in either direction unless the handshake stands *and* the outcome is
//! Allow; the leg holds to that by itself, whatever its user does.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::snapshot::{RefuseReason, Resumption as Resumed, TlsMode, TlsReport};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Connection, Error, HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::{ServerName, UnixTime};

use super::tickets::{self, Accepting, Unused};
use super::verify::{Slot, Verifier};
use super::{Failure, Outcome, Peer, Refusal};
use crate::policy::{self, Route, Verdict};
use crate::snapshot::{Compiled, EndpointId};

/// Ciphertext that may wait to be sent; then [`TlsLeg::write`] takes no more.
const PENDING_LIMIT: usize = 64 << 10;

/// Plaintext that may wait to be read; then [`TlsLeg::read_tls`] takes no more.
const PLAINTEXT_LIMIT: usize = 16 << 10;

pub struct TlsLeg {
    connection: Connection,
    slot: Arc<Slot>,
    local_serial: Option<Arc<str>>,
    plaintext: usize,
    closed: bool,
    closed_by_peer: bool,
    failure: Option<Failure>,
    /// Of a handshake that resumed: whether the library has it for the very chain that was judged.
    vouched: OnceLock<bool>,
}

impl TlsLeg {
    /// The leg towards the caller that `route`, an [`Route::Inbound`], is for. PERMISSIVE is MUTUAL for who
    /// offers TLS.
    pub fn accept(compiled: &Arc<Compiled>, route: &Route, now: u64) -> Result<Self, RefuseReason> {
        let Route::Inbound { workload, mode, ends, .. } = *route else { return Err(RefuseReason::TlsProtocol) };
        let callee = &compiled.workloads[workload];
        let credentials = callee.valid_credentials(now).ok_or(RefuseReason::NoSvid)?;
        let resumes = callee.resumption == Resumed::Tickets && mode != TlsMode::Simple;
        let slot = Arc::new(Slot::default());
        let builder = ServerConfig::builder_with_details(compiled.provider.clone(), Arc::new(At(now)))
            .with_protocol_versions(&[&TLS13])
            .map_err(|_| RefuseReason::TlsProtocol)?;
        let judge = verifier(compiled, route.clone(), &slot, resumes);
        let builder = match mode {
            TlsMode::Mutual | TlsMode::Permissive => builder.with_client_cert_verifier(judge.clone()),
            TlsMode::Simple => {
                slot.decided(outcome_of(policy::decide(compiled, route, None)));
                builder.with_no_client_auth()
            }
            TlsMode::Disable => return Err(RefuseReason::TlsProtocol),
        };
        let mut config = builder.with_cert_resolver(credentials.resolver.clone());
        // A resumed handshake skips the verifier, and with it revocation and policy: without a store that asks it
        // all the same there is none.
        if resumes {
            let place = (&*callee.name, ends.server.port(), mode.name());
            config.session_storage = Arc::new(Accepting::new(judge, credentials.clone(), place, now));
            config.send_tls13_tickets = 1;
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.ignore_client_order = true;
        let connection = ServerConnection::new(Arc::new(config)).map_err(|_| RefuseReason::TlsProtocol)?;
        Ok(Self::new(connection.into(), slot, Some(credentials.serial.clone())))
    }

    /// The leg towards the server that `route`, an [`Route::Egress`], leads to.
    pub fn originate(
        compiled: &Arc<Compiled>,
        route: &Route,
        server: SocketAddr,
        now: u64,
    ) -> Result<Self, RefuseReason> {
        let Route::Egress { workload, endpoint, mode, .. } = *route else { return Err(RefuseReason::TlsProtocol) };
        let slot = Arc::new(Slot::default());
        let caller = &compiled.workloads[workload];
        let resumes = caller.resumption == Resumed::Tickets;
        let judge = verifier(compiled, route.clone(), &slot, resumes);
        let name = server_name(compiled, endpoint, server);
        let builder = ClientConfig::builder_with_details(compiled.provider.clone(), Arc::new(At(now)));
        let (config, serial) = match mode {
            TlsMode::Mutual => {
                let credentials = caller.valid_credentials(now).ok_or(RefuseReason::NoSvid)?;
                let builder = builder.with_protocol_versions(&[&TLS13]).map_err(|_| RefuseReason::TlsProtocol)?;
                let (verifier, resumption): (Arc<dyn ServerCertVerifier>, _) = match resumes {
                    true => {
                        let who = (&*caller.name, mode.name());
                        let (verifier, resumption) =
                            tickets::originating(judge, credentials.clone(), who, (server, &name), now);
                        (verifier, resumption)
                    }
                    false => (judge, Resumption::disabled()),
                };
                let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
                let mut config = builder.with_client_cert_resolver(credentials.resolver.clone());
                config.resumption = resumption;
                (config, Some(credentials.serial.clone()))
            }
            TlsMode::Simple => {
                let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]);
                let builder = builder.map_err(|_| RefuseReason::TlsProtocol)?;
                let builder = builder.dangerous().with_custom_certificate_verifier(judge);
                let mut config = builder.with_no_client_auth();
                config.resumption = Resumption::disabled();
                (config, None)
            }
            TlsMode::Permissive | TlsMode::Disable => return Err(RefuseReason::TlsProtocol),
        };
        let connection = ClientConnection::new(Arc::new(config), name).map_err(|_| RefuseReason::TlsProtocol)?;
        Ok(Self::new(connection.into(), slot, serial))
    }

    fn new(mut connection: Connection, slot: Arc<Slot>, local_serial: Option<Arc<str>>) -> Self {
        connection.set_buffer_limit(Some(PENDING_LIMIT));
        Self {
            connection,
            slot,
            local_serial,
            plaintext: 0,
            closed: false,
            closed_by_peer: false,
            failure: None,
            vouched: OnceLock::new(),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub fn handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The handshake is over and policy allows: payload may pass.
    pub fn established(&self) -> bool {
        !self.handshaking() && matches!(self.outcome(), Some(Ok(_)))
    }

    /// Takes ciphertext and does what it asks for; returns how much was taken. Less than all means
    /// that plaintext must be read first. After an error the leg is dead; what is
    /// [`pending`](Self::pending) is still to be sent.
    pub fn read_tls(&mut self, ciphertext: &[u8]) -> Result<usize, Failure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut rest = ciphertext;
        while !rest.is_empty() && self.plaintext < PLAINTEXT_LIMIT {
            if self.closed_by_peer {
                // RFC 8446 §6.1: what comes after close_notify is ignored.
                return Ok(ciphertext.len());
            }
            if !matches!(self.connection.read_tls(&mut rest), Ok(1..)) {
                break;
            }
            match self.connection.process_new_packets() {
                Ok(state) => {
                    self.plaintext = state.plaintext_bytes_to_read();
                    self.closed_by_peer = state.peer_has_closed();
                }
                Err(error) => {
                    let failure = self.failed(error);
                    return Err(self.failure.insert(failure).clone());
                }
            }
        }
        Ok(ciphertext.len() - rest.len())
    }

    fn failed(&self, error: Error) -> Failure {
        if let Some(refusal) = self.slot.refusal() {
            return Failure::Refused(refusal.clone());
        }
        match (error, &self.connection) {
            (Error::AlertReceived(alert), _) => Failure::Alert(format!("{alert:?}")),
            (Error::NoCertificatesPresented, Connection::Server(_)) => Failure::Refused(Refusal::new(
                RefuseReason::NoClientCertificate,
                "the caller's certificate message was empty",
            )),
            // A certificate that the library refused before our verifier saw it.
            (Error::InvalidCertificate(why), _) => {
                Failure::Refused(Refusal::new(RefuseReason::PeerBadCertificate, format!("{why:?}")))
            }
            (other, _) => Failure::Protocol(other.to_string()),
        }
    }

    /// Plaintext that waits to be read.
    pub fn plaintext(&self) -> usize {
        if self.established() { self.plaintext } else { 0 }
    }

    pub fn read(&mut self, out: &mut [u8]) -> usize {
        if !self.established() || self.plaintext == 0 {
            return 0;
        }
        let n = self.connection.reader().read(out).unwrap_or(0);
        self.plaintext -= n;
        n
    }

    /// Seals as much of `plain` as fits; 0 before the connection stands and after it was closed.
    pub fn write(&mut self, plain: &[u8]) -> usize {
        if !self.established() || self.closed || self.failure.is_some() {
            return 0;
        }
        self.connection.writer().write(plain).unwrap_or(0)
    }

    /// Ciphertext that waits to be sent. With very many small records it says less than there is,
    /// but never 0.
    pub fn pending(&mut self) -> usize {
        let mut counted = Count(0);
        if self.connection.wants_write() {
            let _ = self.connection.write_tls(&mut counted);
        }
        counted.0
    }

    pub fn write_tls(&mut self, mut out: &mut [u8]) -> usize {
        let room = out.len();
        while !out.is_empty() && matches!(self.connection.write_tls(&mut out), Ok(1..)) {}
        room - out.len()
    }

    /// The last thing that is sent: no more payload comes from us.
    pub fn close_notify(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.connection.send_close_notify();
        }
    }

    /// The peer said close_notify. Plaintext from before it may still wait. A connection that ends
    /// without it was truncated.
    pub fn closed_by_peer(&self) -> bool {
        self.closed_by_peer
    }

    /// Who the peer is, also if policy refused it. None before its certificate was verified, for an
    /// anonymous caller, and for one that could not show its key.
    pub fn peer(&self) -> Option<&Peer> {
        match self.resumed() {
            true => self.remembered().map(|(_, peer, _)| peer),
            false => self.slot.peer(),
        }
    }

    /// Whether the handshake goes, or went, by a ticket.
    pub fn resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What was judged of the ticket by which the handshake, now over, has resumed.
    fn remembered(&self) -> Option<&tickets::Resumed> {
        let remembered = self.slot.remembered.get().filter(|_| !self.handshaking())?;
        let same = || self.connection.peer_certificates() == Some(&*remembered.0);
        self.vouched.get_or_init(same).then_some(remembered)
    }

    /// Why a ticket that was there was not used.
    pub fn unused(&self) -> Option<Unused> {
        self.slot.unused.get().copied().filter(|_| !self.resumed())
    }

    /// None until it was decided. It counts once [`handshaking`](Self::handshaking) is over.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self.resumed() {
            true => self.remembered().map(|(_, _, outcome)| outcome),
            false => self.slot.outcome(),
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Name of the fatal alert that the peer sent.
    pub fn alert_received(&self) -> Option<&str> {
        match &self.failure {
            Some(Failure::Alert(name)) => Some(name),
            Some(Failure::Refused(_) | Failure::Protocol(_)) | None => None,
        }
    }

    /// For people, once the handshake is over; empty strings for what was not negotiated yet.
    pub fn report(&self) -> TlsReport {
        let version = match self.connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3".into(),
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2".into(),
            other => other.map_or(String::new(), |v| format!("{v:?}")),
        };
        let group = self.connection.negotiated_key_exchange_group();
        let suite = self.connection.negotiated_cipher_suite();
        TlsReport {
            version,
            group: group.map_or(String::new(), |g| format!("{:?}", g.name())),
            cipher: suite.map_or(String::new(), |s| format!("{:?}", s.suite())),
            local_serial: self.local_serial.as_deref().map(str::to_owned),
            peer_serial: self.peer().map(|peer| peer.serial.to_string()),
            peer_not_after: self.peer().map(|peer| peer.not_after),
            peer_root: self.peer().map(|peer| peer.root.id()),
            resumed: self.resumed(),
        }
    }
}

fn verifier(compiled: &Arc<Compiled>, route: Route, slot: &Arc<Slot>, keeps: bool) -> Arc<Verifier> {
    Arc::new(Verifier { compiled: compiled.clone(), route, slot: slot.clone(), keeps })
}

fn outcome_of(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Allow(rule) => Ok(rule),
        Verdict::Refuse(reason, rule) => Err(Refusal { reason, rule, detail: None }),
    }
}

/// The name that the service was resolved by goes out as SNI; an address never does (RFC 6066 §3).
fn server_name(compiled: &Compiled, endpoint: EndpointId, server: SocketAddr) -> ServerName<'static> {
    let host = compiled.host(endpoint).map(|host| host.trim_end_matches('.').to_owned());
    host.and_then(|host| ServerName::try_from(host).ok()).unwrap_or(ServerName::IpAddress(server.ip().into()))
}

/// The time that was given at the start, so that a handshake never reads a clock.
#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// Takes nothing and counts what was offered.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(0)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0 += slices.iter().map(|s| s.len()).sum::<usize>();
        Ok(0)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
