//! The demo itself: every step holds, and nothing of it is left, however it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pktgen_tests::netns::gateway::binary;
use pktgen_tests::netns::{run, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Namespaces, and pins of gateways, that begin with the prefix of this process's rig.
fn left_of(pid: u32) -> Vec<String> {
    let prefix = format!("sl-{pid}-");
    ["/run/netns", "/run/sluice-rig", "/sys/fs/bpf/sluice"]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.contains(&prefix))
        .collect()
}

#[test]
fn every_step_of_the_demo_holds() {
    let began = Instant::now();
    let demo = binary("demo").unwrap();
    let output = run(Command::new(&demo), Duration::from_secs(180)).unwrap();
    println!("{}", output.stdout);
    let target = demo.ancestors().nth(2).unwrap();
    let report: Value = serde_json::from_str(&fs::read_to_string(target.join("demo/report.json")).unwrap()).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let failed: Vec<&Value> = steps.iter().filter(|step| step["ok"] != true).collect();
    assert!(failed.is_empty() && output.status.success(), "{failed:#?}\n{}", output.stderr);
    assert_eq!(steps.len(), 12);
    println!("the demo took {:.0} s", began.elapsed().as_secs_f64());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let mut demo = Command::new(binary("demo").unwrap()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = demo.id();
    // As soon as the gateways have programs on their ports, in the middle of things.
    wait_until("node-b has pinned its programs", Duration::from_secs(60), || {
        left_of(pid).iter().any(|path| path.starts_with("/sys/fs/bpf") && path.ends_with("node-b")).then_some(())
    })
    .unwrap();
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert_eq!(left_of(pid), Vec::<String>::new());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
