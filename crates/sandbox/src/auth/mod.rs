//! Access tokens and sessions.
//!
//! An access token lives one hour from its first issue, and a request inside
//! that hour is answered with the same token; a revoked one is followed by another
//! (ThingSpace, Get Credentials page). A session dies after 20 minutes without
//! use, and five failed log-ins in a row lock the user (ThingSpace, Start
//! Connectivity Management Session page).

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::errors::{ErrorResponse, code};
use crate::settings::{AcceptedCredentials, Settings};

/// Failed log-ins in a row that lock the user.
const MAX_FAILED_LOGINS: u8 = 5;
/// Key pairs whose tokens are remembered: the oldest gives way.
const MAX_TOKENS: usize = 64;
/// Sessions that are remembered: the least recently used gives way.
const MAX_SESSIONS: usize = 1024;
/// Users whose failed log-ins are counted.
const MAX_USERS: usize = 1024;

/// Everything that was issued, and what it takes to get more.
pub(crate) struct Auth {
    expected: AcceptedCredentials,
    token_lifetime: Duration,
    session_idle_timeout: Duration,
    single_session: bool,
    rng: fastrand::Rng,
    tokens: Vec<Token>,
    sessions: Vec<Session>,
    /// Failed log-ins in a row, by user.
    failed_logins: HashMap<String, u8>,
}

/// Key and secret of an application.
#[derive(PartialEq, Eq)]
pub(crate) struct AppCredentials {
    key: String,
    secret: String,
}

struct Token {
    pair: AppCredentials,
    value: String,
    issued: Instant,
    /// Still good, but the next token request is answered with another.
    is_retired: bool,
}

struct Session {
    user: String,
    value: String,
    used: Instant,
}

/// An access token and the seconds that are left of it.
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

    /// The key pair of a token request.
    pub(crate) fn authenticate_app(
        &self,
        headers: &HeaderMap,
    ) -> Result<AppCredentials, ErrorResponse> {
        if !headers.contains_key(header::AUTHORIZATION) {
            return Err(ErrorResponse::missing_token());
        }
        basic(headers)
            .filter(|pair| self.knows_app(pair))
            .ok_or_else(|| {
                ErrorResponse::oauth(
                    StatusCode::UNAUTHORIZED,
                    "invalid_client",
                    "Client Authentication failed.",
                )
            })
    }

    /// The token of a key pair: the one of this hour, or a new one.
    pub(crate) fn issue(&mut self, pair: AppCredentials) -> Issued {
        let now = Instant::now();
        let life = self.token_lifetime;
        self.tokens.retain(|token| token.lives(life, now));
        // A token in its last second would be told to expire in none.
        let fits = |token: &&Token| {
            token.pair == pair && !token.is_retired && token.left(life, now).as_secs() > 0
        };
        if let Some(token) = self.tokens.iter().find(fits) {
            return Issued {
                value: token.value.clone(),
                expires_in: token.left(life, now).as_secs(),
            };
        }
        if self.tokens.len() >= MAX_TOKENS {
            self.tokens.remove(0);
        }
        let value = format!("{:032x}", self.rng.u128(..));
        self.tokens.push(Token {
            pair,
            value: value.clone(),
            issued: now,
            is_retired: false,
        });
        Issued {
            value,
            expires_in: life.as_secs(),
        }
    }

    /// Ends a token of this key pair. WSO2 does not tell whether it was one.
    pub(crate) fn revoke(&mut self, pair: &AppCredentials, value: &str) {
        self.tokens
            .retain(|token| token.pair != *pair || token.value != value);
    }

    /// Has the next token request answered with another token, while this one
    /// stays good for whoever else uses it.
    pub(crate) fn stop_reissuing(&mut self, value: &str) {
        let token = self.tokens.iter_mut().find(|token| token.value == value);
        if let Some(token) = token {
            token.is_retired = true;
        }
    }

    /// Lets a request with a living access token pass.
    pub(crate) fn check_token(&self, headers: &HeaderMap) -> Result<String, ErrorResponse> {
        let value = bearer(headers).ok_or_else(ErrorResponse::missing_token)?;
        let now = Instant::now();
        self.tokens
            .iter()
            .any(|token| token.value == value && token.lives(self.token_lifetime, now))
            .then(|| value.to_owned())
            .ok_or_else(ErrorResponse::invalid_token)
    }

    /// Opens a session. Whether the platform then ends the user's earlier ones
    /// is not documented: a setting decides.
    pub(crate) fn login(
        &mut self,
        username: &str,
        password: &str,
    ) -> Result<String, ErrorResponse> {
        if self.is_locked(username) {
            return Err(ErrorResponse::m2m(
                code::PASSWORD_INVALID,
                "The user is locked after 5 failed log-ins",
            ));
        }
        if !self.knows_user(username, password) {
            self.record_failed_login(username);
            return Err(ErrorResponse::m2m(
                code::PASSWORD_INVALID,
                "The username or password is not valid",
            ));
        }
        self.failed_logins.remove(username);
        if self.single_session {
            self.sessions.retain(|session| session.user != username);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            self.evict_oldest_session();
        }
        let value = Builder::from_random_bytes(self.rng.u128(..).to_be_bytes())
            .into_uuid()
            .to_string();
        self.sessions.push(Session {
            user: username.to_owned(),
            value: value.clone(),
            used: Instant::now(),
        });
        Ok(value)
    }

    /// The users whom only the platform's support could let in again.
    pub(crate) fn locked_users(&self) -> usize {
        self.failed_logins
            .values()
            .filter(|strikes| **strikes >= MAX_FAILED_LOGINS)
            .count()
    }

    fn is_locked(&self, username: &str) -> bool {
        let strikes = self.failed_logins.get(username);
        strikes.is_some_and(|strikes| *strikes >= MAX_FAILED_LOGINS)
    }

    /// It is the user that gets locked: a name that nobody has counts against
    /// nobody.
    fn record_failed_login(&mut self, username: &str) {
        let exists = match &self.expected.uws_username {
            Some(known) => known == username,
            None => !username.is_empty(),
        };
        let room =
            self.failed_logins.len() < MAX_USERS || self.failed_logins.contains_key(username);
        if exists && room {
            let strikes = self.failed_logins.entry(username.to_owned()).or_default();
            *strikes = strikes.saturating_add(1);
        }
    }

    /// Lets a request with a living session pass, which keeps the session alive.
    pub(crate) fn use_session(&mut self, headers: &HeaderMap) -> Result<String, ErrorResponse> {
        let Some(value) = text(headers, "vz-m2m-token").filter(|value| !value.is_empty()) else {
            return Err(ErrorResponse::m2m(
                code::SESSION_FORMAT,
                "The request has no session token",
            ));
        };
        let session = Uuid::try_parse(value)
            .ok()
            .and_then(|_| self.sessions.iter_mut().find(|one| one.value == value));
        let Some(session) = session else {
            return Err(ErrorResponse::session_invalid());
        };
        let now = Instant::now();
        if now.duration_since(session.used) >= self.session_idle_timeout {
            return Err(ErrorResponse::session_expired());
        }
        session.used = now;
        Ok(session.value.clone())
    }

    /// Ends a session.
    pub(crate) fn logout(&mut self, value: &str) {
        self.sessions.retain(|session| session.value != value);
    }

    fn evict_oldest_session(&mut self) {
        let stalest = self
            .sessions
            .iter()
            .enumerate()
            .min_by_key(|(_, session)| session.used)
            .map(|(index, _)| index);
        if let Some(index) = stalest {
            self.sessions.swap_remove(index);
        }
    }

    fn knows_app(&self, pair: &AppCredentials) -> bool {
        fits(&self.expected.app_key, &pair.key) && fits(&self.expected.app_secret, &pair.secret)
    }

    fn knows_user(&self, username: &str, password: &str) -> bool {
        fits(&self.expected.uws_username, username) && fits(&self.expected.uws_password, password)
    }
}

impl Token {
    fn left(&self, life: Duration, now: Instant) -> Duration {
        life.saturating_sub(now.duration_since(self.issued))
    }

    fn lives(&self, life: Duration, now: Instant) -> bool {
        !self.left(life, now).is_zero()
    }
}

/// What is not expected may be anything but nothing.
fn fits(expected: &Option<String>, given: &str) -> bool {
    match expected {
        Some(expected) => expected == given,
        None => !given.is_empty(),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The value behind an authentication scheme; the scheme's case is free.
fn behind<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let (given, value) = text(headers, "authorization")?.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| value.trim())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    behind(headers, "bearer")
}

fn basic(headers: &HeaderMap) -> Option<AppCredentials> {
    let decoded = STANDARD.decode(behind(headers, "basic")?).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    let (key, secret) = pair.split_once(':')?;
    Some(AppCredentials {
        key: key.to_owned(),
        secret: secret.to_owned(),
    })
}
