//! The gRPC port of a gateway that cannot open its journal yet.

use std::sync::Arc;

use axum::Router;
use tonic::{Status, body::Body};

use crate::{
    config::Config,
    grpc::{
        error::ApiError,
        server::{CallLimits, Server, ServerError},
    },
    journal::JournalError,
    telemetry::Instruments,
    tls::ServerTls,
};

/// Bounds the rejections: the calls that are not rejected yet, and the rejections that clients have not read.
const LIMITS: CallLimits = CallLimits { requests: 4_096, unread_responses: 4_096 };

/// Returns a server that rejects all calls with JOURNAL_UNAVAILABLE.
///
/// # Errors
///
/// The descriptors of the build are malformed.
pub fn unavailable_server(
    config: &Config,
    tls: Option<Arc<ServerTls>>,
    instruments: Instruments,
) -> Result<Server, ServerError> {
    let reject = || async {
        let error = JournalError::Unavailable("the journal is not open yet".to_owned());
        Status::from(ApiError::from(error)).into_http::<Body>()
    };
    let router = Router::new().fallback(reject);
    Ok(Server::with_router(router, config, tls, LIMITS, instruments)?)
}
