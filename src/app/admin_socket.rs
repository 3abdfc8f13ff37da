//! Where an operator's commands reach the running gateway: HTTP on a Unix socket that only the
//! gateway's own user can open.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Path as Segment, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::{
    callbacks::{Quarantine, ReplayOutcome},
    journal::{Journal, JournalError, QuarantinedCallback, Stored},
    thingspace::ThingSpace,
};

/// Kept callbacks that one answer lists; a command asks again for more.
const PAGE: usize = 500;

/// What commands need.
#[derive(Clone)]
pub(super) struct AdminState {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) quarantine: Quarantine,
    pub(super) thingspace: Arc<ThingSpace>,
}

type AdminResponse = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// Creates the socket. A socket without a listener at its path was left behind by a process that was
/// killed, and is removed; anything else there is left alone.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other(
                "what is there is not a socket; remove it, or choose another path",
            ));
        }
        Ok(_) => remove_abandoned(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn remove_abandoned(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other(
            "another process listens on it; stop that, or choose another path",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Serves commands until `stop`, and takes the socket away with it.
pub(super) async fn serve(
    listener: UnixListener,
    path: PathBuf,
    operator: AdminState,
    stop: CancellationToken,
) {
    // Also when this is cut off at the end of a drain.
    let _guard = SocketGuard::new(path);
    let router = Router::new()
        .route("/quarantine", get(list_first))
        .route("/quarantine/after/{id}", get(list))
        .route("/quarantine/replay", post(replay_all))
        .route("/quarantine/{id}", get(show).delete(drop_one))
        .route("/quarantine/{id}/replay", post(replay))
        .route("/thingspace/reset-lockout", post(reset_lockout))
        .with_state(operator);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin socket failed");
    }
}

/// Removes the socket when it is dropped, unless another file has taken its place.
struct SocketGuard {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketGuard {
    fn new(path: PathBuf) -> Self {
        let inode = inode(&path);
        Self { path, inode }
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // Left behind it would only be in the way of a backup.
            let _left = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

// === Quarantine ===

async fn list_first(operator: State<AdminState>) -> AdminResponse {
    list(operator, Segment(0)).await
}

async fn list(State(operator): State<AdminState>, Segment(after): Segment<u64>) -> AdminResponse {
    let page = operator.journal.list_quarantined(after, PAGE).await;
    let page = page.map_err(unavailable)?;
    if let Some((last, _)) = page.last() {
        operator
            .journal
            .mark_quarantined_reviewed(*last)
            .await
            .map_err(unavailable)?;
    }
    let heads: Vec<Value> = page
        .iter()
        .map(|(id, one)| summary_json(*id, one))
        .collect();
    Ok(Json(json!({ "quarantine": heads })))
}

async fn show(State(operator): State<AdminState>, Segment(id): Segment<u64>) -> AdminResponse {
    let found = operator
        .journal
        .list_quarantined(id.saturating_sub(1), 1)
        .await;
    let found = found.map_err(unavailable)?.into_iter().next();
    let Some((_, one)) = found.filter(|(found, _)| *found == id) else {
        return Err(not_found());
    };
    let mut shown = summary_json(id, &one);
    if let Some(members) = shown.as_object_mut() {
        members.insert("body".into(), String::from_utf8_lossy(&one.body).into());
    }
    Ok(Json(shown))
}

async fn drop_one(State(operator): State<AdminState>, Segment(id): Segment<u64>) -> AdminResponse {
    match operator
        .journal
        .drop_quarantined(id)
        .await
        .map_err(unavailable)?
    {
        true => {
            tracing::warn!(id, "an operator dropped a callback from the quarantine");
            Ok(Json(json!({ "dropped": id })))
        }
        false => Err(not_found()),
    }
}

async fn replay(State(operator): State<AdminState>, Segment(id): Segment<u64>) -> AdminResponse {
    match operator.quarantine.replay(id).await.map_err(unavailable)? {
        ReplayOutcome::Stored(stored) => {
            let stored = match stored {
                Stored::New(_) => "new",
                Stored::Duplicate => "duplicate",
            };
            tracing::info!(id, stored, "a callback left the quarantine");
            Ok(Json(json!({ "stored": stored })))
        }
        ReplayOutcome::StillUnusable(reason) => {
            let answer = json!({ "error": "still_unusable", "message": reason });
            Err((StatusCode::CONFLICT, Json(answer)))
        }
        ReplayOutcome::NotFound => Err(not_found()),
    }
}

async fn replay_all(State(operator): State<AdminState>) -> AdminResponse {
    let (stored, left) = operator
        .quarantine
        .replay_all()
        .await
        .map_err(unavailable)?;
    tracing::info!(stored, left, "the quarantine was replayed");
    Ok(Json(json!({ "stored": stored, "still_unusable": left })))
}

// === ThingSpace ===

async fn reset_lockout(State(operator): State<AdminState>) -> AdminResponse {
    match operator.thingspace.reset_lockout().await {
        Ok(()) => {
            tracing::warn!("an operator lets the credentials be tried again");
            Ok(Json(json!({ "reset": true })))
        }
        Err(why) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "error": "unavailable", "message": why })),
        )),
    }
}

// === Their parts ===

/// What is shown of one in a list.
fn summary_json(id: u64, one: &QuarantinedCallback) -> Value {
    json!({
        "id": id,
        "receive_time_us": one.receive_time.as_micros(),
        "reason": one.reason,
        "service": one.service.as_ref().map(|name| name.as_str()),
        "account": one.account.as_ref().map(|name| name.as_str()),
        "bytes": one.body.len(),
    })
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "given to map_err, which hands the error over"
)]
fn unavailable(error: JournalError) -> (StatusCode, Json<Value>) {
    let answer = json!({ "error": "unavailable", "message": error.to_string() });
    (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
}

fn not_found() -> (StatusCode, Json<Value>) {
    let answer = json!({ "error": "not_found", "message": "there is none of that number" });
    (StatusCode::NOT_FOUND, Json(answer))
}
