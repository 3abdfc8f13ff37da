//! Requests of a port that are no calls.

use axum::{body::Body, response::Response};
use http::{HeaderMap, Request};

/// Sees each request of a port before it can become a call.
pub trait RequestFilter: Send + Sync {
    /// Returns the response to a request that is no call. `None` lets the request through. `is_tls` is true if the
    /// request arrived over TLS.
    fn respond(&self, request: &Request<Body>, is_tls: bool) -> Option<Response>;

    /// Adds headers to the response of a call.
    fn add_headers(&self, headers: &mut HeaderMap);
}
