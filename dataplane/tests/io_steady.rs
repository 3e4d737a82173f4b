//! In steady state the ports allocate nothing; and what a packet costs. Needs root.

mod io_rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use dataplane::io::{Packet, PacketIo, PortId};
use io_rig::*;

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every request is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PORT: PortId = PortId(0);

/// One turn on each side of a cable: `burst` packets from `a`, all of which `b` reads.
fn turn(a: &mut impl PacketIo, b: &mut impl PacketIo, len: usize, burst: usize) -> u64 {
    for _ in 0..burst {
        // The cost of the ports is wanted, not that of filling packets.
        a.send(PORT, len, &mut |bytes| bytes[..16].fill(0xff)).unwrap();
    }
    let flushed = (0..10_000).any(|_| a.flush() == 0);
    assert!(flushed, "the backlog drains");
    let mut received = 0;
    loop {
        let count = b.rx_burst(PORT);
        for i in 0..count {
            assert_eq!(b.bytes(Packet(i)).len(), len);
        }
        b.release();
        b.flush();
        received += count as u64;
        if count == 0 {
            return received;
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the figure is printed, and asserted by nobody")]
fn nothing_is_allocated_over_a_hundred_thousand_packets_each_way() {
    namespace();
    cable("a0", "b0", 65_535);
    let (mut a, _pa) = open(&["a0"]);
    let (mut b, _pb) = open(&["b0"]);
    for (len, burst, turns) in [(60, 64, 1000), (1514, 64, 600), (9014, 32, 300), (65_549, 16, 60)] {
        turn(&mut a, &mut b, len, burst);
        turn(&mut b, &mut a, len, burst);
        let mut received = 0;
        let (before, start) = (ALLOCATIONS.get(), Instant::now());
        for _ in 0..turns {
            received += turn(&mut a, &mut b, len, burst);
            received += turn(&mut b, &mut a, len, burst);
            a.wait(Some(std::time::Duration::ZERO));
        }
        let (allocations, elapsed) = (ALLOCATIONS.get() - before, start.elapsed());
        assert_eq!(allocations, 0, "allocations over {received} packets of {len} bytes");
        let sent = (2 * turns * burst) as u64;
        println!(
            "{len} bytes: {} ns a packet, sent and received ({received} of {sent})",
            elapsed.as_nanos() as u64 / sent
        );
        assert_eq!(received, sent);
        assert_conserved(&a);
        assert_conserved(&b);
    }
}
