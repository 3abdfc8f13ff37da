//! The gRPC port of a gateway that cannot open its journal yet.

use std::io;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use crate::{grpc::error::ApiError, journal::JournalError};

/// Rejects all calls with JOURNAL_UNAVAILABLE until `stop`.
///
/// # Errors
///
/// Errors of the listener.
pub async fn serve_unavailable(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let reject = || async {
        let error = JournalError::Unavailable("the journal is not open yet".to_owned());
        Status::from(ApiError::from(error)).into_http::<Body>()
    };
    let router = Router::new().fallback(reject);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}
