//! Work that takes more than one client or server: round trips with noise beside them, a stream that
//! passes the gateways by, and more connections than a process has descriptors.

use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pktgen_tests::netns::{Host, run, wait_until};

use crate::contender::server;
use crate::facts;
use crate::load::{Job, Measured, parts, sleep_until};
use crate::plan::{Flow, Noise, REQUESTS_PER_SECOND, Work};
use crate::stage::{Stage, call, serve};
use crate::storm::{self, Calls, Reached, Storm};

const CONNECTIONS: u32 = 64;
/// Handshakes that keep a gateway busy, and are no flood.
const WAITING: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(20);
/// How far a long work is.
const SAID_EVERY: Duration = Duration::from_secs(5);

impl Stage {
    /// Round trips on connections that stand, with the noise beside them.
    pub(crate) fn beside(&mut self, noise: Noise, seconds: f64) -> Result<(Measured, Option<Reached>)> {
        let trips = Work::RoundTrip { connections: CONNECTIONS, rate: Some(REQUESTS_PER_SECOND) };
        let job = Job { work: Some(trips), seconds, ..self.job() };
        let (times, target) = match noise {
            Noise::Elephant => return self.elephant(&job).map(|measured| (measured, None)),
            Noise::Storm(times) => (times, self.sealed),
            Noise::Dropped(times) => (times, self.dropped()?),
        };
        let rate = self.capacity()? * f64::from(times);
        let mut storm = Storm::prepare(&self.site, target)?;
        let ready = self.site.rig.directory().join("connections-stand");
        let _ = std::fs::remove_file(&ready);
        let job = Job { ready: Some(ready.clone()), ..job };
        let client = &self.site.frontend;
        std::thread::scope(|scope| {
            let trips = scope.spawn(|| call(client, &job));
            wait_until("the connections stand", PATIENCE, || (ready.exists() || trips.is_finished()).then_some(()))?;
            let done = || trips.join().expect("the client does not panic");
            storm::beside(&mut storm, Calls::PerSecond(rate), done).map(|(measured, reached)| (measured, Some(reached)))
        })
    }

    fn elephant(&self, job: &Job) -> Result<Measured> {
        let stream = Work::Bulk(Flow { streams: 1, down: false, megabits: None });
        // Longer than the round trips, with the time that they take to be ready.
        let elephant = Job { work: Some(stream), seconds: job.seconds + 2.0, ..job.clone() };
        let client = &self.site.frontend;
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| call(client, &elephant));
            let measured = call(client, job);
            beside.join().expect("the elephant does not panic")?;
            measured
        })
    }

    /// How many handshakes the gateway begins in a second, when some always wait for it.
    fn capacity(&mut self) -> Result<f64> {
        if let Some(known) = self.capacity {
            return Ok(known);
        }
        let mut storm = Storm::prepare(&self.site, self.sealed)?;
        let second = || {
            sleep_until(Instant::now() + Duration::from_secs(1));
            Ok(())
        };
        let ((), reached) = storm::beside(&mut storm, Calls::AtOnce(WAITING), second)?;
        let capacity = reached.answered_per_second();
        ensure!(capacity >= 50.0, "the storm's handshakes are not answered: {reached:?}");
        self.capacity = Some(capacity);
        Ok(capacity)
    }

    /// A port of gateway B's own, on which everything is dropped before anybody looks at it.
    fn dropped(&self) -> Result<SocketAddr> {
        for rule in [
            "add table inet storm",
            "add chain inet storm first { type filter hook prerouting priority -400; }",
            "flush chain inet storm first",
            "add rule inet storm first tcp dport 3999 drop",
        ] {
            let mut command = self.site.node_b.command("nft");
            command.arg(rule);
            run(command, facts::SHORT)?.ok()?;
        }
        Ok("198.18.20.1:3999".parse()?)
    }

    /// Connections that stand, with a server for each part of them.
    pub(crate) fn standing(&self, connections: u32, job: &Job) -> Result<Measured> {
        let (site, first) = (&self.site, server());
        let at = |part| serve(site, &site.backend, SocketAddr::new(first.ip(), first.port() + part));
        let _servers = (1..parts(connections)).map(at).collect::<Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            let (done, ended) = channel::<()>();
            scope.spawn(move || {
                while ended.recv_timeout(SAID_EVERY) == Err(RecvTimeoutError::Timeout) {
                    match facts::sockets(&site.frontend) {
                        Ok(sockets) => eprintln!("    {sockets} of {connections} connections"),
                        Err(error) => eprintln!("    how many connections stand cannot be told: {error:#}"),
                    }
                }
            });
            let measured = call(&site.frontend, job);
            drop(done);
            measured
        })
    }

    /// A stream from beyond the wire, over the outside port of node A, to a workload that no port
    /// of a gateway is before.
    pub(crate) fn past(&self, megabits: Option<u32>, seconds: f64) -> Result<Measured> {
        let server = SocketAddr::new(Host::Stranger.v4(), 3000);
        let _server = serve(&self.site, &self.site.stranger, server)?;
        let work = Some(Work::Bulk(Flow { streams: 1, down: false, megabits }));
        call(&self.site.legacy, &Job { work, server, seconds, ..self.job() })
    }
}
