//! Handles a change.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    auth::RequestCredentials,
    errors::{ErrorReason, ErrorResponse, ok_json},
    execute::Executor,
    http::extract::{HandlerResult, PlatformState, json_body},
    operations::{self, operation::Operation},
    outcome::ResponseKind,
};

/// Delay between the first half of a response and the end of its connection, so that the client
/// receives the half.
const DROP_DELAY: Duration = Duration::from_millis(50);

/// The page of a proxy that cannot reach the platform.
const BAD_GATEWAY: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                           <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

pub(crate) async fn handle(
    operations: Arc<[&'static Operation]>,
    State(platform): PlatformState,
    credentials: RequestCredentials,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let operation = operations::select(&operations, &body).ok_or(ErrorResponse::NO_RESOURCE)?;
    let request = json_body(&headers, &body)
        .and_then(|body| (operation.parse)(body))
        .map_err(operation.error_response)?;
    drop(body);
    let executor = Executor { platform: &platform, operation, credentials: &credentials };
    let change = executor.execute(request).await?;
    let body = json!({ "requestId": change.request_id });
    Ok(match change.response_kind {
        ResponseKind::RequestId | ResponseKind::Slow => ok_json(&body),
        ResponseKind::Dropped => executed_response(ErrorResponse::DROPPED),
        ResponseKind::DroppedMidResponse => drop_mid_response(&body.to_string()),
        ResponseKind::ServerError => executed_response(ErrorResponse::SERVER_ERROR),
        ResponseKind::Html => {
            let content_type = [(header::CONTENT_TYPE, "text/html")];
            (StatusCode::BAD_GATEWAY, content_type, BAD_GATEWAY).into_response()
        }
        ResponseKind::NoRequestId => ok_json(&json!({})),
        ResponseKind::Empty => StatusCode::OK.into_response(),
    })
}

/// Builds an error response that does not count as a rejection, because the change was executed.
fn executed_response(error: ErrorResponse) -> Response {
    let mut response = error.into_response();
    response.extensions_mut().remove::<ErrorReason>();
    response
}

/// Builds a response whose second half fails, which closes the connection.
fn drop_mid_response(text: &str) -> Response {
    let (first_half, _) = text.as_bytes().split_at(text.len() / 2);
    let first_half = Bytes::copy_from_slice(first_half);
    let body = stream::once(async { Ok(first_half) }).chain(stream::once(async {
        sleep(DROP_DELAY).await;
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    }));
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, text.len().to_string()),
    ];
    (headers, Body::from_stream(body)).into_response()
}
