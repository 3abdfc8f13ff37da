//! The state of the log-in: token, session and pending retries.

use std::{sync::Arc, time::Duration};

use reqwest::{RequestBuilder, header};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::{
    domain::{
        backoff::Backoff,
        refusal::{Refusal, RefusalKind},
    },
    thingspace::{
        classify::StaleAuth,
        credentials::{FailedLogins, ThingSpaceCredentials},
        http::JSON,
        login::HeaderSecret,
        session::{
            sealed::{SharedLogin, SharedRetry, SharedToken},
            shared_session::StoreClock,
        },
    },
};

/// A token with less than this left is renewed. A random part of up to a half is added, so that several
/// gateways do not renew theirs at the same time.
pub(super) const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// Maximum time that a caller waits for a retry. If the retry is due later, the caller gets the error at
/// once.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(2);

/// Maximum time for which a failure is repeated to callers without a look at the state that the replicas
/// share.
const MAX_FAILURE_AGE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct SessionState {
    token: Option<AccessToken>,
    session: Option<Session>,
    /// The token and the session that ThingSpace refused last. They are not taken from the shared state again.
    refused_token: Option<SecretString>,
    refused_session: Option<SecretString>,
    /// The failure of the latest log-in with shared state.
    recent_failure: Option<RecentFailure>,
    /// The credentials of the latest log-in.
    pub(super) credentials: Option<Arc<ThingSpaceCredentials>>,
    /// The failed log-ins of `credentials`, as stored.
    pub(super) failed: FailedLogins,
    /// The retry of the latest refusal of `credentials`, until a log-in succeeds.
    pub(super) refusal_retry: Option<LoginRetry>,
    /// The retry of the latest other failure of a token request, until one succeeds.
    pub(super) token_retry: Option<LoginRetry>,
    /// The retry of the latest other failure of a session log-in, until one succeeds.
    pub(super) session_retry: Option<LoginRetry>,
}

pub(super) struct AccessToken {
    secret: Arc<HeaderSecret>,
    /// True if another replica requested it.
    is_shared: bool,
    lifetime: Duration,
    pub(super) renew_at: Instant,
    pub(super) expires_at: Instant,
}

struct Session {
    secret: Arc<HeaderSecret>,
    /// True if another replica started it.
    is_shared: bool,
}

struct RecentFailure {
    at: Instant,
    until: Instant,
    refusal: Refusal,
}

/// The state of the log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginStatus {
    /// True if the gateway does not use its credentials until an operator resets the lock-out.
    pub is_locked_out: bool,
    /// The number of failed log-ins since the last successful one.
    pub failures: u64,
    /// True if there is a token that has not expired.
    pub has_token: bool,
    /// True if there is a session that ThingSpace has not refused.
    pub has_session: bool,
}

/// The token and the session of a request.
#[derive(Clone)]
pub(crate) struct AuthHeaders {
    token: Arc<HeaderSecret>,
    is_token_shared: bool,
    pub(super) session: Arc<HeaderSecret>,
    is_session_shared: bool,
    credentials: Arc<ThingSpaceCredentials>,
}

/// A failed log-in and the time of its retry.
#[derive(Clone)]
pub(super) struct LoginRetry {
    /// Consecutive failures.
    failures: u32,
    pub(super) failed_at: Instant,
    pub(super) due: Instant,
    refusal: Refusal,
}

impl SessionState {
    /// Returns the state of the log-in with these stored failures.
    pub(super) fn status(&self, failed: FailedLogins) -> LoginStatus {
        LoginStatus {
            is_locked_out: failed.is_locked_out(),
            failures: u64::from(failed.refused) + u64::from(failed.unfinished),
            has_token: self.access_token(|token| token.expires_at).is_some(),
            has_session: self.session.is_some(),
        }
    }

    /// Returns the token if there is no session.
    pub(super) fn token_without_session(&self) -> Option<Arc<HeaderSecret>> {
        self.token(|token| token.expires_at).filter(|_| self.session.is_none()).cloned()
    }

    /// Returns the token until one of its times.
    pub(super) fn token(&self, end: fn(&AccessToken) -> Instant) -> Option<&Arc<HeaderSecret>> {
        self.access_token(end).map(|token| &token.secret)
    }

    fn access_token(&self, end: fn(&AccessToken) -> Instant) -> Option<&AccessToken> {
        self.token.as_ref().filter(|token| Instant::now() < end(token))
    }

    /// Returns the headers if there are a session and a token, until one of the token's times.
    pub(super) fn headers(&self, end: fn(&AccessToken) -> Instant) -> Option<AuthHeaders> {
        let (token, session) = (self.access_token(end)?, self.session.as_ref()?);
        Some(AuthHeaders {
            token: Arc::clone(&token.secret),
            is_token_shared: token.is_shared,
            session: Arc::clone(&session.secret),
            is_session_shared: session.is_shared,
            credentials: self.credentials.clone()?,
        })
    }

    pub(super) fn set_token(&mut self, secret: Arc<HeaderSecret>, lifetime: Duration) {
        self.token_retry = None;
        self.refused_token = None;
        self.token = Some(AccessToken::new(secret, lifetime, Instant::now() + lifetime));
    }

    pub(super) fn set_session(&mut self, secret: HeaderSecret) {
        self.session_retry = None;
        self.refused_session = None;
        self.session = Some(Session { secret: Arc::new(secret), is_shared: false });
    }

    /// Discards what ThingSpace refused, unless it has been replaced since.
    pub(super) fn discard(&mut self, headers: &AuthHeaders, stale: StaleAuth) {
        if stale != StaleAuth::Session {
            self.token.take_if(|token| Arc::ptr_eq(&token.secret, &headers.token));
            self.refused_token = Some(headers.token.text.clone());
        }
        if stale != StaleAuth::Token {
            self.session.take_if(|session| Arc::ptr_eq(&session.secret, &headers.session));
            self.refused_session = Some(headers.session.text.clone());
        }
    }

    /// Takes what other replicas stored: a token that lasts longer, a session if there is none, and the retries.
    pub(super) fn adopt(&mut self, shared: &SharedLogin, clock: StoreClock) {
        if let Some(token) = &shared.token
            && !is_same(&token.text, &self.refused_token)
            && let Some(secret) = HeaderSecret::token(&token.text)
        {
            let expires_at = clock.to_instant(token.expires_at, token.lifetime);
            let token = AccessToken {
                is_shared: true,
                ..AccessToken::new(Arc::new(secret), token.lifetime, expires_at)
            };
            let present = self.token.as_ref();
            if present.is_none_or(|present| present.renew_at < token.renew_at) {
                self.token = Some(token);
            }
        }
        if let Some(session) = &shared.session
            && self.session.is_none()
            && !is_same(session, &self.refused_session)
            && let Some(secret) = HeaderSecret::session(session)
        {
            self.session = Some(Session { secret: Arc::new(secret), is_shared: true });
        }
        let retry = |retry: &Option<SharedRetry>| {
            retry.as_ref().map(|retry| LoginRetry::from_shared(retry, clock))
        };
        self.refusal_retry = retry(&shared.refusal_retry);
        self.token_retry = retry(&shared.token_retry);
        self.session_retry = retry(&shared.session_retry);
    }

    /// Returns what other replicas can use.
    pub(super) fn to_shared(&self, clock: StoreClock) -> SharedLogin {
        let token = self.access_token(|token| token.expires_at);
        let retry = |retry: &Option<LoginRetry>| retry.as_ref().map(|retry| retry.to_shared(clock));
        SharedLogin {
            token: token.map(|token| SharedToken {
                text: token.secret.text.expose_secret().to_owned(),
                expires_at: clock.to_store(token.expires_at),
                lifetime: token.lifetime,
            }),
            session: self
                .session
                .as_ref()
                .map(|session| session.secret.text.expose_secret().to_owned()),
            refusal_retry: retry(&self.refusal_retry),
            token_retry: retry(&self.token_retry),
            session_retry: retry(&self.session_retry),
        }
    }

    /// Records the failure of a log-in with shared state. Until the retry, but at most for a second, callers
    /// get it again: each look at the shared state costs several requests to the database.
    pub(super) fn set_recent_failure(&mut self, refusal: &Refusal) {
        let at = Instant::now();
        let until = at + refusal.retry_after.map_or(MAX_FAILURE_AGE, |d| d.min(MAX_FAILURE_AGE));
        self.recent_failure = Some(RecentFailure { at, until, refusal: refusal.clone() });
    }

    /// Fails if the latest log-in with shared state failed just now.
    pub(super) fn check_recent_failure(&mut self) -> Result<(), Refusal> {
        self.recent_failure.take_if(|failure| failure.until <= Instant::now());
        let Some(RecentFailure { at, refusal, .. }) = &self.recent_failure else {
            return Ok(());
        };
        let retry_after = refusal.retry_after.map(|delay| delay.saturating_sub(at.elapsed()));
        Err(Refusal { retry_after, ..refusal.clone() })
    }

    /// Returns the time of the next token renewal; `None` without a token.
    pub(super) fn renewal_due(&self) -> Option<Instant> {
        let renew_at = self.token.as_ref()?.renew_at;
        let retries = [&self.token_retry, &self.refusal_retry];
        let due = retries.into_iter().flatten().map(|retry| retry.due);
        Some(due.fold(renew_at, Instant::max))
    }

    /// Returns the time of a retry that callers wait for: there are no valid headers, and it is due soon.
    pub(super) fn short_retry_wait(&self) -> Option<Instant> {
        if self.refusal_retry.is_some() || self.headers(|token| token.expires_at).is_some() {
            return None;
        }
        let now = Instant::now();
        let retries = [&self.token_retry, &self.session_retry];
        let due = retries.into_iter().flatten().map(|retry| retry.due);
        due.max().filter(|due| *due > now && *due <= now + MAX_RETRY_WAIT)
    }

    /// Fails if the retry of a refusal or of this step is not due yet.
    pub(super) fn check_retry_delay(&self, step_retry: &Option<LoginRetry>) -> Result<(), Refusal> {
        let pending = [&self.refusal_retry, step_retry].into_iter().flatten();
        let latest = pending.max_by_key(|retry| retry.due);
        latest.filter(|retry| Instant::now() < retry.due).map_or(Ok(()), |retry| Err(retry.error()))
    }

    pub(super) fn reset_failures(&mut self) {
        self.failed = FailedLogins::default();
        self.recent_failure = None;
        self.refusal_retry = None;
        self.token_retry = None;
        self.session_retry = None;
    }
}

/// Compares a secret of the shared state with one that ThingSpace refused.
fn is_same(text: &str, refused: &Option<SecretString>) -> bool {
    refused.as_ref().is_some_and(|refused| refused.expose_secret() == text)
}

impl AccessToken {
    fn new(secret: Arc<HeaderSecret>, lifetime: Duration, expires_at: Instant) -> Self {
        // ThingSpace may return the same token with only seconds left. Half of them are used, so that not every
        // call requests a token.
        let margin = RENEWAL_MARGIN + RENEWAL_MARGIN.mul_f64(fastrand::f64() / 2.0);
        let renew_at = expires_at.checked_sub(margin.min(lifetime / 2));
        let renew_at = renew_at.unwrap_or(expires_at);
        Self { secret, is_shared: false, lifetime, renew_at, expires_at }
    }
}

impl AuthHeaders {
    /// True if another replica stored what ThingSpace refused. It may have expired long ago, so its refusal
    /// says nothing about a new one.
    pub(crate) fn is_shared(&self, stale: StaleAuth) -> bool {
        match stale {
            StaleAuth::Token => self.is_token_shared,
            StaleAuth::Session => self.is_session_shared,
            StaleAuth::Both => self.is_token_shared || self.is_session_shared,
        }
    }

    /// Adds the headers of an authenticated JSON request.
    pub(crate) fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .header(header::AUTHORIZATION, self.token.header.clone())
            .header("VZ-M2M-Token", self.session.header.clone())
            .header(header::CONTENT_TYPE, JSON)
            .header(header::ACCEPT, JSON)
    }

    /// Returns everything that must be redacted in a response.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let secrets = [&self.token, &self.session].map(|secret| secret.text.expose_secret());
        secrets.into_iter().chain(self.credentials.secret_values())
    }
}

impl LoginRetry {
    /// Schedules a retry after `delay`, or after the refusal's own delay if that is longer.
    pub(super) fn after_delay(delay: Duration, refusal: Refusal) -> Self {
        let now = Instant::now();
        Self {
            failures: 1,
            failed_at: now,
            due: now + delay.max(refusal.retry_after.unwrap_or_default()),
            refusal,
        }
    }

    /// Schedules a retry after a delay that grows with the number of consecutive failures, and returns the
    /// error of this one.
    pub(super) fn schedule(
        retry: &mut Option<Self>,
        backoff: Backoff,
        refusal: Refusal,
    ) -> Refusal {
        let failures = retry.as_ref().map_or(1, |previous| previous.failures.saturating_add(1));
        let delay = backoff.jittered_delay(failures, fastrand::f64());
        retry.insert(Self { failures, ..Self::after_delay(delay, refusal) }).error()
    }

    /// Restores the retry of a refusal from before the gateway restarted; `None` if `interval` has passed
    /// since.
    pub(super) fn after_restart(failed: &FailedLogins, interval: Duration) -> Option<Self> {
        let since = failed.since_refused?;
        let remaining = interval.checked_sub(since)?;
        let detail = "ThingSpace refused the gateway's credentials shortly before it was restarted";
        let retry = Self::after_delay(remaining, Refusal::new(RefusalKind::Credentials, detail));
        let failed_at = retry.failed_at.checked_sub(since);
        Some(Self { failed_at: failed_at.unwrap_or(retry.failed_at), ..retry })
    }

    /// Restores a retry that another replica stored.
    fn from_shared(retry: &SharedRetry, clock: StoreClock) -> Self {
        let delay = retry.due.since(retry.failed_at);
        Self {
            failures: retry.failures,
            failed_at: clock.to_instant(retry.failed_at, Duration::ZERO),
            due: clock.to_instant(retry.due, delay),
            refusal: retry.refusal.clone(),
        }
    }

    fn to_shared(&self, clock: StoreClock) -> SharedRetry {
        SharedRetry {
            failures: self.failures,
            failed_at: clock.to_store(self.failed_at),
            due: clock.to_store(self.due),
            refusal: self.refusal.clone(),
        }
    }

    /// Returns the error with the remaining delay.
    pub(super) fn error(&self) -> Refusal {
        let remaining = self.due.saturating_duration_since(Instant::now());
        Refusal { retry_after: Some(remaining), ..self.refusal.clone() }
    }
}
