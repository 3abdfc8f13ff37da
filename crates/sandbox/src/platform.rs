//! The state that handlers and deliveries share.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    auth::Auth,
    callback::client,
    clock::Clock,
    devices::DeviceRegistry,
    ledger::store::Ledger,
    listeners::{CallbackListener, Registrations},
    one_shot::OneShot,
    rate_limiter::RateLimiter,
    scenario::identifiers::preloaded_devices,
    seeded_faults::SeededFaults,
    settings::{ResendTiming, Settings},
};

/// One simulated ThingSpace.
pub(crate) struct Platform {
    pub(crate) settings: Settings,
    pub(crate) resend_timing: ResendTiming,
    pub(crate) seeded_faults: SeededFaults,
    pub(crate) client: reqwest::Client,
    /// One permit for each callback in flight.
    pub(crate) send_permits: Semaphore,
    /// Cancelled at shutdown: no new work starts.
    pub(crate) stop: CancellationToken,
    /// Cancelled at the end of the drain: running work ends.
    pub(crate) abort: CancellationToken,
    pub(crate) deliveries: TaskTracker,
    pub(crate) clock: Clock,
    pub(crate) auth: Mutex<Auth>,
    pub(crate) registrations: Mutex<Registrations>,
    pub(crate) devices: Mutex<DeviceRegistry>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) rate_limiter: Mutex<RateLimiter>,
    pub(crate) one_shot: Mutex<OneShot>,
}

impl Platform {
    pub(crate) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let seeded_faults = SeededFaults {
            seed: settings.seed,
            rates: settings.fault_rates.clone(),
            order: settings.callback_order,
        };
        let registrations =
            Registrations::new(settings.any_callback_port, settings.credentials_lag);
        Ok(Arc::new(Self {
            resend_timing: settings.resend_timing(),
            send_permits: Semaphore::new(settings.callback_concurrency),
            client: client::build(settings.callback_concurrency).map_err(io::Error::other)?,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            deliveries: TaskTracker::new(),
            clock: Clock::start(),
            auth: Mutex::new(Auth::new(&settings, seeded_faults.token_rng())),
            registrations: Mutex::new(registrations),
            devices: Mutex::new(DeviceRegistry::with_preloaded(preloaded_devices())),
            ledger: Mutex::default(),
            rate_limiter: Mutex::new(RateLimiter::new(settings.requests_per_minute)),
            one_shot: Mutex::default(),
            seeded_faults,
            settings,
        }))
    }

    /// Sleeps. Returns false if the platform stops first.
    pub(crate) async fn sleep_unless_stopped(&self, duration: Duration) -> bool {
        self.sleep_until_unless_stopped(Instant::now() + duration).await
    }

    /// Sleeps. Returns false if the platform stops first.
    pub(crate) async fn sleep_until_unless_stopped(&self, deadline: Instant) -> bool {
        let slept = self.stop.run_until_cancelled(sleep_until(deadline)).await;
        slept.is_some()
    }

    /// Returns the registered listener of an account, or the default one.
    pub(crate) fn find_listener(&self, account: &str, service: &str) -> Option<CallbackListener> {
        if let Some(listener) = self.registrations.lock().find(account, service) {
            return Some(listener);
        }
        Some(CallbackListener {
            url: with_service(self.settings.callback_url.as_ref()?, service)?,
            username: None,
            password: None,
        })
    }

    /// Waits for the deliveries in progress, for a limited time.
    pub(crate) async fn drain(&self, grace: Duration) {
        self.deliveries.close();
        let _ = timeout(grace, self.deliveries.wait()).await;
    }

    /// Ends the deliveries in progress.
    pub(crate) async fn abort(&self) {
        self.abort.cancel();
        self.deliveries.wait().await;
    }
}

/// Replaces `{service}`. A parsed URL has the braces of its path percent-encoded.
fn with_service(url: &Url, service: &str) -> Option<Url> {
    let text = url.as_str().replace("{service}", service).replace("%7Bservice%7D", service);
    Url::parse(&text).ok()
}
