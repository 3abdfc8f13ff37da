//! Logs in when necessary and returns the authentication headers of requests.

mod sealed;
mod shared_session;
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
        session::{
            sealed::SharedLogin,
            shared_session::{SharedSession, StoreClock},
            state::{LoginRetry, SessionState},
        },
        shared::SharedSessionStore,
    },
};

pub(super) use state::AuthHeaders;
pub use state::LoginStatus;

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
///
/// Replicas with a [`SharedSessionStore`] share one log-in, too. Before a replica logs in, it acquires a lease
/// and loads the token, the session, the failed log-ins and the retries of the others. It logs in only if it
/// cannot use theirs, and stores the result before it releases the lease.
pub(crate) struct SessionManager {
    api: Arc<dyn LoginApi>,
    source: Arc<dyn CredentialSource>,
    store: Arc<dyn FailedLoginStore>,
    /// `None` if there are no other replicas.
    shared: Option<SharedSession>,
    state: Mutex<SessionState>,
    /// Held during a log-in.
    login_lock: tokio::sync::Mutex<()>,
}

impl SessionManager {
    pub(crate) fn new(
        api: Arc<dyn LoginApi>,
        source: Arc<dyn CredentialSource>,
        store: Arc<dyn FailedLoginStore>,
        shared: Option<Arc<dyn SharedSessionStore>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            api,
            source,
            store,
            shared: shared.map(SharedSession::new),
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
        let Some(shared) = &self.shared else {
            self.store.store(&credentials, FailedLogins::default()).await?;
            self.state.lock().reset_failures();
            return Ok(());
        };
        let _guard = self.login_lock.lock().await;
        let detail = |refusal: Refusal| refusal.detail;
        shared.acquire_lease().await.map_err(detail)?;
        let reset = async {
            self.store.store(&credentials, FailedLogins::default()).await?;
            let (login, _) = shared.load(&credentials).await.map_err(detail)?;
            let SharedLogin { token, session, .. } = login;
            let login = SharedLogin { token, session, ..SharedLogin::default() };
            shared.store(&login, &credentials).await.map_err(detail)
        };
        let reset = reset.await;
        shared.release_lease().await;
        reset?;
        self.state.lock().reset_failures();
        Ok(())
    }

    /// Returns the state of the log-in, with the failures that this process or another one stored.
    pub(crate) async fn login_status(&self) -> Result<LoginStatus, String> {
        let credentials = self.source.load()?;
        let failed = self.store.load(&credentials).await?;
        Ok(self.state.lock().status(failed))
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
        if self.has_fresh_headers() {
            return Ok(());
        }
        let Some(shared) = &self.shared else {
            let credentials = self.load_credentials().await?;
            return self.log_in_with(&credentials, trace).await;
        };
        self.state.lock().check_recent_failure()?;
        let result = match shared.acquire_lease().await {
            Ok(()) => {
                let result = self.log_in_for_all(shared, trace).await;
                shared.release_lease().await;
                result
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &result {
            self.state.lock().set_recent_failure(refusal);
        }
        result
    }

    fn has_fresh_headers(&self) -> bool {
        self.state.lock().headers(|token| token.renew_at).is_some()
    }

    /// Uses the token and the session of another replica, or logs in and stores the result for the others.
    async fn log_in_for_all(
        &self,
        shared: &SharedSession,
        trace: Option<&TraceParent>,
    ) -> Result<(), Refusal> {
        let credentials = self.load_credentials().await?;
        let (before, clock) = shared.load(&credentials).await?;
        self.adopt(&before, clock);
        if self.has_fresh_headers() {
            return Ok(());
        }
        let result = self.log_in_with(&credentials, trace).await;
        let after = self.state.lock().to_shared(clock);
        if after != before
            && shared.holds_lease()
            && let Err(refusal) = shared.store(&after, &credentials).await
        {
            // This replica can use its own log-in all the same.
            tracing::warn!(error = refusal.detail, "the other replicas cannot use this log-in");
        }
        result
    }

    fn adopt(&self, shared: &SharedLogin, clock: StoreClock) {
        let mut state = self.state.lock();
        state.adopt(shared, clock);
        if state.refusal_retry.is_none() {
            state.refusal_retry = LoginRetry::after_restart(&state.failed, REFUSAL_INTERVAL);
        }
    }

    async fn log_in_with(
        &self,
        credentials: &Arc<ThingSpaceCredentials>,
        trace: Option<&TraceParent>,
    ) -> Result<(), Refusal> {
        if self.state.lock().failed.is_locked_out() {
            let detail = "the gateway's credentials are locked out after refused or unfinished log-ins, because \
                 ThingSpace locks the account after five refusals. Correct them, or run \
                 `thingspace-gateway thingspace reset-lockout` to use them again";
            return Err(Refusal::new(RefusalKind::Credentials, detail));
        }
        let is_fresh = self.state.lock().token(|token| token.renew_at).is_some();
        let renewed =
            if is_fresh { Ok(()) } else { self.request_token(credentials, trace).await.map(drop) };
        // After a failed renewal, a session log-in can still use the old token.
        let token_without_session = self.state.lock().token_without_session();
        match token_without_session {
            Some(token) => self.start_session(token, credentials, trace).await?,
            None => renewed.clone()?,
        }
        // Another replica that has logged in since also stored its failed log-ins.
        if self.is_overtaken() {
            return renewed;
        }
        let had_failures = {
            let mut state = self.state.lock();
            state.refusal_retry = None;
            std::mem::take(&mut state.failed) != FailedLogins::default()
        };
        if had_failures {
            self.store_failed(credentials).await?;
        }
        renewed
    }

    /// True if the lease has expired, so that another replica may have logged in meanwhile.
    fn is_overtaken(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.holds_lease())
    }

    /// Fails if another replica may have logged in meanwhile.
    fn check_lease(&self) -> Result<(), Refusal> {
        if self.is_overtaken() {
            let detail = "the log-in took too long, so that another replica may log in";
            return Err(Refusal::not_sent(detail));
        }
        Ok(())
    }

    /// Sends a request of a log-in, and keeps the lease meanwhile.
    async fn send<T>(&self, request: impl Future<Output = T>) -> T {
        match &self.shared {
            Some(shared) => shared.keep_lease(request).await,
            None => request.await,
        }
    }

    /// Loads the credentials, and their failed log-ins if they or the other replicas may have changed them.
    async fn load_credentials(&self) -> Result<Arc<ThingSpaceCredentials>, Refusal> {
        let loaded = self.source.load().map_err(|error| {
            let detail = format!("cannot read the gateway's credentials: {error}");
            Refusal::new(RefusalKind::Credentials, detail)
        })?;
        let current = self.state.lock().credentials.clone();
        let is_same = |current: &Arc<ThingSpaceCredentials>| {
            current.secret_values().eq(loaded.secret_values())
        };
        let current = current.filter(is_same);
        if let Some(current) = current.clone().filter(|_| self.shared.is_none()) {
            return Ok(current);
        }
        let failed = self.store.load(&loaded).await.map_err(store_error)?;
        let mut state = self.state.lock();
        if current.is_none() {
            state.reset_failures();
            state.refusal_retry = LoginRetry::after_restart(&failed, REFUSAL_INTERVAL);
        }
        state.failed = failed;
        Ok(Arc::clone(state.credentials.insert(current.unwrap_or_else(|| Arc::new(loaded)))))
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
        match self.send(self.api.token(credentials, trace)).await {
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
        self.check_lease()?;
        self.store(credentials, unfinished).await?;
        self.check_lease()?;
        let mut result = self.send(self.api.session(&token, credentials, trace)).await;
        if let Err(error) = &result
            && error.failure == LoginFailure::TokenRefused
        {
            // ThingSpace did not check the user, so this is no failed log-in.
            match self.request_token(credentials, trace).await {
                Ok(token) => {
                    result = self.send(self.api.session(&token, credentials, trace)).await;
                }
                Err(error) => {
                    if !self.is_overtaken() {
                        self.store_failed(credentials).await?;
                    }
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
        if self.is_overtaken() {
            return Err(refusal);
        }
        Err(self.store_failed(credentials).await.err().unwrap_or(refusal))
    }

    async fn record_refusal(
        &self,
        credentials: &ThingSpaceCredentials,
        refusal: Refusal,
    ) -> Refusal {
        let retry = LoginRetry::after_delay(REFUSAL_INTERVAL, refusal);
        let error = retry.error();
        if let Some(shared) = self.shared.as_ref().filter(|shared| !shared.holds_lease()) {
            // Another replica may have counted a refusal since.
            let loaded = async {
                shared.wait_for_lease().await?;
                self.store.load(credentials).await.map_err(store_error)
            };
            match loaded.await {
                Ok(failed) => self.state.lock().failed = failed,
                Err(refusal) => return refusal,
            }
        }
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
