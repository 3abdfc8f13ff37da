//! Handles a change.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{State, connect_info::ConnectInfo},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse as _,
};
use serde_json::json;

use crate::{
    auth::RequestCredentials,
    errors::{ErrorReason, ErrorResponse, json_response},
    execute::Executor,
    http::{
        connections::{Connection, RequestConnection},
        extract::{HandlerResult, PlatformState, json_body},
    },
    operations::Endpoint,
    request_outcome::{AcceptedChange, NotExecuted, ResponseKind},
};

/// The page of a proxy that cannot reach the platform.
const BAD_GATEWAY: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                           <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

pub(crate) async fn handle(
    endpoint: Arc<Endpoint>,
    State(platform): PlatformState,
    credentials: RequestCredentials,
    ConnectInfo(connection): RequestConnection,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let operation = endpoint.select(&body);
    let request = json_body(&headers, &body)
        .and_then(|body| (operation.parse)(body))
        .map_err(|error| (operation.error_response)(error))?;
    drop(body);
    let executor = Executor { platform: &platform, operation, credentials: &credentials };
    render(executor.execute(request).await, &connection)
}

fn render(executed: Result<AcceptedChange, NotExecuted>, connection: &Connection) -> HandlerResult {
    let change = match executed {
        Ok(change) => change,
        Err(NotExecuted::Rejected(response)) => return Err(response),
        Err(NotExecuted::Dropped) => return Ok(connection.drop_without_response()),
    };
    let body = json!({ "requestId": change.request_id });
    Ok(match change.response_kind {
        ResponseKind::RequestId | ResponseKind::Slow => json_response(StatusCode::OK, &body),
        ResponseKind::Dropped => connection.drop_without_response(),
        ResponseKind::DroppedMidResponse => Connection::drop_mid_response(&body.to_string()),
        ResponseKind::ServerError => {
            let mut response = ErrorResponse::server_error().into_response();
            // The change was executed, so it does not count as rejected.
            response.extensions_mut().remove::<ErrorReason>();
            response
        }
        ResponseKind::Html => {
            let content_type = [(header::CONTENT_TYPE, "text/html")];
            (StatusCode::BAD_GATEWAY, content_type, BAD_GATEWAY).into_response()
        }
        ResponseKind::NoRequestId => json_response(StatusCode::OK, &json!({})),
        ResponseKind::Empty => StatusCode::OK.into_response(),
    })
}
