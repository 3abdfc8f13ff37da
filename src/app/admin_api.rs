//! The HTTP API of the admin socket, for the commands of operators.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{
    callbacks::{Quarantine, ReplayOutcome},
    journal::{JournalError, QuarantinedCallback, Stored},
    thingspace::ThingSpace,
};

/// Maximum number of quarantined callbacks in a response. Commands request further pages.
const PAGE: usize = 500;

/// State of the API.
#[derive(Clone)]
pub(super) struct AdminState {
    pub(super) quarantine: Quarantine,
    pub(super) thingspace: Arc<ThingSpace>,
}

/// An error response. The code is for programs, the message for operators.
struct AdminError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

type AdminResponse = Result<Json<Value>, AdminError>;

/// Returns the routes.
pub(super) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/quarantine/after/{id}", get(list))
        .route("/quarantine/replay", post(replay_all))
        .route("/quarantine/{id}", get(show).delete(drop_one))
        .route("/quarantine/{id}/replay", post(replay))
        .route("/thingspace/reset-lockout", post(reset_lockout))
        .with_state(state)
}

/// Lists a page and marks its callbacks as reviewed.
async fn list(State(state): State<AdminState>, Path(after): Path<u64>) -> AdminResponse {
    let page = state.quarantine.store.list_quarantined(after, PAGE).await?;
    if let Some((last, _)) = page.last() {
        state.quarantine.store.mark_quarantined_reviewed(*last).await?;
    }
    let summaries: Vec<Value> =
        page.iter().map(|(id, callback)| summary_json(*id, callback)).collect();
    Ok(Json(json!({ "quarantine": summaries })))
}

async fn show(State(state): State<AdminState>, Path(id): Path<u64>) -> AdminResponse {
    let found = state.quarantine.store.list_quarantined(id.saturating_sub(1), 1).await?;
    let Some((_, callback)) = found.first().filter(|(found, _)| *found == id) else {
        return Err(AdminError::not_found());
    };
    let mut shown = summary_json(id, callback);
    if let Some(members) = shown.as_object_mut() {
        members.insert("body".into(), String::from_utf8_lossy(&callback.body).into());
    }
    Ok(Json(shown))
}

async fn drop_one(State(state): State<AdminState>, Path(id): Path<u64>) -> AdminResponse {
    if !state.quarantine.store.drop_quarantined(id).await? {
        return Err(AdminError::not_found());
    }
    tracing::warn!(id, "operator dropped a quarantined callback");
    Ok(Json(json!({ "dropped": id })))
}

async fn replay(State(state): State<AdminState>, Path(id): Path<u64>) -> AdminResponse {
    let stored = match state.quarantine.replay(id).await? {
        ReplayOutcome::Stored(Stored::New(_)) => "new",
        ReplayOutcome::Stored(Stored::Duplicate) => "duplicate",
        ReplayOutcome::StillUnusable(reason) => {
            let (status, code) = (StatusCode::CONFLICT, "still_unusable");
            return Err(AdminError { status, code, message: reason.to_string() });
        }
        ReplayOutcome::NotFound => return Err(AdminError::not_found()),
    };
    tracing::info!(id, stored, "operator replayed a quarantined callback");
    Ok(Json(json!({ "stored": stored })))
}

async fn replay_all(State(state): State<AdminState>) -> AdminResponse {
    let (stored, still_unusable) = state.quarantine.replay_all().await?;
    tracing::info!(stored, still_unusable, "operator replayed all quarantined callbacks");
    Ok(Json(json!({ "stored": stored, "still_unusable": still_unusable })))
}

async fn reset_lockout(State(state): State<AdminState>) -> AdminResponse {
    state.thingspace.reset_lockout().await.map_err(AdminError::unavailable)?;
    tracing::warn!("operator reset the log-in lock-out");
    Ok(Json(json!({ "reset": true })))
}

fn summary_json(id: u64, callback: &QuarantinedCallback) -> Value {
    json!({
        "id": id,
        "receive_time_us": callback.receive_time.as_micros(),
        "reason": callback.reason,
        "service": callback.service.as_ref().map(|name| name.as_str()),
        "account": callback.account.as_ref().map(|name| name.as_str()),
        "bytes": callback.body.len(),
    })
}

// === impl AdminError ===

impl AdminError {
    fn unavailable(message: String) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: "unavailable", message }
    }

    fn not_found() -> Self {
        let message = "no quarantined callback has this id".to_owned();
        Self { status: StatusCode::NOT_FOUND, code: "not_found", message }
    }
}

impl From<JournalError> for AdminError {
    fn from(error: JournalError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.code, "message": self.message });
        (self.status, Json(body)).into_response()
    }
}
