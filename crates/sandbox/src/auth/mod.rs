//! Access tokens and sessions.
//!
//! A token request returns the same token for one hour from its first issue, unless it is revoked. A
//! session expires after 20 minutes without use. Five failed log-ins in a row lock the user (see
//! docs/thingspace-facts.md, sections 1 and 2).

#[cfg(test)]
mod tests;

use std::{collections::HashMap, io};

use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use thingspace_settings::Secret;
use tokio::time::Instant;
use uuid::Builder;

use crate::{errors::ErrorResponse, faults::code, settings::Settings};

/// Number of failed log-ins in a row that lock the user.
const MAX_FAILED_LOGINS: u8 = 5;
/// Maximum number of tokens. The oldest is evicted.
const MAX_TOKENS: usize = 64;
/// Maximum number of sessions. The least recently used is evicted.
const MAX_SESSIONS: usize = 1024;
/// Maximum number of users whose failed log-ins are counted.
const MAX_USERS: usize = 1024;

pub(crate) struct Auth {
    settings: Settings,
    required: RequiredCredentials,
    rng: fastrand::Rng,
    tokens: Vec<Token>,
    sessions: Vec<Session>,
    /// Number of failed log-ins in a row, by user.
    failed_logins: HashMap<String, u8>,
}

/// The credentials of token requests and log-ins. `None`: any value that is not empty.
struct RequiredCredentials {
    app_key: Option<RequiredCredential>,
    app_secret: Option<RequiredCredential>,
    uws_username: Option<RequiredCredential>,
    uws_password: Option<RequiredCredential>,
}

struct RequiredCredential {
    secret: Secret,
    /// The last valid content of the secret's file.
    value: SecretString,
}

struct Token {
    /// Key and secret of the application.
    app: String,
    value: String,
    expires_at: Instant,
    /// Valid, but not returned by the next token request.
    is_retired: bool,
}

struct Session {
    user: String,
    value: String,
    used_at: Instant,
}

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
    /// Fails if the file of a secret cannot be read.
    pub(crate) fn new(settings: &Settings, rng: fastrand::Rng) -> io::Result<Self> {
        let load =
            |secret: &Option<Secret>| secret.as_ref().map(RequiredCredential::load).transpose();
        Ok(Self {
            settings: settings.clone(),
            required: RequiredCredentials {
                app_key: load(&settings.app_key)?,
                app_secret: load(&settings.app_secret)?,
                uws_username: load(&settings.uws_username)?,
                uws_password: load(&settings.uws_password)?,
            },
            rng,
            tokens: Vec::new(),
            sessions: Vec::new(),
            failed_logins: HashMap::new(),
        })
    }

    /// Returns the application of a token request: its key and secret.
    pub(crate) fn authenticate_app(
        &mut self,
        headers: &HeaderMap,
    ) -> Result<String, ErrorResponse> {
        if !headers.contains_key(header::AUTHORIZATION) {
            return Err(ErrorResponse::MISSING_TOKEN);
        }
        let RequiredCredentials { app_key, app_secret, .. } = &mut self.required;
        let accepted = basic(headers).filter(|app| {
            app.split_once(':')
                .is_some_and(|(key, secret)| accepts(app_key, key) && accepts(app_secret, secret))
        });
        let (status, description) = (StatusCode::UNAUTHORIZED, "Client Authentication failed.");
        accepted.ok_or(ErrorResponse::oauth(status, "invalid_client", description))
    }

    /// Returns the token of an application, or a new one.
    pub(crate) fn issue(&mut self, app: String) -> Issued {
        let now = Instant::now();
        self.tokens.retain(|token| token.expires_at > now);
        let tokens = self.tokens.iter().filter(|token| token.app == app && !token.is_retired);
        for Token { value, expires_at, .. } in tokens {
            // Excludes a token whose `expires_in` would be 0.
            let expires_in = expires_at.duration_since(now).as_secs();
            if expires_in > 0 {
                return Issued { value: value.clone(), expires_in };
            }
        }
        if self.tokens.len() >= MAX_TOKENS {
            self.tokens.remove(0);
        }
        let value = format!("{:032x}", self.rng.u128(..));
        let expires_at = now + self.settings.token_lifetime;
        self.tokens.push(Token { app, value: value.clone(), expires_at, is_retired: false });
        Issued { value, expires_in: self.settings.token_lifetime.as_secs() }
    }

    /// Revokes a token of an application. An unknown token is no error, as on WSO2.
    pub(crate) fn revoke(&mut self, app: &str, value: &str) {
        self.tokens.retain(|token| token.app != app || token.value != value);
    }

    /// Makes the next token request return another token. This one stays valid for other requests.
    pub(crate) fn stop_reissuing(&mut self, value: &str) {
        for token in self.tokens.iter_mut().filter(|token| token.value == value) {
            token.is_retired = true;
        }
    }

    /// Returns the access token of a request if it is valid.
    pub(crate) fn check_token(&self, headers: &HeaderMap) -> Result<String, ErrorResponse> {
        let value = authorization(headers, "bearer").ok_or(ErrorResponse::MISSING_TOKEN)?;
        let now = Instant::now();
        let mut tokens = self.tokens.iter();
        let valid = tokens.find(|token| token.value == value && token.expires_at > now);
        valid.map(|token| token.value.clone()).ok_or(ErrorResponse::INVALID_TOKEN)
    }

    /// Opens a session. A setting decides whether this ends the user's earlier ones; ThingSpace's
    /// behaviour is not documented.
    pub(crate) fn login(
        &mut self,
        username: &str,
        password: &str,
    ) -> Result<String, ErrorResponse> {
        let rejected =
            |message| Err(ErrorResponse::with_dotted_code(code::PASSWORD_INVALID, message));
        if self.failed_logins.get(username) >= Some(&MAX_FAILED_LOGINS) {
            return rejected("The user is locked after 5 failed log-ins");
        }
        let RequiredCredentials { uws_username, uws_password, .. } = &mut self.required;
        let user_exists = accepts(uws_username, username);
        if !user_exists || !accepts(uws_password, password) {
            let has_capacity =
                self.failed_logins.len() < MAX_USERS || self.failed_logins.contains_key(username);
            if user_exists && has_capacity {
                *self.failed_logins.entry(username.to_owned()).or_default() += 1;
            }
            return rejected("The username or password is not valid");
        }
        self.failed_logins.remove(username);
        if self.settings.single_session {
            self.sessions.retain(|session| session.user != username);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.sort_by_key(|session| session.used_at);
            self.sessions.remove(0);
        }
        let value =
            Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid().to_string();
        let (user, used_at) = (username.to_owned(), Instant::now());
        self.sessions.push(Session { user, value: value.clone(), used_at });
        Ok(value)
    }

    pub(crate) fn locked_users(&self) -> usize {
        self.failed_logins.values().filter(|count| **count >= MAX_FAILED_LOGINS).count()
    }

    /// Returns the session of a request if it is valid, and starts its lifetime again.
    pub(crate) fn use_session(&mut self, headers: &HeaderMap) -> Result<String, ErrorResponse> {
        let Some(value) = text(headers, "vz-m2m-token").filter(|value| !value.is_empty()) else {
            let message = "The request has no session token";
            return Err(ErrorResponse::with_dotted_code(code::SESSION_FORMAT, message));
        };
        let session = self
            .sessions
            .iter_mut()
            .find(|session| session.value == value)
            .ok_or(ErrorResponse::SESSION_INVALID)?;
        let now = Instant::now();
        if now.duration_since(session.used_at) >= self.settings.session_lifetime {
            return Err(ErrorResponse::SESSION_EXPIRED);
        }
        session.used_at = now;
        Ok(session.value.clone())
    }

    pub(crate) fn logout(&mut self, value: &str) {
        self.sessions.retain(|session| session.value != value);
    }
}

impl RequiredCredential {
    fn load(secret: &Secret) -> io::Result<Self> {
        Ok(Self { secret: secret.clone(), value: secret.load()? })
    }

    /// Compares a value with the content of the secret's file. If the file cannot be read, its last
    /// valid content stays in use: an unreadable file must not count as a wrong password.
    fn matches(&mut self, given: &str) -> bool {
        match self.secret.load() {
            Ok(value) => self.value = value,
            Err(error) => {
                tracing::warn!(%error, "cannot read a file again; its last valid content stays in use");
            }
        }
        self.value.expose_secret() == given
    }
}

/// An unset credential accepts any value that is not empty.
fn accepts(required: &mut Option<RequiredCredential>, given: &str) -> bool {
    match required {
        Some(required) => required.matches(given),
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

fn basic(headers: &HeaderMap) -> Option<String> {
    String::from_utf8(STANDARD.decode(authorization(headers, "basic")?).ok()?).ok()
}
