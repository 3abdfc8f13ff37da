//! Access tokens and sessions.
//!
//! An access token lives one hour from its first issue, and a request inside
//! that hour is answered with the same token (ThingSpace, Get Credentials page).
//! A session dies after 20 minutes without use, and five failed log-ins in a row
//! lock the user (ThingSpace, Start Connectivity Management Session page).

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use super::Credentials;
use super::errors::{Refusal, code};

/// How long an access token lives, from its first issue.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How long a session lives without being used.
const SESSION_IDLE: Duration = Duration::from_secs(20 * 60);
/// Failed log-ins in a row that lock the user.
const STRIKES: u8 = 5;
/// Key pairs whose tokens are remembered: the oldest gives way.
const MAX_TOKENS: usize = 64;
/// Sessions that are remembered: the least recently used gives way.
const MAX_SESSIONS: usize = 1024;

/// Everything that was issued, and what it takes to get more.
pub(super) struct Auth {
    expected: Option<Credentials>,
    rng: fastrand::Rng,
    tokens: Vec<Token>,
    sessions: Vec<Session>,
    strikes: u8,
}

/// Key and secret of an application.
#[derive(PartialEq, Eq)]
pub(super) struct KeyPair {
    key: String,
    secret: String,
}

struct Token {
    pair: KeyPair,
    value: String,
    issued: Instant,
}

struct Session {
    value: String,
    used: Instant,
}

/// An access token and the seconds that are left of it.
pub(super) struct Issued {
    pub(super) value: String,
    pub(super) expires_in: u64,
}

impl Auth {
    pub(super) fn new(expected: Option<Credentials>, rng: fastrand::Rng) -> Self {
        Self {
            expected,
            rng,
            tokens: Vec::new(),
            sessions: Vec::new(),
            strikes: 0,
        }
    }

    /// The key pair of a token request.
    pub(super) fn client(&self, headers: &HeaderMap) -> Result<KeyPair, Refusal> {
        if !headers.contains_key(header::AUTHORIZATION) {
            return Err(Refusal::missing_token());
        }
        basic(headers)
            .filter(|pair| self.knows_app(pair))
            .ok_or_else(|| {
                Refusal::oauth(
                    StatusCode::UNAUTHORIZED,
                    "invalid_client",
                    "Client Authentication failed.",
                )
            })
    }

    /// The token of a key pair: the one of this hour, or a new one.
    pub(super) fn issue(&mut self, pair: KeyPair) -> Issued {
        let now = Instant::now();
        self.tokens.retain(|token| left(token, now) > 0);
        if let Some(token) = self.tokens.iter().find(|token| token.pair == pair) {
            return Issued {
                value: token.value.clone(),
                expires_in: left(token, now),
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
        });
        Issued {
            value,
            expires_in: TOKEN_LIFE.as_secs(),
        }
    }

    /// Lets a request with a living access token pass.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let value = bearer(headers).ok_or_else(Refusal::missing_token)?;
        let now = Instant::now();
        self.tokens
            .iter()
            .any(|token| token.value == value && left(token, now) > 0)
            .then_some(())
            .ok_or_else(Refusal::invalid_token)
    }

    /// Opens a session. Earlier sessions of the user stay valid: whether the
    /// platform ends them is not documented.
    pub(super) fn log_in(&mut self, username: &str, password: &str) -> Result<String, Refusal> {
        if self.strikes >= STRIKES {
            return Err(Refusal::m2m(
                code::PASSWORD_INVALID,
                "The user is locked after 5 failed log-ins",
            ));
        }
        if !self.knows_user(username, password) {
            // It is the user that gets locked: a name that nobody has counts
            // against nobody.
            let user = self.expected.as_ref().map(|known| &*known.uws_username);
            self.strikes += u8::from(user == Some(username));
            return Err(Refusal::m2m(
                code::PASSWORD_INVALID,
                "The username or password is not valid",
            ));
        }
        self.strikes = 0;
        if self.sessions.len() >= MAX_SESSIONS {
            self.forget_stalest();
        }
        let value = Builder::from_random_bytes(self.rng.u128(..).to_be_bytes())
            .into_uuid()
            .to_string();
        self.sessions.push(Session {
            value: value.clone(),
            used: Instant::now(),
        });
        Ok(value)
    }

    /// Lets a request with a living session pass, which keeps the session alive.
    pub(super) fn use_session(&mut self, headers: &HeaderMap) -> Result<String, Refusal> {
        let Some(value) = text(headers, "vz-m2m-token").filter(|value| !value.is_empty()) else {
            return Err(Refusal::m2m(
                code::SESSION_FORMAT,
                "The request has no session token",
            ));
        };
        let session = Uuid::try_parse(value)
            .ok()
            .and_then(|_| self.sessions.iter_mut().find(|one| one.value == value));
        let Some(session) = session else {
            return Err(Refusal::m2m(
                code::SESSION_INVALID,
                "The session token is not valid",
            ));
        };
        let now = Instant::now();
        if now.duration_since(session.used) >= SESSION_IDLE {
            return Err(Refusal::m2m(
                code::SESSION_EXPIRED,
                "The session token has expired",
            ));
        }
        session.used = now;
        Ok(session.value.clone())
    }

    /// Ends a session.
    pub(super) fn log_out(&mut self, value: &str) {
        self.sessions.retain(|session| session.value != value);
    }

    fn forget_stalest(&mut self) {
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

    fn knows_app(&self, pair: &KeyPair) -> bool {
        match &self.expected {
            Some(known) => known.app_key == pair.key && known.app_secret == pair.secret,
            None => !pair.key.is_empty() && !pair.secret.is_empty(),
        }
    }

    fn knows_user(&self, username: &str, password: &str) -> bool {
        match &self.expected {
            Some(known) => known.uws_username == username && known.uws_password == password,
            None => !username.is_empty() && !password.is_empty(),
        }
    }
}

fn left(token: &Token, now: Instant) -> u64 {
    TOKEN_LIFE
        .saturating_sub(now.duration_since(token.issued))
        .as_secs()
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

fn basic(headers: &HeaderMap) -> Option<KeyPair> {
    let decoded = STANDARD.decode(behind(headers, "basic")?).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    let (key, secret) = pair.split_once(':')?;
    Some(KeyPair {
        key: key.to_owned(),
        secret: secret.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        let expected = Credentials {
            app_key: "key".into(),
            app_secret: "secret".into(),
            uws_username: "user".into(),
            uws_password: "pass".into(),
        };
        Auth::new(Some(expected), fastrand::Rng::with_seed(1))
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn issue(auth: &mut Auth, headers: &HeaderMap) -> Issued {
        let Ok(pair) = auth.client(headers) else {
            panic!("the pair is known");
        };
        auth.issue(pair)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_issued_again_within_its_hour_and_is_another_one_after_it() {
        let mut auth = auth();
        let basic = headers("authorization", "Basic a2V5OnNlY3JldA==");
        let first = issue(&mut auth, &basic);
        assert_eq!(first.expires_in, 3600);
        let bearer = headers("authorization", &format!("Bearer {}", first.value));

        tokio::time::advance(Duration::from_secs(3000)).await;
        let again = issue(&mut auth, &basic);
        assert_eq!((again.value, again.expires_in), (first.value.clone(), 600));
        assert!(auth.check_token(&bearer).is_ok());

        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(auth.check_token(&bearer).is_err());
        assert_ne!(issue(&mut auth, &basic).value, first.value);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_lives_while_it_is_used_and_expires_after_twenty_idle_minutes() {
        let mut auth = auth();
        let value = auth.log_in("user", "pass").unwrap();
        let session = headers("vz-m2m-token", &value);
        for _ in 0..5 {
            tokio::time::advance(SESSION_IDLE - Duration::from_secs(1)).await;
            assert!(auth.use_session(&session).is_ok());
        }
        tokio::time::advance(SESSION_IDLE).await;
        let refused = format!("{:?}", auth.use_session(&session).unwrap_err());
        assert!(refused.contains(code::SESSION_EXPIRED), "{refused}");
    }

    #[test]
    fn five_failed_log_ins_in_a_row_lock_the_user() {
        let mut auth = auth();
        for _ in 0..4 {
            assert!(auth.log_in("user", "wrong").is_err());
        }
        assert!(auth.log_in("user", "pass").is_ok());
        for _ in 0..5 {
            assert!(auth.log_in("user", "wrong").is_err());
        }
        assert!(auth.log_in("user", "pass").is_err());
    }
}
