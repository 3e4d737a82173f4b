//! Two processes behind one inside port are two workloads, and a third is nobody: through both gateways,
//! with the delivered example, while ctrl lives, stands still and is dead.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pktgen_tests::netns::gateway::BACKEND;
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Gateway, Host, Namespace, Output, Service, run, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use snapshot::{ConnectionReport, RefuseReason};

const PATIENCE: Duration = Duration::from_secs(15);
const PROCESSES: &str = include_str!("../../deploy/examples/processes.yaml");
const GROUPS: &str = include_str!("../../deploy/examples/groups.yaml");
const WEB: u32 = 61_001;
const BATCH: u32 = 61_002;
const THIRD: u32 = 61_003;

/// How long a refusal may take that has to come within 100 ms: the machine is shared.
const SOON: Duration = Duration::from_secs(2);

/// A program that the user runs; setpriv replaces itself by it.
fn run_as(from: &Namespace, user: u32, program: &[&str]) -> Output {
    run_with(from, user, user, program)
}

fn run_with(from: &Namespace, user: u32, group: u32, program: &[&str]) -> Output {
    let mut command = from.command("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".into()]).args(program);
    run(command, PATIENCE).unwrap()
}

/// A control group of version 2 that is gone with this. Its parents stay if they were there.
struct ControlGroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl ControlGroup {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let of_type = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
        let root = mounts.lines().find(of_type).expect("cgroup2 is mounted").split(' ').nth(1).unwrap();
        let (path, mut made) = (Path::new(root).join(name), vec![]);
        for part in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if !part.exists() {
                std::fs::create_dir(part).unwrap();
                made.push(part.to_owned());
            }
        }
        Self { path, made }
    }

    /// A shell goes in and replaces itself by the program.
    fn run(&self, from: &Namespace, program: &[&str]) -> Output {
        let mut command = from.command("sh");
        command.args(["-ec", "echo $$ > \"$0\"; exec \"$@\""]).arg(self.path.join("cgroup.procs")).args(program);
        run(command, PATIENCE).unwrap()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            let _ = std::fs::remove_dir(path);
        }
    }
}

fn curl(from: &Namespace, user: u32, v6: bool) -> Output {
    let address = Host::Backend.address(v6);
    let at = if v6 { format!("{BACKEND}:3000:[{address}]") } else { format!("{BACKEND}:3000:{address}") };
    let url = format!("http://{BACKEND}:3000/");
    let time = "%{stderr}connected after %{time_connect} s\\n";
    run_as(from, user, &["/usr/bin/curl", "-sS", "--max-time", "10", "-w", time, "--resolve", &at, &url])
}

fn served(output: &Output) {
    assert!(output.status.success() && output.stdout.contains("you said"), "{output:?}");
}

/// The last call from the port's host that a gateway refused.
fn refusal(gateway: &Gateway, reason: RefuseReason, more: &str) -> ConnectionReport {
    let from = [false, true].map(|v6| Host::Stranger.address(v6));
    let last = || {
        let all = gateway.refused().ok()?;
        let fits = |c: &ConnectionReport| {
            let detail = c.detail.as_deref().unwrap_or_default();
            from.contains(&c.client.ip()) && c.refused == Some(reason) && detail.contains(more)
        };
        all.into_iter().rev().find(fits)
    };
    wait_until(&format!("{} refuses with {reason}, {more}", gateway.name()), PATIENCE, last)
        .unwrap_or_else(|error| panic!("{error:#}: {:#?}", gateway.refused()))
}

#[test]
fn processes_of_one_port_have_their_own_identities_and_a_third_has_none() {
    let pair = Pair::start(&Setup { files: &[("processes.yaml", PROCESSES)], ..Setup::default() }).unwrap();
    let service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let (a, b, host) = (&pair.node_a, &pair.node_b, &pair.site.stranger);
    let uid = |user: u32| format!("uid {user}");

    // Over both families; the far side knows it by its SPIFFE ID.
    for v6 in [false, true] {
        served(&curl(host, WEB, v6));
        let called = || {
            let all = b.connections().ok()?;
            all.into_iter().rev().find(|c| c.client.ip() == Host::Stranger.address(v6) && c.closed.is_some())
        };
        let said = wait_until("node-b reports the call", PATIENCE, called).unwrap();
        assert_eq!(said.peer_id.as_deref(), Some("spiffe://example.com/shop/web"));
    }
    // The same program as another user, refused by the far side under its own name.
    assert!(!curl(host, BATCH, false).status.success());
    let said = refusal(b, RefuseReason::NotAllowedInbound, "");
    assert_eq!(said.peer_id.as_deref(), Some("spiffe://example.com/shop/batch"));
    // The same user with another program is not web, and neither is another user; nothing leaves for them.
    let before = b.refused().unwrap().len();
    assert!(!curl(host, THIRD, true).status.success());
    let said = refusal(a, RefuseReason::NotAttested, &uid(THIRD));
    assert!(said.detail.unwrap().contains("matches no selector of shop/batch, shop/web"));
    let python = format!("import socket; socket.create_connection(('{}', 3000), 5)", Host::Backend.v4());
    assert!(!run_as(host, WEB, &["/usr/bin/python3", "-c", &python]).status.success());
    refusal(a, RefuseReason::NotAttested, "python3");
    assert_eq!(b.refused().unwrap().len(), before, "what is not attested never leaves");
    // IPv4 out of an IPv6 socket.
    let mapped = format!(
        "import socket; s = socket.socket(socket.AF_INET6); s.settimeout(5); s.connect(('::ffff:{}', 3000)); s.recv(1)",
        Host::Backend.v4()
    );
    let count = |all: Vec<ConnectionReport>| {
        all.into_iter().filter(|c| c.peer_id.as_deref() == Some("spiffe://example.com/shop/batch")).count()
    };
    let known = count(b.refused().unwrap());
    assert!(!run_as(host, BATCH, &["/usr/bin/python3", "-c", &mapped]).status.success());
    wait_until("node-b refuses the mapped call", PATIENCE, || (count(b.refused().ok()?) > known).then_some(()))
        .unwrap();

    // A socket that another user's process holds too is not its maker's alone.
    let shared = format!(
        "import os, socket\n\
         s = socket.socket(); s.settimeout(5)\n\
         r, w = os.pipe(); done, end = os.pipe()\n\
         if os.fork() == 0:\n    os.close(end); os.setgid({THIRD}); os.setuid({THIRD}); os.write(w, b'x'); os.read(done, 1); os._exit(0)\n\
         os.setgid({BATCH}); os.setuid({BATCH}); os.read(r, 1)\n\
         s.connect(('{}', 3000))",
        Host::Backend.v4()
    );
    let mut command = host.command("/usr/bin/python3");
    command.args(["-c", &shared]);
    assert!(!run(command, PATIENCE).unwrap().status.success());
    let said = refusal(a, RefuseReason::NotAttested, "not all match shop/batch");
    assert!(said.detail.unwrap().starts_with("2 processes hold the socket"));

    // What each view says of it.
    let described = a.sluice(&["describe", "workload", "shop/web"]).unwrap();
    let text = described.ok().unwrap();
    for part in [
        "process:path /usr/bin/curl and process:uid 61001 (processes.yaml:9)",
        "(\"curl\", /usr/bin/curl, inode ",
        "not attested, from or to the same addresses:",
        "uid 61003",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    println!("{text}");
    let explained = a.explain("spiffe://example.com/shop/web", "198.18.2.2:3000").unwrap();
    assert!(explained.allowed, "{explained:#?}");
    let explained = a.explain("198.18.4.2", "198.18.2.2:3000").unwrap();
    let undecided = ["spiffe://example.com/shop/batch", "spiffe://example.com/shop/web"];
    assert_eq!((explained.refused, &explained.undecided[..]), (None, &undecided.map(String::from)[..]));
    let told = a.sluice(&["explain", "--from", "198.18.4.2", "--to", "198.18.2.2:3000"]).unwrap();
    assert_eq!(told.status.code(), Some(2), "{told:?}");

    // Two identities for one flow: nobody's, and both are named.
    let both = PROCESSES.replacen("process:uid: 61002", "process:name: curl", 1);
    assert_ne!(both, PROCESSES);
    a.apply("processes.yaml", &both).unwrap();
    assert!(!curl(host, WEB, false).status.success());
    let said = refusal(a, RefuseReason::NotAttested, "2 identities for one flow").detail.unwrap();
    assert!(
        said.contains("spiffe://example.com/shop/batch (process:name curl")
            && said.contains("spiffe://example.com/shop/web (process:path"),
        "{said}"
    );
    drop(service);
}

#[test]
fn groups_and_control_groups_of_a_range_have_their_own_identities() {
    let pair = Pair::start(&Setup { files: &[("groups.yaml", GROUPS)], ..Setup::default() }).unwrap();
    let _service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let (a, b, host) = (&pair.node_a, &pair.node_b, &pair.site.stranger);
    let url = format!("http://{}:3000/", Host::Backend.v4());
    let curl = ["/usr/bin/curl", "-sS", "--max-time", "10", url.as_str()];
    let seen_as = |id: &str| {
        let by = |c: &ConnectionReport| c.peer_id.as_deref() == Some(id) && c.closed.is_some();
        wait_until(&format!("node-b has served {id}"), PATIENCE, || b.connections().ok()?.into_iter().find(by)).unwrap()
    };
    let evidence = |id: &str, what: &str| {
        let by = |c: &ConnectionReport| {
            c.attested.as_deref().is_some_and(|said| said.contains(what)) && c.local_id.as_deref() == Some(id)
        };
        let found = || a.connections().ok()?.into_iter().find(by);
        let said = wait_until(&format!("node-a says {what}"), PATIENCE, found).unwrap();
        println!("{id}: {}", said.attested.unwrap());
    };
    let (reports, jobs) = ("spiffe://example.com/shop/reports", "spiffe://example.com/shop/jobs");

    served(&run_with(host, THIRD, 61_021, &curl));
    seen_as(reports);
    evidence(reports, "process:gid 61021");
    // The user of that number is not the group.
    assert!(!run_with(host, 61_021, THIRD, &curl).status.success());
    refusal(a, RefuseReason::NotAttested, "gid 61003");

    let below = ControlGroup::new("jobs.slice/nightly");
    served(&below.run(host, &curl));
    seen_as(jobs);
    evidence(jobs, "process:cgroup /jobs.slice/*");
    let itself = ControlGroup::new("jobs.slice");
    assert!(!itself.run(host, &curl).status.success());
    refusal(a, RefuseReason::NotAttested, "cgroup /jobs.slice)");
    // Longer by a letter is another one.
    let another = ControlGroup::new("jobs.slices/nightly");
    assert!(!another.run(host, &curl).status.success());
    refusal(a, RefuseReason::NotAttested, "cgroup /jobs.slices/nightly)");
}

#[test]
fn without_ctrl_processes_are_refused_soon_and_addresses_are_served_on() {
    let mut pair = Pair::configure(&Setup { files: &[("processes.yaml", PROCESSES)], ..Setup::default() }).unwrap();
    pair.node_a.launch_apart().unwrap();
    pair.node_b.launch().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    let _service = Service::start(&pair.site.backend, pair.site.rig.directory()).unwrap();
    let host = &pair.site.stranger;
    let by_address = || served(&curl(&pair.site.frontend, THIRD, false));
    let refused_soon = || {
        let began = Instant::now();
        let output = curl(host, WEB, false);
        assert!(!output.status.success() && began.elapsed() < SOON, "{:?} {output:?}", began.elapsed());
        println!("refused in {:?}", began.elapsed());
    };
    served(&curl(host, WEB, false));
    for (what, from) in [("process", host), ("address", &pair.site.frontend)] {
        let mut times: Vec<f64> = (0..21)
            .map(|_| {
                let output = curl(from, WEB, false);
                served(&output);
                let text = output.stderr.split_whitespace().nth(2).expect("a time");
                text.parse::<f64>().expect("seconds") * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("by {what}: connected in {:.2} ms in the median, {:.2} to {:.2}", times[10], times[0], times[20]);
    }

    let control = Pid::from_raw(pair.node_a.report().unwrap().pid.cast_signed()).unwrap();
    kill_process(control, Signal::STOP).unwrap();
    refused_soon();
    by_address();
    kill_process(control, Signal::CONT).unwrap();
    refusal(&pair.node_a, RefuseReason::NotAttested, "nobody said within");
    served(&curl(host, WEB, false));

    pair.node_a.kill_control().unwrap();
    wait_until("the dataplane has noticed", PATIENCE, || {
        let log = std::fs::read_to_string(pair.node_a.log()).ok()?;
        log.contains("the snapshot in force is served on").then_some(())
    })
    .unwrap();
    refused_soon();
    by_address();
    pair.node_a.launch_control().unwrap();
    pair.node_a.wait_ready().unwrap();
    refusal(&pair.node_a, RefuseReason::NotAttested, "which finds out who calls or listens, is not there");
    served(&curl(host, WEB, false));
}
