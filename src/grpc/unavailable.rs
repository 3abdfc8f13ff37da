//! The gRPC port of a gateway that cannot open its journal yet.

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use crate::{
    connections::{ConnectionTable, TableLimits, serve_http},
    grpc::error::ApiError,
    journal::JournalError,
    telemetry::{Instruments, Port},
};

/// Maximum number of calls that are not rejected yet.
const MAX_REQUESTS: usize = 4_096;
/// Maximum number of rejections that clients have not read.
const MAX_UNREAD_RESPONSES: usize = 4_096;

/// Rejects all calls with JOURNAL_UNAVAILABLE until `stop`. Serves at most `max_connections` connections.
pub async fn serve_unavailable(
    listener: TcpListener,
    max_connections: usize,
    instruments: Instruments,
    stop: CancellationToken,
) {
    let reject = || async {
        let error = JournalError::Unavailable("the journal is not open yet".to_owned());
        Status::from(ApiError::from(error)).into_http::<Body>()
    };
    let limits = TableLimits {
        connections: max_connections,
        requests: MAX_REQUESTS,
        unread_responses: MAX_UNREAD_RESPONSES,
    };
    let table = ConnectionTable::new(Port::Grpc, limits, instruments);
    serve_http(listener, Router::new().fallback(reject), table, stop).await;
}
