//! Serves browsers and plain HTTP on the gRPC port.
//!
//! A request of another protocol becomes a gRPC request, passes the same layers, and its response becomes one of the
//! protocol again: gRPC-Web, unary and streaming calls of the Connect protocol, and JSON lines, which are streams for
//! programs such as curl. The message stays as it is in the gRPC request: admission reads it within its limits, and
//! converts JSON then ([`MessageForm`]). docs/http.md describes the protocols.

mod connect;
mod origins;
mod protocol;
mod stream;

use std::{convert::Infallible, future::Future, sync::Arc};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tower::{ServiceExt as _, service_fn};
use tower_layer::Layer as _;

use crate::{
    config::GrpcConfig,
    grpc::{admission::message_reader::MessageForm, json::JsonSchema},
};

use origins::Origins;
use protocol::Protocol;
pub(super) use protocol::is_grpc;

/// The protocols other than gRPC.
pub(super) struct WebProtocols {
    schema: JsonSchema,
    /// `None` if the origin of a request has been checked before.
    origins: Option<Origins>,
}

impl WebProtocols {
    /// Creates the protocols. `None` if the port serves only gRPC.
    ///
    /// # Errors
    ///
    /// The descriptors of the build are malformed.
    pub(super) fn new(
        config: &GrpcConfig,
    ) -> Result<Option<Arc<Self>>, prost_reflect::DescriptorError> {
        if !config.http {
            return Ok(None);
        }
        let origins = Some(Origins::new(&config.allowed_origins));
        Ok(Some(Arc::new(Self { schema: JsonSchema::load()?, origins })))
    }

    /// Creates the protocols for requests whose origin has been checked before.
    ///
    /// # Errors
    ///
    /// The descriptors of the build are malformed.
    pub(super) fn of_any_origin() -> Result<Arc<Self>, prost_reflect::DescriptorError> {
        Ok(Arc::new(Self { schema: JsonSchema::load()?, origins: None }))
    }

    /// Serves a request of any protocol with `call`, which handles a gRPC request.
    pub(super) async fn serve<F>(
        &self,
        request: Request,
        call: impl FnOnce(Request) -> F + Clone,
    ) -> Response
    where
        F: Future<Output = Response>,
    {
        let Some(origins) = &self.origins else {
            return self.translate(request, call).await;
        };
        if let Some(refusal) = origins.refuse(request.headers()) {
            return refusal;
        }
        let Some(cors) = origins.cors(request.method(), request.headers()) else {
            return self.translate(request, call).await;
        };
        let translate = service_fn(|request: Request| {
            let call = call.clone();
            async move { Ok::<_, Infallible>(self.translate(request, call).await) }
        });
        match cors.layer(translate).oneshot(request).await {
            Ok(response) => response,
        }
    }

    async fn translate<F>(
        &self,
        request: Request,
        call: impl FnOnce(Request) -> F + Clone,
    ) -> Response
    where
        F: Future<Output = Response>,
    {
        if request.method() != Method::POST {
            return method_not_allowed();
        }
        match Protocol::of(request.headers()) {
            Protocol::GrpcWeb { is_text } => call_grpc_web(request, is_text, call).await,
            Protocol::Unary(encoding) => connect::call(&self.schema, request, encoding, call).await,
            Protocol::Stream(encoding) => stream::call(&self.schema, request, encoding, call).await,
            Protocol::Grpc => text(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n"),
            Protocol::Unknown => unsupported_media_type(),
        }
    }
}

/// Serves a call of gRPC-Web. tonic-web needs exact content types.
async fn call_grpc_web<F>(
    mut request: Request,
    is_text: bool,
    call: impl FnOnce(Request) -> F + Clone,
) -> Response
where
    F: Future<Output = Response>,
{
    const BINARY: HeaderValue = HeaderValue::from_static("application/grpc-web+proto");
    const TEXT: HeaderValue = HeaderValue::from_static("application/grpc-web-text+proto");
    let headers = request.headers_mut();
    let content_type = if is_text { TEXT } else { BINARY };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let accept = match accept.unwrap_or_default() {
        accept if accept.contains("application/grpc-web-text") => TEXT,
        accept if accept.contains("application/grpc-web") => BINARY,
        _ => content_type.clone(),
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::ACCEPT, accept);
    let call = service_fn(|request: http::Request<tonic::body::Body>| {
        let call = call.clone();
        async move { Ok::<_, Infallible>(call(request.map(Body::new)).await) }
    });
    match tonic_web::GrpcWebLayer::new().layer(call).oneshot(request).await {
        Ok(response) => response.map(Body::new),
    }
}

/// Turns a request of the Connect protocol into one of gRPC with the same metadata, whose message has this form.
fn into_grpc(mut request: Request, form: MessageForm) -> Request {
    request.extensions_mut().insert(form);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    for name in ["content-length", "content-encoding", "accept-encoding", "grpc-encoding"] {
        headers.remove(name);
    }
    if let Some(timeout) = headers.remove("connect-timeout-ms").as_ref().and_then(grpc_timeout) {
        headers.insert("grpc-timeout", timeout);
    }
    request
}

/// Returns the value of `grpc-timeout` for one of `connect-timeout-ms`: at most ten digits. `None` if it is malformed.
fn grpc_timeout(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    if text.is_empty() || text.len() > 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let milliseconds: u64 = text.parse().ok()?;
    // `grpc-timeout` has at most eight digits.
    let timeout = if milliseconds < 100_000_000 {
        format!("{milliseconds}m")
    } else {
        format!("{}S", milliseconds / 1_000)
    };
    HeaderValue::try_from(timeout).ok()
}

/// Returns true if the headers or trailers have a status of gRPC.
fn has_status(headers: &HeaderMap) -> bool {
    headers.contains_key("grpc-status")
}

/// Returns a response for people.
fn text(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn method_not_allowed() -> Response {
    const TEXT: &str = "every call is a POST: see docs/http.md\n";
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

fn unsupported_media_type() -> Response {
    const TEXT: &str = "content-type must be application/json, application/proto, application/connect+json, \
                        application/connect+proto, application/grpc-web or application/grpc: see docs/http.md\n";
    text(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT)
}

#[cfg(test)]
mod tests;
