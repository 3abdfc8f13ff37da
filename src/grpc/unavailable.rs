//! The gRPC port of a gateway that cannot open its journal yet.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use crate::{
    config::Config,
    grpc::{
        error::ApiError,
        server::{CallLimits, Server},
    },
    journal::JournalError,
    telemetry::Instruments,
    tls::ServerTls,
};

/// Bounds the rejections: the calls that are not rejected yet, and the rejections that clients have not read.
const LIMITS: CallLimits = CallLimits { requests: 4_096, unread_responses: 4_096 };

/// Rejects all calls with JOURNAL_UNAVAILABLE until `stop`, then waits until all connections have ended. Serves at most
/// `max_connections` connections.
pub async fn serve_unavailable(
    listener: TcpListener,
    config: &Config,
    tls: Option<Arc<ServerTls>>,
    max_connections: usize,
    instruments: Instruments,
    stop: CancellationToken,
) {
    let reject = || async {
        let error = JournalError::Unavailable("the journal is not open yet".to_owned());
        Status::from(ApiError::from(error)).into_http::<Body>()
    };
    let router = Router::new().fallback(reject);
    match Server::with_router(router, config, tls, LIMITS, instruments) {
        Ok(server) => server.serve(listener, max_connections, stop).await,
        // The server that follows returns the same error.
        Err(error) => tracing::error!(%error, "cannot read the descriptors of the protos"),
    }
}
