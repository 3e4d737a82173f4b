//! A storm of TLS handshakes from callers that cost nothing: frames made by hand, and no answer read.
//!
//! Each call is three frames at fixed times: SYN, then ACK with a ready-made ClientHello, then RST.
//! They are sent whether or not anything comes back, so that the same storm against a port that
//! answers nothing loads the machine as much, and the gateway not at all. What a gateway does for
//! one before it can know better is its server's flight: a key exchange and a signature.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pktgen_tests::netns::{PacketSocket, Site};
use pktgen_tests::packet::{ACK, PSH, Packet, RST, SYN, Segment};
use rustls::ClientConnection;
use rustls_pki_types::ServerName;

use crate::probe;

/// How many calls came how far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reached {
    pub seconds: f64,
    pub sent: u64,
    /// Frames that the sender's own kernel had no room for.
    pub lost: u64,
    /// SYNs that were answered.
    pub opened: u64,
    /// Handshakes whose server's flight came.
    pub answered: u64,
    /// And those that were left without it.
    pub given_up: u64,
}

impl Reached {
    pub fn sent_per_second(&self) -> f64 {
        // Each call is three frames; those that were lost are taken off as calls.
        (self.sent as f64 - self.lost as f64 / 3.0) / self.seconds
    }

    pub fn answered_per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }
}

pub struct Storm {
    socket: PacketSocket,
    target: SocketAddr,
    own_mac: [u8; 6],
    router_mac: [u8; 6],
    hello: Vec<u8>,
    calls: Vec<Call>,
}

/// What is known of the call that used a source last.
#[derive(Debug, Clone, Copy, Default)]
struct Call {
    seq: u32,
    /// What the next frame acknowledges.
    ack: u32,
    answered: bool,
}

/// Callers of the wire's subnet that no host has: nobody's kernel answers for them.
const CALLERS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(198, 18, 30, 100),
    Ipv4Addr::new(198, 18, 30, 101),
    Ipv4Addr::new(198, 18, 30, 102),
    Ipv4Addr::new(198, 18, 30, 103),
];
const PORTS: usize = 50_000;
const FIRST_PORT: u16 = 10_000;

/// From the SYN to the ClientHello, and from there to the RST.
const TO_HELLO: Duration = Duration::from_millis(3);
const TO_RESET: Duration = Duration::from_millis(200);

/// When the next call is made.
#[derive(Debug, Clone, Copy)]
pub enum Calls {
    PerSecond(f64),
    /// As soon as fewer than these wait for their server's flight.
    AtOnce(u64),
}

impl Storm {
    pub fn prepare(site: &Site, target: SocketAddr) -> Result<Self> {
        let own_mac = site.legacy.mac("eth0")?;
        let mac = own_mac.map(|byte| format!("{byte:02x}")).join(":");
        for caller in CALLERS {
            site.wire.ip(&format!("neigh replace {caller} lladdr {mac} dev l0 nud permanent"))?;
        }
        Ok(Self {
            socket: PacketSocket::open(&site.legacy, "eth0")?,
            target,
            own_mac,
            router_mac: site.wire.mac("l0")?,
            hello: client_hello()?,
            calls: vec![Call::default(); CALLERS.len() * PORTS],
        })
    }

    /// Until `stop`; then it leaves what it has opened.
    pub fn blow(&mut self, calls: Calls, stop: &AtomicBool) -> Result<Reached> {
        self.calls.fill(Call::default());
        let (began, mut reached) = (Instant::now(), Reached::default());
        let (mut hellos, mut resets) = (VecDeque::<(Instant, u64)>::new(), VecDeque::<(Instant, u64)>::new());
        let mut buffer = vec![0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let due = match calls {
                Calls::PerSecond(rate) => (now.duration_since(began).as_secs_f64() * rate) as u64,
                Calls::AtOnce(calls) => reached.answered + reached.given_up + calls,
            };
            // Bounded, so that a rate beyond what goes does not keep answers from being heard.
            for number in reached.sent..due.min(reached.sent + 32) {
                self.open(number, &mut reached)?;
                hellos.push_back((now + TO_HELLO, number));
                reached.sent += 1;
            }
            while let Some(&(at, number)) = hellos.front()
                && at <= now
            {
                hellos.pop_front();
                self.greet(number, &mut reached)?;
                resets.push_back((now + TO_RESET, number));
            }
            while let Some(&(at, number)) = resets.front()
                && at <= now
            {
                resets.pop_front();
                self.leave(number, &mut reached)?;
            }
            self.hear(&mut buffer, &mut reached)?;
            if due <= reached.sent {
                crate::load::sleep_until(now + Duration::from_micros(200));
            }
        }
        reached.seconds = began.elapsed().as_secs_f64();
        for (_, number) in hellos.into_iter().chain(resets) {
            self.leave(number, &mut reached)?;
        }
        Ok(reached)
    }

    fn place(number: u64) -> usize {
        (number % (CALLERS.len() * PORTS) as u64) as usize
    }

    fn packet(&self, place: usize, flags: u8) -> Packet {
        let port = FIRST_PORT + (place % PORTS) as u16;
        let Call { seq, ack, .. } = self.calls[place];
        Packet {
            source_mac: self.own_mac,
            destination_mac: self.router_mac,
            seq,
            ack,
            flags,
            ..Packet::syn((CALLERS[place / PORTS], port).into(), self.target)
        }
    }

    fn send(&self, packet: &Packet, reached: &mut Reached) -> Result<()> {
        match self.socket.send(&packet.frame()) {
            Err(error) if is_full(&error) => reached.lost += 1,
            sent => sent?,
        }
        Ok(())
    }

    fn open(&mut self, number: u64, reached: &mut Reached) -> Result<()> {
        let place = Self::place(number);
        // Above what the port used before, as a kernel chooses it.
        self.calls[place] = Call { seq: (number as u32).wrapping_mul(64), ack: 0, answered: false };
        self.send(&self.packet(place, SYN), reached)
    }

    fn greet(&mut self, number: u64, reached: &mut Reached) -> Result<()> {
        let place = Self::place(number);
        self.calls[place].seq = self.calls[place].seq.wrapping_add(1);
        let packet = self.packet(place, ACK | PSH);
        self.send(&Packet { payload: self.hello.clone(), tcp_options: vec![], ..packet }, reached)
    }

    fn leave(&mut self, number: u64, reached: &mut Reached) -> Result<()> {
        let place = Self::place(number);
        reached.given_up += u64::from(!self.calls[place].answered);
        self.calls[place].seq = self.calls[place].seq.wrapping_add(self.hello.len() as u32);
        self.send(&Packet { tcp_options: vec![], ..self.packet(place, RST | ACK) }, reached)
    }

    /// Takes what has come.
    fn hear(&mut self, buffer: &mut [u8], reached: &mut Reached) -> Result<()> {
        while let Some(frame) = self.socket.receive(buffer)? {
            let Some(segment) = Segment::parse(frame) else { continue };
            if segment.source != self.target {
                continue;
            }
            let Some(caller) = CALLERS.iter().position(|caller| segment.destination.ip() == *caller) else { continue };
            let port = usize::from(segment.destination.port().wrapping_sub(FIRST_PORT));
            let Some(call) = (port < PORTS).then(|| &mut self.calls[caller * PORTS + port]) else { continue };
            if segment.flags & SYN != 0 {
                call.ack = segment.seq.wrapping_add(1);
                reached.opened += 1;
            } else if !segment.payload.is_empty() && !call.answered {
                call.answered = true;
                reached.answered += 1;
            }
        }
        Ok(())
    }
}

/// A rate beyond what the cable takes: that is what is to be found out, and no fault.
fn is_full(error: &anyhow::Error) -> bool {
    let full = rustix::io::Errno::NOBUFS.raw_os_error();
    error.root_cause().downcast_ref::<std::io::Error>().is_some_and(|error| error.raw_os_error() == Some(full))
}

/// As a caller with TLS 1.3 and X25519 sends it.
fn client_hello() -> Result<Vec<u8>> {
    let config = Arc::new(probe::configuration(None)?);
    let mut client = ClientConnection::new(config, ServerName::try_from("b.peer")?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).context("make a ClientHello")?;
    Ok(hello)
}

/// Runs the storm beside `work`.
pub fn beside<T>(storm: &mut Storm, calls: Calls, work: impl FnOnce() -> Result<T>) -> Result<(T, Reached)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storming = scope.spawn(|| storm.blow(calls, &stop));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let reached = storming.join().expect("the storm does not panic")?;
        Ok((done?, reached))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_one_record_and_fits_a_segment() {
        let hello = client_hello().unwrap();
        assert_eq!(hello[0], 22);
        assert_eq!(usize::from(hello[3]) << 8 | usize::from(hello[4]), hello.len() - 5);
        assert!(hello.len() <= 1400, "{}", hello.len());
    }
}
