//! The pages that may send requests to the console: only its own.
//!
//! A browser can reach networks that an attacker cannot, and sends its client certificate with the requests of any page.
//! So the console refuses requests of other pages. Without identities, a page of an attacker could also take the host name
//! of the attacker for the address of the gateway (DNS rebinding). Then only host names that cannot be the attacker's are
//! accepted.

use axum::body::Body;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header, uri::Authority};
use url::Url;

use crate::config::{Config, Origin};

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The rules for the host and the origin of requests.
pub(super) struct SiteRules {
    /// The origins of `grpc.allowed_origins`.
    allowed: Vec<Origin>,
    /// True if callers have identities.
    has_identities: bool,
}

/// The status and the text of a refusal.
type Refusal = (StatusCode, &'static str);

const NO_HOST: Refusal = (StatusCode::BAD_REQUEST, "the request has no valid host\n");
const OTHER_HOST: Refusal = (
    StatusCode::MISDIRECTED_REQUEST,
    "without identities (auth.mode = none), open the console by an IP address, as localhost, or by the host of an \
     origin in grpc.allowed_origins: see docs/console.md\n",
);
const OTHER_ORIGIN: Refusal =
    (StatusCode::FORBIDDEN, "the console serves only its own page: see docs/console.md\n");

impl SiteRules {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            allowed: config.grpc.allowed_origins.clone(),
            has_identities: config.auth.authenticates(),
        }
    }

    /// Checks the host and the origin of a request.
    ///
    /// # Errors
    ///
    /// The request is of another page, or has a host name that an attacker can own.
    pub(super) fn check(&self, request: &Request<Body>, is_tls: bool) -> Result<(), Refusal> {
        let host = host(request).ok_or(NO_HOST)?;
        if !self.has_identities && !self.is_trusted_host(host.host()) {
            return Err(OTHER_HOST);
        }
        let headers = request.headers();
        let scheme = if is_tls { "https" } else { "http" };
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let is_own = |origin: &[u8]| {
            let own = [scheme, "://", host.as_str()].concat();
            origin.eq_ignore_ascii_case(own.as_bytes()) || self.is_behind_proxy(origin, &host)
        };
        if !origins.all(|origin| is_own(origin.as_bytes())) {
            return Err(OTHER_ORIGIN);
        }
        let mut sites = headers.get_all(SITE).iter();
        let is_same_site = sites.all(|site| site == "same-origin" || site == "none");
        if !is_same_site && !is_followed_link(request.method(), headers) {
            return Err(OTHER_ORIGIN);
        }
        Ok(())
    }

    /// True for the own origin behind a proxy that ends TLS, if `grpc.allowed_origins` has it.
    fn is_behind_proxy(&self, origin: &[u8], host: &Authority) -> bool {
        let mut allowed = self.allowed.iter().map(Origin::as_str);
        let own =
            |allowed: &str| allowed.split_once("://").is_some_and(|(_, it)| it == host.as_str());
        allowed.any(|allowed| allowed.as_bytes() == origin && own(allowed))
    }

    /// True for a host name that no attacker can have pointed to the gateway.
    fn is_trusted_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_allowed = |origin: &Origin| {
            Url::parse(origin.as_str()).is_ok_and(|url| url.host_str() == Some(host.as_str()))
        };
        address.parse::<std::net::IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.allowed.iter().any(is_allowed)
    }
}

/// Returns the host of a request. `None` if it has none, or several that differ.
fn host(request: &Request<Body>) -> Option<Authority> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    let header = header.map(|host| Authority::try_from(host.as_bytes()));
    let host = match (request.uri().authority(), header) {
        (Some(authority), None) => authority.clone(),
        (Some(authority), Some(Ok(header))) if *authority == header => header,
        (None, Some(Ok(header))) => header,
        _ => return None,
    };
    (!host.host().is_empty() && !host.as_str().contains('@')).then_some(host)
}

/// True for the request of a user who follows a link from another page to the console. The page itself is no secret.
fn is_followed_link(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, value: &str| headers.get(name).is_some_and(|it| it == value);
    method == Method::GET && has(MODE, "navigate") && has(DESTINATION, "document")
}

#[cfg(test)]
mod tests;
