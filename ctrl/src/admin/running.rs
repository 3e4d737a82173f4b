//! The Gateway that runs: what a change of it is held against, and what is awaited until it is in force.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use snapshot::Version;

use super::{Answer, App};
use crate::running::Running;
use crate::{publish, view};

pub async fn running(State(app): State<App>) -> Answer<Running> {
    app.running().await.map(Json)
}

impl App {
    pub(super) fn waiting_for(&self, status: &view::Status, state: &publish::State) -> String {
        match (&status.version, &state.dataplane, &state.nack) {
            (None, _, _) => "a first snapshot".into(),
            (Some(_), None, _) => "a dataplane to connect".into(),
            (Some(_), Some(_), _) if !self.publisher.is_up_to_date(state) => "the dataplane to start anew".into(),
            (Some(version), Some(_), Some((refused, reason))) if version == refused => {
                format!("the dataplane to take version {version}; it refused: {reason}")
            }
            (Some(version), Some(_), _) => format!("the dataplane to put version {version} in force"),
        }
    }

    /// What a change of the Gateway is held against.
    pub(super) async fn running(&self) -> Result<Running, (StatusCode, Json<view::Failure>)> {
        let running = self.view.borrow().running.clone();
        let unavailable =
            |error: String| (StatusCode::SERVICE_UNAVAILABLE, Json(view::Failure { error, details: vec![] }));
        let mut running = running.ok_or_else(|| unavailable("sluice-ctrl is about to start".into()))?;
        running.look_around(&self.publisher).await.map_err(|error| unavailable(error.to_string()))?;
        Ok(running)
    }

    /// Whether all that is desired is in force by that state, as that version or a later one.
    pub(super) fn is_in_force(&self, state: &publish::State, version: Version) -> bool {
        // Of a dataplane before this one it may be acked, and of a ctrl before this one in force.
        let all = [state.acked, state.in_force].into_iter().all(|known| known >= Some(version));
        state.dataplane.is_some() && all && self.publisher.is_up_to_date(state)
    }
}
