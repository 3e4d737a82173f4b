//! All cases, as gungraun runs them: it starts this program under callgrind once for each.

use gungraun::Callgrind;
use gungraun::prelude::*;

use super::gateway::gateways;
use super::packet::packets;
use super::policy::policies;
use super::record::records;
use super::segment::segments;

/// Instructions alone: no caches are simulated.
pub const ALONE: &str = "--cache-sim=no";

gungraun::main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args([ALONE]));
    library_benchmark_groups = packets, policies, records, segments, gateways
);

pub fn begin() {
    main();
}
