//! The gRPC port of a gateway that cannot open its journal yet.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use crate::{
    config::Config,
    grpc::{error::ApiError, server::Server},
    journal::JournalError,
    tls::ServerTls,
};

/// Rejects all calls with JOURNAL_UNAVAILABLE until `stop`, then waits until all connections have ended.
pub async fn serve_unavailable(
    listener: TcpListener,
    config: &Config,
    tls: Option<Arc<ServerTls>>,
    stop: CancellationToken,
) {
    let reject = || async {
        let error = JournalError::Unavailable("the journal is not open yet".to_owned());
        Status::from(ApiError::from(error)).into_http::<Body>()
    };
    let router = Router::new().fallback(reject);
    Server::with_router(router, config, tls).serve(listener, stop).await;
}
