//! The state that all handlers and deliveries share.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::auth::Auth;
use super::callbacks::{Listener, Registrations};
use super::delivery::{self, Job};
use super::devices::Devices;
use super::errors::Refusal;
use super::fate::Fates;
use super::ledger::{Ledger, Page};
use super::limiter::Limiter;
use super::once::Once;
use super::scenario;
use super::settings::{Policy, Settings};

/// How long an answer waits for the callbacks that come before it.
const EARLY_LIMIT: Duration = Duration::from_secs(10);

/// One running ThingSpace.
pub(super) struct Platform {
    pub(super) settings: Settings,
    pub(super) policy: Policy,
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
    devices: Mutex<Devices>,
    ledger: Mutex<Ledger>,
    limiter: Mutex<Limiter>,
    once: Mutex<Once>,
}

/// The start, on both clocks: time goes by on tokio's.
struct Started {
    at: Instant,
    unix: Duration,
}

/// Keeps an answer back until the callbacks that come before it are out.
pub(super) struct Gate {
    left: AtomicUsize,
    open: CancellationToken,
}

impl Platform {
    pub(super) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let fates = Fates {
            seed: settings.seed,
            shares: settings.shares.clone(),
            order: settings.order,
        };
        let client = delivery::client(settings.callback_concurrency).map_err(io::Error::other)?;
        let registrations =
            Registrations::new(settings.any_callback_port, settings.credentials_lag);
        Ok(Arc::new(Self {
            policy: settings.policy(),
            turns: Semaphore::new(settings.callback_concurrency),
            client,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            deliveries: TaskTracker::new(),
            started: Started::now(),
            auth: Mutex::new(Auth::new(&settings, fates.tokens())),
            registrations: Mutex::new(registrations),
            devices: Mutex::new(Devices::with(scenario::residents())),
            ledger: Mutex::default(),
            limiter: Mutex::new(Limiter::new(settings.requests_per_minute)),
            once: Mutex::default(),
            fates,
            settings,
        }))
    }

    pub(super) fn auth(&self) -> MutexGuard<'_, Auth> {
        lock(&self.auth)
    }

    pub(super) fn registrations(&self) -> MutexGuard<'_, Registrations> {
        lock(&self.registrations)
    }

    pub(super) fn devices(&self) -> MutexGuard<'_, Devices> {
        lock(&self.devices)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(super) fn once(&self) -> MutexGuard<'_, Once> {
        lock(&self.once)
    }

    pub(super) fn page(&self, identifiers: bool) -> Page {
        let locked_users = self.auth().locked_users();
        self.ledger().page(identifiers, locked_users)
    }

    /// Lets one more call of the API pass, or refuses it.
    pub(super) fn pass_limit(&self) -> Result<(), Refusal> {
        let taken = lock(&self.limiter).take();
        taken.map_err(|seconds| Refusal::throttled().retry_after(seconds))
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.unix_ms()
    }

    /// Waits, or finds out that nothing new is begun any more.
    pub(super) async fn wait(&self, time: Duration) -> bool {
        self.wait_until(Instant::now() + time).await
    }

    pub(super) async fn wait_until(&self, at: Instant) -> bool {
        let waited = self.stop.run_until_cancelled(sleep_until(at)).await;
        waited.is_some()
    }

    /// Waits for an answer's time, or until what still runs is dropped.
    pub(super) async fn wait_to_answer(&self, at: Instant, gate: &Gate) -> Result<(), Refusal> {
        let time = async {
            gate.opened().await;
            sleep_until(at).await;
        };
        let waited = self.abort.run_until_cancelled(time).await;
        waited.ok_or_else(Refusal::stopping)
    }

    pub(super) fn deliver(self: &Arc<Self>, job: Job) {
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

impl Gate {
    /// A gate that waits for so many callbacks.
    pub(super) fn new(early: usize) -> Self {
        let open = CancellationToken::new();
        if early == 0 {
            open.cancel();
        }
        Self {
            left: AtomicUsize::new(early),
            open,
        }
    }

    /// One of the callbacks was answered, or will not be.
    pub(super) fn one_is_out(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.open.cancel();
        }
    }

    pub(super) async fn opened(&self) {
        // Bounded: a listener that does not answer must not keep the change back.
        let _ = timeout(EARLY_LIMIT, self.open.cancelled()).await;
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
