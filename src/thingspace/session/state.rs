//! The state of the log-in: token, session and pending retries.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::thingspace::{
    classify::StaleAuth,
    credentials::{FailedLogins, ThingSpaceCredentials},
    error::PrepareError,
    login::HeaderSecret,
    session::{
        auth_headers::{AuthHeaders, Versioned},
        retry::LoginRetry,
    },
};

/// A token with less than this left is renewed. A random part of up to a half is added, so that several
/// gateways do not renew theirs at the same time.
pub(super) const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// Maximum time that a caller waits for a retry. If the retry is due later, the caller gets the error at
/// once.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct SessionState {
    token: Option<AccessToken>,
    session: Option<Versioned>,
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
    last_version: u64,
}

struct AccessToken {
    versioned: Versioned,
    renew_at: Instant,
    expires_at: Instant,
}

/// The time until which a token may be used.
#[derive(Clone, Copy)]
pub(super) enum TokenLimit {
    /// Until it is due for renewal.
    Renewal,
    /// Until it expires.
    Expiry,
}

impl SessionState {
    pub(super) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Returns the token if it may still be used.
    pub(super) fn token(&self, limit: TokenLimit) -> Option<&Versioned> {
        let token = self.token.as_ref()?;
        let end = match limit {
            TokenLimit::Renewal => token.renew_at,
            TokenLimit::Expiry => token.expires_at,
        };
        (Instant::now() < end).then_some(&token.versioned)
    }

    /// Returns the headers if there are a session and a token that may still be used.
    pub(super) fn headers(&self, limit: TokenLimit) -> Option<AuthHeaders> {
        Some(AuthHeaders {
            token: self.token(limit)?.clone(),
            session: self.session.clone()?,
            credentials: self.credentials.clone()?,
        })
    }

    pub(super) fn set_token(&mut self, secret: HeaderSecret, lifetime: Duration) {
        let now = Instant::now();
        // ThingSpace may return the same token with only seconds left. Half of them are used, so that not every
        // call requests a token.
        let margin = RENEWAL_MARGIN + RENEWAL_MARGIN.mul_f64(fastrand::f64() / 2.0);
        self.token_retry = None;
        self.token = Some(AccessToken {
            versioned: self.next_version(secret),
            renew_at: now + (lifetime - margin.min(lifetime / 2)),
            expires_at: now + lifetime,
        });
    }

    pub(super) fn set_session(&mut self, secret: HeaderSecret) {
        self.session_retry = None;
        self.session = Some(self.next_version(secret));
    }

    /// Discards what ThingSpace refused, unless it has been replaced since.
    pub(super) fn discard(&mut self, headers: &AuthHeaders, stale: StaleAuth) {
        if stale != StaleAuth::Session {
            self.token.take_if(|token| token.versioned.version == headers.token.version);
        }
        if stale != StaleAuth::Token {
            self.session.take_if(|session| session.version == headers.session.version);
        }
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
        if self.refusal_retry.is_some() || self.headers(TokenLimit::Expiry).is_some() {
            return None;
        }
        let now = Instant::now();
        let retries = [&self.token_retry, &self.session_retry];
        let due = retries.into_iter().flatten().map(|retry| retry.due);
        due.max().filter(|due| *due > now && *due <= now + MAX_RETRY_WAIT)
    }

    /// Fails if the retry of a refusal or of this step is not due yet.
    pub(super) fn check_retry_delay(
        &self,
        step_retry: Option<&LoginRetry>,
    ) -> Result<(), PrepareError> {
        let retries = [self.refusal_retry.as_ref(), step_retry].into_iter().flatten();
        let pending =
            retries.filter(|retry| Instant::now() < retry.due).max_by_key(|retry| retry.due);
        pending.map_or(Ok(()), |retry| Err(retry.error()))
    }

    pub(super) fn reset_failures(&mut self) {
        self.failed = FailedLogins::default();
        self.refusal_retry = None;
        self.token_retry = None;
        self.session_retry = None;
    }

    fn next_version(&mut self, secret: HeaderSecret) -> Versioned {
        self.last_version += 1;
        Versioned { secret, version: self.last_version }
    }
}
