//! A program as a container runtime starts it: directories at places of its own, an environment, root by its
//! number, and no capability that it was not given.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Namespace;

#[derive(Debug, Clone, Default)]
pub struct Container {
    /// Where each directory is in the container; below /var, which is otherwise empty there.
    pub mounts: Vec<(PathBuf, &'static str)>,
    pub environment: Vec<(&'static str, String)>,
    /// As manifests name them: `NET_ADMIN`.
    pub capabilities: Vec<String>,
}

/// Its own mounts, then nothing but its capabilities. exec all the way, so that the PID stays.
const START: &str = r#"
mount -t tmpfs none /var
while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
shift
exec setpriv --bounding-set "$CAPABILITIES" --inh-caps=-all -- "$@"
"#;

impl Container {
    /// A program that will run in it, and in the namespace.
    pub fn command(&self, namespace: &Namespace, program: &Path) -> Command {
        let mut command = namespace.command("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-euc", START, "container"]);
        for (from, to) in &self.mounts {
            command.arg(from).arg(to);
        }
        command.arg("--").arg(program);
        let given = self.capabilities.iter().map(|name| format!(",+{}", name.to_lowercase()));
        command.env("CAPABILITIES", format!("-all{}", given.collect::<String>()));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
