//! What a connection does, as scripts.

use crate::testing::{Faults, Pair};
use crate::{Config, End};

#[test]
fn bytes_cross_both_ways_and_both_ends_finish() {
    for v6 in [false, true] {
        let mut pair = Pair::new(&Config::default(), 1500, v6, Faults::NONE, 1);
        pair.exchange(1_000_000, 7);
        assert_eq!(pair.caller.connection.ended(), Some(End::Finished));
        assert_eq!(pair.callee.connection.ended(), Some(End::Finished));
    }
}
