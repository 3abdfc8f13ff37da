//! The HTTP API of the admin socket, for the commands of operators.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{
    callbacks::{Quarantine, ReplayOutcome},
    journal::{Journal, JournalError, QuarantinedCallback, Stored},
    thingspace::ThingSpace,
};

/// Maximum number of quarantined callbacks in a response. Commands request further pages.
const PAGE: usize = 500;

/// State of the API.
#[derive(Clone)]
pub(super) struct AdminState {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) quarantine: Quarantine,
    pub(super) thingspace: Arc<ThingSpace>,
}

type AdminResponse = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// Returns the routes.
pub(super) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/quarantine", get(list_first))
        .route("/quarantine/after/{id}", get(list))
        .route("/quarantine/replay", post(replay_all))
        .route("/quarantine/{id}", get(show).delete(drop_one))
        .route("/quarantine/{id}/replay", post(replay))
        .route("/thingspace/reset-lockout", post(reset_lockout))
        .with_state(state)
}

// === Quarantine ===

async fn list_first(state: State<AdminState>) -> AdminResponse {
    list(state, Path(0)).await
}

/// Lists a page and marks its callbacks as reviewed.
async fn list(State(state): State<AdminState>, Path(after): Path<u64>) -> AdminResponse {
    let page = state.journal.list_quarantined(after, PAGE).await;
    let page = page.map_err(unavailable)?;
    if let Some((last, _)) = page.last() {
        state.journal.mark_quarantined_reviewed(*last).await.map_err(unavailable)?;
    }
    let summaries: Vec<Value> =
        page.iter().map(|(id, callback)| summary_json(*id, callback)).collect();
    Ok(Json(json!({ "quarantine": summaries })))
}

async fn show(State(state): State<AdminState>, Path(id): Path<u64>) -> AdminResponse {
    let found = state.journal.list_quarantined(id.saturating_sub(1), 1).await;
    let found = found.map_err(unavailable)?.into_iter().next();
    let Some((_, callback)) = found.filter(|(found, _)| *found == id) else {
        return Err(not_found());
    };
    let mut shown = summary_json(id, &callback);
    if let Some(members) = shown.as_object_mut() {
        let body = String::from_utf8_lossy(&callback.body);
        members.insert("body".into(), body.into());
    }
    Ok(Json(shown))
}

async fn drop_one(State(state): State<AdminState>, Path(id): Path<u64>) -> AdminResponse {
    let dropped = state.journal.drop_quarantined(id).await;
    match dropped.map_err(unavailable)? {
        true => {
            tracing::warn!(id, "operator dropped a quarantined callback");
            Ok(Json(json!({ "dropped": id })))
        }
        false => Err(not_found()),
    }
}

async fn replay(State(state): State<AdminState>, Path(id): Path<u64>) -> AdminResponse {
    match state.quarantine.replay(id).await.map_err(unavailable)? {
        ReplayOutcome::Stored(stored) => {
            let stored = match stored {
                Stored::New(_) => "new",
                Stored::Duplicate => "duplicate",
            };
            tracing::info!(id, stored, "operator replayed a quarantined callback");
            Ok(Json(json!({ "stored": stored })))
        }
        ReplayOutcome::StillUnusable(reason) => {
            let response = json!({ "error": "still_unusable", "message": reason });
            Err((StatusCode::CONFLICT, Json(response)))
        }
        ReplayOutcome::NotFound => Err(not_found()),
    }
}

async fn replay_all(State(state): State<AdminState>) -> AdminResponse {
    let replayed = state.quarantine.replay_all().await;
    let (stored, still_unusable) = replayed.map_err(unavailable)?;
    tracing::info!(stored, still_unusable, "operator replayed all quarantined callbacks");
    Ok(Json(json!({ "stored": stored, "still_unusable": still_unusable })))
}

// === ThingSpace ===

async fn reset_lockout(State(state): State<AdminState>) -> AdminResponse {
    match state.thingspace.reset_lockout().await {
        Ok(()) => {
            tracing::warn!("operator reset the log-in lock-out");
            Ok(Json(json!({ "reset": true })))
        }
        Err(error) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "error": "unavailable", "message": error })),
        )),
    }
}

// === Responses ===

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

#[allow(
    clippy::needless_pass_by_value,
    reason = "an argument of map_err, which passes the error by value"
)]
fn unavailable(error: JournalError) -> (StatusCode, Json<Value>) {
    let response = json!({ "error": "unavailable", "message": error.to_string() });
    (StatusCode::SERVICE_UNAVAILABLE, Json(response))
}

fn not_found() -> (StatusCode, Json<Value>) {
    let message = "no quarantined callback has this id";
    let response = json!({ "error": "not_found", "message": message });
    (StatusCode::NOT_FOUND, Json(response))
}
