//! The HTTP below the calls: clients that do nothing on their own, and bodies
//! with a bound.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, Method, RequestBuilder, StatusCode, header, redirect, retry};
use thingspace_loopback::is_loopback_url;
use url::Url;

use super::settings::ClientBuildError;
use crate::{
    domain::trace::TraceParent,
    telemetry::{CallError, Instruments, TRACEPARENT, UpstreamCall},
};

/// The header that carries the session.
pub(super) const SESSION_HEADER: &str = "VZ-M2M-Token";
/// The one content type that ThingSpace speaks.
pub(super) const JSON: &str = "application/json";

/// How long a connection may take, TLS and a proxy's tunnel included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a log-in's connection may idle. Proxies drop them after a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer of a change or a log-in that is read. A change's has about a hundred bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;
/// The largest answer of a lookup that is read. The status of a request of 10,000 devices has about
/// 2 MiB, a page of 2,000 listed devices up to 6 MiB.
pub(super) const MAX_LOOKUP_BODY: usize = 16 * 1024 * 1024;
/// A longer wait is not believed.
const MAX_RETRY_AFTER: u64 = 24 * 60 * 60;

/// The clients.
#[derive(Clone)]
pub(super) struct Http {
    /// For plan changes: a new connection for each.
    pub(super) change_client: Client,
    /// For everything that may be repeated.
    pub(super) default_client: Client,
    instruments: Instruments,
    /// Host and port, as metrics and spans name them.
    server: (String, u16),
}

/// What a call is, for those who watch.
pub(super) struct RequestInfo<'a> {
    pub(super) method: &'a Method,
    /// The path below the base URL, with names for what varies.
    pub(super) template: &'static str,
    /// The trace that it belongs to.
    pub(super) trace: Option<&'a TraceParent>,
    /// The largest answer that is read, in bytes.
    pub(super) max_body: usize,
}

/// Where ThingSpace is.
#[derive(Clone)]
pub(super) struct Endpoint(Url);

/// A complete answer.
pub(super) struct UpstreamResponse {
    pub(super) status: StatusCode,
    /// From the header, where it has seconds; its date form would need the two
    /// clocks to agree.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// No complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// There was no connection, so that no byte of the request has left.
    NotSent(&'static str),
    /// Anything after that.
    NoResponse(&'static str),
}

// === impl Http ===

impl Http {
    pub(super) fn new(
        base_url: &Url,
        request_timeout: Duration,
        instruments: Instruments,
    ) -> Result<Self, ClientBuildError> {
        let build = |builder: ClientBuilder| {
            // Plain http asks for no authorities, and a bare system has none.
            let builder = match base_url.scheme() {
                "http" => builder.tls_certs_only([]),
                _ => builder,
            };
            builder
                .build()
                .map_err(|error| ClientBuildError::Client(with_causes(&error)))
        };
        // Over HTTP/1.1 and without idle connections, each change has a
        // connection of its own: one that died while idle would take the
        // change into it and make an unknown outcome out of nothing.
        let changes = no_retry_client(base_url, request_timeout)
            .http1_only()
            .pool_max_idle_per_host(0);
        let default_client =
            no_retry_client(base_url, request_timeout).pool_idle_timeout(IDLE_TIMEOUT);
        Ok(Self {
            change_client: build(changes)?,
            default_client: build(default_client)?,
            instruments,
            server: (
                base_url.host_str().unwrap_or_default().to_owned(),
                base_url.port_or_known_default().unwrap_or_default(),
            ),
        })
    }

    /// Sends a request, once, and reads its answer to the end.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        info: RequestInfo<'_>,
    ) -> Result<UpstreamResponse, SendError> {
        let call = UpstreamCall::begin(
            &self.instruments,
            info.method,
            info.template,
            (&self.server.0, self.server.1),
            info.trace.map(TraceParent::as_str),
        );
        // Only the ids: what else a caller's trace carries is not for others.
        let request = match call.traceparent() {
            Some(traceparent) => request.header(TRACEPARENT, traceparent),
            None => request,
        };
        let result = exchange(request, info.max_body).await;
        match &result {
            Ok(reply) => call.end(reply.status.as_u16()),
            Err(SendError::NotSent(_)) => call.fail(CallError::NotSent),
            Err(SendError::NoResponse(_)) => call.fail(CallError::NoResponse),
        }
        result
    }
}

/// An error and what it is due to; reqwest itself tells only that it failed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// A client that neither repeats nor redirects.
fn no_retry_client(base_url: &Url, request_timeout: Duration) -> ClientBuilder {
    let builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(request_timeout)
        // Below the whole: a connection that cannot be made has to fail as
        // such, which proves that nothing was sent.
        .connect_timeout(CONNECT_TIMEOUT.min(request_timeout / 2));
    // A proxy cannot reach our own loopback interface.
    if is_loopback_url(base_url) {
        builder.no_proxy()
    } else {
        builder
    }
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(base_url: &Url) -> Result<Self, ClientBuildError> {
        let plain = matches!(base_url.scheme(), "http" | "https")
            && base_url.has_host()
            && base_url.username().is_empty()
            && base_url.password().is_none()
            && base_url.query().is_none()
            && base_url.fragment().is_none();
        plain
            .then(|| Self(base_url.clone()))
            .ok_or(ClientBuildError::BaseUrl)
    }

    /// The URL of a path that begins with a slash, below the base URL's own,
    /// whether that ends with a slash or not.
    pub(super) fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path().trim_end_matches('/')));
        url
    }
}

async fn exchange(request: RequestBuilder, max_body: usize) -> Result<UpstreamResponse, SendError> {
    let mut response = request
        .send()
        .await
        .map_err(|error| SendError::from_reqwest(&error))?;
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
        .map_err(|_| SendError::NoResponse("the answer broke off or took too long"))?
    {
        if body.len() + chunk.len() > max_body {
            return Err(SendError::NoResponse("the answer was too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(UpstreamResponse {
        status,
        retry_after,
        body,
    })
}

// === impl Failure ===

impl SendError {
    /// What is said of an error. Not its own text: that has the URL in it.
    fn from_reqwest(error: &reqwest::Error) -> Self {
        // Before the question for a time-out: one of connecting is both.
        if error.is_builder() {
            Self::NotSent("the request could not be built")
        } else if error.is_dns() {
            Self::NotSent("the name of the ThingSpace host could not be resolved")
        } else if error.is_connect() && error.is_timeout() {
            Self::NotSent("connecting to ThingSpace took too long")
        } else if error.is_connect() {
            Self::NotSent("no connection to ThingSpace could be made")
        } else if error.is_timeout() {
            Self::NoResponse("ThingSpace did not answer in time")
        } else {
            Self::NoResponse("the connection to ThingSpace broke before it had answered")
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NotSent(why) | Self::NoResponse(why) => why,
        }
    }
}
