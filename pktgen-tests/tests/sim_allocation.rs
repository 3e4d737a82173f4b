//! In steady state the packet loop takes nothing from the heap; what the TLS library takes for each
//! record is counted against the same library alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use dataplane::stats::Total;
use pktgen_tests::sim::host::Service;
use pktgen_tests::sim::topology::{GREETING_PORT, PORT, address};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, Shown, Side, World, peer};
use rustls::{ClientConnection, ServerConnection};
use snapshot::ProxyProtocol;

/// Packets that a worker has to handle each way while nothing is allocated.
const PACKETS: u64 = 100_000;

/// The system's allocator, counting what the current thread asks for while it is watched.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = WATCHED.try_with(|watched| {
        if watched.get() {
            ALLOCATIONS.with(|n| n.set(n.get() + 1));
        }
    });
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn watch(on: bool) {
    WATCHED.set(on);
}

fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// One call that sends `bytes` each way at once, and the state after its first part.
fn bulk(port: u16, to: &str, bytes: usize, plain: bool) -> (World, CallId) {
    let mut world = World::new(&Setup { mtus: [576, 576], ..Setup::new(1) });
    for gateway in &mut world.gateways {
        gateway.watch = Some(watch);
    }
    let scripts =
        [Script::new(bytes, Begin::AtOnce, Finish::Last), Script::new(bytes, Begin::AtOnce, Finish::WhenSent)];
    let client = SocketAddr::new(address("frontend", false), world.port());
    let server = SocketAddr::new(address(to, false), port);
    let id = world.call(0, Call { client, server, from: "frontend", scripts, expect: Expect::Delivered, plain });
    run_until(&mut world, id, bytes / 10);
    (world, id)
}

fn run_until(world: &mut World, id: CallId, received: usize) {
    let both = |world: &World| {
        [Side::Client, Side::Server]
            .iter()
            .all(|&side| world.end(id, side).is_some_and(|end| end.progress.received >= received))
    };
    let done = world.run(3_600_000_000, |world| both(world));
    assert_eq!(done, Ok(true), "{received} bytes arrive on both sides");
}

#[test]
fn a_plain_relay_allocates_nothing() {
    let started = Instant::now();
    let bytes = (PACKETS as usize * 12 / 10) * 536;
    let (mut world, id) = bulk(GREETING_PORT, "open", bytes, true);
    let packets = |world: &World, total| world.gateways.iter().map(|g| g.mailbox().counters.total(total)).min();
    let before = (allocations(), packets(&world, Total::PacketsReceived), packets(&world, Total::PacketsSent));
    assert!(before.0 > 0, "the counter counts: connections take memory when they begin");
    run_until(&mut world, id, bytes * 19 / 20);
    let received = packets(&world, Total::PacketsReceived).zip(before.1).map(|(now, then)| now - then);
    let sent = packets(&world, Total::PacketsSent).zip(before.2).map(|(now, then)| now - then);
    assert!(received >= Some(2 * PACKETS) && sent >= Some(2 * PACKETS), "{received:?} in and {sent:?} out");
    let made = allocations() - before.0;
    let seconds = started.elapsed().as_secs_f64();
    println!("{made} allocations in {received:?} packets in and {sent:?} out of each worker, {seconds:.1} s");
    assert_eq!(made, 0);
}

/// Records that stand back to back on the wire, so that segments hold the end of one and the
/// beginning of the next.
const TOGETHER: u64 = 6;

/// Allocations for one record that is sealed and one that is opened, by the library alone.
fn of_the_library(records: u64, size: usize) -> f64 {
    let mut world = World::new(&Setup::new(2));
    let identity = world.issue(Shown::Own).expect("an identity");
    let config = peer::client(&world.provider, world.authority.root(), Some(&identity), false);
    let mut client = ClientConnection::new(config, "a.example".try_into().expect("a name")).expect("a client");
    let config = peer::server(&world.provider, Some(world.authority.root()), &identity);
    let mut server = ServerConnection::new(config).expect("a server");
    let mut wire = vec![0u8; 1 << 17];
    let mut hand_over = |from: &mut rustls::Connection, to: &mut rustls::Connection, out: &mut [u8]| {
        let size = wire.len();
        let mut room = &mut wire[..];
        while from.wants_write() {
            from.write_tls(&mut room).expect("room");
        }
        let length = size - room.len();
        // In pieces of a segment, as they come to a gateway.
        for mut segment in wire[..length].chunks(536) {
            to.read_tls(&mut segment).expect("bytes");
            to.process_new_packets().expect("good records");
            let _ = to.reader().read(out);
        }
    };
    let mut out = vec![0; 1 << 15];
    let (mut client, mut server): (rustls::Connection, rustls::Connection) = (
        {
            client.set_buffer_limit(None);
            client.into()
        },
        {
            server.set_buffer_limit(None);
            server.into()
        },
    );
    while client.is_handshaking() || server.is_handshaking() {
        hand_over(&mut client, &mut server, &mut out);
        hand_over(&mut server, &mut client, &mut out);
    }
    let plain = vec![7; size];
    let before = allocations();
    watch(true);
    for _ in 0..records / TOGETHER {
        for _ in 0..TOGETHER {
            client.writer().write_all(&plain).expect("room");
        }
        hand_over(&mut client, &mut server, &mut out);
    }
    watch(false);
    (allocations() - before) as f64 / records as f64
}

#[test]
fn a_tls_relay_allocates_no_more_than_the_library_does_for_its_records() {
    let bytes = 24 << 20;
    let (mut world, id) = bulk(PORT, "backend", bytes, false);
    let before = (allocations(), world.oracle.records());
    run_until(&mut world, id, bytes * 19 / 20);
    let records = world.oracle.records() - before.1;
    let ours = (allocations() - before.0) as f64 / records as f64;
    let size = bytes * 2 * 17 / 20 / records as usize;
    let alone = of_the_library(2_400, size);
    println!(
        "{ours:.3} allocations a record of about {size} bytes through both gateways, {alone:.3} by the library alone"
    );
    assert!(records > 2_000, "{records} records");
    assert!(ours <= alone * 1.05, "{ours} allocations a record, {alone} by the library alone");
}

/// What twenty plain and twenty TLS callers of one service cost the workers, with a header for each or without.
fn of_callers(version: ProxyProtocol) -> u64 {
    let mut world = World::new(&Setup::new(3));
    for gateway in &mut world.gateways {
        gateway.watch = Some(watch);
    }
    world.push(1, &[], |snapshot| snapshot.workloads.iter_mut().for_each(|workload| workload.proxy.version = version));
    if version == ProxyProtocol::V2 {
        world.host("open").speak(PORT, Service::Proxied);
    }
    let before = allocations();
    for nth in 0..40 {
        let from = ["legacy", "peer"][nth % 2];
        let scripts =
            [Script::new(500, Begin::AtOnce, Finish::Last), Script::new(500, Begin::AtOnce, Finish::WhenSent)];
        let client = SocketAddr::new(address(from, false), world.port());
        let server = SocketAddr::new(address("open", false), PORT);
        let plain = from == "legacy";
        let call = Call { client, server, from, scripts, expect: Expect::Delivered, plain };
        let at = nth as i64 * 1_000;
        if plain {
            world.call(at, call)
        } else {
            world.call_tls(at, call, Shown::Own)
        };
    }
    world.finish(400_000_000, version.name());
    let headers = world.gateways[1].mailbox().counters.total(Total::ProxyHeaders);
    assert_eq!(headers, if version == ProxyProtocol::V2 { 40 } else { 0 });
    allocations() - before
}

#[test]
fn telling_a_service_who_calls_allocates_nothing() {
    // What is made once for all is made by whoever comes first.
    of_callers(ProxyProtocol::V2);
    let [without, with] = [ProxyProtocol::None, ProxyProtocol::V2].map(of_callers);
    println!("{without} allocations of forty callers without a header, {with} with one");
    assert!(without > 0, "the counter counts");
    assert_eq!(with, without);
}
