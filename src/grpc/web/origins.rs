//! The origins of web pages that may call the gateway.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tower_http::cors::CorsLayer;

use crate::{config::Origin, grpc::web::text};

/// Time for which a browser may store the response to a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);
/// Headers that a page may send.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("connect-protocol-version"),
    HeaderName::from_static("connect-timeout-ms"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
];
/// Headers of a response that a page may read.
const RESPONSE_HEADERS: [HeaderName; 6] = [
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-retry-pushback-ms"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-status-details-bin"),
    header::RETRY_AFTER,
    HeaderName::from_static("trailer-grpc-retry-pushback-ms"),
];

/// The origins of `grpc.allowed_origins`. Browsers name the origin of a page in each POST and each preflight request, also
/// if the page seems to come from the gateway itself.
#[derive(Debug, Clone)]
pub(in crate::grpc) struct Origins {
    allowed: Vec<HeaderValue>,
    cors: CorsLayer,
}

impl Origins {
    /// Creates the list.
    pub(in crate::grpc) fn new(origins: &[Origin]) -> Self {
        let origins = origins.iter().map(|origin| HeaderValue::try_from(origin.as_str()));
        let allowed: Vec<_> = origins.filter_map(Result::ok).collect();
        let cors = CorsLayer::new()
            .allow_origin(allowed.clone())
            .allow_methods([Method::POST])
            .allow_headers(REQUEST_HEADERS)
            .expose_headers(RESPONSE_HEADERS)
            .max_age(PREFLIGHT_MAX_AGE);
        Self { allowed, cors }
    }

    /// Returns the refusal of a request of a page with another origin. Without it, a page could call a gateway without
    /// identities in the network of its visitor.
    pub(super) fn refuse(&self, headers: &HeaderMap) -> Option<Response> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if origins.all(|origin| self.allowed.contains(origin)) {
            return None;
        }
        tracing::debug!("refused a request of a web page");
        const TEXT: &str =
            "the origin of the page is not in grpc.allowed_origins: see docs/http.md\n";
        Some(text(StatusCode::FORBIDDEN, TEXT))
    }

    /// Returns the layer that answers preflight requests, and adds the headers of CORS. `None` for a request that has no
    /// use for it.
    pub(super) fn cors(&self, method: &Method, headers: &HeaderMap) -> Option<&CorsLayer> {
        let is_from_page = headers.contains_key(header::ORIGIN);
        (is_from_page || method == Method::OPTIONS && !self.allowed.is_empty())
            .then_some(&self.cors)
    }
}
