//! The token and the session in use, and when they may be replaced.
//!
//! Both are numbered. A refusal names the numbers that were sent and discards only those: when a
//! hundred calls are refused at once, the first one discards them, one call logs in, and all calls
//! continue with the result.
//!
//! A try that fails schedules the next one: see [`RETRY_DELAY`], [`UNRECOGNISED_DELAY`] and
//! [`REFUSAL_INTERVAL`]. Until then callers get the old token for as long as it is valid, and then the
//! failure, unless the next try is due within [`SHORT_WAIT`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    PrepareError,
    classify::StaleAuth,
    login::{HeaderSecret, LoginApi, LoginFailure},
    new_refusal,
    settings::{CredentialSource, FailedLoginStore, FailedLogins, ThingSpaceCredentials},
};
use crate::{
    domain::{
        refusal::{Refusal, RefusalKind},
        trace::TraceParent,
    },
    invariants::Invariant,
};

mod retry;

use retry::LoginRetry;

/// A token is replaced when less than this is left of it. Up to a half more is added by chance, so that
/// several gateways do not all do so at once.
const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// Delay after a log-in that got no answer, a 5xx answer or one that is not usable: from, to.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Callers wait for a next try that is due this soon; otherwise they get the failure at once.
const SHORT_WAIT: Duration = Duration::from_secs(2);

/// Delay after a session log-in that was answered 400, 401 or 403 in an unknown form: from, to.
///
/// Most likely something in between answered, a proxy for one, so it does not count towards the
/// lock-out. But if ThingSpace itself answered, it may have counted a failed log-in.
const UNRECOGNISED_DELAY: (Duration, Duration) =
    (Duration::from_secs(30), Duration::from_secs(15 * 60));

/// The time for which credentials are not tried after ThingSpace refused them. The two refusals that lock the
/// credentials out lie at least this far apart: a fault at ThingSpace that lasts for some seconds does not.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);

/// Weight at which the gateway no longer tries its credentials. Five failed log-ins in a row lock the
/// account at ThingSpace ("Start Connectivity Management Session"). Two refusals, or four log-ins of
/// which a crash hid the end, leave room for other clients of the account.
const LOCK_OUT: u32 = 4;
/// Weight of a refusal.
const REFUSED: u32 = 2;
/// Weight of a log-in that a crash cut off. It may have been refused, but seldom was: two crashes at a
/// bad moment must not lock good credentials out.
const UNFINISHED: u32 = 1;

/// Interval of checks when there is no token, or when none may be asked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Hands out authentication headers.
#[derive(Clone)]
pub(super) struct SessionManager(Arc<SessionManagerInner>);

struct SessionManagerInner {
    api: Arc<dyn LoginApi>,
    source: Arc<dyn CredentialSource>,
    store: Arc<dyn FailedLoginStore>,
    state: Mutex<SessionManagerState>,
    /// Held by the task that logs in.
    login_lock: tokio::sync::Mutex<()>,
}

/// The authentication headers of a request.
#[derive(Clone)]
pub(super) struct AuthHeaders {
    token: AccessToken,
    session: Versioned,
    credentials: Arc<ThingSpaceCredentials>,
}

#[derive(Default)]
struct SessionManagerState {
    token: Option<AccessToken>,
    session: Option<Versioned>,
    /// The credentials of the latest log-in.
    credentials: Option<Arc<ThingSpaceCredentials>>,
    /// Their failed log-ins, as stored.
    failed: FailedLogins,
    /// The latest refusal of these credentials, for [`REFUSAL_INTERVAL`].
    refusal_retry: Option<LoginRetry>,
    /// The latest other failure of a token request, until one succeeds.
    token_retry: Option<LoginRetry>,
    /// The latest other failure of a session log-in, until one succeeds.
    session_retry: Option<LoginRetry>,
    last_number: u64,
}

#[derive(Clone)]
struct AccessToken {
    versioned: Versioned,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Clone)]
struct Versioned {
    secret: HeaderSecret,
    number: u64,
}

// === impl Access ===

impl SessionManager {
    pub(super) fn new(
        api: Arc<dyn LoginApi>,
        source: Arc<dyn CredentialSource>,
        store: Arc<dyn FailedLoginStore>,
    ) -> Self {
        Self(Arc::new(SessionManagerInner {
            api,
            source,
            store,
            state: Mutex::default(),
            login_lock: tokio::sync::Mutex::default(),
        }))
    }

    /// Headers that stay valid for a while; those of the old token when it cannot be renewed now. A
    /// log-in that this takes is part of `trace`.
    pub(super) async fn fresh_headers(
        &self,
        trace: Option<&TraceParent>,
    ) -> Result<AuthHeaders, PrepareError> {
        let fresh = self.0.state().headers_until(|token| token.renew_at);
        if let Some(headers) = fresh {
            return Ok(headers);
        }
        let retry_soon = self.0.state().retry_soon();
        if let Some(due) = retry_soon {
            sleep_until(due).await;
        }
        let renewed = self.renew(trace).await;
        let valid = self.0.state().headers_until(|token| token.ends_at);
        match (valid, renewed) {
            (Some(headers), _) => Ok(headers),
            (None, Err(unprepared)) => Err(unprepared),
            (None, Ok(())) => Err(PrepareError(new_refusal(
                RefusalKind::NotSent,
                "the log-in was refused again at once",
            ))),
        }
    }

    /// Any headers that are still valid: for a call that should not wait.
    pub(super) async fn valid_headers(
        &self,
        trace: Option<&TraceParent>,
    ) -> Result<AuthHeaders, PrepareError> {
        let valid = self.0.state().headers_until(|token| token.ends_at);
        match valid {
            Some(headers) => Ok(headers),
            None => self.fresh_headers(trace).await,
        }
    }

    /// Discards what ThingSpace refused, unless it has been replaced since.
    pub(super) fn discard(&self, headers: &AuthHeaders, stale: StaleAuth) {
        let mut state = self.0.state();
        if matches!(stale, StaleAuth::Token | StaleAuth::Both) {
            state
                .token
                .take_if(|token| token.versioned.number == headers.token.versioned.number);
        }
        if matches!(stale, StaleAuth::Session | StaleAuth::Both) {
            state
                .session
                .take_if(|session| session.number == headers.session.number);
        }
    }

    /// Forgets the failed log-ins of the present credentials, so that they may be tried at once.
    pub(super) async fn reset_lockout(&self) -> Result<(), String> {
        let read = self.0.source.load()?;
        self.0.store.store(&read, FailedLogins::default()).await?;
        self.0.state().forget_failures();
        Ok(())
    }

    /// Renews the token ahead of its end, for as long as it is polled.
    pub(super) async fn run_token_renewal(&self) {
        loop {
            let now = Instant::now();
            match self.renewal_due() {
                Some(due) if due > now => sleep_until(due).await,
                Some(_) => {
                    let Err(unprepared) = self.renew(None).await else {
                        continue;
                    };
                    tracing::warn!(why = %unprepared, "the token could not be renewed");
                    let now = Instant::now();
                    let due = self.renewal_due().filter(|due| *due > now);
                    sleep_until(due.unwrap_or(now + CHECK_INTERVAL)).await;
                }
                // The first change logs in: an idle gateway sends no request.
                None => sleep(CHECK_INTERVAL).await,
            }
        }
    }

    /// When the token is to be renewed, if there is one.
    fn renewal_due(&self) -> Option<Instant> {
        let state = self.0.state();
        let due = state.token.as_ref()?.renew_at;
        let retries = [&state.token_retry, &state.refusal_retry];
        let retries = retries.into_iter().flatten().map(|retry| retry.due);
        Some(retries.fold(due, Instant::max))
    }

    /// Replaces the token or the session where one is missing or due, after waiting for a log-in that
    /// is under way.
    async fn renew(&self, trace: Option<&TraceParent>) -> Result<(), PrepareError> {
        let inner = Arc::clone(&self.0);
        let trace = trace.cloned();
        // On a task of its own: the log-in goes on for the others, and counts, also when the caller
        // that began it has given up.
        let task = tokio::spawn(async move {
            let _turn = inner.login_lock.lock().await;
            inner.renew(trace.as_ref()).await
        });
        task.await.unwrap_or_else(|_| {
            let detail = "the log-in ended early: the gateway is stopping";
            Err(PrepareError(new_refusal(RefusalKind::NotSent, detail)))
        })
    }
}

// === impl Inner ===

impl SessionManagerInner {
    fn state(&self) -> MutexGuard<'_, SessionManagerState> {
        // Nothing panics while it is held; and if it did, each field is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(&self, trace: Option<&TraceParent>) -> Result<(), PrepareError> {
        let is_fresh =
            |state: &SessionManagerState| state.headers_until(|token| token.renew_at).is_some();
        if is_fresh(&self.state()) {
            return Ok(());
        }
        let credentials = self.credentials().await?;
        let renewed = self.renew_token(&credentials, trace).await;
        // A session log-in needs no more than a token that is still valid.
        let token = {
            let state = self.state();
            let token = state.token.as_ref();
            token
                .filter(|token| state.session.is_none() && Instant::now() < token.ends_at)
                .map(|token| token.versioned.secret.clone())
        };
        match token {
            Some(token) => self.new_session(token, &credentials, trace).await?,
            None => renewed.clone()?,
        }
        self.state().refusal_retry = None;
        if self.state().failed != FailedLogins::default() {
            self.state().failed = FailedLogins::default();
            self.store_failed(&credentials).await?;
        }
        renewed
    }

    /// The credentials as they are now, if they may be tried.
    async fn credentials(&self) -> Result<Arc<ThingSpaceCredentials>, PrepareError> {
        let read = self.source.load().map_err(|why| {
            let detail = format!("the gateway's credentials cannot be read: {why}");
            PrepareError(new_refusal(RefusalKind::Credentials, detail))
        })?;
        let known = self.state().credentials.clone();
        let credentials = match known.filter(|known| known.same_as(&read)) {
            Some(known) => known,
            None => {
                let failed = self.store.load(&read).await.map_err(not_stored)?;
                let read = Arc::new(read);
                let mut state = self.state();
                state.forget_failures();
                state.failed = failed;
                state.refusal_retry = LoginRetry::after_restart(&failed);
                state.credentials = Some(Arc::clone(&read));
                read
            }
        };
        if self.state().failed.weight() >= LOCK_OUT {
            let detail = "the gateway's credentials are locked out: ThingSpace refused them twice in a row, or \
                 log-ins with them had no known end, and five refusals lock the account at ThingSpace. Correct \
                 them, or run `thingspace-gateway thingspace reset-lockout` to have them tried again";
            return Err(PrepareError(new_refusal(RefusalKind::Credentials, detail)));
        }
        Ok(credentials)
    }

    /// The failure that a step is to wait out, if there is one.
    fn check_retry_delay(
        &self,
        step: impl Fn(&SessionManagerState) -> &Option<LoginRetry>,
    ) -> Result<(), PrepareError> {
        let state = self.state();
        let pending = [&state.refusal_retry, step(&state)].into_iter().flatten();
        let last = pending
            .filter(|retry| Instant::now() < retry.due)
            .max_by_key(|retry| retry.due);
        last.map_or(Ok(()), |retry| Err(retry.error()))
    }

    async fn renew_token(
        &self,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<(), PrepareError> {
        let is_fresh = |token: &AccessToken| Instant::now() < token.renew_at;
        if self.state().token.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        self.new_token(credentials, trace).await.map(drop)
    }

    async fn new_token(
        &self,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<HeaderSecret, PrepareError> {
        self.check_retry_delay(|state| &state.token_retry)?;
        let (secret, lifetime) = match self.api.token(credentials, trace).await {
            Ok(token) => token,
            Err(error) if error.cause == LoginFailure::CredentialsRefused => {
                return Err(self.record_refusal(credentials, error.refusal).await);
            }
            Err(error) => {
                let mut state = self.state();
                let retry =
                    LoginRetry::after(state.token_retry.as_ref(), RETRY_DELAY, error.refusal);
                return Err(state.token_retry.insert(retry).error());
            }
        };
        let now = Instant::now();
        // The same token may come again with only seconds left: then half of them are used, rather than
        // asking for it at every call.
        let margin = RENEWAL_MARGIN + RENEWAL_MARGIN.mul_f64(fastrand::f64() / 2.0);
        let mut state = self.state();
        state.token_retry = None;
        state.token = Some(AccessToken {
            versioned: state.number(secret.clone()),
            renew_at: now + (lifetime - margin.min(lifetime / 2)),
            ends_at: now + lifetime,
        });
        Ok(secret)
    }

    async fn new_session(
        &self,
        token: HeaderSecret,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<(), PrepareError> {
        self.check_retry_delay(|state| &state.session_retry)?;
        // Stored before the try: after a crash it is not known whether ThingSpace refused it.
        let before = self.state().failed;
        let unfinished = FailedLogins {
            unfinished: before.unfinished.saturating_add(1),
            ..before
        };
        self.store(credentials, unfinished).await?;
        let result = match self.api.session(&token, credentials, trace).await {
            // ThingSpace did not come to the user's name: no failed log-in.
            Err(error) if error.cause == LoginFailure::TokenRefused => {
                match self.new_token(credentials, trace).await {
                    Ok(token) => self.api.session(&token, credentials, trace).await,
                    Err(unprepared) => {
                        self.store_failed(credentials).await?;
                        return Err(unprepared);
                    }
                }
            }
            result => result,
        };
        let error = match result {
            Ok(session) => {
                let mut state = self.state();
                state.session_retry = None;
                state.session = Some(state.number(session));
                // So that the end of the renewal clears what is stored.
                state.failed = unfinished;
                return Ok(());
            }
            Err(error) => error,
        };
        if error.cause == LoginFailure::CredentialsRefused {
            return Err(self.record_refusal(credentials, error.refusal).await);
        }
        let delay = match error.cause {
            LoginFailure::Unrecognised => UNRECOGNISED_DELAY,
            _ => RETRY_DELAY,
        };
        let unprepared = {
            let mut state = self.state();
            let retry = LoginRetry::after(state.session_retry.as_ref(), delay, error.refusal);
            state.session_retry.insert(retry).error()
        };
        self.store_failed(credentials).await?;
        Err(unprepared)
    }

    /// Counts a refusal of the credentials.
    async fn record_refusal(
        &self,
        credentials: &ThingSpaceCredentials,
        refusal: Refusal,
    ) -> PrepareError {
        let unprepared = {
            let mut state = self.state();
            state.failed.refused = state.failed.refused.saturating_add(1);
            let retry = LoginRetry::after_delay(REFUSAL_INTERVAL, refusal);
            let unprepared = retry.error();
            if !Invariant::RefusalInterval.is_disabled() {
                state.refusal_retry = Some(retry);
            }
            unprepared
        };
        match self.store_failed(credentials).await {
            Ok(()) => unprepared,
            Err(not_stored) => not_stored,
        }
    }

    async fn store_failed(&self, credentials: &ThingSpaceCredentials) -> Result<(), PrepareError> {
        let failed = self.state().failed;
        self.store(credentials, failed).await
    }

    async fn store(
        &self,
        credentials: &ThingSpaceCredentials,
        failed: FailedLogins,
    ) -> Result<(), PrepareError> {
        let since_refused = {
            let state = self.state();
            let refused = state.refusal_retry.as_ref();
            refused.map(|refused| refused.failed_at.elapsed())
        };
        let failed = FailedLogins {
            since_refused: since_refused.filter(|_| failed.refused > 0),
            ..failed
        };
        let stored = self.store.store(credentials, failed).await;
        stored.map_err(not_stored)
    }
}

/// A log-in that cannot be counted is not tried: it may be the fifth.
fn not_stored(why: String) -> PrepareError {
    let detail = format!("the number of failed log-ins cannot be stored: {why}");
    PrepareError(new_refusal(RefusalKind::NotSent, detail))
}

// === impl State ===

impl SessionManagerState {
    /// The headers, if there are any whose token has not reached this end.
    fn headers_until(&self, end: impl Fn(&AccessToken) -> Instant) -> Option<AuthHeaders> {
        Some(AuthHeaders {
            token: self
                .token
                .as_ref()
                .filter(|token| Instant::now() < end(token))?
                .clone(),
            session: self.session.clone()?,
            credentials: self.credentials.clone()?,
        })
    }

    /// When the next try is due, if callers are to wait for it: there are no valid headers, and it is
    /// due within [`SHORT_WAIT`].
    fn retry_soon(&self) -> Option<Instant> {
        if self.refusal_retry.is_some() || self.headers_until(|token| token.ends_at).is_some() {
            return None;
        }
        let now = Instant::now();
        let retries = [&self.token_retry, &self.session_retry];
        let due = retries.into_iter().flatten().map(|retry| retry.due);
        due.max()
            .filter(|due| *due > now && *due <= now + SHORT_WAIT)
    }

    fn forget_failures(&mut self) {
        self.failed = FailedLogins::default();
        self.refusal_retry = None;
        self.token_retry = None;
        self.session_retry = None;
    }

    fn number(&mut self, secret: HeaderSecret) -> Versioned {
        self.last_number += 1;
        Versioned {
            secret,
            number: self.last_number,
        }
    }
}

// === impl FailedLogins ===

impl FailedLogins {
    fn weight(self) -> u32 {
        u32::from(self.refused) * REFUSED + u32::from(self.unfinished) * UNFINISHED
    }
}

// === impl AuthHeaders ===

impl AuthHeaders {
    /// The value of `Authorization`.
    pub(super) fn bearer(&self) -> HeaderValue {
        self.token.versioned.secret.header.clone()
    }

    /// The value of `VZ-M2M-Token`.
    pub(super) fn session(&self) -> HeaderValue {
        self.session.secret.header.clone()
    }

    /// All that must never be shown.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        [&self.token.versioned.secret, &self.session.secret]
            .into_iter()
            .map(|secret| secret.text.expose_secret())
            .chain(self.credentials.secret_values())
    }
}

#[cfg(test)]
mod tests;
