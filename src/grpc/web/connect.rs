//! Unary calls of the Connect protocol: the message is the body, and an error is a JSON object with an HTTP status.
//!
//! Source: the page "Protocol Reference" of Connect, <https://connectrpc.com/docs/protocol>.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{body::Body, extract::Request, response::Response};
use base64::{Engine as _, engine::general_purpose};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::pb;

use crate::grpc::{
    admission::{
        message_reader::{Framing, MessageForm},
        method_class::find_method,
    },
    error::{ApiError, Executed, reason::ErrorReason},
    json::{JsonMethod, JsonSchema, run_conversion},
    web::{
        has_status, into_grpc,
        protocol::Encoding,
        stream::{self, split_message},
        text,
    },
};

/// Trailer with the delay before a retry in milliseconds.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Headers of gRPC that have no meaning in other protocols.
pub(super) const GRPC_HEADERS: [&str; 5] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
    "grpc-accept-encoding",
];

/// Serves a call whose message is the body of the request.
pub(super) async fn call<F: Future<Output = Response>>(
    schema: &JsonSchema,
    request: Request,
    encoding: Encoding,
    call: impl FnOnce(Request) -> F,
) -> Response {
    let path = request.uri().path();
    let method = schema.method(path).cloned();
    if method.is_none() && find_method(path).is_some() {
        let error =
            ApiError::new(ErrorReason::Unimplemented, "reflection is served over gRPC only");
        return error_response(schema, error.into_response().headers());
    }
    let is_stream = method.as_ref().is_some_and(|method| method.is_stream);
    if is_stream && encoding == Encoding::Proto {
        const TEXT: &str =
            "a stream has the content-type application/connect+proto: see docs/http.md\n";
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT);
    }
    let is_gzip = match request.headers().get(header::CONTENT_ENCODING) {
        None => false,
        Some(encoding) if encoding == "identity" => false,
        Some(encoding) if encoding == "gzip" => true,
        Some(_) => return unsupported_encoding(schema),
    };
    let json = method.clone().filter(|_| encoding == Encoding::Json);
    let request = into_grpc(request, MessageForm { framing: Framing::Body { is_gzip }, json });
    let response = call(request).await;
    match method {
        Some(method) if is_stream => stream::json_lines(schema, &method, response),
        method => unary_response(schema, method, encoding, response).await,
    }
}

fn unsupported_encoding(schema: &JsonSchema) -> Response {
    let message = "content-encoding must be gzip or identity";
    let error = ApiError::new(ErrorReason::Unimplemented, message).with_executed(Executed::No);
    let mut response = error_response(schema, error.into_response().headers());
    let accepted = HeaderValue::from_static("gzip, identity");
    response.headers_mut().insert(header::ACCEPT_ENCODING, accepted);
    response
}

/// Converts the response of a unary call. Its permits are held until the client has it.
async fn unary_response(
    schema: &JsonSchema,
    method: Option<Arc<JsonMethod>>,
    encoding: Encoding,
    response: Response,
) -> Response {
    let (mut head, mut body) = response.into_parts();
    let mut received = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => received.put(data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    let status = if has_status(&head.headers) { &head.headers } else { &trailers };
    if code(status) != Code::Ok {
        return holding(error_response(schema, status), body);
    }
    let message = split_message(&mut received).unwrap_or_default();
    let content = match (encoding, method) {
        (Encoding::Json, Some(method)) => {
            let converted = run_conversion(message.len(), move || {
                let mut content = Vec::new();
                method.encode_response(&message, &mut content)?;
                Ok(Bytes::from(content))
            });
            match converted.await {
                Ok(content) => content,
                Err(error) => {
                    return holding(error_response(schema, error.into_response().headers()), body);
                }
            }
        }
        _ => message,
    };
    for name in GRPC_HEADERS {
        head.headers.remove(name);
    }
    add_trailers(&mut head.headers, &trailers);
    head.headers.insert(header::CONTENT_TYPE, content_type(encoding));
    holding(Response::from_parts(head, Body::from(content)), body)
}

fn content_type(encoding: Encoding) -> HeaderValue {
    HeaderValue::from_static(match encoding {
        Encoding::Json => "application/json",
        Encoding::Proto => "application/proto",
    })
}

/// Adds the metadata of trailers to the headers of a unary response.
fn add_trailers(headers: &mut HeaderMap, trailers: &HeaderMap) {
    for (name, value) in metadata(trailers) {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
}

/// Returns the response of a call that ended with an error.
pub(super) fn error_response(schema: &JsonSchema, status: &HeaderMap) -> Response {
    let mut response = Response::new(Body::from(error_json(schema, status).to_string()));
    *response.status_mut() = http_status(code(status));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after(status) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    add_trailers(headers, status);
    response
}

/// Returns the status in the JSON form of an error of the Connect protocol.
pub(super) fn error_json(schema: &JsonSchema, status: &HeaderMap) -> Value {
    let message = status.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    let message = percent_encoding::percent_decode(message).decode_utf8_lossy();
    let details = status.get("grpc-status-details-bin").and_then(|encoded| {
        let unpadded = encoded.as_bytes().strip_suffix(b"==").unwrap_or(encoded.as_bytes());
        let unpadded = unpadded.strip_suffix(b"=").unwrap_or(unpadded);
        pb::Status::decode(general_purpose::STANDARD_NO_PAD.decode(unpadded).ok()?.as_slice()).ok()
    });
    let details = details.unwrap_or_default().details.into_iter().map(|detail| {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let value = general_purpose::STANDARD_NO_PAD.encode(&detail.value);
        match schema.encode(name, &detail.value) {
            Some(debug) => json!({ "type": name, "value": value, "debug": debug }),
            None => json!({ "type": name, "value": value }),
        }
    });
    json!({ "code": name(code(status)), "message": message, "details": details.collect::<Vec<_>>() })
}

/// Returns the metadata of trailers: everything but the status.
pub(super) fn metadata(trailers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let is_metadata = |name: &HeaderName| {
        !GRPC_HEADERS.contains(&name.as_str())
            && !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH)
    };
    trailers.iter().filter(move |(name, _)| is_metadata(name))
}

/// Returns the code of a response. UNKNOWN if it has none.
pub(super) fn code(headers: &HeaderMap) -> Code {
    let status = headers.get("grpc-status").map(HeaderValue::as_bytes);
    status.map_or(Code::Unknown, Code::from_bytes)
}

/// The delay before a retry in whole seconds.
fn retry_after(status: &HeaderMap) -> Option<HeaderValue> {
    let milliseconds: u64 = status.get(RETRY_PUSHBACK)?.to_str().ok()?.parse().ok()?;
    HeaderValue::try_from(milliseconds.div_ceil(1_000).to_string()).ok()
}

/// The name of a code in the Connect protocol.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok | Code::Unknown => "unknown",
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The HTTP status of a code in the Connect protocol.
fn http_status(code: Code) -> StatusCode {
    match code {
        // 499: the client has closed the request.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// Holds the body of another response, and with it its permits, until this one is written.
fn holding(response: Response, held: Body) -> Response {
    response.map(|body| Body::new(Holding { body, _held: held }))
}

/// A body that holds another one.
struct Holding {
    body: Body,
    _held: Body,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
