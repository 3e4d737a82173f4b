//! In steady state a connection allocates nothing: not to open, not to carry, not to close.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use tcp_stack::{Config, Connection, Duration, End, Instant, Output, Stack};

struct Counting;

thread_local!(static ALLOCATIONS: Cell<u64> = const { Cell::new(0) });

fn count() {
    // A thread that ends has no counter any more; it is not the one that is measured.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator with the very arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's obligations are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A ring of packets with all its memory taken at the start.
struct Ring {
    packets: Vec<[u8; 1500]>,
    lengths: Vec<usize>,
    head: usize,
    count: usize,
    total: u64,
}

impl Ring {
    fn new() -> Self {
        Self { packets: vec![[0; 1500]; 512], lengths: vec![0; 512], head: 0, count: 0, total: 0 }
    }

    fn pop(&mut self) -> Option<(usize, usize)> {
        (self.count > 0).then(|| {
            let slot = self.head % 512;
            self.head += 1;
            self.count -= 1;
            (slot, self.lengths[slot])
        })
    }
}

impl Output for Ring {
    fn ready(&mut self, len: usize) -> bool {
        len <= 1500 && self.count < 512
    }

    fn packet(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let slot = (self.head + self.count) % 512;
        fill(&mut self.packets[slot][..len]);
        self.lengths[slot] = len;
        self.count += 1;
        self.total += 1;
    }
}

struct Half {
    connection: Connection,
    out: Ring,
    written: u64,
    read: u64,
}

impl Half {
    fn new() -> Self {
        let connection = Connection::new(&Config { buffer: 64 * 1024, ..Config::default() });
        Self { connection, out: Ring::new(), written: 0, read: 0 }
    }

    fn work(&mut self, limit: u64) {
        while self.connection.received() > 0 {
            self.read += self.connection.recv(|bytes| (bytes.len(), bytes.len() as u64));
        }
        while self.written < limit && self.connection.room() > 0 {
            let left = limit - self.written;
            self.written += self.connection.send(|space| {
                let len = space.len().min(left as usize);
                space[..len].fill(0x42);
                (len, len as u64)
            });
        }
        if self.written == limit {
            self.connection.close();
        }
    }
}

/// One life of both ends that carries `bytes` each way; returns the packets each way.
fn life(stack: &mut Stack, a: &mut Half, b: &mut Half, now: &mut Instant, bytes: u64) -> (u64, u64) {
    let (from, to) = (SocketAddr::from(([198, 18, 0, 1], 40_000)), SocketAddr::from(([198, 18, 0, 2], 3000)));
    for half in [&mut *a, &mut *b] {
        half.connection.reset();
        (half.written, half.read, half.out.total, half.out.count) = (0, 0, 0, 0);
    }
    let isn = stack.isn(from, to, *now);
    a.connection.connect(stack, from, to, isn, 1500, *now);
    a.connection.transmit(stack, *now, &mut a.out, 1);
    let (slot, len) = a.out.pop().expect("a SYN");
    assert!(b.connection.accept(stack, to, from, 7, 1500, &a.out.packets[slot][..len], *now, &mut b.out));
    while a.connection.ended().is_none() || b.connection.ended().is_none() {
        *now += Duration::from_micros(10);
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let (sender, receiver) = if sender < receiver { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            while let Some((slot, len)) = sender.out.pop() {
                receiver.connection.on_segment(stack, &sender.out.packets[slot][..len], *now, &mut receiver.out);
            }
            receiver.work(bytes);
            receiver.connection.transmit(stack, *now, &mut receiver.out, 64);
        }
        let due = [a.connection.poll_at(stack, *now), b.connection.poll_at(stack, *now)];
        if a.out.count + b.out.count == 0
            && let Some(at) = due.into_iter().flatten().min()
        {
            *now = at.max(*now);
        }
    }
    assert_eq!((a.connection.ended(), b.connection.ended()), (Some(End::Finished), Some(End::Finished)));
    assert_eq!((a.read, b.read), (bytes, bytes));
    (a.out.total, b.out.total)
}

#[test]
fn a_hundred_thousand_segments_each_way_and_a_hundred_lives_allocate_nothing() {
    let mut now = Instant::from_secs(1);
    let mut stack = Stack::new([3; 16], &[1500], now);
    let (mut a, mut b) = (Half::new(), Half::new());
    life(&mut stack, &mut a, &mut b, &mut now, 100_000);

    let before = ALLOCATIONS.with(Cell::get);
    let (there, back) = life(&mut stack, &mut a, &mut b, &mut now, 160_000_000);
    for _ in 0..100 {
        life(&mut stack, &mut a, &mut b, &mut now, 1000);
    }
    let after = ALLOCATIONS.with(Cell::get);

    assert!(there >= 100_000 && back >= 100_000, "{there} and {back} segments");
    assert_eq!(after - before, 0, "allocations");
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.with(Cell::get), after + 1, "the counter counts");
}
