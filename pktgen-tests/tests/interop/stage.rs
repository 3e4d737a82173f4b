//! Both gateways, each with one workload whose SVID comes out of files, and a legacy host for the peers.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use pktgen_tests::netns::gateway::{BACKEND, Gateway};
use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Namespace, Output, Process, run, wait_until};
use snapshot::{ConnectionReport, RefuseReason};

use super::pki::{Kind, Pki, Svid};
use super::runtime::{Built, Runtime, sources};

pub const FRONTEND_ID: &str = "spiffe://example.com/myapp/app/frontend";
pub const BACKEND_ID: &str = "spiffe://example.com/myapp/app/backend-api";
pub const PATIENCE: Duration = Duration::from_secs(40);

/// What peers post: more than all buffers on the way hold, and no multiple of anything.
const BODY: usize = (3 << 20) + 17;

pub struct Stage {
    /// Stopped before the pair's namespaces go.
    processes: Vec<Process>,
    pub built: Built,
    pub pki: Pki,
    pub body: PathBuf,
    /// Of the body.
    pub digest: String,
    pub pair: Pair,
}

/// What came back from a peer, and who it was.
#[derive(Debug, Default)]
pub struct Answer {
    pub peer: String,
    pub body: String,
    pub runtime: String,
}

/// The SPIFFE ID of a peer without a gateway.
pub fn peer_id(runtime: Runtime) -> String {
    format!("spiffe://example.com/peer/{}", runtime.name())
}

impl Stage {
    /// `services` are the ports of the legacy host that the frontend's egress rule selects.
    pub fn start(services: impl Iterator<Item = u16>) -> Self {
        let peers = |policy: String, id: &str| policy.replace(&format!("- {id}\n"), "- spiffe://example.com/peer/*\n");
        let policy = peers(peers(policy(), FRONTEND_ID), BACKEND_ID);
        let addresses = services.map(|port| format!("    - {{ address: {}, port: {port} }}\n", Host::Legacy.v4()));
        let direct = format!(
            "apiVersion: core.riptides.io/v1alpha1\nkind: Service\n\
             metadata: {{ name: direct, namespace: riptides-system }}\nspec:\n  addresses:\n{}  \
             labels: {{ app: myapp, service: backend-api }}\n",
            addresses.collect::<String>()
        );
        let files = [("policy.yaml", policy.as_str()), ("direct.yaml", direct.as_str())];
        let mut pair = Pair::configure(&Setup { files: &files, ..Setup::default() }).unwrap();
        let directory = pair.site.rig.directory().to_owned();
        let pki = Pki::new(directory.join("pki"));
        for (gateway, workload, id) in
            [(&pair.node_a, "frontend", FRONTEND_ID), (&pair.node_b, "backend-api", BACKEND_ID)]
        {
            pki.install(&pki.issue(Kind::P256, workload, id), &gateway.directory().join("certs"));
            let file = gateway.directory().join("gateway.yaml");
            let text = fs::read_to_string(&file).unwrap();
            let line = text.lines().find(|line| line.trim_start().starts_with("identity:")).unwrap();
            let source = format!(
                "  identity: {{ sources: [{{ name: certs, source: files, files: {{ directory: certs }}, \
                 workloads: [riptides-system/{workload}] }}, \
                 {{ name: node-ca, source: embedded, embedded: {{ directory: ca }} }}] }}"
            );
            fs::write(&file, text.replace(line, &source)).unwrap();
        }
        pair.node_a.launch().unwrap();
        pair.node_b.launch().unwrap();
        let built = Built::build(&directory);
        let bytes: Vec<u8> = (0..BODY as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let body = directory.join("body");
        fs::write(&body, &bytes).unwrap();
        // The JDK's HttpsServer asks for a caller's name before the handshake, and waits for a DNS server that
        // does not answer for longer than a handshake may take.
        let [frontend, backend] = [Host::Frontend, Host::Backend].map(Host::v4);
        let hosts = format!("127.0.0.1 localhost\n{frontend} frontend\n{backend} {BACKEND}\n");
        fs::write(directory.join("hosts"), hosts).unwrap();
        let digest = hex(&bytes);
        pair.node_a.wait_ready().unwrap();
        pair.node_b.wait_ready().unwrap();
        Self { processes: vec![], built, pki, body, digest, pair }
    }

    /// The plain service of `sources()/python/server.py` on port 3000 of a namespace.
    pub fn serve_plainly(&mut self, host: Host) {
        let namespace = if host == Host::Backend { &self.pair.site.backend } else { &self.pair.site.legacy };
        let mut command = namespace.command("/usr/bin/python3");
        command.arg(sources().join("python/server.py")).args(["-", "3000"]);
        let started = Process::start(command, &self.log("service")).unwrap();
        self.processes.push(started);
        self.wait_for(host, 3000);
    }

    /// A peer's program in the legacy host's namespace, that ends with the stage.
    pub fn spawn(&mut self, words: &[String]) {
        let started = Process::start(self.legacy(words), &self.log("peers")).unwrap();
        self.processes.push(started);
    }

    /// Has Java take a new key after each 256 KiB.
    pub fn key_limits(&self) -> PathBuf {
        let file = self.pair.site.rig.directory().join("key-limits");
        fs::write(&file, "jdk.tls.keyLimits=AES/GCM/NoPadding KeyUpdate 2^18\n").unwrap();
        file
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.pair.site.rig.directory().join(format!("{name}.log"))
    }

    /// From the host itself, past any gateway.
    pub fn wait_for(&self, host: Host, port: u16) {
        let namespace = if host == Host::Backend { &self.pair.site.backend } else { &self.pair.site.legacy };
        let address = SocketAddr::new(host.v4(), port);
        let open = || namespace.enter(|| TcpStream::connect(address).ok()).ok().flatten();
        let listens = wait_until(&format!("port {port} is listened on"), PATIENCE, open);
        listens
            .unwrap_or_else(|error| panic!("{error:#}; {}", fs::read_to_string(self.log("peers")).unwrap_or_default()));
    }

    /// A program on the legacy host, where the backend's name is in the hosts file.
    pub fn legacy(&self, words: &[String]) -> Command {
        let mut command = self.pair.site.legacy.command("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        command.arg(self.pair.site.rig.directory().join("hosts")).args(words);
        command
    }

    /// A direct client posts the body to the backend.
    pub fn call(&self, mut words: Vec<String>, path: &str, svid: &Svid, groups: Option<&str>) -> Output {
        words.push(format!("https://{BACKEND}:3000{path}"));
        words.extend([&svid.chain, &svid.key, &self.pki.root, &self.body].map(|path| path.display().to_string()));
        words.extend(groups.map(str::to_owned));
        run(self.legacy(&words), PATIENCE).unwrap()
    }

    /// A plain workload posts the body.
    pub fn post(&self, from: &Namespace, url: &str) -> anyhow::Result<Answer> {
        let directory = tempfile::tempdir()?;
        let [head, body] = ["head", "body"].map(|name| directory.path().join(name));
        let mut command = from.command("curl");
        command.args(["-sS", "--fail", "--max-time", "20", "--data-binary"]).arg(format!("@{}", self.body.display()));
        command.arg("--dump-header").arg(&head).arg("--output").arg(&body).arg(url);
        run(command, PATIENCE)?.ok()?;
        let head = fs::read_to_string(head)?;
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
                .next_back()
        };
        Ok(Answer {
            peer: header("x-peer").unwrap_or_default(),
            body: hex(&fs::read(body)?),
            runtime: header("x-runtime").unwrap_or_default(),
        })
    }

    /// Has a gateway's workload show this SVID, and waits until `call` uses it.
    pub fn show(&self, gateway: &Gateway, svid: &Svid, call: impl Fn() -> bool) {
        self.pki.install(svid, &gateway.directory().join("certs"));
        let mut last = None;
        let shown = wait_until("a call is served with the new SVID", PATIENCE, || {
            let identities = gateway.report().ok()?.identities;
            last = identities.into_iter().find(|identity| identity.spiffe_id == svid.id);
            let taken = last.as_ref().is_some_and(|identity| identity.serial.as_ref() == Some(&svid.serial));
            (taken && call() && newest(gateway)?.tls?.local_serial? == svid.serial).then_some(())
        });
        shown.unwrap_or_else(|error| panic!("{error:#}: {last:?}; newest {:#?}", newest(gateway)));
    }
}

fn newest(gateway: &Gateway) -> Option<ConnectionReport> {
    gateway.connections().ok()?.into_iter().next_back()
}

/// What a client has printed, a word and its value on each line.
pub fn answer(output: &Output) -> Answer {
    let text = output.ok().unwrap_or_else(|error| panic!("{error:#}"));
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
    Answer { peer: value("peer "), body: value("body "), runtime: value("runtime ") }
}

/// The refusals of a gateway for this reason, once there are so many.
pub fn refusals(gateway: &Gateway, reason: RefuseReason, count: usize) -> Vec<ConnectionReport> {
    let mut last = Vec::new();
    let found = wait_until(&format!("{count} refusals with {reason}"), Duration::from_secs(5), || {
        last = gateway.refused().ok()?;
        let fit: Vec<_> = last.iter().filter(|c| c.refused == Some(reason)).cloned().collect();
        (fit.len() == count).then_some(fit)
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:#?}"))
}

pub fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
