//! The manifests of deploy/kubernetes beside the code: commands that the CLI takes, a Gateway that loads, paths
//! that are mounted, and names that fit each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use ctrl::cli::Cli;
use ctrl::config::{IdentitySource, Loaded, load_files};
use serde_json::Value;

fn deploy(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join("deploy/kubernetes").join(name)).unwrap()
}

fn of_kind(file: &str, kind: &str) -> Value {
    let all: Vec<Value> = serde_saphyr::from_multiple(&deploy(file)).unwrap();
    let mut found = all.into_iter().filter(|one| one["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("{file} has no {kind}"));
    assert!(found.next().is_none(), "{file} has two of {kind}");
    one
}

fn pod() -> Value {
    of_kind("daemonset.yaml", "DaemonSet")["spec"]["template"]["spec"].clone()
}

fn container() -> Value {
    let containers = pod()["containers"].as_array().unwrap().clone();
    assert_eq!(containers.len(), 1);
    containers[0].clone()
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Where the volume of that name is in the container, and where it is from.
fn mount(name: &str) -> (PathBuf, Value) {
    let named = |list: &Value| list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone();
    let (at, from) = (named(&container()["volumeMounts"]), named(&pod()["volumes"]));
    (at["mountPath"].as_str().unwrap().into(), from)
}

/// The ConfigMap's Gateway, at its place in the container.
fn gateway() -> Loaded {
    let map = of_kind("daemonset.yaml", "ConfigMap");
    let (at, volume) = mount("config");
    assert_eq!(volume["configMap"]["name"], map["metadata"]["name"]);
    let files: Vec<_> = map["data"].as_object().unwrap().iter().collect();
    let files: Vec<_> =
        files.into_iter().map(|(name, text)| (at.join(name), text.as_str().unwrap().to_owned())).collect();
    load_files(&files).unwrap_or_else(|faults| panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()))
}

#[test]
fn the_commands_of_the_daemonset_are_commands_of_the_program_that_the_image_has() {
    let (container, image) = (container(), deploy("Containerfile"));
    let probe = |name: &str| words(&container[name]["exec"]["command"]);
    let (config, _) = mount("config");
    for command in [words(&container["command"]), probe("readinessProbe")] {
        Cli::try_parse_from(&command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert_eq!(command[0], "sluice");
        let named = command.iter().skip_while(|word| *word != "--config").nth(1).expect("it names the configuration");
        assert_eq!(Path::new(named), config);
    }
    assert_eq!(words(&container["command"])[1], "up");
    assert_eq!(probe("readinessProbe")[1], "status");
    // A gateway that waits for something else is not mended by being killed.
    assert!(["livenessProbe", "startupProbe"].iter().all(|probe| container.get(probe).is_none()));
    // Bundles and CRLs at https URLs are asked by the system's roots, which the base image lacks.
    let installed = image.rsplit("FROM ").next().unwrap().lines().find(|line| line.starts_with("RUN apt-get"));
    assert!(installed.is_some_and(|line| line.split(' ').any(|word| word == "ca-certificates")), "{installed:?}");
    let copied: Vec<_> = image.lines().filter(|line| line.starts_with("COPY --from=build")).collect();
    for binary in ["sluice", "sluice-ctrl", "sluice-dataplane"] {
        assert!(copied.iter().any(|line| line.contains(&format!("/release/{binary} "))), "{binary}: {copied:?}");
    }
    let built = image.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let more = image.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let list = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap();
    Cli::try_parse_from([list(built), list(more)].concat()).unwrap();
}

#[test]
fn the_gateway_of_the_configmap_loads_without_a_word_and_finds_its_paths_mounted() {
    let Loaded { gateway, warnings, .. } = gateway();
    let said: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(said.iter().filter(|warning| !warning.contains("is no WorkloadIdentity here")).count(), 0, "{said:?}");
    assert!(
        gateway.kubernetes.is_some_and(|asked| asked.resources && asked.kubeconfig.is_none() && asked.node.is_none())
    );
    let on_host = |name: &str, path: &Path| {
        let (at, volume) = mount(name);
        assert!(path.starts_with(&at), "{} is not below {}", path.display(), at.display());
        assert_eq!(Path::new(volume["hostPath"]["path"].as_str().unwrap()), at, "{name}: the host's own place");
    };
    on_host("run", &gateway.admin.socket);
    on_host("state", &gateway.admin.state);
    on_host("bpf", Path::new(&gateway.pin_directory));
    assert!(gateway.pin_directory.starts_with("/sys/fs/bpf/"));
    let IdentitySource::Spire(spire) = &gateway.identity[0].source else { panic!("{:?}", gateway.identity) };
    for socket in [&spire.socket, &spire.admin_socket] {
        on_host("spire", socket.as_deref().unwrap());
    }
    let drain = gateway.timeouts.drain + 2 * Duration::from_secs(5);
    let grace = pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(Duration::from_secs(grace) > drain, "{grace} s are less than {drain:?}");
}

#[test]
fn the_pod_has_the_hosts_network_its_nodes_name_and_the_account_that_has_the_rights() {
    let (pod, container, set) = (pod(), container(), of_kind("daemonset.yaml", "DaemonSet"));
    let account = of_kind("rbac.yaml", "ServiceAccount");
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    let namespace = of_kind("rbac.yaml", "Namespace");
    for one in [&set, &account, &of_kind("daemonset.yaml", "ConfigMap")] {
        assert_eq!(one["metadata"]["namespace"], namespace["metadata"]["name"]);
    }
    assert_eq!(set["spec"]["selector"]["matchLabels"], set["spec"]["template"]["metadata"]["labels"]);
    assert_eq!((&pod["hostNetwork"], &pod["hostPID"]), (&true.into(), &true.into()));
    let node = container["env"].as_array().unwrap().iter().find(|one| one["name"] == "NODE_NAME").unwrap();
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    assert_eq!(set["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"], 0, "two gateways on one node");
    let rights = &container["securityContext"];
    assert_eq!((&rights["privileged"], &rights["runAsUser"]), (&false.into(), &0.into()));
    assert_eq!(words(&rights["capabilities"]["drop"]), ["ALL"]);
    // An API server refuses that together with SYS_ADMIN.
    assert!(rights.get("allowPrivilegeEscalation").is_none());
}
