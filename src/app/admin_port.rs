//! The admin port: read-only plain HTTP for monitoring.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    app::readiness::Problem,
    connections::{ConnectionTable, TableLimits, serve_http},
    grpc::HealthService,
    telemetry::{EXPOSITION_TYPE, Port, Telemetry},
};

/// Maximum number of requests without a response.
const MAX_REQUESTS: usize = 256;
/// Maximum number of responses that clients have not read. Each may have a text of all metrics.
const MAX_UNREAD_RESPONSES: usize = 256;

/// The text of a gateway that is not ready.
const NOT_READY: &str = "not ready: draining, or the journal and the spool cannot be written, and an embedded journal \
                         cannot be read either\n";

/// Serves `/livez`, `/readyz`, `/metrics` and gRPC health until `stop`, on at most `max_connections` connections.
pub(super) async fn serve(
    listener: TcpListener,
    max_connections: usize,
    telemetry: Telemetry,
    serving: watch::Receiver<bool>,
    problem: watch::Receiver<Option<Problem>>,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    let limits = TableLimits {
        connections: max_connections,
        requests: MAX_REQUESTS,
        unread_responses: MAX_UNREAD_RESPONSES,
    };
    let table = ConnectionTable::new(Port::Admin, limits, telemetry.instruments());
    // For the kubelet's gRPC probe, which supports neither TLS nor a mesh.
    let health = HealthService::new(serving.clone(), draining).into_router();
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state((serving, problem))
        .route("/metrics", get(metrics).with_state(telemetry))
        .merge(health);
    serve_http(listener, router, table, stop).await;
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    match telemetry.exposition() {
        Ok(text) => Ok(([(CONTENT_TYPE, EXPOSITION_TYPE)], text)),
        Err(error) => {
            tracing::error!(error, "cannot encode the metrics");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// The readiness, and the reason why the gateway cannot do all of its work.
type ReadyState = (watch::Receiver<bool>, watch::Receiver<Option<Problem>>);

async fn live(State((_, problem)): State<ReadyState>) -> (StatusCode, String) {
    match &*problem.borrow() {
        Some(Problem::Stopped(reason)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not alive: {reason}. Restart this gateway\n"),
        ),
        Some(Problem::OnlyReadable(_)) | None => (StatusCode::OK, "alive\n".to_owned()),
    }
}

async fn ready(State((serving, problem)): State<ReadyState>) -> (StatusCode, String) {
    match (*serving.borrow(), &*problem.borrow()) {
        (true, Some(Problem::OnlyReadable(error))) => (
            StatusCode::OK,
            format!(
                "ready for reads only: the journal cannot be written ({error}). Change calls fail, and \
                 callbacks are answered 503\n"
            ),
        ),
        (true, _) => (StatusCode::OK, "ready\n".to_owned()),
        (false, Some(Problem::Stopped(reason))) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}. Restart this gateway\n"),
        ),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, NOT_READY.to_owned()),
    }
}
