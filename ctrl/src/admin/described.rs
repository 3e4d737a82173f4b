//! One Service, Policy or trust domain in all its parts, and the names that there are.

use axum::Json;
use axum::extract::{Query as Parameters, State};
use axum::http::StatusCode;
use serde::Deserialize;
use snapshot::Query;
use tokio::sync::oneshot;

use super::{Answer, App, PATIENCE, wrong};
use crate::describe::{self, Asked, Unknown};
use crate::publish::QueryError;
use crate::runtime::Wish;
use crate::view;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    name: String,
}

pub async fn service(
    State(app): State<App>,
    Parameters(Named { name }): Parameters<Named>,
) -> Answer<Box<describe::Service>> {
    let mut service = ask(&app, |answer| Asked::Service(name, answer)).await?;
    let counted = async {
        let loads = app.publisher.endpoints(PATIENCE).await?;
        Ok((loads, app.publisher.connections(Query::Live, PATIENCE).await?))
    };
    let counted = counted.await.map_err(|error: QueryError| error.to_string());
    service.count(counted.as_ref().map(|(loads, live)| (&**loads, &**live)).map_err(Clone::clone));
    Ok(Json(service))
}

pub async fn policy(
    State(app): State<App>,
    Parameters(Named { name }): Parameters<Named>,
) -> Answer<Box<describe::Policy>> {
    let mut policy = ask(&app, |answer| Asked::Policy(name, answer)).await?;
    let hits = app.publisher.rules(PATIENCE).await;
    policy.count(hits.as_deref().map_err(ToString::to_string));
    Ok(Json(policy))
}

/// By its trust domain, or by the name of its TrustBundle.
pub async fn bundle(
    State(app): State<App>,
    Parameters(Named { name }): Parameters<Named>,
) -> Answer<Box<describe::Bundle>> {
    let mut bundle = ask(&app, |answer| Asked::Bundle(name, answer)).await?;
    let live = app.publisher.connections(Query::Live, PATIENCE).await;
    bundle.count(live.as_deref().map_err(ToString::to_string));
    Ok(Json(bundle))
}

pub async fn names(State(app): State<App>) -> Json<view::Names> {
    let view = app.view.borrow().clone();
    Json(view::Names::of(&view.resources, &view.bundles))
}

async fn ask<T>(
    app: &App,
    asked: impl FnOnce(oneshot::Sender<describe::Answer<T>>) -> Asked,
) -> Result<Box<T>, (StatusCode, Json<view::Failure>)> {
    let (answer, out) = oneshot::channel();
    let _ = app.wishes.send(Wish::Describe(asked(answer))).await;
    let described = out.await.map_err(|_| wrong("sluice-ctrl is stopping".into()))?;
    described.map_err(|unknown: Unknown| {
        let failure = view::Failure { error: unknown.to_string(), details: vec![] };
        (StatusCode::NOT_FOUND, Json(failure))
    })
}
