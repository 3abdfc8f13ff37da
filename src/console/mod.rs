//! The console: a web page for operators, on a port of its own.
//!
//! The port serves the files of the page, and the calls that the page makes. A call passes the same layers as on the
//! gRPC port: identity, policy, limits, audit and telemetry. `files` has the page, `request_site` decides which pages
//! may send requests, `calls` which calls are served. docs/console.md describes the page.

mod calls;
mod files;
mod request_site;

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};

use crate::{
    config::Config,
    console::{files::Files, request_site::SiteRules},
    grpc::{RequestFilter, Server, ServerError},
    telemetry::Port,
};

/// Maximum number of requests without a response, and of responses that clients have not read.
const MAX_REQUESTS: usize = 256;
/// The path of the page.
const PAGE: &str = "/console/";
/// Everything that the page may load, and where from. It has no inline script and no inline style.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";
/// Headers of every response.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Decides which requests of the port are served.
struct Console {
    files: Files,
    site: SiteRules,
}

/// Returns the server of the console. `grpc` is the server of the gRPC port, whose calls it serves.
///
/// # Errors
///
/// The descriptors of the build are malformed.
pub fn server(config: &Config, grpc: &Server) -> Result<Server, ServerError> {
    let console = Console { files: Files::new(), site: SiteRules::new(config) };
    grpc.on_port(Port::Console, Arc::new(console), MAX_REQUESTS)
}

impl RequestFilter for Console {
    fn respond(&self, request: &Request<Body>, is_tls: bool) -> Option<Response> {
        if let Err((status, problem)) = self.site.check(request, is_tls) {
            return Some(text(status, problem));
        }
        let path = request.uri().path();
        if path.starts_with("/thingspace.gateway.v1.") {
            return calls::refuse(path).map(|problem| text(StatusCode::NOT_FOUND, problem));
        }
        Some(self.page(request.method(), path, request.headers()))
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // Answers contain the data of customers.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
}

impl Console {
    /// Returns a file of the page.
    fn page(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response {
        let is_redirect = matches!(path, "/" | "/console");
        let file = path.strip_prefix(PAGE).and_then(|name| self.files.find(name));
        if !is_redirect && file.is_none() {
            return text(StatusCode::NOT_FOUND, "not found: the console is at /console/\n");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "a file can only be read\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match file {
            Some(file) => file.response(method, headers),
            None => {
                let mut response = text(StatusCode::TEMPORARY_REDIRECT, "");
                response.headers_mut().insert(LOCATION, HeaderValue::from_static(PAGE));
                response
            }
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
