//! Calls of which processes are asked about, and what was made of them: what `sim_process` and `sim_listeners` share.

use pktgen_tests::sim::{Begin, Broken, CallId, Finish, Script, World};
use snapshot::ConnectionReport;

pub const A: usize = 0;
pub const B: usize = 1;
pub const SECOND: i64 = 1_000_000;
pub const LIMIT: i64 = 60 * SECOND;

pub fn quick() -> [Script; 2] {
    [Script::new(500, Begin::AtOnce, Finish::Last), Script::new(500, Begin::AfterReceived(500), Finish::WhenSent)]
}

/// Goes on for some seconds, both ways.
pub fn slow() -> [Script; 2] {
    [
        Script::new(20_000, Begin::AtOnce, Finish::Last).paced(100, 25_000),
        Script::new(20_000, Begin::AtOnce, Finish::WhenReceived(20_000)).paced(100, 25_000),
    ]
}

pub fn finish(world: &mut World) -> Result<(), Broken> {
    world.run_until_over(LIMIT)?;
    world.judge()?;
    world.drain()
}

pub fn report(world: &World, node: usize, id: CallId) -> &ConnectionReport {
    let client = world.calls[id.0].client;
    let mut all = world.gateways[node].ended.iter().filter(|report| report.client == client);
    all.next().unwrap_or_else(|| panic!("{} has not reported {id:?}", world.gateways[node].name))
}
