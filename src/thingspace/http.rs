//! HTTP clients without retries and redirects, and with bounded response bodies.

use std::{error::Error, iter, time::Duration};

use reqwest::{
    Client, ClientBuilder, Method, Request, RequestBuilder, StatusCode, header, redirect, retry,
};
use thingspace_loopback::is_loopback_url;
use thingspace_settings::{HttpUrl, Kind};
use url::Url;

use crate::{
    domain::trace::TraceParent,
    telemetry::{CallError, Instruments, TRACEPARENT, UpstreamCall},
};

/// The only content type of ThingSpace's API.
pub(super) const JSON: &str = "application/json";

/// Maximum time to connect, including TLS and the tunnel of a proxy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of seconds of a `Retry-After` header.
const MAX_RETRY_AFTER: u64 = 24 * 60 * 60;

/// Returns the builder of a client that neither retries nor follows redirects.
///
/// Connecting may take half of `request_timeout`, at most 10 s, so that a failed connection is reported as
/// such: it proves that nothing was sent. A client for a loopback URL ignores proxies.
pub fn no_retry_client(url: &Url, request_timeout: Duration) -> ClientBuilder {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(request_timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(request_timeout / 2));
    // A minimal container has no root certificates, and plain HTTP does not need them.
    if url.scheme() == "http" {
        builder = builder.tls_certs_only([]);
    }
    if is_loopback_url(url) {
        builder = builder.no_proxy();
    }
    builder
}

/// The client cannot be built: the base URL is invalid, or the TLS set-up failed, usually because of the system's
/// certificates.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientBuildError(String);

/// A client of ThingSpace's API.
#[derive(Clone)]
pub(super) struct HttpClient {
    client: Client,
    base_url: Url,
    max_body: usize,
    instruments: Instruments,
}

/// A complete response.
pub(super) struct UpstreamResponse {
    pub(super) status: StatusCode,
    /// The delay of a `Retry-After` header in seconds. The date form is ignored, because the clocks may differ.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// No complete response arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// No connection was made, so no byte of the request was sent.
    NotSent(&'static str),
    /// The request may have been sent.
    NoResponse(&'static str),
}

impl HttpClient {
    /// Builds a client that reads response bodies of up to `max_body` bytes.
    pub(super) fn new(
        builder: ClientBuilder,
        base_url: &Url,
        max_body: usize,
        instruments: Instruments,
    ) -> Result<Self, ClientBuildError> {
        let base_url = HttpUrl.parse(base_url.as_str()).ok_or_else(|| {
            let requirement = "must be an http or https URL without user name, query and fragment";
            ClientBuildError(format!("thingspace.base_url {requirement}"))
        })?;
        let client = builder.build().map_err(|error| {
            // The message of reqwest's own error names no cause.
            let causes = iter::successors(error.source(), |cause| (*cause).source());
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            ClientBuildError(format!("cannot set up the HTTP client: {text}"))
        })?;
        Ok(Self { client, base_url, max_body, instruments })
    }

    /// Starts a request for a path below the base URL. Values replace the placeholders of `template`, such as
    /// `{account}`, in order, and are escaped.
    pub(super) fn request(
        &self,
        method: Method,
        template: &str,
        values: &[&str],
    ) -> RequestBuilder {
        let mut url = self.base_url.clone();
        let mut values = values.iter();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            path.extend(template.split('/').skip(1).map(|segment| {
                let value = segment.starts_with('{').then(|| values.next());
                value.flatten().copied().unwrap_or(segment)
            }));
        }
        self.client.request(method, url)
    }

    /// Sends a request once and reads the whole response. The span is part of `trace`; it and the metrics name
    /// the path as `template`.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        template: &'static str,
        trace: Option<&TraceParent>,
    ) -> Result<UpstreamResponse, SendError> {
        let mut request = request.build().map_err(|error| SendError::from_reqwest(&error))?;
        let host = self.base_url.host_str().unwrap_or_default();
        let port = self.base_url.port_or_known_default().unwrap_or_default();
        let call = UpstreamCall::begin(
            &self.instruments,
            request.method(),
            template,
            (host, port),
            trace.map(TraceParent::as_str),
        );
        // `tracestate` and `baggage` are not forwarded: they are not meant for a third party.
        let traceparent = call.traceparent();
        if let Some(value) = traceparent.and_then(|value| value.try_into().ok()) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        let result = self.exchange(request).await;
        match &result {
            Ok(reply) => call.end(reply.status.as_u16()),
            Err(SendError::NotSent(_)) => call.fail(CallError::NotSent),
            Err(SendError::NoResponse(_)) => call.fail(CallError::NoResponse),
        }
        result
    }

    async fn exchange(&self, request: Request) -> Result<UpstreamResponse, SendError> {
        let response = self.client.execute(request).await;
        let mut response = response.map_err(|error| SendError::from_reqwest(&error))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds.min(MAX_RETRY_AFTER)));
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|_| SendError::NoResponse("the response was cut off or timed out"))?
        {
            if body.len() + chunk.len() > self.max_body {
                return Err(SendError::NoResponse("the response exceeds the size limit"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(UpstreamResponse { status, retry_after, body })
    }
}

impl SendError {
    /// Describes an error without its own message, which contains the URL.
    fn from_reqwest(error: &reqwest::Error) -> Self {
        // A time-out while connecting is both `is_connect` and `is_timeout`, so the order matters.
        if error.is_builder() {
            Self::NotSent("the request could not be built")
        } else if error.is_dns() {
            Self::NotSent("the host name of ThingSpace could not be resolved")
        } else if error.is_connect() && error.is_timeout() {
            Self::NotSent("connecting to ThingSpace timed out")
        } else if error.is_connect() {
            Self::NotSent("could not connect to ThingSpace")
        } else if error.is_timeout() {
            Self::NoResponse("ThingSpace did not respond within thingspace.request_timeout")
        } else {
            Self::NoResponse("the connection closed before a response arrived")
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NotSent(reason) | Self::NoResponse(reason) => reason,
        }
    }
}
