//! The gateway under 200 seeds.
use pktgen_tests::sim;

#[test]
fn seeds() {
    let (from, to) = match std::env::var("SLUICE_SEED") { Ok(s) => { let s: u64 = s.parse().unwrap(); (s, s+1) } Err(_) => (0, 40) };
    let mut bad = 0;
    for seed in from..to {
        match std::panic::catch_unwind(|| sim::run(seed)) {
            Ok(Ok(o)) => println!("{seed}: {o:?}"),
            Ok(Err(e)) => { bad += 1; println!("{seed}: FAIL {e}") },
            Err(_) => { bad += 1; println!("{seed}: PANIC") },
        }
    }
    assert_eq!(bad, 0);
}
