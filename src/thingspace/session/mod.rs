//! Logs in when necessary and returns the authentication headers of requests.

mod state;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    domain::{
        backoff::Backoff,
        refusal::{Refusal, RefusalKind},
        trace::TraceParent,
    },
    failpoints,
    thingspace::{
        classify::StaleAuth,
        credentials::{CredentialSource, FailedLoginStore, FailedLogins, ThingSpaceCredentials},
        login::{HeaderSecret, LoginApi, LoginError, LoginFailure},
        session::state::{LoginRetry, SessionState},
    },
};

pub(super) use state::AuthHeaders;

/// Delay after a log-in without a usable response.
const RETRY_BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) };

/// Delay after a session log-in with the response 400, 401 or 403 in an unknown format. It probably came from
/// a proxy and does not count towards the lock-out. If it came from ThingSpace, it may be a failed log-in.
const UNRECOGNISED_BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(30), max: Duration::from_secs(15 * 60) };

/// Minimum time between a refusal of the credentials and the next log-in with them. A fault of ThingSpace
/// that lasts for seconds cannot cause both refusals that lock the credentials out.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);

/// Interval of the renewal's checks if there is no token or no retry is scheduled.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Owns the token and the session. Callers share one log-in.
///
/// A failed log-in schedules a retry. Until then callers get the old token while it is valid, and then the
/// error.
pub(crate) struct SessionManager {
    api: Arc<dyn LoginApi>,
    source: Arc<dyn CredentialSource>,
    store: Arc<dyn FailedLoginStore>,
    state: Mutex<SessionState>,
    /// Held during a log-in.
    login_lock: tokio::sync::Mutex<()>,
}

impl SessionManager {
    pub(crate) fn new(
        api: Arc<dyn LoginApi>,
        source: Arc<dyn CredentialSource>,
        store: Arc<dyn FailedLoginStore>,
    ) -> Arc<Self> {
        Arc::new(Self {
            api,
            source,
            store,
            state: Mutex::default(),
            login_lock: tokio::sync::Mutex::default(),
        })
    }

    /// Returns headers whose token is not due for renewal, or the old ones if the renewal fails. A log-in
    /// becomes part of `trace`.
    pub(crate) async fn fresh_headers(
        self: &Arc<Self>,
        trace: Option<&TraceParent>,
    ) -> Result<AuthHeaders, Refusal> {
        if let Some(headers) = self.state.lock().headers(|token| token.renew_at) {
            return Ok(headers);
        }
        let retry_due = self.state.lock().short_retry_wait();
        if let Some(due) = retry_due {
            sleep_until(due).await;
        }
        let renewed = self.renew(trace).await;
        let valid = self.state.lock().headers(|token| token.expires_at);
        valid.ok_or_else(|| {
            let detail = "the new token or session was rejected immediately";
            renewed.err().unwrap_or_else(|| Refusal::not_sent(detail))
        })
    }

    /// Returns the present headers while they are valid, without waiting for a renewal.
    pub(crate) async fn valid_headers(
        self: &Arc<Self>,
        trace: Option<&TraceParent>,
    ) -> Result<AuthHeaders, Refusal> {
        let valid = self.state.lock().headers(|token| token.expires_at);
        match valid {
            Some(headers) => Ok(headers),
            None => self.fresh_headers(trace).await,
        }
    }

    /// Removes a refused token or session, unless it was replaced meanwhile.
    pub(crate) fn discard(&self, headers: &AuthHeaders, stale: StaleAuth) {
        self.state.lock().discard(headers, stale);
    }

    /// Deletes the failed log-ins of the current credentials, so that the next call logs in.
    pub(crate) async fn reset_lockout(&self) -> Result<(), String> {
        let credentials = self.source.load()?;
        self.store.store(&credentials, FailedLogins::default()).await?;
        self.state.lock().reset_failures();
        Ok(())
    }

    /// Renews the token before it expires, so that no call waits for it. An idle gateway without a token sends
    /// nothing: its first change logs in.
    pub(crate) async fn run_token_renewal(self: &Arc<Self>) {
        loop {
            let now = Instant::now();
            match self.renewal_due() {
                Some(due) if due > now => sleep_until(due).await,
                Some(_) => {
                    if let Err(error) = self.renew(None).await {
                        tracing::warn!(error = error.detail, "token renewal failed");
                        if self.renewal_due().is_none_or(|due| due <= Instant::now()) {
                            sleep(CHECK_INTERVAL).await;
                        }
                    }
                }
                None => sleep(CHECK_INTERVAL).await,
            }
        }
    }

    fn renewal_due(&self) -> Option<Instant> {
        self.state.lock().renewal_due()
    }

    /// Renews the token and the session if they are missing or due, after a log-in that is in flight.
    async fn renew(self: &Arc<Self>, trace: Option<&TraceParent>) -> Result<(), Refusal> {
        let manager = Arc::clone(self);
        let trace = trace.cloned();
        // In a task, so that a caller that gives up does not cancel the log-in of the others.
        let task = tokio::spawn(async move {
            let _guard = manager.login_lock.lock().await;
            manager.log_in(trace.as_ref()).await
        });
        task.await.unwrap_or_else(|_| {
            let detail = "the log-in was cancelled: the gateway is stopping";
            Err(Refusal::not_sent(detail))
        })
    }

    async fn log_in(&self, trace: Option<&TraceParent>) -> Result<(), Refusal> {
        if self.state.lock().headers(|token| token.renew_at).is_some() {
            return Ok(());
        }
        let credentials = self.load_credentials().await?;
        let is_fresh = self.state.lock().token(|token| token.renew_at).is_some();
        let renewed =
            if is_fresh { Ok(()) } else { self.request_token(&credentials, trace).await.map(drop) };
        // After a failed renewal, a session log-in can still use the old token.
        let token_without_session = self.state.lock().token_without_session();
        match token_without_session {
            Some(token) => self.start_session(token, &credentials, trace).await?,
            None => renewed.clone()?,
        }
        let had_failures = {
            let mut state = self.state.lock();
            state.refusal_retry = None;
            std::mem::take(&mut state.failed) != FailedLogins::default()
        };
        if had_failures {
            self.store_failed(&credentials).await?;
        }
        renewed
    }

    /// Loads the credentials, and their failed log-ins if they changed. Fails if they are locked out.
    async fn load_credentials(&self) -> Result<Arc<ThingSpaceCredentials>, Refusal> {
        let loaded = self.source.load().map_err(|error| {
            let detail = format!("cannot read the gateway's credentials: {error}");
            Refusal::new(RefusalKind::Credentials, detail)
        })?;
        let current = self.state.lock().credentials.clone();
        let is_same = |current: &Arc<ThingSpaceCredentials>| {
            current.secret_values().eq(loaded.secret_values())
        };
        let credentials = match current.filter(is_same) {
            Some(current) => current,
            None => {
                let failed = self.store.load(&loaded).await.map_err(store_error)?;
                let credentials = Arc::new(loaded);
                let mut state = self.state.lock();
                state.reset_failures();
                state.failed = failed;
                state.refusal_retry = LoginRetry::after_restart(&failed, REFUSAL_INTERVAL);
                state.credentials = Some(Arc::clone(&credentials));
                credentials
            }
        };
        if self.state.lock().failed.is_locked_out() {
            let detail = "the gateway's credentials are locked out after refused or unfinished log-ins, because \
                 ThingSpace locks the account after five refusals. Correct them, or run \
                 `thingspace-gateway thingspace reset-lockout` to use them again";
            return Err(Refusal::new(RefusalKind::Credentials, detail));
        }
        Ok(credentials)
    }

    async fn request_token(
        &self,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<Arc<HeaderSecret>, Refusal> {
        {
            let state = self.state.lock();
            state.check_retry_delay(&state.token_retry)?;
        }
        match self.api.token(credentials, trace).await {
            Ok((secret, lifetime)) => {
                let token = Arc::new(secret);
                self.state.lock().set_token(Arc::clone(&token), lifetime);
                Ok(token)
            }
            Err(error) if error.failure == LoginFailure::CredentialsRefused => {
                Err(self.record_refusal(credentials, error.refusal).await)
            }
            Err(error) => {
                let retry = &mut self.state.lock().token_retry;
                Err(LoginRetry::schedule(retry, RETRY_BACKOFF, error.refusal))
            }
        }
    }

    async fn start_session(
        &self,
        token: Arc<HeaderSecret>,
        credentials: &ThingSpaceCredentials,
        trace: Option<&TraceParent>,
    ) -> Result<(), Refusal> {
        let previous = {
            let state = self.state.lock();
            state.check_retry_delay(&state.session_retry)?;
            state.failed
        };
        // Stored before the log-in, because ThingSpace may have refused one that a crash interrupted.
        let unfinished =
            FailedLogins { unfinished: previous.unfinished.saturating_add(1), ..previous };
        self.store(credentials, unfinished).await?;
        let mut result = self.api.session(&token, credentials, trace).await;
        if let Err(error) = &result
            && error.failure == LoginFailure::TokenRefused
        {
            // ThingSpace did not check the user, so this is no failed log-in.
            match self.request_token(credentials, trace).await {
                Ok(token) => result = self.api.session(&token, credentials, trace).await,
                Err(error) => {
                    self.store_failed(credentials).await?;
                    return Err(error);
                }
            }
        }
        let (backoff, refusal) = match result {
            Ok(session) => {
                let mut state = self.state.lock();
                state.set_session(session);
                // The end of the log-in resets this count and the stored one.
                state.failed = unfinished;
                return Ok(());
            }
            Err(LoginError { failure: LoginFailure::CredentialsRefused, refusal }) => {
                return Err(self.record_refusal(credentials, refusal).await);
            }
            Err(LoginError { failure: LoginFailure::Unrecognised, refusal }) => {
                (UNRECOGNISED_BACKOFF, refusal)
            }
            Err(LoginError { refusal, .. }) => (RETRY_BACKOFF, refusal),
        };
        let refusal = LoginRetry::schedule(&mut self.state.lock().session_retry, backoff, refusal);
        Err(self.store_failed(credentials).await.err().unwrap_or(refusal))
    }

    async fn record_refusal(
        &self,
        credentials: &ThingSpaceCredentials,
        refusal: Refusal,
    ) -> Refusal {
        let retry = LoginRetry::after_delay(REFUSAL_INTERVAL, refusal);
        let error = retry.error();
        {
            let mut state = self.state.lock();
            state.failed.refused = state.failed.refused.saturating_add(1);
            if !failpoints::is_active("no-refusal-interval") {
                state.refusal_retry = Some(retry);
            }
        }
        self.store_failed(credentials).await.err().unwrap_or(error)
    }

    async fn store_failed(&self, credentials: &ThingSpaceCredentials) -> Result<(), Refusal> {
        let failed = self.state.lock().failed;
        self.store(credentials, failed).await
    }

    async fn store(
        &self,
        credentials: &ThingSpaceCredentials,
        mut failed: FailedLogins,
    ) -> Result<(), Refusal> {
        failed.since_refused = {
            let state = self.state.lock();
            let retry = state.refusal_retry.as_ref().filter(|_| failed.refused > 0);
            retry.map(|retry| retry.failed_at.elapsed())
        };
        self.store.store(credentials, failed).await.map_err(store_error)
    }
}

/// The gateway does not log in if it cannot count a failure: it may be the fifth in a row.
fn store_error(error: String) -> Refusal {
    let detail = format!("cannot store the failed log-in count in the journal: {error}");
    Refusal::not_sent(detail)
}
