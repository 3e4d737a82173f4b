//! What it costs to load the programs, in the verifier's own measure: instructions walked.

mod rig;

use xdp_prog::Steering;

/// The programs have 2,000 instructions. Two paths that meet with different knowledge double what is
/// behind them, so a slip in how they parse shows as tens or hundreds of thousands. Kernels differ
/// in what they know, hence the margin.
const WALKED: u32 = 20_000;

#[test]
fn the_verifier_is_done_with_each_program_after_a_few_thousand_instructions() {
    rig::enter();
    let steering = Steering::attach(&rig::options()).unwrap();
    for (program, walked) in steering.verified_instructions().unwrap() {
        println!("{program}: {walked} instructions walked");
        assert!(walked > 0, "{program}: the kernel says nothing");
        assert!(
            walked < WALKED,
            "{program}: the verifier walked {walked} instructions, at most {WALKED} are a quick start"
        );
    }
}
