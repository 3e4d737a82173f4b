//! The same code as the programs', called one phase after the other and timed in this thread's CPU time.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ctrl::config::{self, Known, Loaded};
use ctrl::resolve::Resolved;
use ctrl::rotate::Identities;
use ctrl::source::EmbeddedCa;
use ctrl::{assemble, clock};
use dataplane::io::PortId;
use dataplane::policy::{Verdict, captures::captures, decide};
use dataplane::snapshot::{Compiled, Keys};
use dataplane::tls::{Peer, Root, provider};
use pktgen_tests::netns::gateway;
use rustix::time::{ClockId, clock_gettime};
use snapshot::{Link, Network, Side, Snapshot, Version, codec};

use super::{Options, Row, files, row};

/// Verdicts that are timed together.
const VERDICTS: usize = 1_000_000;

const GATEWAY: &str = "apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: { name: scale }
spec:
  trustDomain: example.com
  ports: [{ interface: in0, side: inside }, { interface: out0, side: outside }]
  cores: [0]
  identity: { source: embedded, embedded: { directory: ca } }
  admin: { socket: /run/sluice/scale.sock }
";

pub fn measure(options: &Options) -> Result<Vec<Row>> {
    let directory = Temporary::new()?;
    let (authority, ca) = (directory.0.join("root"), directory.0.join("ca"));
    gateway::authority(&authority)?;
    gateway::issue_node(&authority, "scale", &ca)?;
    let mut texts: Vec<(PathBuf, String)> = vec![("gateway.yaml".into(), GATEWAY.into())];
    texts.push(("workloads.yaml".into(), files::identities(options.identities)));
    texts
        .extend(files::policies(options.rules, options.identities).into_iter().map(|(name, text)| (name.into(), text)));
    let mut rows = vec![];
    let mut phase = |what: &'static str, ms: f64| rows.push(row(what, ms, "ms CPU"));

    let mut known = Known::default();
    let (loaded, ms) = timed(|| load(&directory.0, &texts, &mut known));
    phase("read all files", ms);
    texts[2].1 = edited(options);
    let (loaded_again, ms) = timed(|| load(&directory.0, &texts, &mut known));
    (_, _) = (loaded?, phase("read them again, one changed", ms));
    let loaded = loaded_again?;

    let (network, resolved, now) = (network(), Resolved::default(), clock::now());
    let source: Box<dyn ctrl::source::Source> = Box::new(EmbeddedCa::open(&ca)?);
    let mut identities = Identities::new(source, 1);
    let (wanted, ms) = timed(|| assemble::wanted(&loaded, &network, &resolved));
    phase("attest", ms);
    ensure!(wanted.len() == options.identities, "{} of {} are attested", wanted.len(), options.identities);
    phase("issue all SVIDs", timed(|| identities.refresh(&wanted, now)).1);
    phase("look at the schedule", timed(|| identities.refresh(&wanted, now)).1);
    let (made, ms) = timed(|| assemble::assemble(&loaded, &network, &resolved, &identities, Version(1), now));
    phase("assemble", ms);
    let (snapshot, keys, _) = made.map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let (bytes, ms) = timed(|| codec::to_state(&snapshot));
    phase("encode", ms);
    let bytes = bytes?;
    let (decoded, ms) = timed(|| codec::from_state::<Snapshot>(&bytes));
    phase("decode", ms);
    let decoded = decoded?;
    let (checked, ms) = timed(|| snapshot::check::check(&decoded));
    (_, _) = (checked?, phase("check", ms));

    let keys: Keys = keys.into_iter().collect();
    let provider = provider::production();
    let (first, ms) = timed(|| Compiled::compile(&decoded, &keys, &provider, None));
    phase("compile the first", ms);
    let first = first?;
    let (next, ms) = timed(|| Compiled::compile(&decoded, &keys, &provider, Some(&first)));
    phase("compile the next", ms);
    let next = next?;
    let ports = [(PortId(0), "in0", Side::Inside), (PortId(1), "out0", Side::Outside)];
    phase("captures", timed(|| captures(&next, &ports)).1);
    rows.push(row("snapshot", bytes.len() as f64 / 1e6, "MB"));
    rows.extend(verdicts(&next, now)?);
    Ok(rows)
}

fn load(directory: &Path, texts: &[(PathBuf, String)], known: &mut Known) -> Result<Loaded> {
    config::load_texts(directory, texts, known).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

fn edited(options: &Options) -> String {
    let count = options.rules.div_ceil(files::EACH);
    files::policy(0, count, files::EACH.min(options.rules), options.identities, 1)
}

fn network() -> Network {
    let link =
        |name: &str, index| Link { name: name.into(), index, mac: [2; 6], mtu: 1500, up: true, addresses: vec![] };
    Network { links: vec![link("in0", 1), link("out0", 2)], ..Network::default() }
}

/// A call to each workload in turn, by the one caller that its list admits.
fn verdicts(compiled: &Compiled, now: u64) -> Result<Vec<Row>> {
    let client: SocketAddr = ([198, 19, 0, 1], 40_000).into();
    let peer = Peer {
        spiffe_id: "spiffe://example.com/shop/caller".into(),
        serial: "1".into(),
        not_after: now + 3600,
        root: Root::of_nobody(),
        issued: Arc::default(),
    };
    let count = compiled.workloads.len();
    let route = |n: usize| compiled.route(Side::Outside, "out0", client, (files::address(n), 443).into(), now);
    let routes: Vec<_> = (0..count).map(route).collect();
    let allowed = routes.iter().filter(|route| matches!(decide(compiled, route, Some(&peer)), Verdict::Allow(_)));
    ensure!(allowed.count() == count, "the calls are not all allowed: {:?}", routes[0]);
    let (_, of_routes) = timed(|| (0..VERDICTS).for_each(|n| drop(black_box(route(n * 7_919 % count)))));
    let (_, of_verdicts) = timed(|| {
        (0..VERDICTS).for_each(|n| {
            black_box(decide(compiled, &routes[n * 7_919 % count], Some(&peer)));
        });
    });
    let each = |ms: f64| ms * 1e6 / VERDICTS as f64;
    Ok(vec![row("route of a SYN", each(of_routes), "ns CPU"), row("verdict on a peer", each(of_verdicts), "ns CPU")])
}

/// With its milliseconds of CPU.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let spent = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let before = spent();
    let done = work();
    (done, spent() - before)
}

struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sluice-scale-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
