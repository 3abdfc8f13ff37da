//! The two steps of a log-in: a token ("Getting Credentials") and a session
//! ("Start Connectivity Management Session").

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, StatusCode, header, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;

use super::{
    classify,
    error_body::{self, ErrorBody, ErrorShape},
    error_codes::{self, ErrorMeaning},
    http::{self, Endpoint, Http, RequestInfo, UpstreamResponse},
    new_refusal,
    redactor::Redactor,
    settings::ThingSpaceCredentials,
};
use crate::{
    domain::{
        refusal::{Refusal, RefusalKind},
        trace::TraceParent,
    },
    invariants::Invariant,
};

const TOKEN_PATH: &str = "/ts/v1/oauth2/token";
const SESSION_PATH: &str = "/m2m/v1/session/login";

/// What a token lives when ThingSpace does not say.
const DEFAULT_LIFETIME: u64 = 60 * 60;
/// What a token lives at most; the portal's test tokens do not expire.
const MAX_LIFETIME: u64 = 24 * 60 * 60;

/// A token or session, also as the header that carries it.
#[derive(Clone)]
pub(super) struct HeaderSecret {
    pub(super) header: HeaderValue,
    pub(super) text: SecretString,
}

/// Why there is no token or no session.
pub(super) struct LoginError {
    pub(super) cause: LoginFailure,
    pub(super) refusal: Refusal,
}

/// The conclusion about the credentials from a failed log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginFailure {
    /// ThingSpace refused them, in a form that it is known to use. Counts towards the lock-out.
    CredentialsRefused,
    /// The API gateway refused the token of a session log-in, before ThingSpace saw the user's name.
    TokenRefused,
    /// 400, 401 or 403 in an unknown form: something in between may have answered, a proxy for one.
    Unrecognised,
    /// Nothing: no answer, a 5xx answer, or ThingSpace throttles.
    Unavailable,
}

/// The two steps of a log-in.
#[async_trait]
pub(super) trait LoginApi: Send + Sync {
    /// A token and how long it lives. Within a token's hour it is the same one again ("Getting
    /// Credentials"), with less than that left.
    async fn token(
        &self,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<(HeaderSecret, Duration), LoginError>;

    /// A session. ThingSpace does not say how long it lives: it ends 20 minutes after its last use, or
    /// earlier.
    async fn session(
        &self,
        token: &HeaderSecret,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<HeaderSecret, LoginError>;
}

/// The log-in over HTTP.
pub(super) struct HttpLogin {
    pub(super) http: Http,
    pub(super) endpoint: Endpoint,
}

/// A step of a log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginStep {
    Token,
    Session,
}

#[derive(Serialize)]
struct SessionBody<'a> {
    username: &'a str,
    password: &'a str,
}

// === impl LogIn ===

#[async_trait]
impl LoginApi for HttpLogin {
    async fn token(
        &self,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<(HeaderSecret, Duration), LoginError> {
        let request = self
            .http
            .default_client
            .post(self.endpoint.join(TOKEN_PATH))
            .basic_auth(
                credentials.app_key.expose_secret(),
                Some(credentials.app_secret.expose_secret()),
            )
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, http::JSON)
            .body("grant_type=client_credentials");
        let reply = self
            .exchange(LoginStep::Token, request, TOKEN_PATH, trace)
            .await?;
        let body = parse_success(&reply, LoginStep::Token, credentials.secret_values())?;
        let seconds = member(&body, "expires_in")
            .and_then(|value| match value {
                Value::String(text) => text.trim().parse().ok(),
                other => other.as_u64(),
            })
            .unwrap_or(DEFAULT_LIFETIME)
            .clamp(1, MAX_LIFETIME);
        let token = HeaderSecret::from_json(&body, "access_token", "Bearer ")?;
        Ok((token, Duration::from_secs(seconds)))
    }

    async fn session(
        &self,
        token: &HeaderSecret,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<HeaderSecret, LoginError> {
        let body = serde_json::to_vec(&SessionBody {
            username: credentials.uws_username.expose_secret(),
            password: credentials.uws_password.expose_secret(),
        })
        .map_err(|_| LoginError::unavailable("the log-in could not be written"))?;
        let request = self
            .http
            .default_client
            .post(self.endpoint.join(SESSION_PATH))
            .header(header::AUTHORIZATION, token.header.clone())
            .header(header::CONTENT_TYPE, http::JSON)
            .header(header::ACCEPT, http::JSON)
            .body(body);
        let reply = self
            .exchange(LoginStep::Session, request, SESSION_PATH, trace)
            .await?;
        let secrets = credentials
            .secret_values()
            .chain([token.text.expose_secret()]);
        HeaderSecret::from_json(
            &parse_success(&reply, LoginStep::Session, secrets)?,
            "sessionToken",
            "",
        )
    }
}

impl HttpLogin {
    async fn exchange(
        &self,
        step: LoginStep,
        request: reqwest::RequestBuilder,
        template: &'static str,
        trace: Option<&TraceParent>,
    ) -> Result<UpstreamResponse, LoginError> {
        let info = RequestInfo {
            method: &Method::POST,
            template,
            trace,
            max_body: http::MAX_BODY,
        };
        self.http.send(request, info).await.map_err(|failure| {
            let why = failure.reason();
            tracing::warn!(operation = step.name(), why, "the log-in got no answer");
            LoginError::unavailable(format!("the log-in failed: {why}"))
        })
    }
}

/// The body of a success, or why there is none.
fn parse_success<'a>(
    reply: &UpstreamResponse,
    step: LoginStep,
    secrets: impl Iterator<Item = &'a str>,
) -> Result<Value, LoginError> {
    let (operation, status) = (step.name(), reply.status.as_u16());
    if reply.status.is_success() {
        tracing::debug!(operation, status, "ThingSpace answered");
        return serde_json::from_slice(&reply.body).map_err(|_| LoginError::unusable());
    }
    let error = ErrorBody::parse(&reply.body);
    let cause = cause(reply, step, error.as_ref());
    let is_throttled = classify::is_throttled_response(reply, error.as_ref());
    let mut refusal = match cause {
        LoginFailure::CredentialsRefused => {
            let detail = format!("ThingSpace refuses the gateway's credentials for a {operation}");
            classify::refusal_with_error(RefusalKind::Credentials, detail, error)
        }
        LoginFailure::TokenRefused => {
            let detail =
                "ThingSpace refuses the token that it issued, when the gateway logs in with it";
            classify::refusal_with_error(RefusalKind::Credentials, detail, error)
        }
        LoginFailure::Unrecognised => {
            let detail = format!(
                "the log-in failed: the {operation} request was answered {status} in a form that ThingSpace \
                 does not use; a proxy may have answered"
            );
            classify::refusal_with_error(RefusalKind::NotSent, detail, error)
        }
        LoginFailure::Unavailable if is_throttled => classify::throttled(reply, error),
        LoginFailure::Unavailable => {
            let detail = format!("the log-in failed: ThingSpace answered {status}");
            classify::refusal_with_error(RefusalKind::NotSent, detail, error)
        }
    };
    Redactor::new(secrets).redact(&mut refusal);
    let code = refusal.thingspace_code.as_deref();
    tracing::warn!(operation, status, code, ?cause, "the log-in failed");
    Err(LoginError { cause, refusal })
}

/// The conclusion about the credentials from an answer that is no success.
fn cause(reply: &UpstreamResponse, step: LoginStep, error: Option<&ErrorBody>) -> LoginFailure {
    let may_refuse = matches!(
        reply.status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    );
    if classify::is_throttled_response(reply, error) || !may_refuse {
        LoginFailure::Unavailable
    } else if step == LoginStep::Session && classify::is_stale_token(reply, error) {
        LoginFailure::TokenRefused
    } else if Invariant::RecognisedRefusals.is_disabled()
        || error.is_some_and(|error| step.is_refusal(error))
    {
        LoginFailure::CredentialsRefused
    } else {
        LoginFailure::Unrecognised
    }
}

fn member<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    error_body::get(body.as_object()?, name)
}

// === impl Secret ===

impl HeaderSecret {
    fn from_json(body: &Value, name: &str, prefix: &str) -> Result<Self, LoginError> {
        let text = member(body, name)
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .ok_or_else(LoginError::unusable)?;
        let mut header = HeaderValue::from_str(&format!("{prefix}{text}"))
            .map_err(|_| LoginError::unusable())?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            text: SecretString::from(text),
        })
    }
}

// === impl Step ===

impl LoginStep {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
        }
    }

    /// True if an error says that the credentials of this step are wrong: only in a form that
    /// ThingSpace is known to use (see thingspace-facts, sections 1 and 2).
    fn is_refusal(self, error: &ErrorBody) -> bool {
        match (self, error.shape) {
            (Self::Token, ErrorShape::OAuth) => {
                let codes = ["invalid_client", "invalid_grant", "unauthorized_client"];
                codes.contains(&error.code.as_str())
            }
            (Self::Token, ErrorShape::Fault | ErrorShape::XmlFault) => {
                error.is_authentication_fault()
            }
            // No page lists the codes of a wrong name or password, so all count but the one that says
            // no more than that something went wrong.
            (Self::Session, ErrorShape::Service) => {
                error_codes::classify_error(error) != Some(ErrorMeaning::Uncertain)
                    && matches!(error.status_code(), None | Some(400 | 401 | 403))
            }
            _ => false,
        }
    }
}

// === impl LogInError ===

impl LoginError {
    fn unavailable(detail: impl Into<String>) -> Self {
        Self {
            cause: LoginFailure::Unavailable,
            refusal: new_refusal(RefusalKind::NotSent, detail),
        }
    }

    fn unusable() -> Self {
        Self::unavailable("the log-in failed: ThingSpace's answer has no token in it")
    }
}
