//! The port for operators and their machinery: plain HTTP, read-only.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::api::Health;

/// Serves `/livez`, `/readyz` and gRPC health, until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    serving: watch::Receiver<bool>,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    // The kubelet's gRPC probe comes here too: it speaks no TLS and knows no
    // mesh.
    let health = Health::new(serving.clone(), draining).into_router();
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(serving)
        .merge(health);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin port failed");
    }
}

async fn ready(State(serving): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *serving.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        let why = "not ready: draining, or the journal cannot be written\n";
        (StatusCode::SERVICE_UNAVAILABLE, why)
    }
}
