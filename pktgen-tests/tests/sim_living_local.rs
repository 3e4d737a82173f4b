//! Living calls between two workloads of one node: the stricter of their words holds, also where a change
//! refuses the call at one of them alone.

mod living;

use dataplane::stats::Total;
use living::{A, SECOND, call, deny_all, lasting, on_change, total, until};
use pktgen_tests::sim::{Expect, Setup, World};
use snapshot::{CloseReason, OnChange};

const LIMIT: i64 = 120_000_000;

/// The caller's word, the callee's, and what the call came to when a rule at its callee refused it.
fn refused_at_its_callee(caller: OnChange, callee: OnChange) -> (World, Option<CloseReason>) {
    let mut world = World::new(&Setup::new(43));
    world.push(A, &[], |snapshot| {
        for workload in &mut snapshot.workloads {
            workload.living = on_change(if workload.name == "default/frontend" { caller } else { callee });
        }
    });
    let lives = call(&mut world, "frontend", "local", lasting(4));
    until(&mut world, SECOND);
    world.push(A, &[], |snapshot| deny_all(snapshot, "frontend"));
    let kept = (caller, callee) == (OnChange::Keep, OnChange::Keep);
    world.calls[lives.0].expect = if kept { Expect::Delivered } else { Expect::Cut };
    let done = world.run_until_over(LIMIT).and_then(|_| world.judge()).and_then(|()| world.drain());
    done.unwrap_or_else(|broken| panic!("{broken}"));
    let closed = world.report(A, lives).closed;
    (world, closed)
}

#[test]
fn a_call_that_is_refused_at_one_of_two_workloads_is_kept_only_if_both_say_so() {
    for (caller, callee) in [(OnChange::Cut, OnChange::Keep), (OnChange::Keep, OnChange::Cut)] {
        let (world, closed) = refused_at_its_callee(caller, callee);
        assert_eq!(closed, Some(CloseReason::PolicyChanged), "{caller:?} {callee:?}");
        assert_eq!(total(&world, A, Total::Kept), 0);
    }
    let (world, closed) = refused_at_its_callee(OnChange::Keep, OnChange::Keep);
    assert_eq!(closed, Some(CloseReason::Finished));
    assert_eq!(total(&world, A, Total::Kept), 1);
}
