//! A cluster: one that is played, or a real API server, which deploy/kubernetes/real-api names in the
//! environment. What tests ask of it is what both can do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Api;

pub enum Cluster {
    Played(Api),
    /// Through kubectl, by an administrator's kubeconfig; a gateway gets in by its own.
    Real {
        admin: PathBuf,
        gateway: PathBuf,
    },
}

impl Cluster {
    pub fn of_environment() -> Self {
        match std::env::var_os("SLUICE_KUBECONFIG") {
            None => Self::Played(Api::start()),
            Some(admin) => {
                let gateway = std::env::var_os("SLUICE_KUBECONFIG_GATEWAY").expect("that of the gateway's account");
                Self::Real { admin: admin.into(), gateway: gateway.into() }
            }
        }
    }

    /// A gateway's, as `kubeconfig` of the directory.
    pub fn kubeconfig(&self, directory: &Path) {
        match self {
            Self::Played(api) => drop(api.kubeconfig(directory)),
            Self::Real { gateway, .. } => drop(std::fs::copy(gateway, directory.join("kubeconfig")).unwrap()),
        }
    }

    /// Makes it, or makes it be that.
    pub fn put(&self, path: &str, mut object: Value) {
        let admin = match self {
            Self::Played(api) => return api.put(path, object),
            Self::Real { admin, .. } => admin,
        };
        let status = object.as_object_mut().unwrap().remove("status");
        let metadata = object["metadata"].as_object_mut().unwrap();
        // What only a server gives.
        metadata.retain(|name, _| !["uid", "managedFields"].contains(&name.as_str()));
        let [name, namespace] = ["name", "namespace"].map(|name| metadata[name].as_str().unwrap().to_owned());
        let _there_already = kubectl(admin, &["create", "namespace", &namespace], None);
        let applied = ["apply", "--server-side", "--force-conflicts", "--field-manager=sluice-tests", "-f", "-"];
        kubectl(admin, &applied, Some(&object)).unwrap();
        if let Some(status) = status {
            let (resource, patch) = (resource_of(path), json!({ "status": status }).to_string());
            let patched = ["--subresource=status", "--type=merge", "-p", &patch];
            kubectl(admin, &[&["patch", &resource, &name, "-n", &namespace][..], &patched].concat(), None).unwrap();
        }
    }

    pub fn remove(&self, path: &str, key: &str) {
        match self {
            Self::Played(api) => api.remove(path, key),
            Self::Real { admin, .. } => {
                let (namespace, name) = key.split_once('/').unwrap();
                let at_once = ["--force", "--grace-period=0", "--ignore-not-found"];
                let what = ["delete", &resource_of(path), name, "-n", namespace];
                kubectl(admin, &[&what[..], &at_once].concat(), None).unwrap();
            }
        }
    }

    /// As it is there now.
    pub fn get(&self, path: &str, key: &str) -> Value {
        match self {
            Self::Played(api) => api.look(|world| world.objects[path][key].clone()),
            Self::Real { admin, .. } => {
                let (namespace, name) = key.split_once('/').unwrap();
                let got = kubectl(admin, &["get", &resource_of(path), name, "-n", namespace, "-o", "json"], None);
                serde_json::from_str(&got.unwrap()).unwrap()
            }
        }
    }
}

/// `/apis/discovery.k8s.io/v1/endpointslices` is `endpointslices.discovery.k8s.io` to kubectl.
fn resource_of(path: &str) -> String {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", _, plural] => (*plural).to_owned(),
        ["apis", group, _, plural] => format!("{plural}.{group}"),
        other => panic!("{other:?} is no list"),
    }
}

fn kubectl(admin: &Path, arguments: &[&str], input: Option<&Value>) -> Result<String, String> {
    let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let mut command = Command::new(program);
    command.arg("--kubeconfig").arg(admin).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl is there");
    let text = input.map(Value::to_string).unwrap_or_default();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(format!("kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
