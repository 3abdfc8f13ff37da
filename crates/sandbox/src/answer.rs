//! How a change's POST is answered.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::connections::Connection;
use super::course::Reply;
use super::errors::{Reason, Refusal, json_response};

/// What a proxy in front of the platform writes when nobody answers it.
const BAD_GATEWAY: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                           <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// A change that was executed.
pub(super) struct Executed {
    pub(super) request_id: String,
    pub(super) reply: Reply,
}

/// A change that was not executed.
#[derive(Debug)]
pub(super) enum NotExecuted {
    Refused(Refusal),
    /// The connection is dropped.
    Dropped,
}

impl From<Refusal> for NotExecuted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl NotExecuted {
    /// Why, as the ledger counts it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Dropped => "dropped",
        }
    }
}

/// Writes the answer, or what there is of it.
pub(super) fn write(
    executed: Result<Executed, NotExecuted>,
    connection: &Connection,
) -> Result<Response, Refusal> {
    let Executed { request_id, reply } = match executed {
        Ok(executed) => executed,
        Err(NotExecuted::Refused(refusal)) => return Err(refusal),
        Err(NotExecuted::Dropped) => return Ok(connection.drop_unanswered()),
    };
    let body = json!({ "requestId": request_id });
    Ok(match reply {
        Reply::RequestId | Reply::Slow => json_response(StatusCode::OK, &body),
        Reply::Dropped => connection.drop_unanswered(),
        Reply::DroppedWithin => connection.drop_within(&body.to_string()),
        Reply::Failed => {
            let mut response = Refusal::failed().into_response();
            // It looks like a refusal and is none: it is not counted as one.
            response.extensions_mut().remove::<Reason>();
            response
        }
        Reply::Html => {
            let kind = [(header::CONTENT_TYPE, "text/html")];
            (StatusCode::BAD_GATEWAY, kind, BAD_GATEWAY).into_response()
        }
        Reply::NoRequestId => json_response(StatusCode::OK, &json!({})),
        Reply::Empty => StatusCode::OK.into_response(),
    })
}
