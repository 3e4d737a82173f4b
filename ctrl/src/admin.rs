//! The admin API: HTTP over a Unix socket that only the owner may open.
//!
//! ```text
//!   GET  /v1/status  /v1/identities  /v1/bundles  /v1/config  /v1/counters
//!   GET  /v1/policies  /v1/services  /v1/bypasses  /v1/running
//!   GET  /v1/describe/service|policy|bundle?name=NAME   /v1/names
//!   GET  /v1/connections?which=live|refused|closed
//!   GET  /v1/callers[?of=NAME]
//!   GET  /v1/explain?from=ID|ADDR&to=ADDR:PORT[&at=ADDR]
//!   GET  /v1/whois?peer=ADDR:PORT[&local=ADDR:PORT]
//!   POST /v1/apply   {"file", "text", "dry_run", "force"}
//!   POST /v1/diff    {"file", "text"}
//!   POST /v1/replay  {"file", "text", "since"}
//!   POST /v1/reload  {"wait_ms"}
//! ```
//! What is not 200 is a [`view::Failure`]. No answer holds a private key: none gets as far as here.

mod described;
mod running;
mod trial;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query as Parameters, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use snapshot::report::Caller;
use snapshot::{ConnectionReport, Counters, Explanation, Query, Reply};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Known;
use crate::publish::socket::{self, Lock, SocketType};
use crate::publish::{Publisher, QueryError};
use crate::resolve::Counts;
use crate::runtime::{View, Wish};
use crate::{apply, at_stake, bundles, clock, migrate, services, view, whois};

/// How long the dataplane may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of a request: a file with 100,000 rules takes some 20 MB.
const LARGEST_FILE: usize = 64 << 20;

#[derive(Debug, Clone)]
pub struct App {
    pub publisher: Publisher,
    pub view: watch::Receiver<Arc<View>>,
    pub known: Arc<Mutex<Known>>,
    pub wishes: mpsc::Sender<Wish>,
    pub lookups: Arc<Counts>,
}

type Answer<T> = Result<Json<T>, (StatusCode, Json<view::Failure>)>;

/// Serves in the background.
pub fn serve(path: &Path, lock: &Lock, app: App) -> std::io::Result<()> {
    let listener = socket::listen(path, SocketType::STREAM, lock)?;
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/identities", get(identities))
        .route("/v1/bundles", get(bundles))
        .route("/v1/config", get(config))
        .route("/v1/counters", get(counters))
        .route("/v1/policies", get(policies))
        .route("/v1/services", get(services))
        .route("/v1/bypasses", get(bypasses))
        .route("/v1/describe/service", get(described::service))
        .route("/v1/describe/policy", get(described::policy))
        .route("/v1/describe/bundle", get(described::bundle))
        .route("/v1/names", get(described::names))
        .route("/v1/connections", get(connections))
        .route("/v1/callers", get(callers))
        .route("/v1/explain", get(explain))
        .route("/v1/whois", get(whois))
        .route("/v1/running", get(running::running))
        .route("/v1/apply", post(apply))
        .route("/v1/diff", post(trial::diff))
        .route("/v1/replay", post(trial::replay))
        .route("/v1/reload", post(reload))
        .layer(DefaultBodyLimit::max(LARGEST_FILE))
        .with_state(app);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

impl App {
    /// The view, completed with what the dataplane says now.
    pub async fn status(&self) -> view::Status {
        let view = self.view.borrow().clone();
        let state = self.publisher.state().borrow().clone();
        let mut status = view.status.clone();
        status.kubernetes = view.kubernetes.now();
        status.network_revision = self.publisher.network_revision();
        status.last_nack = state.nack.as_ref().map(|(version, reason)| format!("version {version}: {reason}"));
        match self.publisher.query(Query::Status, PATIENCE).await {
            Ok(Reply::Status(dataplane)) => status.dataplane = Some(dataplane),
            Ok(
                Reply::Counters(_)
                | Reply::Connections { .. }
                | Reply::Rules { .. }
                | Reply::Callers { .. }
                | Reply::Bypasses { .. }
                | Reply::Replayed { .. }
                | Reply::Endpoints { .. }
                | Reply::Explanation(_)
                | Reply::Failed(_),
            ) => status.dataplane_error = Some(QueryError::Unexpected.to_string()),
            Err(e) => status.dataplane_error = Some(e.to_string()),
        }
        status.problems.extend(view.named.iter().filter(|named| named.is_absent()).map(|named| named.problem.clone()));
        status.ready = self.publisher.ready();
        status.waiting_for = (!status.ready).then(|| self.waiting_for(&status, &state));
        status
    }

    /// Of one workload or Service, or of all workloads that were called.
    async fn callers(&self, of: Option<String>) -> Result<migrate::Callers, QueryError> {
        let (all, now) = (of.is_none(), clock::now());
        let reply = match self.publisher.query(Query::Callers { of }, PATIENCE).await {
            // Without a dataplane nobody calls anybody.
            Err(QueryError::NoDataplane) if all => {
                return Ok(migrate::Callers { since: now, lost: 0, workloads: vec![] });
            }
            answered => answered?,
        };
        match reply {
            Reply::Callers { since, lost, part, more: _ } => {
                let rows = part.into_iter().map(|called| migrate::Row::of(called, now));
                Ok(migrate::Callers { since, lost, workloads: rows.collect() })
            }
            Reply::Status(_)
            | Reply::Counters(_)
            | Reply::Connections { .. }
            | Reply::Rules { .. }
            | Reply::Bypasses { .. }
            | Reply::Replayed { .. }
            | Reply::Endpoints { .. }
            | Reply::Explanation(_)
            | Reply::Failed(_) => Err(QueryError::Unexpected),
        }
    }
}

async fn status(State(app): State<App>) -> Json<view::Status> {
    Json(app.status().await)
}

async fn identities(State(app): State<App>) -> Json<Vec<view::Identity>> {
    Json(app.view.borrow().status.identities.clone())
}

async fn bundles(State(app): State<App>) -> Json<Vec<bundles::Row>> {
    Json(app.view.borrow().bundles.clone())
}

async fn config(State(app): State<App>) -> Json<Arc<view::Resources>> {
    Json(app.view.borrow().resources.clone())
}

async fn counters(State(app): State<App>) -> Answer<Counters> {
    match app.publisher.query(Query::Counters, PATIENCE).await.map_err(unavailable)? {
        Reply::Counters(counters) => Ok(Json(counters)),
        Reply::Status(_)
        | Reply::Connections { .. }
        | Reply::Rules { .. }
        | Reply::Callers { .. }
        | Reply::Bypasses { .. }
        | Reply::Replayed { .. }
        | Reply::Endpoints { .. }
        | Reply::Explanation(_)
        | Reply::Failed(_) => Err(unavailable(QueryError::Unexpected)),
    }
}

/// The rules of the configuration, each with how often it decided.
async fn policies(State(app): State<App>) -> Answer<Vec<view::PolicyRow>> {
    let hits = app.publisher.rules(PATIENCE).await.map_err(unavailable)?;
    let hits: HashMap<_, _> = hits.into_iter().map(|hit| (hit.rule, hit.hits)).collect();
    let view = app.view.borrow().clone();
    let counted = |row: &view::PolicyRow| view::PolicyRow {
        hits: Some(hits.get(&row.rule).copied().unwrap_or(0)),
        ..row.clone()
    };
    Ok(Json(view.resources.policies.iter().map(counted).collect()))
}

/// The Services in force, with what the cores know of their endpoints. Without a dataplane nobody calls any.
async fn services(State(app): State<App>) -> Answer<Vec<services::Row>> {
    let loads = match app.publisher.endpoints(PATIENCE).await {
        Err(QueryError::NoDataplane) => vec![],
        answered => answered.map_err(unavailable)?,
    };
    let view = app.view.borrow().clone();
    Ok(Json(services::rows(&view.services, &loads)))
}

/// The plain callers that MUTUAL ports let in, each with what it was let in for.
async fn bypasses(State(app): State<App>) -> Answer<Vec<view::BypassRow>> {
    let hits = app.publisher.bypasses(PATIENCE).await.map_err(unavailable)?;
    let hits: HashMap<_, _> = hits.into_iter().map(|hit| (hit.rule, (hit.connections, hit.from_node))).collect();
    let view = app.view.borrow().clone();
    let counted = |row: &view::BypassRow| {
        let (connections, from_node) = hits.get(&row.rule).copied().unwrap_or_default();
        view::BypassRow { connections: Some(connections), from_node: Some(from_node), ..row.clone() }
    };
    Ok(Json(view.resources.bypasses.iter().map(counted).collect()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default = "live")]
    which: String,
}

fn live() -> String {
    "live".into()
}

async fn connections(State(app): State<App>, Parameters(asked): Parameters<Which>) -> Answer<Vec<ConnectionReport>> {
    let query = match asked.which.as_str() {
        "live" => Query::Live,
        "refused" => Query::Refused,
        "closed" => Query::Closed,
        other => return Err(wrong(format!("which={other}: use live, refused or closed"))),
    };
    app.publisher.connections(query, PATIENCE).await.map(Json).map_err(unavailable)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromTo {
    from: String,
    to: String,
    at: Option<String>,
}

async fn explain(State(app): State<App>, Parameters(asked): Parameters<FromTo>) -> Answer<Explanation> {
    let from = caller(&asked.from, asked.at.as_deref()).map_err(wrong)?;
    let to: SocketAddr =
        asked.to.parse().map_err(|_| wrong(format!("to={}: use ADDRESS:PORT, [ADDRESS]:PORT for IPv6", asked.to)))?;
    match app.publisher.query(Query::Explain { from, to }, PATIENCE).await.map_err(unavailable)? {
        Reply::Explanation(explanation) => Ok(Json(explanation)),
        Reply::Status(_)
        | Reply::Connections { .. }
        | Reply::Rules { .. }
        | Reply::Callers { .. }
        | Reply::Bypasses { .. }
        | Reply::Replayed { .. }
        | Reply::Endpoints { .. }
        | Reply::Counters(_)
        | Reply::Failed(_) => Err(unavailable(QueryError::Unexpected)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    of: Option<String>,
}

async fn callers(State(app): State<App>, Parameters(asked): Parameters<Of>) -> Answer<migrate::Callers> {
    app.callers(asked.of).await.map(Json).map_err(unavailable)
}

/// A SPIFFE ID or an address; of an ID, where it calls from.
pub fn caller(text: &str, at: Option<&str>) -> Result<Caller, String> {
    match (text.parse(), at) {
        (Ok(address), None) => Ok(Caller::Address(address)),
        (Ok(_), Some(_)) => Err(format!("from={text} is an address already: leave at= out")),
        (Err(_), None) if text.starts_with("spiffe://") => Ok(Caller::Id(text.into())),
        (Err(_), Some(at)) if text.starts_with("spiffe://") => match at.parse() {
            Ok(address) => Ok(Caller::IdAt(text.into(), address)),
            Err(_) => Err(format!("at={at}: use an address")),
        },
        (Err(_), _) => Err(format!("from={text}: use a SPIFFE ID (spiffe://...) or an address")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    peer: String,
    local: Option<String>,
}

async fn whois(State(app): State<App>, Parameters(asked): Parameters<Ends>) -> Answer<Vec<whois::Row>> {
    let peer = whois::end("peer", &asked.peer).map_err(wrong)?;
    let local = asked.local.map(|local| whois::end("local", &local)).transpose().map_err(wrong)?;
    let found = app.publisher.connections(Query::With { peer, local }, PATIENCE).await.map_err(unavailable)?;
    let identities = &app.view.borrow().status.identities;
    Ok(Json(found.into_iter().map(|report| whois::Row::of(report, peer, identities)).collect()))
}

async fn apply(State(app): State<App>, Json(asked): Json<view::Apply>) -> Answer<view::Applied> {
    let view = app.view.borrow().clone();
    let refused = |failure: view::Failure| (StatusCode::UNPROCESSABLE_ENTITY, Json(failure));
    let (directory, force) = (view.status.config.directory.clone(), asked.force);
    let known = app.known.clone();
    let plan = move || apply::plan(Path::new(&directory), &asked, &mut known.lock().expect("no holder panics"));
    let plan = tokio::task::spawn_blocking(plan);
    let mut plan = plan.await.expect("planning does not panic").map_err(|error| refused(error.into()))?;
    let running = app.running().await?;
    plan.hold_against(&running).map_err(|error| refused(error.into()))?;
    let dropped = trial::dropped(&app, plan.loaded.clone()).await?;
    if !force {
        let restarts = !running.restarts_for(&plan.loaded.gateway).is_empty();
        let live = if dropped.is_empty() && !restarts { vec![] } else { living(&app).await? };
        let cut = at_stake::refusal(&at_stake::cut(&dropped, &live));
        if let Some(failure) = cut.or_else(|| running.refusal(&plan.loaded, live.len())) {
            return Err((StatusCode::CONFLICT, Json(failure)));
        }
        if migrate::is_stricter(&view.resources.identities, &plan.loaded) {
            let callers = app.callers(None).await.map_err(unavailable)?;
            if let Some(failure) = callers.refusal(&plan.loaded, clock::now()) {
                return Err((StatusCode::CONFLICT, Json(failure)));
            }
        }
    }
    let done = tokio::task::spawn_blocking(move || plan.carry_out());
    done.await.expect("writing does not panic").map(Json).map_err(|error| refused(error.into()))
}

/// Reads the directory now, and waits until what it holds is in force.
async fn reload(State(app): State<App>, Json(asked): Json<view::Reload>) -> Answer<view::InForce> {
    let (answer, out) = oneshot::channel();
    let _ = app.wishes.send(Wish::Reload(answer)).await;
    let ended = |_| wrong("sluice-ctrl is stopping".into());
    let refused = |details| {
        let error = "the configuration is not taken; the one before stays in force".into();
        (StatusCode::UNPROCESSABLE_ENTITY, Json(view::Failure { error, details }))
    };
    let version = out.await.map_err(ended)?.map_err(refused)?;
    let mut state = app.publisher.state();
    let settled = state.wait_for(|state| {
        let nacked = state.nack.as_ref().is_some_and(|(refused, _)| *refused >= version);
        app.is_in_force(state, version) || nacked
    });
    let _ = tokio::time::timeout(Duration::from_millis(asked.wait_ms), settled).await;
    let state = state.borrow().clone();
    let in_force = app.is_in_force(&state, version);
    let status = view::Status { version: Some(version), ..view::Status::default() };
    let waiting_for = (!in_force).then(|| app.waiting_for(&status, &state));
    Ok(Json(view::InForce { version, in_force, waiting_for, no_dataplane: state.dataplane.is_none() }))
}

/// Without a dataplane nothing lives; one that does not answer may have thousands.
async fn living(app: &App) -> Result<Vec<ConnectionReport>, (StatusCode, Json<view::Failure>)> {
    match app.publisher.connections(Query::Live, PATIENCE).await {
        Err(QueryError::NoDataplane) => Ok(vec![]),
        answered => answered.map_err(unavailable),
    }
}

fn wrong(error: String) -> (StatusCode, Json<view::Failure>) {
    (StatusCode::BAD_REQUEST, Json(view::Failure { error, details: vec![] }))
}

fn unavailable(error: QueryError) -> (StatusCode, Json<view::Failure>) {
    (StatusCode::SERVICE_UNAVAILABLE, Json(view::Failure { error: error.to_string(), details: vec![] }))
}
