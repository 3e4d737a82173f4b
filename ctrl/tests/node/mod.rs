//! A node of its own for a test: a network namespace without a name, a configuration, sluice-ctrl.
//!
//! Everything dies with the processes that hold it. Needs root, as the gateway does.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");
pub const CTRL: &str = env!("CARGO_BIN_EXE_sluice-ctrl");

pub struct Node {
    pub directory: tempfile::TempDir,
    namespace: Child,
    ctrl: Option<Child>,
    log: Arc<Mutex<String>>,
}

/// `in0` with its workload's end `w0`, `out0` with its far end `x0`, all in one namespace.
const LINKS: &str = "
    ip link set lo up
    ip link add in0 type veth peer name w0
    ip link add out0 type veth peer name x0
    ip addr add 198.18.1.1/24 dev in0
    ip addr add 198.18.3.1/24 dev out0
    ip addr add 2001:db8:3::1/64 dev out0 nodad
    for link in in0 w0 out0 x0; do ip link set $link up; done
    ip route add 198.18.2.0/24 via 198.18.3.2 metric 7 mtu 1400
    ip neigh add 198.18.1.2 lladdr 02:00:00:00:01:02 dev in0 nud permanent
";

impl Node {
    pub fn new(ttl: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make network namespaces: run them as root");
        let directory = tempfile::tempdir().unwrap();
        let mut namespace = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) is installed");
        // The line says that the namespace is there.
        let mut line = String::new();
        BufReader::new(namespace.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let node = Self { directory, namespace, ctrl: None, log: Arc::default() };
        node.sh(LINKS);
        let ca = node.path("ca");
        let run = |arguments: &[&str]| {
            let done = Command::new(SLUICE).args(arguments).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        run(&["ca", "init", "--directory", ca.to_str().unwrap(), "--trust-domain", "example.com"]);
        let out = node.path("config/ca/node-a");
        run(&["ca", "issue-node", "--root", ca.to_str().unwrap(), "--node", "node-a", "--out", out.to_str().unwrap()]);
        node.write("gateway.yaml", &node.gateway(ttl));
        node.write("policy.yaml", POLICY);
        node
    }

    pub fn gateway(&self, ttl: &str) -> String {
        let socket = self.admin();
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: {{ name: node-a }}\nspec:\n  \
             trustDomain: example.com\n  ports:\n    - {{ interface: in0, side: inside }}\n    \
             - {{ interface: out0, side: outside }}\n  cores: [0]\n  \
             hosts: {{ backend-api.myapp.svc.cluster.local: [198.18.2.2] }}\n  \
             identity: {{ source: embedded, embedded: {{ directory: ca/node-a, ttl: {ttl} }} }}\n  \
             admin: {{ socket: {}, metrics: 127.0.0.1:15020 }}\n",
            socket.display()
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("config")
    }

    pub fn admin(&self) -> PathBuf {
        self.path("run/node-a.sock")
    }

    /// Into the configuration directory, as an editor does it: aside, then renamed.
    pub fn write(&self, name: &str, text: &str) {
        let aside = self.path("aside");
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(&aside, self.config().join(name)).unwrap();
    }

    /// A command inside the namespace.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.namespace.id().to_string()).arg("-n").arg("--").arg(program);
        command
    }

    pub fn sh(&self, script: &str) -> String {
        let done = self.inside("sh").args(["-ec", script]).output().unwrap();
        assert!(done.status.success(), "{script}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    pub fn start(&mut self) {
        let mut child = self
            .inside(CTRL)
            .arg("--config")
            .arg(self.config())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.ctrl = Some(child);
    }

    pub fn kill(&mut self) {
        let mut child = self.ctrl.take().expect("ctrl runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn sluice(&self, arguments: &[&str]) -> Output {
        let socket = self.admin();
        self.inside(SLUICE).args(arguments).env("SLUICE_SOCKET", socket).output().unwrap()
    }

    /// Standard output of a command that ends with `code`.
    pub fn says(&self, code: i32, arguments: &[&str]) -> String {
        let done = self.sluice(arguments);
        assert_eq!(done.status.code(), Some(code), "sluice {arguments:?}: {done:?}\n{}", self.log());
        String::from_utf8(done.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let done = self.sluice(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}\n{}", self.log()))
    }

    /// The status once `want` holds of it.
    pub fn status_until(&self, want: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        for _ in 0..400 {
            // It may not listen yet.
            let done = self.sluice(&["status", "-o", "json"]);
            match serde_json::from_slice(&done.stdout) {
                Ok(status) if want(&status) => return status,
                Ok(_) | Err(_) => {}
            }
            std::thread::park_timeout(Duration::from_millis(25));
        }
        panic!("it did not come to that: {:?}\n{}", self.sluice(&["status"]), self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.ctrl.iter_mut().chain([&mut self.namespace]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub const POLICY: &str = "\
apiVersion: core.riptides.io/v1alpha1
kind: Service
metadata: { name: backend-api-svc, namespace: shop }
spec:
  addresses: [{ address: backend-api.myapp.svc.cluster.local, port: 3000 }]
  labels: { app: myapp, service: backend-api }
---
apiVersion: core.riptides.io/v1alpha1
kind: WorkloadIdentity
metadata: { name: frontend, namespace: shop }
spec:
  workloadID: myapp/app/frontend
  selectors: [{ net:ip: 198.18.1.2 }]
  connection: { tls: { mode: PERMISSIVE } }
  allowedSPIFFEIDs: { outbound: [spiffe://example.com/myapp/app/backend-api] }
  egress:
    - selectors: [{ app: myapp, service: backend-api }]
      connection: { tls: { mode: MUTUAL } }
      allowedSPIFFEIDs: [spiffe://example.com/myapp/app/backend-api]
";
