//! How a change's POST is answered.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::errors::{ErrorReason, ErrorResponse, json_response};
use crate::http::connections::Connection;
use crate::request_outcome::ResponseKind;

/// What a proxy in front of the platform writes when nobody answers it.
const BAD_GATEWAY: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                           <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// A change that was executed.
pub(crate) struct AcceptedChange {
    pub(crate) request_id: String,
    pub(crate) response_kind: ResponseKind,
}

/// A change that was not executed.
#[derive(Debug)]
pub(crate) enum NotExecuted {
    Rejected(ErrorResponse),
    /// The connection is dropped.
    Dropped,
}

impl From<ErrorResponse> for NotExecuted {
    fn from(refusal: ErrorResponse) -> Self {
        Self::Rejected(refusal)
    }
}

impl NotExecuted {
    /// Why, as the ledger counts it.
    pub(crate) fn ledger_reason(&self) -> &'static str {
        match self {
            Self::Rejected(refusal) => refusal.reason(),
            Self::Dropped => "dropped",
        }
    }
}

/// Writes the answer, or what there is of it.
pub(crate) fn render(
    executed: Result<AcceptedChange, NotExecuted>,
    connection: &Connection,
) -> Result<Response, ErrorResponse> {
    let AcceptedChange {
        request_id,
        response_kind: reply,
    } = match executed {
        Ok(executed) => executed,
        Err(NotExecuted::Rejected(refusal)) => return Err(refusal),
        Err(NotExecuted::Dropped) => return Ok(connection.drop_without_response()),
    };
    let body = json!({ "requestId": request_id });
    Ok(match reply {
        ResponseKind::RequestId | ResponseKind::Slow => json_response(StatusCode::OK, &body),
        ResponseKind::Dropped => connection.drop_without_response(),
        ResponseKind::DroppedMidResponse => connection.drop_mid_response(&body.to_string()),
        ResponseKind::ServerError => {
            let mut response = ErrorResponse::server_error().into_response();
            // It looks like a refusal and is none: it is not counted as one.
            response.extensions_mut().remove::<ErrorReason>();
            response
        }
        ResponseKind::Html => {
            let kind = [(header::CONTENT_TYPE, "text/html")];
            (StatusCode::BAD_GATEWAY, kind, BAD_GATEWAY).into_response()
        }
        ResponseKind::NoRequestId => json_response(StatusCode::OK, &json!({})),
        ResponseKind::Empty => StatusCode::OK.into_response(),
    })
}
