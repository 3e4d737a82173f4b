//! What a changed file would be, without making it so: to the resources, and to calls that there were.

use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::{Answer, App, unavailable, wrong};
use crate::apply::{self, Plan};
use crate::at_stake::Dropped;
use crate::config::Loaded;
use crate::difference::Change;
use crate::runtime::Wish;
use crate::view;

/// For a dataplane that compiles 100,000 rules and decides every call that it has recorded by them.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn diff(State(app): State<App>, Json(asked): Json<view::Trial>) -> Answer<Vec<Change>> {
    let plan = plan(&app, asked).await?;
    plan.changes().map(Json).map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, Json(error.into())))
}

pub async fn replay(State(app): State<App>, Json(asked): Json<view::Trial>) -> Answer<view::Replayed> {
    let since = asked.since;
    let loaded = plan(&app, asked).await?.loaded;
    let (answer, out) = oneshot::channel();
    let _ = app.wishes.send(Wish::Assemble(Box::new(loaded), answer)).await;
    let snapshot = out.await.map_err(|_| wrong("sluice-ctrl is stopping".into()))?.map_err(unfit)?;
    let (recorded, turned) = app.publisher.replay(&snapshot, since, PATIENCE).await.map_err(unavailable)?;
    Ok(Json(view::Replayed { recorded, turned }))
}

/// The roots that a configuration would drop.
pub async fn dropped(app: &App, loaded: Loaded) -> Result<Vec<Dropped>, (StatusCode, Json<view::Failure>)> {
    let (answer, out) = oneshot::channel();
    let _ = app.wishes.send(Wish::Drop(Box::new(loaded), answer)).await;
    out.await.map_err(|_| wrong("sluice-ctrl is stopping".into()))?.map_err(unfit)
}

/// The configuration with the file in it.
async fn plan(app: &App, asked: view::Trial) -> Result<Plan, (StatusCode, Json<view::Failure>)> {
    let directory = app.view.borrow().status.config.directory.clone();
    let known = app.known.clone();
    let change = view::Apply { file: asked.file, text: asked.text, dry_run: true, force: false };
    let plan = move || apply::plan(Path::new(&directory), &change, &mut known.lock().expect("no holder panics"));
    let plan = tokio::task::spawn_blocking(plan).await.expect("planning does not panic");
    let refused = |error: apply::Error| (StatusCode::UNPROCESSABLE_ENTITY, Json(error.into()));
    plan.map_err(refused)
}

fn unfit(details: Vec<String>) -> (StatusCode, Json<view::Failure>) {
    let error = "the configuration would not be taken with this change".into();
    (StatusCode::UNPROCESSABLE_ENTITY, Json(view::Failure { error, details }))
}
