//! Access tokens and sessions.
//!
//! A token request returns the same token for one hour from its first issue, unless it is revoked. A
//! session expires after 20 minutes without use. Five failed log-ins in a row lock the user (see
//! thingspace-facts, sections 1 and 2).

#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::{
    errors::{ErrorResponse, code},
    settings::{AcceptedCredentials, Settings},
};

/// Number of failed log-ins in a row that lock the user.
const MAX_FAILED_LOGINS: u8 = 5;
/// Maximum number of tokens. The oldest is evicted.
const MAX_TOKENS: usize = 64;
/// Maximum number of sessions. The least recently used is evicted.
const MAX_SESSIONS: usize = 1024;
/// Maximum number of users whose failed log-ins are counted.
const MAX_USERS: usize = 1024;

/// The issued tokens and sessions, and the credentials for new ones.
pub(crate) struct Auth {
    expected: AcceptedCredentials,
    token_lifetime: Duration,
    session_idle_timeout: Duration,
    single_session: bool,
    rng: fastrand::Rng,
    tokens: Vec<Token>,
    sessions: Vec<Session>,
    /// Number of failed log-ins in a row, by user.
    failed_logins: HashMap<String, u8>,
}

/// Key and secret of an application.
#[derive(PartialEq, Eq)]
pub(crate) struct AppCredentials {
    key: String,
    secret: String,
}

struct Token {
    app: AppCredentials,
    value: String,
    issued_at: Instant,
    /// Valid, but not returned by the next token request.
    is_retired: bool,
}

struct Session {
    user: String,
    value: String,
    used_at: Instant,
}

/// The access token and the session of a request.
pub(crate) struct RequestCredentials {
    pub(crate) token: String,
    pub(crate) session: String,
}

/// An access token and its remaining lifetime in seconds.
pub(crate) struct Issued {
    pub(crate) value: String,
    pub(crate) expires_in: u64,
}

impl Auth {
    pub(crate) fn new(settings: &Settings, rng: fastrand::Rng) -> Self {
        Self {
            expected: settings.credentials.clone(),
            token_lifetime: settings.token_lifetime,
            session_idle_timeout: settings.session_lifetime,
            single_session: settings.single_session,
            rng,
            tokens: Vec::new(),
            sessions: Vec::new(),
            failed_logins: HashMap::new(),
        }
    }

    /// Returns the credentials of a token request.
    pub(crate) fn authenticate_app(
        &self,
        headers: &HeaderMap,
    ) -> Result<AppCredentials, ErrorResponse> {
        if !headers.contains_key(header::AUTHORIZATION) {
            return Err(ErrorResponse::missing_token());
        }
        let accepted = basic(headers).filter(|app| {
            accepts(&self.expected.app_key, &app.key)
                && accepts(&self.expected.app_secret, &app.secret)
        });
        accepted.ok_or_else(|| {
            let description = "Client Authentication failed.";
            ErrorResponse::oauth(StatusCode::UNAUTHORIZED, "invalid_client", description)
        })
    }

    /// Returns the token of an application, or a new one.
    pub(crate) fn issue(&mut self, app: AppCredentials) -> Issued {
        let now = Instant::now();
        let lifetime = self.token_lifetime;
        self.tokens.retain(|token| token.is_valid(lifetime, now));
        // Excludes a token whose `expires_in` would be 0.
        let is_reusable = |token: &&Token| {
            token.app == app && !token.is_retired && token.remaining(lifetime, now).as_secs() > 0
        };
        if let Some(token) = self.tokens.iter().find(is_reusable) {
            return Issued {
                value: token.value.clone(),
                expires_in: token.remaining(lifetime, now).as_secs(),
            };
        }
        if self.tokens.len() >= MAX_TOKENS {
            self.tokens.remove(0);
        }
        let value = format!("{:032x}", self.rng.u128(..));
        self.tokens.push(Token { app, value: value.clone(), issued_at: now, is_retired: false });
        Issued { value, expires_in: lifetime.as_secs() }
    }

    /// Revokes a token of an application. An unknown token is no error, as on WSO2.
    pub(crate) fn revoke(&mut self, app: &AppCredentials, value: &str) {
        self.tokens.retain(|token| token.app != *app || token.value != value);
    }

    /// Makes the next token request return another token. This one stays valid for other requests.
    pub(crate) fn stop_reissuing(&mut self, value: &str) {
        let token = self.tokens.iter_mut().find(|token| token.value == value);
        if let Some(token) = token {
            token.is_retired = true;
        }
    }

    /// Returns the access token of a request if it is valid.
    pub(crate) fn check_token(&self, headers: &HeaderMap) -> Result<String, ErrorResponse> {
        let value = authorization(headers, "bearer").ok_or_else(ErrorResponse::missing_token)?;
        let now = Instant::now();
        self.tokens
            .iter()
            .any(|token| token.value == value && token.is_valid(self.token_lifetime, now))
            .then(|| value.to_owned())
            .ok_or_else(ErrorResponse::invalid_token)
    }

    /// Opens a session. A setting decides whether this ends the user's earlier ones; ThingSpace's
    /// behaviour is not documented.
    pub(crate) fn login(
        &mut self,
        username: &str,
        password: &str,
    ) -> Result<String, ErrorResponse> {
        let rejected = |message| Err(ErrorResponse::m2m(code::PASSWORD_INVALID, message));
        if self.failed_logins.get(username) >= Some(&MAX_FAILED_LOGINS) {
            return rejected("The user is locked after 5 failed log-ins");
        }
        if !self.accepts_user(username, password) {
            self.record_failed_login(username);
            return rejected("The username or password is not valid");
        }
        self.failed_logins.remove(username);
        if self.single_session {
            self.sessions.retain(|session| session.user != username);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.sort_by_key(|session| session.used_at);
            self.sessions.remove(0);
        }
        let value =
            Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid().to_string();
        self.sessions.push(Session {
            user: username.to_owned(),
            value: value.clone(),
            used_at: Instant::now(),
        });
        Ok(value)
    }

    /// Returns the number of locked users.
    pub(crate) fn locked_users(&self) -> usize {
        self.failed_logins.values().filter(|count| **count >= MAX_FAILED_LOGINS).count()
    }

    /// Counts a failed log-in of a user that exists.
    fn record_failed_login(&mut self, username: &str) {
        let exists = accepts(&self.expected.uws_username, username);
        let has_capacity =
            self.failed_logins.len() < MAX_USERS || self.failed_logins.contains_key(username);
        if exists && has_capacity {
            let count = self.failed_logins.entry(username.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Returns the session of a request if it is valid, and starts its lifetime again.
    pub(crate) fn use_session(&mut self, headers: &HeaderMap) -> Result<String, ErrorResponse> {
        let Some(value) = text(headers, "vz-m2m-token").filter(|value| !value.is_empty()) else {
            let message = "The request has no session token";
            return Err(ErrorResponse::m2m(code::SESSION_FORMAT, message));
        };
        let session = Uuid::try_parse(value)
            .ok()
            .and_then(|_| self.sessions.iter_mut().find(|one| one.value == value));
        let Some(session) = session else {
            return Err(ErrorResponse::session_invalid());
        };
        let now = Instant::now();
        if now.duration_since(session.used_at) >= self.session_idle_timeout {
            return Err(ErrorResponse::session_expired());
        }
        session.used_at = now;
        Ok(session.value.clone())
    }

    pub(crate) fn logout(&mut self, value: &str) {
        self.sessions.retain(|session| session.value != value);
    }

    fn accepts_user(&self, username: &str, password: &str) -> bool {
        accepts(&self.expected.uws_username, username)
            && accepts(&self.expected.uws_password, password)
    }
}

impl Token {
    fn remaining(&self, lifetime: Duration, now: Instant) -> Duration {
        lifetime.saturating_sub(now.duration_since(self.issued_at))
    }

    fn is_valid(&self, lifetime: Duration, now: Instant) -> bool {
        !self.remaining(lifetime, now).is_zero()
    }
}

/// An unset credential accepts any value that is not empty.
fn accepts(expected: &Option<String>, given: &str) -> bool {
    match expected {
        Some(expected) => expected == given,
        None => !given.is_empty(),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Returns the credentials of an authentication scheme. Its name is case-insensitive.
fn authorization<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let (given, value) = text(headers, "authorization")?.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| value.trim())
}

fn basic(headers: &HeaderMap) -> Option<AppCredentials> {
    let decoded = STANDARD.decode(authorization(headers, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (key, secret) = text.split_once(':')?;
    Some(AppCredentials { key: key.to_owned(), secret: secret.to_owned() })
}
