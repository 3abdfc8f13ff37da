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

use crate::auth::Auth;
use crate::callback::delivery::{self, DeliveryJob};
use crate::device_outcome::SeededFaults;
use crate::devices::DeviceRegistry;
use crate::errors::ErrorResponse;
use crate::ledger::{Ledger, LedgerReport};
use crate::listeners::{CallbackListener, Registrations};
use crate::one_shot::OneShot;
use crate::rate_limiter::RateLimiter;
use crate::scenario;
use crate::settings::{ResendTiming, Settings};

/// How long an answer waits for the callbacks that come before it.
const EARLY_CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// One running ThingSpace.
pub(crate) struct Platform {
    pub(crate) settings: Settings,
    pub(crate) resend_timing: ResendTiming,
    pub(crate) seeded_faults: SeededFaults,
    pub(crate) client: reqwest::Client,
    /// One permit per callback in flight.
    pub(crate) send_permits: Semaphore,
    /// Nothing new is begun.
    pub(crate) stop: CancellationToken,
    /// What still runs is dropped.
    abort: CancellationToken,
    deliveries: TaskTracker,
    clock: Clock,
    auth: Mutex<Auth>,
    registrations: Mutex<Registrations>,
    devices: Mutex<DeviceRegistry>,
    ledger: Mutex<Ledger>,
    limiter: Mutex<RateLimiter>,
    one_shot: Mutex<OneShot>,
}

/// The start, on both clocks: time goes by on tokio's.
struct Clock {
    started_at: Instant,
    unix: Duration,
}

/// Keeps an answer back until the callbacks that come before it are out.
pub(crate) struct EarlyCallbackBarrier {
    remaining: AtomicUsize,
    released: CancellationToken,
}

impl Platform {
    pub(crate) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let fates = SeededFaults {
            seed: settings.seed,
            rates: settings.fault_rates.clone(),
            order: settings.callback_order,
        };
        let client = delivery::client(settings.callback_concurrency).map_err(io::Error::other)?;
        let registrations =
            Registrations::new(settings.any_callback_port, settings.credentials_lag);
        Ok(Arc::new(Self {
            resend_timing: settings.resend_timing(),
            send_permits: Semaphore::new(settings.callback_concurrency),
            client,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            deliveries: TaskTracker::new(),
            clock: Clock::now(),
            auth: Mutex::new(Auth::new(&settings, fates.token_rng())),
            registrations: Mutex::new(registrations),
            devices: Mutex::new(DeviceRegistry::with_preloaded(scenario::preloaded_devices())),
            ledger: Mutex::default(),
            limiter: Mutex::new(RateLimiter::new(settings.requests_per_minute)),
            one_shot: Mutex::default(),
            seeded_faults: fates,
            settings,
        }))
    }

    pub(crate) fn auth(&self) -> MutexGuard<'_, Auth> {
        lock(&self.auth)
    }

    pub(crate) fn registrations(&self) -> MutexGuard<'_, Registrations> {
        lock(&self.registrations)
    }

    pub(crate) fn devices(&self) -> MutexGuard<'_, DeviceRegistry> {
        lock(&self.devices)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn one_shot(&self) -> MutexGuard<'_, OneShot> {
        lock(&self.one_shot)
    }

    pub(crate) fn ledger_report(&self, identifiers: bool) -> LedgerReport {
        let locked_users = self.auth().locked_users();
        self.ledger().report(identifiers, locked_users)
    }

    /// Lets one more call of the API pass, or refuses it.
    pub(crate) fn check_rate_limit(&self) -> Result<(), ErrorResponse> {
        let taken = lock(&self.limiter).try_acquire();
        taken.map_err(|seconds| ErrorResponse::throttled().retry_after(seconds))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// Waits, or finds out that nothing new is begun any more.
    pub(crate) async fn sleep_unless_stopped(&self, time: Duration) -> bool {
        self.sleep_until_unless_stopped(Instant::now() + time).await
    }

    pub(crate) async fn sleep_until_unless_stopped(&self, at: Instant) -> bool {
        let waited = self.stop.run_until_cancelled(sleep_until(at)).await;
        waited.is_some()
    }

    /// Waits for an answer's time, or until what still runs is dropped.
    pub(crate) async fn wait_to_respond(
        &self,
        at: Instant,
        gate: &EarlyCallbackBarrier,
    ) -> Result<(), ErrorResponse> {
        let time = async {
            gate.wait().await;
            sleep_until(at).await;
        };
        let waited = self.abort.run_until_cancelled(time).await;
        waited.ok_or_else(ErrorResponse::stopping)
    }

    pub(crate) fn deliver(self: &Arc<Self>, job: DeliveryJob) {
        let abort = self.abort.clone();
        let delivery = delivery::deliver_callbacks(Arc::clone(self), job);
        self.deliveries
            .spawn(async move { abort.run_until_cancelled(delivery).await });
    }

    /// Where the callbacks of an account go: to the registered listener, or to
    /// the default one.
    pub(crate) fn find_listener(&self, account: &str, service: &str) -> Option<CallbackListener> {
        if let Some(listener) = self.registrations().find(account, service) {
            return Some(listener);
        }
        let login = self.settings.callback_credentials.as_ref();
        Some(CallbackListener {
            url: with_service(self.settings.callback_url.as_ref()?, service)?,
            username: login.map(|login| login.username.clone()),
            password: login.map(|login| login.password.clone()),
        })
    }

    /// Waits until the callbacks in flight are through, as long as the grace.
    pub(crate) async fn drain(&self, grace: Duration) {
        self.deliveries.close();
        // What is still under way after that is dropped by `abort`.
        let _ = tokio::time::timeout(grace, self.deliveries.wait()).await;
    }

    /// Drops what still runs.
    pub(crate) async fn abort(&self) {
        self.abort.cancel();
        self.deliveries.wait().await;
    }
}

impl EarlyCallbackBarrier {
    /// A gate that waits for so many callbacks.
    pub(crate) fn new(early: usize) -> Self {
        let open = CancellationToken::new();
        if early == 0 {
            open.cancel();
        }
        Self {
            remaining: AtomicUsize::new(early),
            released: open,
        }
    }

    /// One of the callbacks was answered, or will not be.
    pub(crate) fn complete_one(&self) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.released.cancel();
        }
    }

    pub(crate) async fn wait(&self) {
        // Bounded: a listener that does not answer must not keep the change back.
        let _ = timeout(EARLY_CALLBACK_TIMEOUT, self.released.cancelled()).await;
    }
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one look at the wall clock: the sandbox is a world of its own, and its time goes by on tokio's clock from here"
    )]
    fn now() -> Self {
        Self {
            started_at: Instant::now(),
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    fn unix_ms(&self) -> u64 {
        let now = self.unix + self.started_at.elapsed();
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
