//! `/metrics` (OpenMetrics), `/livez` and `/readyz` over TCP, read-only.
//!
//! Each scrape asks the dataplane for its counters and encodes them beside what this process
//! knows. Every reason of the closed enums is there, at zero too, so that an alert on one can be
//! written before it ever happens. While no dataplane answers, its numbers are absent rather than
//! zero: a counter that falls would look like a restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use snapshot::{BypassHits, CloseReason, Counters, DropReason, Query, RefuseReason, Reply, RuleHits};

use crate::{admin::App, bundles, fetch, view};

const PATIENCE: Duration = Duration::from_secs(1);
/// Series of single rules: a policy of any length must not fill the store that scrapes it.
const MOST_RULES: usize = 200;
/// Totals that measure rather than count; each core reports them by itself.
const GAUGES: &[&str] =
    &["sessions", "handshaking", "flows", "frames_free", "frames", "endpoints_ejected", "snapshot_version"];
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds now, serves in the background.
pub async fn serve(address: SocketAddr, app: App) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
        format!("admin.metrics: cannot listen on {address}; is another sluice-ctrl running? Choose another port")
    })?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(app);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(bound)
}

async fn readyz(State(app): State<App>) -> (StatusCode, String) {
    if app.publisher.ready() {
        return (StatusCode::OK, "ok\n".into());
    }
    let status = app.status().await;
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", status.waiting_for.unwrap_or_default()))
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let counters = match app.publisher.query(Query::Counters, PATIENCE).await {
        Ok(Reply::Counters(counters)) => Some(counters),
        // Shown by sluice_dataplane_up.
        Ok(
            Reply::Status(_)
            | Reply::Connections { .. }
            | Reply::Rules { .. }
            | Reply::Callers { .. }
            | Reply::Bypasses { .. }
            | Reply::Replayed { .. }
            | Reply::Endpoints { .. }
            | Reply::Explanation(_)
            | Reply::Failed(_),
        )
        | Err(_) => None,
    };
    let mut rules = app.publisher.rules(PATIENCE).await.unwrap_or_default();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.hits));
    rules.truncate(MOST_RULES);
    let bundles = app.view.borrow().bundles.clone();
    let looked_up = [&app.lookups.done, &app.lookups.failed].map(|count| count.load(Relaxed));
    let mut bypasses = app.publisher.bypasses(PATIENCE).await.unwrap_or_default();
    bypasses.truncate(MOST_RULES);
    let scrape = Scrape { status: app.status().await, counters, rules, bundles, looked_up, bypasses };
    ([(header::CONTENT_TYPE, OPENMETRICS)], encode(scrape))
}

/// The text of one scrape.
pub fn encode(scrape: Scrape) -> String {
    let mut registry = Registry::with_prefix("sluice");
    registry.register_collector(Box::new(scrape));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes everything");
    out
}

#[derive(Debug)]
pub struct Scrape {
    pub status: view::Status,
    pub counters: Option<Counters>,
    /// The busiest, at most [`MOST_RULES`].
    pub rules: Vec<RuleHits>,
    pub bundles: Vec<bundles::Row>,
    /// Names, and those of them that failed.
    pub looked_up: [u64; 2],
    /// In the order of the configuration, at most [`MOST_RULES`].
    pub bypasses: Vec<BypassHits>,
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Encoded {
        self.reasons(&mut encoder)?;
        self.snapshot(&mut encoder)?;
        self.identities(&mut encoder)?;
        self.crls(&mut encoder)?;
        self.fetched(&mut encoder)?;
        self.kubernetes(&mut encoder)?;
        self.names(&mut encoder)?;
        self.dataplane(&mut encoder)
    }
}

impl Scrape {
    fn reasons(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let Some(counted) = &self.counters else { return Ok(()) };
        let families = [
            (
                "dropped_packets",
                "Packets that went no further, by reason",
                "reason",
                with_zeros(DropReason::ALL.iter().map(|r| r.name()), &counted.dropped),
            ),
            (
                "refused_connections",
                "Connections that were refused, by reason",
                "reason",
                with_zeros(RefuseReason::ALL.iter().map(|r| r.name()), &counted.refused),
            ),
            (
                "closed_connections",
                "Connections that ended, by reason",
                "reason",
                with_zeros(CloseReason::ALL.iter().map(|r| r.name()), &counted.closed),
            ),
            (
                "steered_packets",
                "Packets seen by the steering program, by outcome",
                "outcome",
                with_zeros([].into_iter(), &counted.steering),
            ),
            (
                "audit_omitted_lines",
                "Lines that the audit log left out, by what was decided",
                "decision",
                with_zeros([].into_iter(), &counted.audit_omitted),
            ),
        ];
        for (name, help, label, values) in families {
            let rows = values.into_iter().map(|(value, count)| (vec![(label, value)], count));
            counters(encoder, name, help, rows)?;
        }
        let rules = self.rules.iter().map(|rule| (vec![("rule", rule.rule.clone())], rule.hits));
        let help = "Calls that a rule of a Policy decided, or in shadow would have";
        counters(encoder, "policy_rule_hits", help, rules)?;
        let rows = |of: fn(&BypassHits) -> u64| {
            self.bypasses.iter().map(move |entry| (vec![("rule", entry.rule.clone())], of(entry)))
        };
        let help = "Plain connections to a MUTUAL port that an entry of connection.bypass let in";
        counters(encoder, "bypass_connections", help, rows(|entry| entry.connections))?;
        let help = "SYNs of the node itself to a MUTUAL port that an entry of connection.bypass let by the guard";
        counters(encoder, "bypass_node_syns", help, rows(|entry| entry.from_node))?;
        for (name, count) in counted.totals.iter().filter(|(name, _)| !GAUGES.contains(&name.as_str())) {
            counters(encoder, name, "Counted by the dataplane, all cores", [(vec![], *count)])?;
        }
        Ok(())
    }

    fn snapshot(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let status = &self.status;
        let in_force = status.dataplane.as_ref().and_then(|d| d.in_force);
        for (name, help, value) in [
            ("snapshot_version", "Version that was assembled last", status.version.map_or(0, |v| v.0)),
            ("snapshot_in_force", "Version that all cores of the dataplane have adopted", in_force.map_or(0, |v| v.0)),
            ("snapshot_refused", "1 while the dataplane refuses the last snapshot", status.last_nack.is_some().into()),
            ("network_revision", "Revision of the mirror of routes and neighbours", status.network_revision),
            ("ready", "1 when the current version is in force", status.ready.into()),
            ("dataplane_up", "1 when a dataplane is connected and answers", status.dataplane.is_some().into()),
            ("config_errors", "Faults of configuration files that were refused", status.config.errors.len() as u64),
            ("config_loaded_timestamp_seconds", "When what is in force was read", status.config.loaded_at),
            ("problems", "Names that do not resolve, identities that cannot be had", status.problems.len() as u64),
            ("start_time_seconds", "When the control process started", status.started_at),
        ] {
            gauges(encoder, name, help, [(vec![], value as i64)])?;
        }
        let build = vec![("version", status.build.clone()), ("node", status.node.clone())];
        gauges(encoder, "build_info", "Build of the control process", [(build, 1)])
    }

    fn identities(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let rows = self.status.identities.iter().map(|i| {
            let labels = vec![("workload", i.workload.clone()), ("spiffe_id", i.spiffe_id.clone())];
            (labels, i.not_after.unwrap_or(0) as i64)
        });
        gauges(encoder, "svid_not_after_timestamp_seconds", "When the SVID expires; 0 if there is none", rows)
    }

    fn crls(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let all = || self.bundles.iter().flat_map(|row| row.crls.iter().map(move |crl| (row, crl)));
        let labels = |row: &bundles::Row, crl: &bundles::CrlRow| {
            vec![("trust_domain", row.trust_domain.clone()), ("issuer", crl.issuer.clone())]
        };
        let next = all().map(|(row, crl)| (labels(row, crl), crl.next as i64));
        gauges(encoder, "crl_next_update_timestamp_seconds", "When the CRL is stale unless the next one comes", next)?;
        let entries = all().map(|(row, crl)| (labels(row, crl), crl.entries as i64));
        gauges(encoder, "crl_entries", "Certificates that the CRL revokes", entries)
    }

    fn fetched(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let all = || self.bundles.iter().flat_map(|row| row.fetched.iter().map(move |source| (row, source)));
        // The field tells two URLs apart that differ in what is not shown of them.
        let labels = |row: &bundles::Row, source: &fetch::Row| {
            let (domain, field, url) = (row.trust_domain.clone(), source.field.clone(), source.url.clone());
            vec![("trust_domain", domain), ("field", field), ("url", url)]
        };
        let got = all().map(|(row, source)| (labels(row, source), source.got_at.unwrap_or(0) as i64));
        let help = "When a bundle or CRL was fetched and taken last; 0 if never";
        gauges(encoder, "fetched_timestamp_seconds", help, got)?;
        let numbers = all().filter_map(|(row, source)| Some((labels(row, source), source.sequence? as i64)));
        gauges(encoder, "bundle_sequence", "spiffe_sequence of the bundle that was fetched last", numbers)?;
        let fetches = all().map(|(row, source)| (labels(row, source), source.counts.fetched));
        counters(encoder, "fetches", "How often a bundle or CRL was fetched and taken", fetches)?;
        let failures = all().map(|(row, source)| (labels(row, source), source.counts.failed));
        let help = "How often a bundle or CRL could not be fetched, or was refused: the last good stays";
        counters(encoder, "fetch_failures", help, failures)
    }

    fn kubernetes(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let all = || self.status.kubernetes.iter();
        let of = |watched: &view::Watched| vec![("list", watched.what.clone())];
        let stands = all().map(|watched| (of(watched), watched.since.is_some().into()));
        gauges(encoder, "kubernetes_watched", "1 while a list of the API is being watched", stands)?;
        let known = all().map(|watched| (of(watched), watched.known.unwrap_or(0) as i64));
        gauges(encoder, "kubernetes_known", "What a list of the API held when it was heard of last", known)?;
        let heard = all().map(|watched| (of(watched), watched.heard_at.unwrap_or(0) as i64));
        gauges(encoder, "kubernetes_heard_timestamp_seconds", "When the API last said something of a list", heard)?;
        let odd = all().map(|watched| (of(watched), watched.odd as i64));
        let help = "Objects of a list that are left as they were last, since they are not understood now";
        gauges(encoder, "kubernetes_odd", help, odd)?;
        let lists = all().map(|watched| (of(watched), watched.lists));
        counters(encoder, "kubernetes_lists", "How often a list was read whole", lists)?;
        let failures = all().map(|watched| (of(watched), watched.failures));
        counters(encoder, "kubernetes_failures", "How often a list could not be read or watched", failures)
    }

    fn names(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let [done, failed] = self.looked_up;
        counters(encoder, "name_lookups", "Names of Services that were looked up", [(vec![], done)])?;
        let help = "Names of Services that were looked up in vain: older addresses serve";
        counters(encoder, "name_lookup_failures", help, [(vec![], failed)])?;
        let ejected =
            self.counters.as_ref().and_then(|c| c.totals.iter().find(|(name, _)| name == "endpoints_ejected"));
        let help = "Endpoints behind virtual addresses that a core gives no calls at present, summed over cores";
        gauges(encoder, "endpoints_ejected", help, ejected.map(|(_, count)| (vec![], *count as i64)))
    }

    fn dataplane(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let Some(dataplane) = &self.status.dataplane else { return Ok(()) };
        let cores = |value: fn(&snapshot::CoreReport) -> u64| {
            dataplane.cores.iter().map(move |c| (vec![("core", c.core.to_string())], value(c) as i64))
        };
        gauges(encoder, "sessions", "Sessions held by a core", cores(|c| c.sessions))?;
        gauges(encoder, "handshakes", "Handshakes under way on a core", cores(|c| c.handshakes))?;
        gauges(encoder, "flows", "Flow entries of a core", cores(|c| c.flows))?;
        gauges(encoder, "frames", "Frames of a core's UMEM", cores(|c| c.frames))?;
        gauges(encoder, "frames_free", "Free frames of a core's UMEM", cores(|c| c.frames_free))?;
        let ports = dataplane.ports.iter().map(|p| {
            let labels = vec![("interface", p.interface.clone()), ("side", view::side(p.side).into())];
            (labels, i64::from(p.up))
        });
        gauges(encoder, "port_up", "1 when a port can receive and send", ports)
    }
}

type Labels = Vec<(&'static str, String)>;

fn gauges(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (Labels, i64)>,
) -> Encoded {
    family(encoder, name, help, MetricType::Gauge, rows.into_iter().map(|(l, v)| (l, ConstGauge::new(v))))
}

fn counters(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (Labels, u64)>,
) -> Encoded {
    family(encoder, name, help, MetricType::Counter, rows.into_iter().map(|(l, v)| (l, ConstCounter::new(v))))
}

fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    kind: MetricType,
    rows: impl Iterator<Item = (Labels, M)>,
) -> Encoded {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            // A family without labels is one value.
            return value.encode(metric);
        }
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// All names, in order, with what was counted; names that are not in the enum are kept.
fn with_zeros(names: impl Iterator<Item = &'static str>, counted: &[(String, u64)]) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = names.map(|name| (name.to_owned(), 0)).collect();
    for (name, count) in counted {
        *all.entry(name.clone()).or_default() += count;
    }
    all
}
