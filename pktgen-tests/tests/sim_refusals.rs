//! Refusals and modes through the simulation.
use pktgen_tests::sim::topology::*;
use pktgen_tests::sim::*;

#[test]
fn a_plain_call_is_carried_over_mutual_tls_and_comes_back() {
    let mut world = World::new(&Setup::new(1));
    let port = world.port();
    let call = Call {
        client: (address("frontend", false), port).into(),
        server: (address("backend", false), PORT).into(),
        from: "frontend",
        scripts: [
            Script::new(1000, Begin::AtOnce, Finish::WhenReceived(5000)),
            Script::new(5000, Begin::AfterReceived(1000), Finish::Last),
        ],
        expect: Expect::Delivered,
        plain: false,
    };
    world.call(0, call);
    let r = world.run_until_over(60_000_000);
    for g in &world.gateways {
        println!("{} {:#?}", g.name, g.ended);
    }
    r.unwrap();
    world.judge().unwrap();
    world.drain().unwrap();
    for g in &world.gateways {
        println!("{} {:#?}", g.name, g.ended);
    }
}
