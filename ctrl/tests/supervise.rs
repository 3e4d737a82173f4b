//! `sluice up`, with shell scripts in the place of both processes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// `sluice` beside two scripts; each writes its pid to a file of its own, and its end to `ends`.
struct Rig {
    directory: tempfile::TempDir,
    up: Child,
}

const SCRIPT: &str = "#!/bin/sh
cd \"$(dirname \"$0\")\"
name=$(basename \"$0\")
echo $$ \"$@\" >> \"$name.starts\"
trap 'echo $name >> ends; exit 0' TERM
while :; do sleep 0.02; done
";

impl Rig {
    fn new() -> Self {
        Self::with(SCRIPT)
    }

    fn with(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::hard_link(SLUICE, path.join("sluice"))
            .or_else(|_| std::fs::copy(SLUICE, path.join("sluice")).map(|_| ()))
            .unwrap();
        for name in ["sluice-ctrl", "sluice-dataplane"] {
            std::fs::write(path.join(name), script).unwrap();
            std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let config = path.join("config");
        std::fs::create_dir(&config).unwrap();
        let gateway = format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: {{ name: a }}\nspec:\n  \
             trustDomain: example.com\n  ports:\n    - {{ interface: in0, side: inside }}\n    \
             - {{ interface: out0, side: outside }}\n  cores: [0]\n  \
             identity: {{ source: embedded, embedded: {{ directory: ca, ttl: 1h }} }}\n  \
             admin: {{ socket: {}/a.sock, metrics: 127.0.0.1:15020 }}\n",
            path.display()
        );
        std::fs::write(config.join("gateway.yaml"), gateway).unwrap();
        let up = Command::new(path.join("sluice"))
            .args(["up", "--config"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { directory, up }
    }

    /// Runs `sluice up` once more on the same configuration, to its end.
    fn second(&self) -> std::process::Output {
        let mut up = Command::new(self.path("sluice"));
        up.args(["up", "--config"]).arg(self.path("config")).stderr(Stdio::piped());
        let mut up = up.spawn().unwrap();
        for _ in 0..1500 {
            if up.try_wait().unwrap().is_some() {
                return up.wait_with_output().unwrap();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _ = up.kill();
        let _ = up.wait();
        panic!("a second `sluice up` runs on");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The first lines of a file, once there are so many.
    fn lines(&self, name: &str, count: usize) -> Vec<String> {
        for _ in 0..1500 {
            let lines: Vec<_> = read(&self.path(name)).lines().map(str::to_owned).collect();
            if lines.len() >= count {
                return lines;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("{name} has not {count} lines: {}", read(&self.path(name)));
    }

    fn pid(&self, name: &str, start: usize) -> String {
        let lines = self.lines(&format!("{name}.starts"), start);
        lines[start - 1].split(' ').next().unwrap().to_owned()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Its children get SIGTERM from the kernel; one of a test that failed may not listen to it.
        let _ = self.up.kill();
        let _ = self.up.wait();
        for name in ["sluice-dataplane", "sluice-ctrl"] {
            let starts = read(&self.path(&format!("{name}.starts")));
            for pid in starts.lines().filter_map(|line| line.split(' ').next()) {
                let ours = read(&Path::new("/proc").join(pid).join("cmdline"));
                if ours.contains(&self.path(name).display().to_string()) {
                    let _ = Command::new("kill").args(["-KILL", pid]).status();
                }
            }
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

fn gone(pid: &str) {
    for _ in 0..1000 {
        if !Path::new("/proc").join(pid).exists() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("{pid} still runs");
}

#[test]
fn a_child_that_is_killed_is_started_again_and_the_other_is_left_alone() {
    let rig = Rig::new();
    let first = rig.pid("sluice-dataplane", 1);
    let ctrl = rig.pid("sluice-ctrl", 1);
    kill("-KILL", &first);
    let second = rig.pid("sluice-dataplane", 2);
    assert_ne!(first, second);
    kill("-KILL", &second);
    assert_ne!(rig.pid("sluice-dataplane", 3), second);
    assert_eq!(rig.lines("sluice-ctrl.starts", 1).len(), 1);
    let arguments = &rig.lines("sluice-dataplane.starts", 1)[0];
    assert!(arguments.contains(&format!(" --admin {} --log text", rig.path("a.sock").display())), "{arguments}");
    kill("-KILL", &ctrl);
    assert_ne!(rig.pid("sluice-ctrl", 2), ctrl);
}

#[test]
fn sigterm_stops_the_dataplane_first_and_then_ctrl() {
    let mut rig = Rig::new();
    let children = [rig.pid("sluice-dataplane", 1), rig.pid("sluice-ctrl", 1)];
    kill("-TERM", &rig.up.id().to_string());
    assert!(rig.up.wait().unwrap().success());
    assert_eq!(read(&rig.path("ends")), "sluice-dataplane\nsluice-ctrl\n");
    children.iter().for_each(|pid| gone(pid));
}

#[test]
fn a_second_signal_kills_children_that_do_not_stop() {
    let mut rig = Rig::with(&SCRIPT.replace("exit 0", "true"));
    let children = [rig.pid("sluice-dataplane", 1), rig.pid("sluice-ctrl", 1)];
    kill("-TERM", &rig.up.id().to_string());
    assert_eq!(rig.lines("ends", 1), ["sluice-dataplane"], "it was asked, and ctrl was not yet");
    kill("-INT", &rig.up.id().to_string());
    assert!(rig.up.wait().unwrap().success());
    children.iter().for_each(|pid| gone(pid));
}

#[test]
fn children_do_not_outlive_a_supervisor_that_is_killed() {
    let mut rig = Rig::new();
    let children = [rig.pid("sluice-dataplane", 1), rig.pid("sluice-ctrl", 1)];
    rig.up.kill().unwrap();
    rig.up.wait().unwrap();
    children.iter().for_each(|pid| gone(pid));
}

#[test]
fn a_child_that_ends_with_an_error_is_started_again() {
    // As a dataplane does whose worker panicked.
    let rig = Rig::with(&SCRIPT.replace("while :;", "[ $name = sluice-dataplane ] && exit 1\nwhile :;"));
    let first = rig.pid("sluice-dataplane", 1);
    assert_ne!(rig.pid("sluice-dataplane", 2), first);
    assert_eq!(rig.lines("sluice-ctrl.starts", 1).len(), 1);
}

#[test]
fn a_second_supervisor_says_that_the_gateway_is_running_and_disturbs_nothing() {
    let mut rig = Rig::new();
    let children = ["sluice-dataplane", "sluice-ctrl"].map(|name| rig.pid(name, 1));
    let second = rig.second();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let said = String::from_utf8(second.stderr).unwrap();
    let want = format!("already running: sluice up (pid {}) serves {}", rig.up.id(), rig.path("a.sock").display());
    assert!(said.contains(&want), "{said}");
    for name in ["sluice-dataplane", "sluice-ctrl"] {
        assert_eq!(rig.lines(&format!("{name}.starts"), 1).len(), 1, "{name}");
    }
    kill("-TERM", &rig.up.id().to_string());
    assert!(rig.up.wait().unwrap().success());
    children.iter().for_each(|pid| gone(pid));

    // Nor beside a control process that somebody runs by itself.
    let lock = ctrl::publish::socket::lock(&rig.path("a.sock")).unwrap();
    let third = rig.second();
    assert_eq!(third.status.code(), Some(1), "{third:?}");
    let said = String::from_utf8(third.stderr).unwrap();
    assert!(said.contains(&format!("already running: sluice-ctrl (pid {})", std::process::id())), "{said}");
    drop(lock);
}
