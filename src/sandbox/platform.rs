//! The state that all handlers and deliveries share.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::Settings;
use super::auth::Auth;
use super::callbacks::{Listener, Registrations};
use super::changes::Asked;
use super::delivery::{self, Job};
use super::errors::Refusal;
use super::fate::Fates;
use super::ledger::Ledger;

/// One running ThingSpace.
pub(super) struct Platform {
    pub(super) settings: Settings,
    pub(super) fates: Fates,
    pub(super) client: reqwest::Client,
    /// One permit per callback in flight.
    pub(super) turns: Semaphore,
    /// Nothing new is begun.
    pub(super) stop: CancellationToken,
    /// What still runs is dropped.
    abort: CancellationToken,
    deliveries: TaskTracker,
    started: Started,
    auth: Mutex<Auth>,
    registrations: Mutex<Registrations>,
    ledger: Mutex<Ledger>,
}

/// The start, on both clocks: time goes by on tokio's.
struct Started {
    at: Instant,
    unix: Duration,
}

impl Platform {
    pub(super) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let fates = Fates {
            seed: settings.seed,
            failure_share: settings.failure_share,
            duplicate_share: settings.duplicate_share,
            order: settings.order,
        };
        let client = delivery::client(settings.callback_concurrency).map_err(io::Error::other)?;
        let auth = Auth::new(settings.credentials.clone(), fates.tokens());
        Ok(Arc::new(Self {
            turns: Semaphore::new(settings.callback_concurrency),
            fates,
            client,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            deliveries: TaskTracker::new(),
            started: Started::now(),
            auth: Mutex::new(auth),
            registrations: Mutex::default(),
            ledger: Mutex::default(),
            settings,
        }))
    }

    pub(super) fn auth(&self) -> MutexGuard<'_, Auth> {
        lock(&self.auth)
    }

    pub(super) fn registrations(&self) -> MutexGuard<'_, Registrations> {
        lock(&self.registrations)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Executes a change and returns its request id when it is time to answer.
    /// Whether the caller still waits makes no difference to the callbacks.
    pub(super) async fn execute(self: &Arc<Self>, asked: Asked) -> Result<String, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::stopping());
        }
        let kind = asked.kind;
        let account = match asked.account.clone() {
            Some(account) => account,
            None => {
                let only = self.registrations().only_account();
                only.map_err(|invalid| kind.refuse(invalid))?
            }
        };
        let received_at_ms = self.started.unix_ms();
        let accepted = self.ledger().accept(asked, account, received_at_ms);
        let (change, devices) = accepted?;
        let answered_at = Instant::now() + self.settings.answer_delay;
        let request_id = change.request_id.clone();
        tracing::debug!(request_id, devices = devices.len(), "change accepted");
        self.deliver(Job {
            change,
            devices,
            answered_at,
        });
        let answer = sleep_until(answered_at);
        match self.abort.run_until_cancelled(answer).await {
            Some(()) => Ok(request_id),
            None => Err(Refusal::stopping()),
        }
    }

    fn deliver(self: &Arc<Self>, job: Job) {
        let abort = self.abort.clone();
        let delivery = delivery::run(Arc::clone(self), job);
        self.deliveries
            .spawn(async move { abort.run_until_cancelled(delivery).await });
    }

    /// Where the callbacks of an account go: to the registered listener, or to
    /// the default one.
    pub(super) fn listener(&self, account: &str, service: &str) -> Option<Listener> {
        if let Some(listener) = self.registrations().find(account, service) {
            return Some(listener);
        }
        let login = self.settings.callback_login.as_ref();
        Some(Listener {
            url: with_service(self.settings.callback_url.as_ref()?, service)?,
            username: login.map(|login| login.username.clone()),
            password: login.map(|login| login.password.clone()),
        })
    }

    /// Waits until the callbacks in flight are through, as long as the grace.
    pub(super) async fn drain(&self, grace: Duration) {
        self.deliveries.close();
        // What is still under way after that is dropped by `abort`.
        let _ = tokio::time::timeout(grace, self.deliveries.wait()).await;
    }

    /// Drops what still runs.
    pub(super) async fn abort(&self) {
        self.abort.cancel();
        self.deliveries.wait().await;
    }
}

impl Started {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one look at the wall clock: the sandbox is a world of its own, and its time goes by on tokio's clock from here"
    )]
    fn now() -> Self {
        Self {
            at: Instant::now(),
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    fn unix_ms(&self) -> u64 {
        let now = self.unix + self.at.elapsed();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Puts the service's name where the address says `{service}`. A parsed address
/// has the braces of its path percent-encoded.
fn with_service(url: &Url, service: &str) -> Option<Url> {
    let text = url
        .as_str()
        .replace("{service}", service)
        .replace("%7Bservice%7D", service);
    Url::parse(&text).ok()
}

/// A lock whose holder panicked still guards plain data: go on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
