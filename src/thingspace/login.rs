//! The two steps of a log-in: a token ("Getting Credentials") and a session ("Start Connectivity
//! Management Session").

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, StatusCode, header, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{
    domain::{
        refusal::{Refusal, RefusalKind},
        trace::TraceParent,
    },
    failpoints,
    thingspace::{
        classify,
        credentials::ThingSpaceCredentials,
        error_body::{ErrorBody, ErrorFormat, ErrorMeaning},
        http::{self, HttpClient, UpstreamResponse},
        json::{member, member_text},
        redactor::Redactor,
    },
};

/// Lifetime of a token without `expires_in`, in seconds.
const DEFAULT_LIFETIME: u64 = 60 * 60;
/// Maximum lifetime of a token, in seconds. The portal's test tokens do not expire.
const MAX_LIFETIME: u64 = 24 * 60 * 60;

/// A token or session, and the header value that carries it.
pub(super) struct HeaderSecret {
    pub(super) header: HeaderValue,
    pub(super) text: SecretString,
}

/// A step of a log-in failed.
pub(super) struct LoginError {
    pub(super) failure: LoginFailure,
    pub(super) refusal: Refusal,
}

/// The conclusion about the credentials from a failed log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginFailure {
    /// ThingSpace refused them in a known format. Counts towards the lock-out.
    CredentialsRefused,
    /// The API gateway refused the token of a session log-in, before ThingSpace checked the user.
    TokenRefused,
    /// 400, 401 or 403 in an unknown format. The response may come from a proxy.
    Unrecognised,
    /// Nothing: there was no response, a 5xx status, or ThingSpace throttled the log-in.
    Unavailable,
}

/// The two steps of a log-in.
#[async_trait]
pub(super) trait LoginApi: Send + Sync {
    /// Requests a token, and returns it with its lifetime. ThingSpace returns the same token again, with
    /// the rest of its lifetime, until it expires.
    async fn token(
        &self,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<(HeaderSecret, Duration), LoginError>;

    /// Starts a session. Its lifetime is not in the response: it ends after 20 minutes without use, or
    /// earlier.
    async fn session(
        &self,
        token: &HeaderSecret,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<HeaderSecret, LoginError>;
}

/// Logs in over HTTP.
pub(super) struct HttpLogin(pub(super) HttpClient);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginStep {
    Token,
    Session,
}

#[async_trait]
impl LoginApi for HttpLogin {
    async fn token(
        &self,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<(HeaderSecret, Duration), LoginError> {
        let app_key = credentials.app_key.expose_secret();
        let app_secret = credentials.app_secret.expose_secret();
        let request = self.0.request(Method::POST, LoginStep::Token.path(), &[]);
        let request = request
            .basic_auth(app_key, Some(app_secret))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials");
        let secrets = credentials.secret_values();
        let body = self.exchange(LoginStep::Token, request, trace, secrets).await?;
        let lifetime = member_text(&body, "expires_in")
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(DEFAULT_LIFETIME)
            .clamp(1, MAX_LIFETIME);
        let token = secret_text(&body, "access_token").and_then(HeaderSecret::token);
        Ok((token.ok_or_else(LoginError::unusable)?, Duration::from_secs(lifetime)))
    }

    async fn session(
        &self,
        token: &HeaderSecret,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<HeaderSecret, LoginError> {
        let body = json!({
            "username": credentials.uws_username.expose_secret(),
            "password": credentials.uws_password.expose_secret(),
        });
        let request = self.0.request(Method::POST, LoginStep::Session.path(), &[]);
        let request = request
            .header(header::AUTHORIZATION, token.header.clone())
            .header(header::CONTENT_TYPE, http::JSON)
            .body(body.to_string());
        let secrets = credentials.secret_values().chain([token.text.expose_secret()]);
        let body = self.exchange(LoginStep::Session, request, trace, secrets).await?;
        let session = secret_text(&body, "sessionToken").and_then(HeaderSecret::session);
        session.ok_or_else(LoginError::unusable)
    }
}

impl HttpLogin {
    /// Sends a request and returns the body of a successful response.
    async fn exchange<'a>(
        &self,
        step: LoginStep,
        request: RequestBuilder,
        trace: Option<&TraceParent>,
        secrets: impl Iterator<Item = &'a str>,
    ) -> Result<Value, LoginError> {
        let operation = step.name();
        let request = request.header(header::ACCEPT, http::JSON);
        let response = self.0.send(request, step.path(), trace).await.map_err(|error| {
            let reason = error.reason();
            tracing::warn!(operation, reason, "no response to the log-in request");
            LoginError::unavailable(format!("the log-in failed: {reason}"))
        })?;
        let status = response.status.as_u16();
        if response.status.is_success() {
            tracing::debug!(operation, status, "ThingSpace responded");
            return serde_json::from_slice(&response.body).map_err(|_| LoginError::unusable());
        }
        let error = ErrorBody::parse(&response.body);
        let failure = login_failure(&response, step, error.as_ref());
        let (name, kind, detail) = match failure {
            LoginFailure::CredentialsRefused => (
                "credentials_refused",
                RefusalKind::Credentials,
                format!("ThingSpace refused the gateway's credentials for a {operation}"),
            ),
            LoginFailure::TokenRefused => (
                "token_refused",
                RefusalKind::Credentials,
                "ThingSpace refused its own token in a session log-in".to_owned(),
            ),
            LoginFailure::Unrecognised => (
                "unrecognised",
                RefusalKind::NotSent,
                format!(
                    "the log-in failed: the response to the {operation} request was {status} in an unknown \
                     format; it may come from a proxy"
                ),
            ),
            LoginFailure::Unavailable => (
                "unavailable",
                RefusalKind::NotSent,
                format!("the log-in failed: ThingSpace responded {status}"),
            ),
        };
        let mut refusal = if classify::is_throttled(&response, error.as_ref()) {
            classify::throttled(&response, error)
        } else {
            classify::refusal_with_error(kind, detail, error)
        };
        Redactor::new(secrets, &[]).redact(&mut refusal);
        let thingspace_code = refusal.thingspace_code.as_deref();
        tracing::warn!(operation, status, thingspace_code, failure = name, "log-in failed");
        Err(LoginError { failure, refusal })
    }
}

fn login_failure(
    response: &UpstreamResponse,
    step: LoginStep,
    error: Option<&ErrorBody>,
) -> LoginFailure {
    let may_refuse = matches!(
        response.status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    );
    if classify::is_throttled(response, error) || !may_refuse {
        LoginFailure::Unavailable
    } else if step == LoginStep::Session && classify::is_stale_token(response, error) {
        LoginFailure::TokenRefused
    } else if failpoints::is_active("any-refusal-counts")
        || error.is_some_and(|error| step.is_refusal(error))
    {
        LoginFailure::CredentialsRefused
    } else {
        LoginFailure::Unrecognised
    }
}

/// Returns a text of a response, without spaces around it.
fn secret_text<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    Some(member(body, name)?.as_str()?.trim())
}

impl HeaderSecret {
    /// Creates a token. Returns `None` if it cannot be the value of a header.
    pub(super) fn token(text: &str) -> Option<Self> {
        Self::new(text, "Bearer ")
    }

    /// Creates a session. Returns `None` if it cannot be the value of a header.
    pub(super) fn session(text: &str) -> Option<Self> {
        Self::new(text, "")
    }

    fn new(text: &str, prefix: &str) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("{prefix}{text}")).ok()?;
        header.set_sensitive(true);
        (!text.is_empty()).then(|| Self { header, text: SecretString::from(text) })
    }
}

impl LoginStep {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Token => "/ts/v1/oauth2/token",
            Self::Session => "/m2m/v1/session/login",
        }
    }

    /// True if ThingSpace refused the credentials of this step in a format that it is known to use (see
    /// docs/thingspace-facts.md, sections 1 and 2).
    fn is_refusal(self, error: &ErrorBody) -> bool {
        match (self, error.format) {
            (Self::Token, ErrorFormat::OAuth) => {
                let codes = ["invalid_client", "invalid_grant", "unauthorized_client"];
                codes.contains(&error.code.as_str())
            }
            (Self::Token, ErrorFormat::Fault | ErrorFormat::XmlFault) => {
                error.is_authentication_fault()
            }
            // The codes of a wrong user name or password are not documented, so every code counts that names a
            // cause.
            (Self::Session, ErrorFormat::Service) => {
                error.meaning() != Some(ErrorMeaning::Uncertain)
                    && matches!(error.status_code(), None | Some(400 | 401 | 403))
            }
            _ => false,
        }
    }
}

impl LoginError {
    fn unavailable(detail: impl Into<String>) -> Self {
        Self { failure: LoginFailure::Unavailable, refusal: Refusal::not_sent(detail) }
    }

    fn unusable() -> Self {
        Self::unavailable("the log-in failed: the response contains no token")
    }
}
