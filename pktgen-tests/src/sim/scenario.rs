//! A run that is drawn whole from one seed: who calls whom, how much, how it ends, what fails, and
//! what policy becomes meanwhile.

use std::net::SocketAddr;

use snapshot::IdPattern;

use super::call::{Begin, Call, CallId, Expect, Finish, Script, Side};
use super::chance::Chance;
use super::faults::Fault;
use super::setup::{Setup, Shown};
use super::topology::{self, GREETING_PORT, PORT, SIMPLE_PORT, TLS_PORT, address};
use super::trust;
use super::world::{Broken, World};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub trace_hash: u64,
    pub connections: usize,
    /// Payload bytes that arrived, both ways.
    pub bytes: u64,
    pub records: u64,
    /// How often each kind of [`Fault`] struck, on all links.
    pub faults: [(Fault, u64); Fault::ALL.len()],
    pub events: u64,
    /// Simulated microseconds.
    pub duration: i64,
    pub cut: usize,
}

/// Every seed makes at least so many connections and moves at least so many bytes.
pub const CONNECTIONS: usize = 20;
pub const BYTES: u64 = 1_000_000;

/// Longest that a run may take, in simulated time.
const LIMIT: i64 = 600_000_000;

/// One seed in so many runs the provider of production.
const REAL_CRYPTO: u64 = 8;

/// Whether `seed` runs on the provider of production, which no seed makes repeatable.
pub fn has_real_crypto(seed: u64) -> bool {
    seed % REAL_CRYPTO == REAL_CRYPTO - 1
}

pub fn run(seed: u64) -> Result<Outcome, Broken> {
    let mut chance = Chance::new(!seed);
    let mut world = World::new(&draw_setup(seed, &mut chance));
    let mut drawn = Drawn { v6: chance.one_in(3), chance, cuttable: Vec::new() };
    drawn.calls(&mut world);
    let changes = drawn.changes();
    for change in changes {
        drawn.carry_out(change, &mut world)?;
    }
    world.run_until_over(LIMIT)?;
    world.judge()?;
    let bytes = world.hosts.iter().flat_map(|host| &host.ends).map(|end| end.progress.received as u64).sum();
    let cut = drawn.cuttable.iter().filter(|id| was_cut(&world, **id)).count();
    let duration = world.clock.micros();
    world.drain()?;
    Ok(Outcome {
        trace_hash: world.trace_hash(),
        connections: world.calls.len(),
        bytes,
        records: world.oracle.records(),
        faults: Fault::ALL.map(|fault| (fault, world.faults(fault))),
        events: world.events,
        duration,
        cut,
    })
}

fn was_cut(world: &World, id: CallId) -> bool {
    world.hosts.iter().flat_map(|host| &host.ends).any(|end| end.call == id && end.progress.aborted)
}

fn draw_setup(seed: u64, chance: &mut Chance) -> Setup {
    let mut setup = Setup::new(seed);
    setup.mtus = [*chance.pick(&[1500, 1500, 9000, 65_535, 1280]), *chance.pick(&[1500, 1500, 9000, 1280])];
    setup.delays = [chance.between(1, 200), chance.between(1, 200), chance.between(10, 5_000)].map(|us| us as i64);
    setup.faults = chance.between(60, 200);
    setup.limits.buffer = *chance.pick(&[16 << 10, 64 << 10, 256 << 10]);
    setup.tuning.receive = *chance.pick(&[8 << 10, 64 << 10, 200 << 10]);
    setup.tuning.send = *chance.pick(&[8 << 10, 64 << 10, 200 << 10]);
    setup.tuning.ack_delay = *chance.pick(&[None, Some(10), Some(40)]);
    setup.tuning.nagle = chance.one_in(3);
    // Patience for what is lost three times in a row.
    setup.timeouts.syn_received = std::time::Duration::from_secs(20);
    setup.timeouts.handshake = std::time::Duration::from_secs(40);
    setup.real_crypto = has_real_crypto(seed);
    setup
}

/// What happens to policy while calls run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// A newer version that says the same.
    Nothing,
    /// node-b takes `batch` off the list of `backend`, denies it, or revokes it.
    RefuseBatch,
    /// Every workload of a node has a new SVID.
    Rotate(usize),
}

struct Drawn {
    chance: Chance,
    v6: bool,
    /// Calls that [`Change::RefuseBatch`] cuts.
    cuttable: Vec<CallId>,
}

impl Drawn {
    fn calls(&mut self, world: &mut World) {
        for _ in 0..12 {
            let (scripts, expect) = self.draw_scripts(120_000);
            self.call(world, "frontend", ("backend", PORT), scripts, expect);
        }
        for _ in 0..3 {
            let scripts = [
                Script::new(40_000, Begin::AtOnce, Finish::Last).paced(400, 15_000),
                Script::new(40_000, Begin::AtOnce, Finish::WhenReceived(40_000)).paced(400, 15_000),
            ];
            let id = self.call(world, "batch", ("backend", PORT), scripts, Expect::Delivered);
            self.cuttable.push(id);
        }
        for _ in 0..2 {
            let (scripts, expect) = self.draw_scripts(60_000);
            self.call(world, "frontend", ("peer", TLS_PORT), scripts, expect);
            let (scripts, expect) = self.draw_scripts(60_000);
            self.call_tls(world, ("backend", PORT), scripts, expect, Shown::Own);
        }
        let (scripts, expect) = self.draw_scripts(40_000);
        self.call(world, "frontend", ("local", PORT), scripts, expect);
        let (scripts, expect) = self.draw_scripts(40_000);
        self.call(world, "frontend", ("peer", SIMPLE_PORT), scripts, expect);
        let (scripts, expect) = self.draw_scripts(40_000);
        self.call_plain(world, "legacy", ("open", PORT), scripts, expect);
        let server_first = [
            Script::new(500, Begin::AfterReceived(2_000), Finish::Last),
            Script::new(2_000, Begin::AtOnce, Finish::WhenReceived(500)),
        ];
        self.call_plain(world, "legacy", ("open", GREETING_PORT), server_first, Expect::Delivered);
        let request = || {
            [
                Script::new(3_000, Begin::AtOnce, Finish::Last),
                Script::new(3_000, Begin::AfterReceived(3_000), Finish::WhenSent),
            ]
        };
        self.call(world, "intruder", ("backend", PORT), request(), Expect::Refused);
        self.call(world, "nobody", ("backend", PORT), request(), Expect::Refused);
        self.call_plain(world, "legacy", ("backend", PORT), request(), Expect::Refused);
        self.call_tls(world, ("backend", PORT), request(), Expect::Refused, Shown::TwoNames);
        let shown = *self.chance.pick(&[Shown::OtherRoot, Shown::Expired, Shown::OtherDomain, Shown::Nothing]);
        self.call_tls(world, ("backend", PORT), request(), Expect::Refused, shown);
    }

    /// A conversation of up to `most` bytes each way.
    fn draw_scripts(&mut self, most: u64) -> ([Script; 2], Expect) {
        let chance = &mut self.chance;
        let (there, back) = (chance.between(most / 3, most) as usize, chance.between(most / 3, most) as usize);
        use {Begin::*, Finish::*};
        let (client, server, expect) = match chance.below(9) {
            // Request and response; who closes first, and how.
            0 => ((AtOnce, WhenReceived(back)), (AfterReceived(there), Last), Expect::Delivered),
            1 => ((AtOnce, Last), (AfterReceived(there), WhenSent), Expect::Delivered),
            2 => ((AtOnce, WhenSent), (AfterEnd, WhenSent), Expect::Delivered),
            3 => ((AfterEnd, WhenSent), (AtOnce, WhenSent), Expect::Delivered),
            // Both at once.
            4 => ((AtOnce, WhenSent), (AtOnce, WhenSent), Expect::Delivered),
            5 => ((AtOnce, WhenReceived(back)), (AtOnce, WhenReceived(there)), Expect::Delivered),
            6 => ((AtOnce, Last), (AtOnce, WhenReceived(there)), Expect::Delivered),
            7 => {
                let abort = Abort { sent: there / 2, received: chance.below(back as u64 / 2) as usize };
                ((AtOnce, abort), (AtOnce, Last), Expect::AbortedBy(Side::Client))
            }
            _ => {
                let abort = Abort { sent: chance.below(back as u64 / 2) as usize, received: there / 2 };
                ((AtOnce, Last), (AtOnce, abort), Expect::AbortedBy(Side::Server))
            }
        };
        let mut scripts = [Script::new(there, client.0, client.1), Script::new(back, server.0, server.1)];
        for script in &mut scripts {
            if chance.one_in(6) {
                *script = script.clone().paced(chance.between(500, 4_000) as usize, chance.between(500, 5_000) as i64);
            }
        }
        (scripts, expect)
    }

    fn draw(
        &mut self,
        world: &mut World,
        from: &'static str,
        to: (&str, u16),
        scripts: [Script; 2],
        expect: Expect,
    ) -> (i64, Call) {
        let client = SocketAddr::new(address(from, self.v6), world.port());
        let server = SocketAddr::new(address(to.0, self.v6), to.1);
        (self.chance.below(300_000) as i64, Call { client, server, from, scripts, expect, plain: false })
    }

    fn call(
        &mut self,
        world: &mut World,
        from: &'static str,
        to: (&str, u16),
        scripts: [Script; 2],
        expect: Expect,
    ) -> CallId {
        let (at, call) = self.draw(world, from, to, scripts, expect);
        world.call(at, call)
    }

    fn call_plain(
        &mut self,
        world: &mut World,
        from: &'static str,
        to: (&str, u16),
        scripts: [Script; 2],
        expect: Expect,
    ) {
        let (at, call) = self.draw(world, from, to, scripts, expect);
        world.call(at, Call { plain: true, ..call });
    }

    fn call_tls(&mut self, world: &mut World, to: (&str, u16), scripts: [Script; 2], expect: Expect, shown: Shown) {
        let (at, call) = self.draw(world, "peer", to, scripts, expect);
        world.call_tls(at, call, shown);
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.chance.one_in(2) {
            changes.push(Change::Nothing);
        }
        if self.chance.one_in(2) {
            changes.push(Change::Rotate(self.chance.below(2) as usize));
        }
        if self.chance.one_in(2) {
            changes.push(Change::RefuseBatch);
        }
        changes
    }

    /// Lets some time pass, and changes what is to change.
    fn carry_out(&mut self, change: Change, world: &mut World) -> Result<(), Broken> {
        let at = world.clock.micros() + self.chance.between(50_000, 500_000) as i64;
        world.run(at, |_| false)?;
        match change {
            Change::Nothing => {
                for node in 0..2 {
                    world.push(node, &[], |_| {});
                }
            }
            Change::Rotate(node) => {
                let fresh = topology::identities(node, &mut world.authority);
                world.push(node, &fresh, |snapshot| {
                    for (workload, identity) in snapshot.workloads.iter_mut().zip(&fresh) {
                        workload.svid = Some(identity.svid.clone());
                    }
                });
            }
            Change::RefuseBatch => self.refuse_batch(world)?,
        }
        Ok(())
    }

    fn refuse_batch(&mut self, world: &mut World) -> Result<(), Broken> {
        for id in &self.cuttable {
            world.calls[id.0].expect = Expect::Cut;
        }
        let batch = IdPattern::Exact(topology::id("batch"));
        let how = self.chance.below(3);
        world.push(1, &[], |snapshot| match how {
            0 => topology::deny(snapshot, batch),
            1 => trust::revoke_id(snapshot, batch),
            _ => {
                for workload in &mut snapshot.workloads {
                    workload.inbound.iter_mut().for_each(|list| list.retain(|entry| *entry != batch));
                }
            }
        });
        let version = world.gateways[1].snapshot().version;
        world.run(world.clock.micros() + 1_000_000, |world| world.gateways[1].in_force() == Some(version))?;
        if world.gateways[1].in_force() != Some(version) {
            return Err(world.broken(format!("version {version} was not put into force within a second")));
        }
        for id in &self.cuttable {
            world.oracle.forbid(*id);
        }
        Ok(())
    }
}
