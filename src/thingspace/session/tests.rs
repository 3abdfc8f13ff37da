//! When ThingSpace is asked for a token or a session, and what is stored, on a paused clock.

use std::collections::VecDeque;

use async_trait::async_trait;
use secrecy::SecretString;

use super::*;
use crate::thingspace::login::LoginError;

/// A log-in that is answered from a script, and credentials with a store for their failed log-ins.
#[derive(Default)]
struct FakeLogin {
    tokens: Mutex<VecDeque<Result<Duration, LoginFailure>>>,
    sessions: Mutex<VecDeque<Result<(), LoginFailure>>>,
    /// When each was asked for.
    token_requests: Mutex<Vec<Instant>>,
    session_requests: Mutex<Vec<Instant>>,
    password: Mutex<&'static str>,
    stored: Mutex<FailedLogins>,
    writes: Mutex<u32>,
}

impl std::fmt::Debug for FakeLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

fn failed(cause: LoginFailure) -> LoginError {
    let kind = match cause {
        LoginFailure::CredentialsRefused | LoginFailure::TokenRefused => RefusalKind::Credentials,
        LoginFailure::Unrecognised | LoginFailure::Unavailable => RefusalKind::NotSent,
    };
    let refusal = new_refusal(kind, format!("{cause:?}"));
    LoginError { cause, refusal }
}

fn secret(text: &str) -> HeaderSecret {
    HeaderSecret {
        header: HeaderValue::from_str(text).unwrap(),
        text: SecretString::from(text),
    }
}

#[async_trait]
impl LoginApi for FakeLogin {
    async fn token(
        &self,
        _: &ThingSpaceCredentials,
        _: Option<&TraceParent>,
    ) -> Result<(HeaderSecret, Duration), LoginError> {
        self.token_requests.lock().unwrap().push(Instant::now());
        let next = self.tokens.lock().unwrap().pop_front();
        let lifetime = next.unwrap_or(Ok(Duration::from_secs(3_600)));
        lifetime
            .map(|lifetime| (secret("Bearer token"), lifetime))
            .map_err(failed)
    }

    async fn session(
        &self,
        _: &HeaderSecret,
        _: &ThingSpaceCredentials,
        _: Option<&TraceParent>,
    ) -> Result<HeaderSecret, LoginError> {
        self.session_requests.lock().unwrap().push(Instant::now());
        let next = self.sessions.lock().unwrap().pop_front();
        let opened = next.unwrap_or(Ok(()));
        opened.map(|()| secret("session")).map_err(failed)
    }
}

impl CredentialSource for FakeLogin {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let any = || SecretString::from("any");
        Ok(ThingSpaceCredentials {
            app_key: any(),
            app_secret: any(),
            uws_username: any(),
            uws_password: SecretString::from(*self.password.lock().unwrap()),
        })
    }
}

#[async_trait]
impl FailedLoginStore for FakeLogin {
    async fn load(&self, _: &ThingSpaceCredentials) -> Result<FailedLogins, String> {
        Ok(*self.stored.lock().unwrap())
    }

    async fn store(&self, _: &ThingSpaceCredentials, failed: FailedLogins) -> Result<(), String> {
        *self.writes.lock().unwrap() += 1;
        *self.stored.lock().unwrap() = failed;
        Ok(())
    }
}

impl FakeLogin {
    fn access(self: &Arc<Self>) -> SessionManager {
        SessionManager::new(
            Arc::<Self>::clone(self),
            Arc::<Self>::clone(self),
            Arc::<Self>::clone(self),
        )
    }

    fn tokens(&self, next: impl IntoIterator<Item = Result<Duration, LoginFailure>>) {
        self.tokens.lock().unwrap().extend(next);
    }

    fn sessions(&self, next: impl IntoIterator<Item = Result<(), LoginFailure>>) {
        self.sessions.lock().unwrap().extend(next);
    }

    /// Token requests, session log-ins, and writes to the store.
    fn counts(&self) -> (usize, usize, u32) {
        (
            self.token_requests.lock().unwrap().len(),
            self.session_requests.lock().unwrap().len(),
            *self.writes.lock().unwrap(),
        )
    }

    /// The time between one session log-in and the next.
    fn session_gaps(&self) -> Vec<Duration> {
        let requests = self.session_requests.lock().unwrap();
        requests.windows(2).map(|two| two[1] - two[0]).collect()
    }
}

/// Calls in a tight loop until one succeeds or the credentials are locked out; each failed call is
/// repeated after the time that it says.
async fn call_until_settled(access: &SessionManager) -> Result<(), Refusal> {
    loop {
        let Err(PrepareError(refusal)) = access.valid_headers(None).await.map(drop) else {
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
async fn a_failed_renewal_backs_off_writes_nothing_and_leaves_the_old_token_in_use() {
    let fake = Arc::new(FakeLogin::default());
    let access = fake.access();
    fake.tokens([Ok(HOUR)]);
    fake.tokens(std::iter::repeat_n(Err(LoginFailure::Unavailable), 10_000));
    access.fresh_headers(None).await.unwrap();
    assert_eq!(fake.counts(), (1, 1, 2));

    tokio::time::sleep(HOUR - RENEWAL_MARGIN).await;
    let renewed = access.renew(None).await;
    assert!(renewed.is_err(), "a renewal that failed is no success");
    assert!(access.renewal_due().unwrap() > Instant::now());
    // Callers go on with the old token, and ask for nothing.
    for _ in 0..100 {
        access.fresh_headers(None).await.unwrap();
        access.valid_headers(None).await.unwrap();
        assert!(access.renew(None).await.is_err());
    }
    assert_eq!(fake.counts(), (2, 1, 2));

    // 1, 2, 4, 8 and 16 s, then 30 s: or half of that.
    let idle = tokio::time::timeout(Duration::from_secs(600), access.run_token_renewal());
    assert!(
        idle.await.is_err(),
        "it goes on for as long as it is polled"
    );
    let (tokens, ..) = fake.counts();
    assert!((22..=50).contains(&tokens), "{tokens} token requests");
    assert_eq!(fake.counts(), (tokens, 1, 2));
    // The old token has ended: now the failure is the callers' as well.
    let refusal = access.fresh_headers(None).await.err().unwrap().0;
    assert_eq!(refusal.kind, RefusalKind::NotSent);
    assert!(refusal.retry_after.unwrap() <= RETRY_DELAY.1);

    // That call waited for the next try if it was due within two seconds.
    let (tokens, ..) = fake.counts();
    fake.tokens.lock().unwrap().clear();
    let idle = tokio::time::timeout(RETRY_DELAY.1, access.run_token_renewal());
    assert!(idle.await.is_err());
    assert_eq!(fake.counts(), (tokens + 1, 1, 2));
    access.fresh_headers(None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_two_refusals_that_lock_the_credentials_out_lie_apart_in_time_over_restarts_too() {
    let fake = Arc::new(FakeLogin::default());
    fake.sessions(std::iter::repeat_n(
        Err(LoginFailure::CredentialsRefused),
        10,
    ));
    let access = fake.access();
    for _ in 0..100 {
        let refusal = access.fresh_headers(None).await.err().unwrap().0;
        assert_eq!(refusal.kind, RefusalKind::Credentials);
        assert_eq!(refusal.retry_after, Some(REFUSAL_INTERVAL));
    }
    assert_eq!(fake.counts().1, 1);

    // This store adds no time to what it was given: to the gateway the refusal has just happened.
    let restarted = fake.access();
    let refusal = restarted.fresh_headers(None).await.err().unwrap().0;
    assert_eq!(refusal.kind, RefusalKind::Credentials);
    assert_eq!(fake.counts().1, 1);

    let locked = call_until_settled(&restarted).await.unwrap_err();
    assert!(locked.detail.contains("reset-lockout"), "{}", locked.detail);
    assert_eq!(fake.session_gaps(), [REFUSAL_INTERVAL]);
    tokio::time::sleep(24 * HOUR).await;
    for access in [&restarted, &access, &fake.access()] {
        call_until_settled(access).await.unwrap_err();
    }
    // The first gateway had not loaded the second refusal: it made one more try.
    assert_eq!(fake.counts().1, 3);
}

#[tokio::test(start_paused = true)]
async fn a_locked_out_gateway_logs_in_again_when_its_credentials_change_or_an_operator_says_so() {
    let fake = Arc::new(FakeLogin::default());
    let access = fake.access();
    let refused = || std::iter::repeat_n(Err(LoginFailure::CredentialsRefused), 2);
    fake.sessions(refused());
    call_until_settled(&access).await.unwrap_err();
    access.reset_lockout().await.unwrap();
    access.fresh_headers(None).await.unwrap();
    assert_eq!(*fake.stored.lock().unwrap(), FailedLogins::default());

    let access = fake.access();
    fake.sessions(refused());
    call_until_settled(&access).await.unwrap_err();
    *fake.password.lock().unwrap() = "another";
    *fake.stored.lock().unwrap() = FailedLogins::default();
    access.fresh_headers(None).await.unwrap();
    assert_eq!(fake.counts().1, 6);
}

#[tokio::test(start_paused = true)]
async fn unrecognised_refusals_never_lock_out_and_are_repeated_ever_more_seldom() {
    let fake = Arc::new(FakeLogin::default());
    fake.sessions(std::iter::repeat_n(Err(LoginFailure::Unrecognised), 12));
    let access = fake.access();
    call_until_settled(&access).await.unwrap();
    let gaps = fake.session_gaps();
    assert_eq!(gaps.len(), 12);
    assert!(gaps[0] >= UNRECOGNISED_DELAY.0 / 2, "{gaps:?}");
    assert!(gaps[11] >= UNRECOGNISED_DELAY.1 / 2, "{gaps:?}");
    assert!(
        gaps.iter().all(|gap| *gap <= UNRECOGNISED_DELAY.1),
        "{gaps:?}"
    );
    assert_eq!(*fake.stored.lock().unwrap(), FailedLogins::default());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_opened_with_the_old_token_while_that_cannot_be_renewed() {
    let fake = Arc::new(FakeLogin::default());
    let access = fake.access();
    fake.tokens([Ok(HOUR), Err(LoginFailure::Unavailable)]);
    let headers = access.fresh_headers(None).await.unwrap();
    tokio::time::sleep(HOUR - RENEWAL_MARGIN).await;
    access.discard(&headers, StaleAuth::Session);
    access.fresh_headers(None).await.unwrap();
    assert_eq!((fake.counts().0, fake.counts().1), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_log_in_that_a_crash_cut_off_counts_half_and_four_of_them_lock_out() {
    let fake = Arc::new(FakeLogin::default());
    for crashes in 0..4 {
        let access = fake.access();
        fake.stored.lock().unwrap().unfinished = crashes;
        access.fresh_headers(None).await.unwrap();
        assert_eq!(*fake.stored.lock().unwrap(), FailedLogins::default());
    }
    assert_eq!(fake.counts().1, 4);

    fake.stored.lock().unwrap().unfinished = 4;
    call_until_settled(&fake.access()).await.unwrap_err();
    assert_eq!(fake.counts().1, 4);
    // After two crashes one refusal is the last.
    fake.stored.lock().unwrap().unfinished = 2;
    fake.sessions([Err(LoginFailure::CredentialsRefused)]);
    let access = fake.access();
    call_until_settled(&access).await.unwrap_err();
    assert_eq!(fake.counts().1, 5);
}
