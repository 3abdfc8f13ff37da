//! The two steps of a log-in: a token ("Getting Credentials") and a session
//! ("Start Connectivity Management Session").

use std::time::Duration;

use reqwest::{Method, StatusCode, header, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;

use super::{
    answer,
    blank::Blanks,
    error_body::{self, ErrorBody},
    http::{self, About, Endpoint, Http, Reply},
    refusal,
    settings::Credentials,
};
use crate::domain::{
    change::{Refusal, RefusalKind},
    trace::TraceParent,
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
pub(super) enum LogInError {
    /// The token was refused on the way to the session log-in.
    StaleToken(Refusal),
    /// Anything else.
    Other(Refusal),
}

/// The two steps.
#[derive(Clone)]
pub(super) struct LogIn {
    pub(super) http: Http,
    pub(super) endpoint: Endpoint,
}

#[derive(Serialize)]
struct SessionBody<'a> {
    username: &'a str,
    password: &'a str,
}

// === impl LogIn ===

impl LogIn {
    /// A token and how long it lives. Within a token's hour it is the same one
    /// again ("Getting Credentials"), with less than that left.
    pub(super) async fn token(
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
        let reply = self.exchange("token", request, TOKEN_PATH, trace).await?;
        let body = granted(&reply, "token", credentials.texts())?;
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

    /// A session. Its own life is not told: it ends 20 minutes after its last
    /// use, or when ThingSpace likes.
    pub(super) async fn session(
        &self,
        token: &Secret,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<Secret, LogInError> {
        let body = serde_json::to_vec(&SessionBody {
            username: credentials.uws_username.expose_secret(),
            password: credentials.uws_password.expose_secret(),
        })
        .map_err(|_| LogInError::other(RefusalKind::NotSent, "the log-in could not be written"))?;
        let request = self
            .http
            .log_ins
            .post(self.endpoint.at(SESSION_PATH))
            .header(header::AUTHORIZATION, token.header.clone())
            .header(header::CONTENT_TYPE, http::JSON)
            .header(header::ACCEPT, http::JSON)
            .body(body);
        let reply = self
            .exchange("session", request, SESSION_PATH, trace)
            .await?;
        let secrets = credentials.texts().chain([token.text.expose_secret()]);
        Secret::read(&granted(&reply, "session", secrets)?, "sessionToken", "")
    }

    async fn exchange(
        &self,
        operation: &'static str,
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
            tracing::warn!(operation, why, "the log-in got no answer");
            LogInError::other(RefusalKind::NotSent, format!("the log-in failed: {why}"))
        })
    }
}

/// The body of a success, or what its lack means.
fn granted<'a>(
    reply: &Reply,
    operation: &'static str,
    secrets: impl Iterator<Item = &'a str>,
) -> Result<Value, LogInError> {
    let status = reply.status.as_u16();
    if reply.status.is_success() {
        tracing::debug!(operation, status, "ThingSpace answered");
        return serde_json::from_slice(&reply.body).map_err(|_| LogInError::unusable());
    }
    let error = ErrorBody::read(&reply.body);
    let stale_token = operation == "session" && answer::is_stale_token(reply, error.as_ref());
    let mut refusal = if answer::is_log_in_throttled(reply, error.as_ref()) {
        answer::throttled(reply, error)
    } else if is_refused(reply.status) {
        let detail = format!("ThingSpace refuses the gateway's credentials for a {operation}");
        answer::spoken(RefusalKind::Credentials, detail, error)
    } else {
        let detail = format!("the log-in failed: ThingSpace answered {status}");
        answer::spoken(RefusalKind::NotSent, detail, error)
    };
    Blanks::new(secrets).tidy(&mut refusal);
    let code = refusal.thingspace_code.as_deref();
    tracing::warn!(operation, status, code, "the log-in was refused");
    Err(if stale_token {
        LogInError::StaleToken(refusal)
    } else {
        LogInError::Other(refusal)
    })
}

/// Whether it is about the credentials, and so may count towards the lock-out.
/// Anything else, 404 for one, is about the way there.
fn is_refused(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
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

// === impl LogInError ===

impl LogInError {
    fn other(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self::Other(refusal(kind, detail))
    }

    fn unusable() -> Self {
        Self::other(
            RefusalKind::NotSent,
            "the log-in failed: ThingSpace's answer has no token in it",
        )
    }

    pub(super) fn into_refusal(self) -> Refusal {
        match self {
            Self::StaleToken(refusal) | Self::Other(refusal) => refusal,
        }
    }
}
