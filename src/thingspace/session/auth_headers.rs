//! The authentication headers of a request.

use std::sync::Arc;

use reqwest::{RequestBuilder, header};
use secrecy::ExposeSecret;

use crate::thingspace::{
    credentials::ThingSpaceCredentials,
    http::{JSON, SESSION_HEADER},
    login::HeaderSecret,
};

/// The token and the session of a request.
#[derive(Clone)]
pub(crate) struct AuthHeaders {
    pub(super) token: Versioned,
    pub(super) session: Versioned,
    pub(super) credentials: Arc<ThingSpaceCredentials>,
}

/// A token or session with its version, so that a refusal discards only what was sent.
#[derive(Clone)]
pub(super) struct Versioned {
    pub(super) secret: HeaderSecret,
    pub(super) version: u64,
}

impl AuthHeaders {
    /// Adds the headers of an authenticated JSON request.
    pub(crate) fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .header(header::AUTHORIZATION, self.token.secret.header.clone())
            .header(SESSION_HEADER, self.session.secret.header.clone())
            .header(header::CONTENT_TYPE, JSON)
            .header(header::ACCEPT, JSON)
    }

    /// Returns everything that must be redacted in a response.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        [&self.token.secret, &self.session.secret]
            .into_iter()
            .map(|secret| secret.text.expose_secret())
            .chain(self.credentials.secret_values())
    }
}
