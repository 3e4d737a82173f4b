//! SIGKILL of a dataplane in the middle of requests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pktgen_tests::netns::gateway::Gateway;
use pktgen_tests::netns::{Capture, wait_until};
use pktgen_tests::stream::{holds_marker, streams};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{SECONDS, Stage};

const MARKER: &str = "a-marker-across-a-restart";
const ALLOWED: Duration = Duration::from_secs(2);

pub fn killed(stage: &Stage) -> Result<String> {
    let capture = Capture::start(&stage.site.wire, "a0")?;
    let mut down = Vec::new();
    for gateway in [&stage.node_a, &stage.node_b] {
        let took = kill(stage, gateway)?;
        ensure!(took < ALLOWED, "{} took {took:.1?} until a call was answered again", gateway.name());
        down.push(format!("{} answers after {:.2} s", gateway.name(), took.as_secs_f32()));
    }
    let frames = capture.finish()?;
    let sealed: usize = streams(&frames).iter().map(|stream| stream.application_data()).sum();
    ensure!(sealed > 0, "no TLS in the capture, so it proves nothing");
    ensure!(!holds_marker(&frames, MARKER.as_bytes()), "a request crossed the wire in clear");
    Ok(format!("{}; {} frames captured, no marker in them", down.join(", "), frames.len()))
}

/// From the kill to the end of the first call that began after it. Calls that were under way when
/// it died get no answer any more; they are the load, not the measure.
fn kill(stage: &Stage, gateway: &Gateway) -> Result<Duration> {
    let answered = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let call = |patience: &str| stage.call(&stage.site.frontend, MARKER, &["--max-time", patience]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    if call("2").is_ok() {
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let count = || (answered.load(Ordering::SeqCst) >= 10).then_some(());
        let result = wait_until("calls are answered", SECONDS(20), count).and_then(|()| {
            let pid = Pid::from_raw(gateway.status()?.pid.cast_signed()).context("a dataplane has a PID")?;
            let killed = Instant::now();
            kill_process(pid, Signal::KILL).context("kill the dataplane")?;
            // Short, so that the kernel's repetition of a lost SYN after 1 s is not what is measured.
            wait_until(&format!("calls are answered after {} was killed", gateway.name()), SECONDS(20), || {
                call("0.4").ok().map(|_| killed.elapsed())
            })
        });
        stop.store(true, Ordering::SeqCst);
        result
    })
}
