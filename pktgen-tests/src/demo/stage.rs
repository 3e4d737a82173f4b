//! Everything the steps stand on: the site, both gateways, the service, and how to call it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pktgen_tests::netns::gateway::{self, BACKEND, Gateway, Settings};
use pktgen_tests::netns::{Cables, Host, Namespace, Service, Site, run};

pub struct Stage {
    pub node_a: Gateway,
    pub node_b: Gateway,
    pub service: Service,
    /// Last: the handles of programs are dropped before their namespaces go.
    pub site: Site,
}

/// The example of the documentation, its selectors replaced by `net:ip`.
pub const POLICY: &str = include_str!("../../../deploy/demo/frontend-backend.yaml");
const INTRUDER: &str = include_str!("../../../deploy/demo/intruder.yaml");

pub const FRONTEND_ID: &str = "spiffe://example.com/myapp/app/frontend";
pub const BACKEND_ID: &str = "spiffe://example.com/myapp/app/backend-api";
pub const INTRUDER_ID: &str = "spiffe://example.com/myapp/app/intruder";

pub const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// What curl says of a call that was answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub body: String,
    pub local_port: u16,
}

impl Stage {
    pub fn set() -> Result<(Self, String)> {
        let began = Instant::now();
        let site = Site::lay(Cables::mtu(1500))?;
        let service = Service::start(&site.backend, site.rig.directory())?;
        let authority = site.rig.directory().join("root-ca");
        gateway::authority(&authority)?;
        let node_a = Settings { name: "node-a", inside: &["in0", "in1", "in2"], ..SETTINGS };
        let node_b = Settings { name: "node-b", inside: &["in0"], ..SETTINGS };
        let files = [("policy.yaml", POLICY), ("intruder.yaml", INTRUDER)];
        let mut node_a = Gateway::configure(&site.rig, &site.node_a, &authority, &node_a, &files)?;
        let mut node_b = Gateway::configure(&site.rig, &site.node_b, &authority, &node_b, &files[..1])?;
        node_a.launch()?;
        node_b.launch()?;
        node_a.wait_ready()?;
        node_b.wait_ready()?;
        let stage = Self { node_a, node_b, service, site };
        let [a, b] = [stage.node_a.status()?, stage.node_b.status()?];
        let version = |status: &snapshot::Status| status.in_force.map_or("none".into(), |v| v.to_string());
        let detail = format!(
            "after {:.1} s: snapshot {} in force on node-a, {} on node-b; XDP {}",
            began.elapsed().as_secs_f32(),
            version(&a),
            version(&b),
            a.ports.iter().map(|port| port.xdp.as_str()).next().unwrap_or("nowhere"),
        );
        Ok((stage, detail))
    }

    /// A plain HTTP call to the backend by its name. The marker goes there and comes back.
    pub fn call(&self, from: &Namespace, marker: &str, extra: &[&str]) -> Result<Reply> {
        let output = run(self.curl(from, "/", marker, extra), SECONDS(15))?;
        let text = output.ok()?;
        let (body, said) = text.rsplit_once('\n').context("curl says how it went")?;
        let (port, status) = said.split_once(' ').context("curl says port and status")?;
        ensure!(status == "200" && body.contains(marker), "answered {status}: {body}");
        Ok(Reply { body: body.trim().into(), local_port: port.parse()? })
    }

    pub fn curl(&self, from: &Namespace, path: &str, marker: &str, extra: &[&str]) -> std::process::Command {
        let mut command = from.command("curl");
        command.args(["-sS", "--max-time", "10", "-w", "\n%{local_port} %{http_code}"]);
        // As a line of /etc/hosts would have it.
        command.arg("--resolve").arg(format!("{BACKEND}:3000:{}", Host::Backend.v4()));
        command.arg("-H").arg(format!("X-Marker: {marker}")).args(extra);
        command.arg(format!("http://{BACKEND}:3000{path}"));
        command
    }

    /// A call that must fail: how curl puts it, and that the service saw no connection from `host`.
    pub fn refused_call(&self, from: &Namespace, host: Host, marker: &str, extra: &[&str]) -> Result<String> {
        let before = self.service.accepted_from(host)?;
        let output = run(self.curl(from, "/", marker, extra), SECONDS(15))?;
        ensure!(!output.status.success(), "the call was answered: {}", output.stdout.trim());
        let after = self.service.accepted_from(host)?;
        ensure!(before == after, "the service saw {} connections of it", after - before);
        Ok(output.stderr.trim().to_owned())
    }

    /// Leaves everything up and says what can be done with it.
    pub fn keep(mut self) {
        let directory = self.site.rig.directory().display();
        let (frontend, wire) = (self.site.frontend.name(), self.site.wire.name());
        let curl = self.curl(&self.site.frontend, "/", "hello", &[]);
        let words = std::iter::once(curl.get_program()).chain(curl.get_args()).map(|w| format!("{w:?}"));
        println!("\nEverything stays up, until the next demo or test sweeps it away. Try:");
        println!("  a call from {frontend}:\n    {}", words.collect::<Vec<_>>().join(" "));
        println!("  what the wire sees of it:\n    nsenter --net=/run/netns/{wire} tcpdump -i b0 -nA tcp");
        for gateway in [&self.node_a, &self.node_b] {
            println!("  {}:", gateway.name());
            for command in ["status", "identities", "connections --closed", "connections --refused"] {
                println!("    sluice {command} --socket {}", gateway.socket().display());
            }
        }
        println!("  configuration (edit it, it is watched) and logs:\n    {directory}");
        self.site.rig.keep();
        self.node_a.leave();
        self.node_b.leave();
        self.service.leave();
    }
}

const SETTINGS: Settings<'static> =
    Settings { name: "", inside: &[], cores: &[0], ttl: "1h", unmatched_egress: "refuse", limits: "{}", xdp: "auto" };
