//! Times and numbers of log-ins and stores, on a paused clock.

mod shared;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use secrecy::SecretString;
use tokio::time::Instant;

use super::{
    REFUSAL_INTERVAL, RETRY_BACKOFF, SessionManager, UNRECOGNISED_BACKOFF, state::RENEWAL_MARGIN,
};
use crate::{
    domain::{
        refusal::{Refusal, RefusalKind},
        trace::TraceParent,
    },
    thingspace::{
        classify::StaleAuth,
        credentials::{CredentialSource, FailedLoginStore, FailedLogins, ThingSpaceCredentials},
        login::{HeaderSecret, LoginApi, LoginError, LoginFailure},
        shared::SharedSessionStore,
    },
};

/// A log-in with scripted results, and credentials with a store of their failed log-ins.
#[derive(Default)]
struct FakeLogin {
    tokens: Mutex<VecDeque<Result<Duration, LoginFailure>>>,
    sessions: Mutex<VecDeque<Result<(), LoginFailure>>>,
    /// Duration of a session log-in.
    session_delay: Mutex<Duration>,
    /// The times of the requests.
    token_requests: Mutex<Vec<Instant>>,
    session_requests: Mutex<Vec<Instant>>,
    password: Mutex<&'static str>,
    stored: Mutex<FailedLogins>,
    writes: Mutex<u32>,
}

impl std::fmt::Debug for FakeLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeLogin")
    }
}

fn failed(failure: LoginFailure) -> LoginError {
    let kind = match failure {
        LoginFailure::CredentialsRefused | LoginFailure::TokenRefused => RefusalKind::Credentials,
        LoginFailure::Unrecognised | LoginFailure::Unavailable => RefusalKind::NotSent,
    };
    let refusal = Refusal::new(kind, format!("{failure:?}"));
    LoginError { failure, refusal }
}

fn secret(text: &str) -> HeaderSecret {
    HeaderSecret { header: HeaderValue::from_str(text).unwrap(), text: SecretString::from(text) }
}

#[async_trait]
impl LoginApi for FakeLogin {
    async fn token(
        &self,
        _: &ThingSpaceCredentials,
        _: Option<&TraceParent>,
    ) -> Result<(HeaderSecret, Duration), LoginError> {
        self.token_requests.lock().push(Instant::now());
        let next = self.tokens.lock().pop_front();
        let lifetime = next.unwrap_or(Ok(Duration::from_secs(3_600)));
        lifetime.map(|lifetime| (secret("Bearer token"), lifetime)).map_err(failed)
    }

    async fn session(
        &self,
        _: &HeaderSecret,
        _: &ThingSpaceCredentials,
        _: Option<&TraceParent>,
    ) -> Result<HeaderSecret, LoginError> {
        let number = {
            let mut requests = self.session_requests.lock();
            requests.push(Instant::now());
            requests.len()
        };
        let next = self.sessions.lock().pop_front();
        let delay = *self.session_delay.lock();
        tokio::time::sleep(delay).await;
        let opened = next.unwrap_or(Ok(()));
        opened.map(|()| secret(&format!("session {number}"))).map_err(failed)
    }
}

impl CredentialSource for FakeLogin {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let any = || SecretString::from("any");
        Ok(ThingSpaceCredentials {
            app_key: any(),
            app_secret: any(),
            uws_username: any(),
            uws_password: SecretString::from(*self.password.lock()),
        })
    }
}

#[async_trait]
impl FailedLoginStore for FakeLogin {
    async fn load(&self, _: &ThingSpaceCredentials) -> Result<FailedLogins, String> {
        Ok(*self.stored.lock())
    }

    async fn store(&self, _: &ThingSpaceCredentials, failed: FailedLogins) -> Result<(), String> {
        *self.writes.lock() += 1;
        *self.stored.lock() = failed;
        Ok(())
    }
}

impl FakeLogin {
    fn manager(self: &Arc<Self>) -> Arc<SessionManager> {
        self.replica(None)
    }

    fn replica(
        self: &Arc<Self>,
        shared: Option<Arc<dyn SharedSessionStore>>,
    ) -> Arc<SessionManager> {
        SessionManager::new(
            Arc::<Self>::clone(self),
            Arc::<Self>::clone(self),
            Arc::<Self>::clone(self),
            shared,
        )
    }

    fn tokens(&self, next: impl IntoIterator<Item = Result<Duration, LoginFailure>>) {
        self.tokens.lock().extend(next);
    }

    fn sessions(&self, next: impl IntoIterator<Item = Result<(), LoginFailure>>) {
        self.sessions.lock().extend(next);
    }

    /// Numbers of token requests, session log-ins, and writes to the store.
    fn counts(&self) -> (usize, usize, u32) {
        (self.token_requests.lock().len(), self.session_requests.lock().len(), *self.writes.lock())
    }

    /// The time between one session log-in and the next.
    fn session_gaps(&self) -> Vec<Duration> {
        let requests = self.session_requests.lock();
        requests.windows(2).map(|two| two[1] - two[0]).collect()
    }
}

/// Requests headers until a call succeeds or the credentials are locked out, after the delay of each
/// error.
async fn call_until_settled(manager: &Arc<SessionManager>) -> Result<(), Refusal> {
    loop {
        let Err(refusal) = manager.valid_headers(None).await.map(drop) else {
            return Ok(());
        };
        match refusal.retry_after {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(refusal),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_backs_off_writes_nothing_and_keeps_the_old_token() {
    let fake = Arc::new(FakeLogin::default());
    let manager = fake.manager();
    fake.tokens([Ok(HOUR)]);
    fake.tokens(std::iter::repeat_n(Err(LoginFailure::Unavailable), 10_000));
    manager.fresh_headers(None).await.unwrap();
    assert_eq!(fake.counts(), (1, 1, 2));

    tokio::time::sleep(HOUR - RENEWAL_MARGIN).await;
    let renewed = manager.renew(None).await;
    assert!(renewed.is_err(), "the renewal failed");
    assert!(manager.renewal_due().unwrap() > Instant::now());
    // Callers use the old token and send no request.
    for _ in 0..100 {
        manager.fresh_headers(None).await.unwrap();
        manager.valid_headers(None).await.unwrap();
        assert!(manager.renew(None).await.is_err());
    }
    assert_eq!(fake.counts(), (2, 1, 2));

    // After 1, 2, 4, 8 and 16 s, then every 30 s, each reduced by up to a half.
    let idle = tokio::time::timeout(Duration::from_secs(600), manager.run_token_renewal());
    assert!(idle.await.is_err(), "the renewal never ends");
    let (tokens, ..) = fake.counts();
    assert!((22..=50).contains(&tokens), "{tokens} token requests");
    assert_eq!(fake.counts(), (tokens, 1, 2));
    // The old token has expired, so callers get the error.
    let refusal = manager.fresh_headers(None).await.err().unwrap();
    assert_eq!(refusal.kind, RefusalKind::NotSent);
    assert!(refusal.retry_after.unwrap() <= RETRY_BACKOFF.max);

    // That call waited for the retry if it was due within two seconds.
    let (tokens, ..) = fake.counts();
    fake.tokens.lock().clear();
    let idle = tokio::time::timeout(RETRY_BACKOFF.max, manager.run_token_renewal());
    assert!(idle.await.is_err());
    assert_eq!(fake.counts(), (tokens + 1, 1, 2));
    manager.fresh_headers(None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_two_refusals_that_lock_the_credentials_out_are_a_minute_apart_even_across_restarts() {
    let fake = Arc::new(FakeLogin::default());
    fake.sessions(std::iter::repeat_n(Err(LoginFailure::CredentialsRefused), 10));
    let manager = fake.manager();
    for _ in 0..100 {
        let refusal = manager.fresh_headers(None).await.err().unwrap();
        assert_eq!(refusal.kind, RefusalKind::Credentials);
        assert_eq!(refusal.retry_after, Some(REFUSAL_INTERVAL));
    }
    assert_eq!(fake.counts().1, 1);

    // The fake store does not age the refusal, so a restart does not shorten the interval.
    let restarted = fake.manager();
    let refusal = restarted.fresh_headers(None).await.err().unwrap();
    assert_eq!(refusal.kind, RefusalKind::Credentials);
    assert_eq!(fake.counts().1, 1);

    let locked = call_until_settled(&restarted).await.unwrap_err();
    assert!(locked.detail.contains("reset-lockout"), "{}", locked.detail);
    assert_eq!(fake.session_gaps(), [REFUSAL_INTERVAL]);
    tokio::time::sleep(24 * HOUR).await;
    for manager in [&restarted, &manager, &fake.manager()] {
        call_until_settled(manager).await.unwrap_err();
    }
    // The first gateway had not loaded the second refusal, so it made one more attempt.
    assert_eq!(fake.counts().1, 3);
}

#[tokio::test(start_paused = true)]
async fn a_lock_out_ends_when_the_credentials_change_or_an_operator_resets_it() {
    let fake = Arc::new(FakeLogin::default());
    let manager = fake.manager();
    let refused = || std::iter::repeat_n(Err(LoginFailure::CredentialsRefused), 2);
    fake.sessions(refused());
    call_until_settled(&manager).await.unwrap_err();
    manager.reset_lockout().await.unwrap();
    manager.fresh_headers(None).await.unwrap();
    assert_eq!(*fake.stored.lock(), FailedLogins::default());

    let manager = fake.manager();
    fake.sessions(refused());
    call_until_settled(&manager).await.unwrap_err();
    *fake.password.lock() = "another";
    *fake.stored.lock() = FailedLogins::default();
    manager.fresh_headers(None).await.unwrap();
    assert_eq!(fake.counts().1, 6);
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_a_lock_out_after_a_restart_and_until_it_is_reset() {
    let fake = Arc::new(FakeLogin::default());
    let manager = fake.manager();
    let status = || async {
        let status = manager.login_status().await.unwrap();
        (status.is_locked_out, status.failures, status.has_token, status.has_session)
    };
    assert_eq!(status().await, (false, 0, false, false));
    fake.sessions(std::iter::repeat_n(Err(LoginFailure::CredentialsRefused), 2));
    call_until_settled(&manager).await.unwrap_err();
    assert_eq!(status().await, (true, 2, true, false));
    let restarted = fake.manager().login_status().await.unwrap();
    assert!(restarted.is_locked_out);
    manager.reset_lockout().await.unwrap();
    manager.fresh_headers(None).await.unwrap();
    assert_eq!(status().await, (false, 0, true, true));
    assert_eq!(fake.counts().1, 3);
}

#[tokio::test(start_paused = true)]
async fn unrecognised_refusals_never_lock_out_and_are_retried_with_growing_delays() {
    let fake = Arc::new(FakeLogin::default());
    fake.sessions(std::iter::repeat_n(Err(LoginFailure::Unrecognised), 12));
    let manager = fake.manager();
    call_until_settled(&manager).await.unwrap();
    let gaps = fake.session_gaps();
    assert_eq!(gaps.len(), 12);
    assert!(gaps[0] >= UNRECOGNISED_BACKOFF.initial / 2, "{gaps:?}");
    assert!(gaps[11] >= UNRECOGNISED_BACKOFF.max / 2, "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= UNRECOGNISED_BACKOFF.max), "{gaps:?}");
    assert_eq!(*fake.stored.lock(), FailedLogins::default());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_started_with_the_old_token_while_the_renewal_fails() {
    let fake = Arc::new(FakeLogin::default());
    let manager = fake.manager();
    fake.tokens([Ok(HOUR), Err(LoginFailure::Unavailable)]);
    let headers = manager.fresh_headers(None).await.unwrap();
    tokio::time::sleep(HOUR - RENEWAL_MARGIN).await;
    manager.discard(&headers, StaleAuth::Session);
    manager.fresh_headers(None).await.unwrap();
    assert_eq!((fake.counts().0, fake.counts().1), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_log_in_interrupted_by_a_crash_counts_half_and_four_of_them_lock_out() {
    let fake = Arc::new(FakeLogin::default());
    for crashes in 0..4 {
        let manager = fake.manager();
        fake.stored.lock().unfinished = crashes;
        manager.fresh_headers(None).await.unwrap();
        assert_eq!(*fake.stored.lock(), FailedLogins::default());
    }
    assert_eq!(fake.counts().1, 4);

    fake.stored.lock().unfinished = 4;
    call_until_settled(&fake.manager()).await.unwrap_err();
    assert_eq!(fake.counts().1, 4);
    // After two crashes, one refusal locks out.
    fake.stored.lock().unfinished = 2;
    fake.sessions([Err(LoginFailure::CredentialsRefused)]);
    let manager = fake.manager();
    call_until_settled(&manager).await.unwrap_err();
    assert_eq!(fake.counts().1, 5);
}
