//! The two steps of a log-in: a token ("Getting Credentials") and a session
//! ("Start Connectivity Management Session").

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, StatusCode, header, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;

use super::{
    answer,
    blank::Blanks,
    error_body::{self, ErrorBody, Shape},
    http::{self, About, Endpoint, Http, Reply},
    refusal,
    refusals::{self, Meaning},
    settings::Credentials,
};
use crate::{
    broken::Rule,
    domain::{
        change::{Refusal, RefusalKind},
        trace::TraceParent,
    },
};

const TOKEN_PATH: &str = "/ts/v1/oauth2/token";
const SESSION_PATH: &str = "/m2m/v1/session/login";

/// What a token lives when ThingSpace does not say.
const DEFAULT_LIFETIME: u64 = 60 * 60;
/// What a token lives at most; the portal's test tokens do not expire.
const MAX_LIFETIME: u64 = 24 * 60 * 60;

/// A token or session, also as the header that carries it.
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) header: HeaderValue,
    pub(super) text: SecretString,
}

/// Why there is no token or no session.
pub(super) struct LogInError {
    pub(super) cause: Cause,
    pub(super) refusal: Refusal,
}

/// The conclusion about the credentials from a failed log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// ThingSpace refused them, in a form that it is known to use. Counts towards the lock-out.
    CredentialsRefused,
    /// The API gateway refused the token of a session log-in, before ThingSpace saw the user's name.
    TokenRefused,
    /// 400, 401 or 403 in an unknown form: something in between may have answered, a proxy for one.
    Unrecognised,
    /// Nothing: no answer, a 5xx answer, or ThingSpace throttles.
    Unrelated,
}

/// The two steps of a log-in.
#[async_trait]
pub(super) trait LogInApi: Send + Sync {
    /// A token and how long it lives. Within a token's hour it is the same one again ("Getting
    /// Credentials"), with less than that left.
    async fn token(
        &self,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<(Secret, Duration), LogInError>;

    /// A session. ThingSpace does not say how long it lives: it ends 20 minutes after its last use, or
    /// earlier.
    async fn session(
        &self,
        token: &Secret,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<Secret, LogInError>;
}

/// The log-in over HTTP.
pub(super) struct LogIn {
    pub(super) http: Http,
    pub(super) endpoint: Endpoint,
}

/// A step of a log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
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
impl LogInApi for LogIn {
    async fn token(
        &self,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<(Secret, Duration), LogInError> {
        let request = self
            .http
            .log_ins
            .post(self.endpoint.at(TOKEN_PATH))
            .basic_auth(
                credentials.app_key.expose_secret(),
                Some(credentials.app_secret.expose_secret()),
            )
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, http::JSON)
            .body("grant_type=client_credentials");
        let reply = self
            .exchange(Step::Token, request, TOKEN_PATH, trace)
            .await?;
        let body = granted(&reply, Step::Token, credentials.texts())?;
        let seconds = member(&body, "expires_in")
            .and_then(|value| match value {
                Value::String(text) => text.trim().parse().ok(),
                other => other.as_u64(),
            })
            .unwrap_or(DEFAULT_LIFETIME)
            .clamp(1, MAX_LIFETIME);
        let token = Secret::read(&body, "access_token", "Bearer ")?;
        Ok((token, Duration::from_secs(seconds)))
    }

    async fn session(
        &self,
        token: &Secret,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<Secret, LogInError> {
        let body = serde_json::to_vec(&SessionBody {
            username: credentials.uws_username.expose_secret(),
            password: credentials.uws_password.expose_secret(),
        })
        .map_err(|_| LogInError::unrelated("the log-in could not be written"))?;
        let request = self
            .http
            .log_ins
            .post(self.endpoint.at(SESSION_PATH))
            .header(header::AUTHORIZATION, token.header.clone())
            .header(header::CONTENT_TYPE, http::JSON)
            .header(header::ACCEPT, http::JSON)
            .body(body);
        let reply = self
            .exchange(Step::Session, request, SESSION_PATH, trace)
            .await?;
        let secrets = credentials.texts().chain([token.text.expose_secret()]);
        Secret::read(
            &granted(&reply, Step::Session, secrets)?,
            "sessionToken",
            "",
        )
    }
}

impl LogIn {
    async fn exchange(
        &self,
        step: Step,
        request: reqwest::RequestBuilder,
        template: &'static str,
        trace: Option<&TraceParent>,
    ) -> Result<Reply, LogInError> {
        let about = About {
            method: &Method::POST,
            template,
            trace,
            max_body: http::MAX_BODY,
        };
        self.http.send(request, about).await.map_err(|failure| {
            let why = failure.why();
            tracing::warn!(operation = step.name(), why, "the log-in got no answer");
            LogInError::unrelated(format!("the log-in failed: {why}"))
        })
    }
}

/// The body of a success, or why there is none.
fn granted<'a>(
    reply: &Reply,
    step: Step,
    secrets: impl Iterator<Item = &'a str>,
) -> Result<Value, LogInError> {
    let (operation, status) = (step.name(), reply.status.as_u16());
    if reply.status.is_success() {
        tracing::debug!(operation, status, "ThingSpace answered");
        return serde_json::from_slice(&reply.body).map_err(|_| LogInError::unusable());
    }
    let error = ErrorBody::read(&reply.body);
    let cause = cause(reply, step, error.as_ref());
    let is_throttled = answer::is_log_in_throttled(reply, error.as_ref());
    let mut refusal = match cause {
        Cause::CredentialsRefused => {
            let detail = format!("ThingSpace refuses the gateway's credentials for a {operation}");
            answer::spoken(RefusalKind::Credentials, detail, error)
        }
        Cause::TokenRefused => {
            let detail =
                "ThingSpace refuses the token that it issued, when the gateway logs in with it";
            answer::spoken(RefusalKind::Credentials, detail, error)
        }
        Cause::Unrecognised => {
            let detail = format!(
                "the log-in failed: the {operation} request was answered {status} in a form that ThingSpace \
                 does not use; a proxy may have answered"
            );
            answer::spoken(RefusalKind::NotSent, detail, error)
        }
        Cause::Unrelated if is_throttled => answer::throttled(reply, error),
        Cause::Unrelated => {
            let detail = format!("the log-in failed: ThingSpace answered {status}");
            answer::spoken(RefusalKind::NotSent, detail, error)
        }
    };
    Blanks::new(secrets).tidy(&mut refusal);
    let code = refusal.thingspace_code.as_deref();
    tracing::warn!(operation, status, code, ?cause, "the log-in failed");
    Err(LogInError { cause, refusal })
}

/// The conclusion about the credentials from an answer that is no success.
fn cause(reply: &Reply, step: Step, error: Option<&ErrorBody>) -> Cause {
    let may_refuse = matches!(
        reply.status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    );
    if answer::is_log_in_throttled(reply, error) || !may_refuse {
        Cause::Unrelated
    } else if step == Step::Session && answer::is_stale_token(reply, error) {
        Cause::TokenRefused
    } else if Rule::KnownRefusals.is_broken() || error.is_some_and(|error| step.is_refusal(error)) {
        Cause::CredentialsRefused
    } else {
        Cause::Unrecognised
    }
}

fn member<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    error_body::get(body.as_object()?, name)
}

// === impl Secret ===

impl Secret {
    fn read(body: &Value, name: &str, prefix: &str) -> Result<Self, LogInError> {
        let text = member(body, name)
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .ok_or_else(LogInError::unusable)?;
        let mut header = HeaderValue::from_str(&format!("{prefix}{text}"))
            .map_err(|_| LogInError::unusable())?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            text: SecretString::from(text),
        })
    }
}

// === impl Step ===

impl Step {
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
            (Self::Token, Shape::OAuth) => {
                let codes = ["invalid_client", "invalid_grant", "unauthorized_client"];
                codes.contains(&error.code.as_str())
            }
            (Self::Token, Shape::Fault | Shape::XmlFault) => error.is_authentication_fault(),
            // No page lists the codes of a wrong name or password, so all count but the one that says
            // no more than that something went wrong.
            (Self::Session, Shape::Service) => {
                refusals::meaning(error) != Some(Meaning::Nothing)
                    && matches!(error.status_code(), None | Some(400 | 401 | 403))
            }
            _ => false,
        }
    }
}

// === impl LogInError ===

impl LogInError {
    fn unrelated(detail: impl Into<String>) -> Self {
        Self {
            cause: Cause::Unrelated,
            refusal: refusal(RefusalKind::NotSent, detail),
        }
    }

    fn unusable() -> Self {
        Self::unrelated("the log-in failed: ThingSpace's answer has no token in it")
    }
}
